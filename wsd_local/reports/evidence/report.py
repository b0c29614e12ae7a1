"""The parts of an evaluation as one report: a page that reads as a paper's evaluation section, tables, and JSON.

Contract: pure; outcomes in, `Table`s, HTML and plain values out. All three state the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsd_local.reports.evidence.part import Claim, Findings
from wsd_local.reports.html import Chapter, Table, page
from wsd_local.reports.statistics import NO_INTERVAL_NOTE
from wsd_local.units import plural

_NAMED = 6
"""Figures that a chapter names; the table of results has all of them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part: `measured` of `total` prompts. `failure` says why it was not measured, or not further.

    `left_out` says why it was not tried, `more` is the command that measures the rest; `interrupted`: a signal ended
    the evaluation before this part was done.
    """

    name: str
    claim: Claim
    measured: int = 0
    total: int = 0
    findings: Findings | None = None
    failure: str | None = None
    left_out: str | None = None
    more: str | None = None
    interrupted: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.findings
        return {
            "name": self.name,
            "title": self.claim.title,
            "claim": self.claim.claim,
            "how": self.claim.how,
            "refuted_by": self.claim.refuted_by,
            "measured": self.measured,
            "prompts": self.total,
            "figures": [] if found is None else [one.as_dict() for one in found.figures],
            "notes": [] if found is None else list(found.notes),
            "failed": 0 if found is None else found.failed,
            "failure": self.failure,
            "left_out": self.left_out,
            "interrupted": self.interrupted,
            "continue": self.more,
            "results": None if found is None else dict(found.values),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation. `about` names what it was made with, in pairs of a name and a value.

    `interrupted`: a signal ended it, and this is what was measured until then.
    """

    pair: str
    outcomes: Sequence[Outcome]
    about: Mapping[str, str]
    interrupted: bool = False

    @property
    def runs(self) -> dict[str, Any]:
        """How each file of replies was made."""
        return {
            name: run
            for one in self.outcomes
            if one.findings is not None
            for name, run in (one.findings.runs or {}).items()
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "pair": self.pair,
            "about": dict(self.about),
            "interrupted": self.interrupted,
            "parts": [one.as_dict() for one in self.outcomes],
            "runs": self.runs,
        }


def report_tables(report: Report) -> list[Table]:
    """Headline figures, and what is not there."""
    return [_figures(report), *_missing(report)]


def report_page(report: Report) -> str:
    """The whole report as a page."""
    lead = [
        "Weak-to-Strong Decoding lets a small aligned model, the draft, open every reply; a large base model goes on. "
        "Each part below states a claim about the pair, how it is measured, the figures with their 95 % intervals, and "
        "what would refute the claim. A finding that speaks against a claim stands here as well.",
        f"The pair: {report.pair}.",
    ]
    if report.interrupted:
        lead.append("Interrupted: this is what had been measured by then, and a part of what was asked for.")
    chapters = [_chapter(one) for one in report.outcomes if one.findings is not None]
    return page(
        f"Evaluation of {report.pair}", lead, [_figures(report), *_missing(report), *chapters, *_made_with(report)]
    )


def _figures(report: Report) -> Table:
    rows = tuple(
        (f"{one.name} · {figure.name}", figure.value, figure.interval, str(figure.estimate.count))
        for one in report.outcomes
        for figure in (() if one.findings is None else one.findings.figures)
    )
    note = f"interval: 95 % · {NO_INTERVAL_NOTE} · items: prompts, or pairs of replies, that the figure rests on"
    return Table("Results", ("", "figure", "interval", "items"), rows, note)


def _missing(report: Report) -> list[Table]:
    rows = tuple(
        (one.name, f"{one.measured} of {one.total}" if one.total else "", why)
        for one in report.outcomes
        for why in _reasons(one)
    )
    if not rows:
        return []
    more = next((one.more for one in report.outcomes if one.more is not None), None)
    note = "" if more is None else f"the same command goes on: {more}"
    return [Table("What is not there", ("part", "measured", "why"), rows, note)]


def _reasons(one: Outcome) -> Iterator[str]:
    if one.left_out is not None:
        yield f"left out: {one.left_out}"
    elif one.failure is not None:
        yield f"failed: {one.failure}"
    elif one.interrupted:
        yield "interrupted"
    elif one.measured < one.total:
        yield "the time was over"
    if one.findings is not None and one.findings.failed:
        yield f"{one.findings.failed} failed; the command tries them again"


def _chapter(one: Outcome) -> Chapter:
    found = one.findings
    assert found is not None
    figures = "; ".join(f"{figure.name}: {figure.value} ({figure.interval})" for figure in found.figures[:_NAMED])
    if len(found.figures) > _NAMED:
        figures += f"; {len(found.figures) - _NAMED} more in the table of results"
    statements = [
        ("Claim", one.claim.claim),
        ("Result", f"{figures}. From {one.measured} of {plural(one.total, 'prompt')}."),
        ("How it is measured", one.claim.how),
        ("What would refute it", one.claim.refuted_by),
        *(("Note", line) for line in found.notes),
    ]
    if one.failure is not None:
        statements.append(("Not measured further", one.failure))
    return Chapter(one.claim.title, tuple(statements), found.parts())


def _made_with(report: Report) -> list[Table]:
    about = tuple(report.about.items())
    found = [Table("How this was made", ("", ""), about)]
    runs = report.runs
    if not runs:
        return found
    models = {role: sha256 for run in runs.values() for role, sha256 in run["models"].items()}
    inputs = {name.split(".", 1)[0]: run["input_sha256"] for name, run in runs.items()}
    hashes = [(f"model, {role}", sha256) for role, sha256 in sorted(models.items())]
    hashes += [(f"data, {name}", sha256) for name, sha256 in inputs.items()]
    found.append(Table("SHA-256 of models and data", ("", "SHA-256"), tuple(hashes)))
    return [*found, _settings(runs)]


def _settings(runs: Mapping[str, Any]) -> Table:
    """Settings that all runs share, then those that differ, by run."""
    values = {name: {key: str(value) for key, value in run["settings"].items()} for name, run in runs.items()}
    keys = sorted({key for of_run in values.values() for key in of_run})
    rows: list[tuple[str, str, str]] = []
    for key in keys:
        by_value: dict[str, list[str]] = {}
        for name, of_run in values.items():
            by_value.setdefault(of_run.get(key, ""), []).append(name)
        for value, names in by_value.items():
            rows.append((key, value, "" if len(by_value) == 1 else ", ".join(names)))
    return Table("Settings of the replies", ("setting", "value", "where it is not the same for all"), tuple(rows))
