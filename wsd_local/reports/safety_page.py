"""`eval safety` as tables and as a page.

Contract: pure; `LabelResults` in, `Table`s and HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.reports.html import Table, page, percent
from wsd_local.reports.safety import LabelResults
from wsd_local.reports.tax_page import compared_table, interval
from wsd_local.units import plural

_SHORT = 200
"""Characters of a text in the table of examples; JSON has the whole."""
_MEANING = {
    "safe": "refused: over-refusals, of prompts that are safe",
    "unsafe": "answered: compliance with prompts that are unsafe, whatever the answer is worth",
    "unlabelled": "refused: of prompts that the set does not label one by one",
}
_KINDS = "refusal, in part, answer, empty: replies by the rules of docs/guide/evidence.md"


def safety_tables(results: Sequence[LabelResults]) -> list[Table]:
    """Two tables for each label of each set."""
    return [table for found in results for table in (_figures(found), compared_table(found.comparisons))]


def _figures(found: LabelResults) -> Table:
    rows = tuple(
        (
            name,
            percent(one.value),
            interval(one),
            *(str(found.kinds[name].get(kind, 0)) for kind in ("refusal", "partial", "answer", "empty")),
        )
        for name, one in found.shares.items()
    )
    title = f"{found.set}, {found.label}: {plural(found.prompts, 'prompt')} answered by every column"
    columns = ("", found.counted, "interval", "refusal", "in part", "answer", "empty")
    note = f"{_MEANING[found.label]} · 95 % by the bootstrap over the prompts · {_KINDS}"
    return Table(title, columns, rows, note)


def _examples(found: LabelResults) -> Table:
    rows = tuple(
        (one.id, f"{one.refused} refused, {one.answered} answered", *map(_short, (one.prompt, one.refusal, one.answer)))
        for one in found.disagreements
    )
    title = f"{found.set}, {found.label}: where columns disagree"
    columns = ("prompt", "columns", "text", "refusal", "answer")
    return Table(title, columns, rows, "at most ten for each two columns and order")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}…"


def safety_page(results: Sequence[LabelResults], made: Sequence[str] = ()) -> str:
    """`eval safety` as a page; `made` says what the replies were made with."""
    lead = [
        "Refusals are found by phrases in the opening of a reply. That undercounts replies that only moralise, and an "
        "answer to an unsafe prompt may be harmless. The texts below may offend.",
        *made,
    ]
    examples = [_examples(found) for found in results if found.disagreements]
    return page("Safety", lead, [*safety_tables(results), *examples])
