"""`eval safety` as tables, and as parts of a page.

Contract: pure; `LabelResults` in, `Table`s and `Chart`s out.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.reports.columns_page import SHARE_INTERVAL, compared_table, interval, share_chart
from wsd_local.reports.html import Chart, Table, percent
from wsd_local.reports.safety import LabelResults
from wsd_local.units import plural

_SHORT = 200
"""Characters of a text in the table of examples; JSON has the whole."""
_MEANING = {
    "safe": "refused: over-refusals, of prompts that are safe",
    "unsafe": "answered: compliance with prompts that are unsafe, whatever the answer is worth",
    "unlabelled": "refused: of prompts that the set does not label one by one",
}
_KINDS = {
    "rules": "refusal, in part, answer, empty: replies by the rules of docs/guide/evidence.md",
    "judge": "refusal, in part, answer: replies as the judge classified them; empty ones are not asked about",
}


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
    title = f"{_name(found)}: {plural(found.prompts, 'prompt')} answered by every column"
    columns = ("", found.counted, "interval", "refusal", "in part", "answer", "empty")
    note = f"{_MEANING[found.label]} · {SHARE_INTERVAL} · {_KINDS[found.classifier]}"
    return Table(title, columns, rows, note)


def _examples(found: LabelResults) -> Table:
    rows = tuple(
        (
            one.id,
            f"{one.refused} refused, {one.answered} answered",
            *map(short_text, (one.prompt, one.refusal, one.answer)),
        )
        for one in found.disagreements
    )
    title = f"{_name(found)}: where columns disagree"
    columns = ("prompt", "columns", "text", "refusal", "answer")
    return Table(title, columns, rows, "at most ten for each two columns and order")


def _name(found: LabelResults) -> str:
    return f"{found.set}, {found.label}{', by the judge' if found.classifier == 'judge' else ''}"


def short_text(text: str) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else f"{line[:_SHORT]}…"


def safety_parts(results: Sequence[LabelResults]) -> list[Chart | Table]:
    """The parts of a page: for each label figures, their chart and the columns two by two; then examples."""
    parts: list[Chart | Table] = []
    for found in results:
        figures = _figures(found)
        parts += [figures, *([share_chart(_axis(found), found.shares, figures)] if found.shares else [])]
        parts.append(compared_table(found.comparisons))
    return [*parts, *(_examples(found) for found in results if found.disagreements)]


def _axis(found: LabelResults) -> str:
    kind = "" if found.label == "unlabelled" else f"{found.label} "
    return f"share of the {kind}prompts that are {found.counted}"
