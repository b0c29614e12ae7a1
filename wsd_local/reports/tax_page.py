"""`eval tax` as tables and as a page.

Contract: pure; `TaskResults` in, `Table`s and HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.reports.columns import Comparison
from wsd_local.reports.html import Table, page, percent
from wsd_local.reports.statistics import Estimate
from wsd_local.reports.tax import TITLES, TaskResults
from wsd_local.units import plural

_INTERVAL = "95 % by the bootstrap over the questions"
_NOTES = {
    "gsm8k": f"right: the last number of the reply is the answer's · strict: the number after #### is · {_INTERVAL}",
    "humaneval": f"right: the program with the first completion passes its tests · {_INTERVAL}",
}
_COMPARED = (
    "difference: of the second column to the first, with its interval, which has no width where no question differs · "
    "only: questions that only one of them got right · p: McNemar's exact test, two-sided, not corrected for several "
    "comparisons"
)


def tax_tables(results: Sequence[TaskResults]) -> list[Table]:
    """Two tables for each task."""
    return [table for found in results for table in (_figures(found), compared_table(found.comparisons))]


def _figures(found: TaskResults) -> Table:
    strict = bool(found.strict)
    rows = tuple(
        (name, percent(one.value), interval(one), *((percent(found.strict[name].value),) if strict else ()))
        for name, one in found.right.items()
    )
    title = f"{TITLES[found.task]}: {plural(found.answered, 'question')} of {found.asked} answered by every column"
    return Table(title, ("", "right", "interval", *(("strict",) if strict else ())), rows, _NOTES[found.task])


def compared_table(comparisons: Sequence[Comparison]) -> Table:
    """Columns two by two."""
    rows = tuple(
        (
            f"{one.first} and {one.second}",
            f"{one.difference.value * 100:+.1f}",
            f"{one.difference.low * 100:+.1f} to {one.difference.high * 100:+.1f}",
            str(one.test.only_first),
            str(one.test.only_second),
            f"{one.test.p:.3f}",
        )
        for one in comparisons
    )
    columns = ("", "difference\nin points", "interval", "only\nfirst", "only\nsecond", "p")
    return Table("Columns two by two", columns, rows, _COMPARED)


def interval(one: Estimate) -> str:
    """The interval of a share."""
    return f"{one.low:.1%} to {one.high:.1%}"


def tax_page(results: Sequence[TaskResults], lead: Sequence[str]) -> str:
    """`eval tax` as a page; `lead` says what was measured, and how."""
    return page("Alignment tax", lead, tax_tables(results))
