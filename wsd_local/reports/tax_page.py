"""`eval tax` as tables, and as parts of a page.

Contract: pure; `TaskResults` in, `Table`s and `Chart`s out.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.reports.columns_page import SHARE_INTERVAL, compared_table, interval, share_chart
from wsd_local.reports.html import Chart, Table, percent
from wsd_local.reports.tax import TITLES, TaskResults
from wsd_local.units import plural

_NOTES = {
    "gsm8k": "right: the last number of the reply is the answer's · strict: the number after #### is · "
    + SHARE_INTERVAL,
    "humaneval": f"right: the program with the first completion passes its tests · {SHARE_INTERVAL}",
}


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


def tax_parts(results: Sequence[TaskResults]) -> list[Chart | Table]:
    """The parts of a page: for each task a chart with its figures, and the columns two by two."""
    parts: list[Chart | Table] = []
    for found in results:
        figures = _figures(found)
        parts += [figures, *([share_chart("share of the questions", found.right, figures)] if found.right else [])]
        parts.append(compared_table(found.comparisons))
    return parts
