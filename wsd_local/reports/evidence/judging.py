"""Replies compared by a judge or scored by a reward model, as findings.

Contract: pure; verdicts and scores in, findings out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsd_local.reports.evidence.part import Claim, Figure, Findings
from wsd_local.reports.html import Chart, Table
from wsd_local.reports.judge.page import comparison_parts, score_parts
from wsd_local.reports.judge.replies import Place
from wsd_local.reports.judge.reward import Scores, better, mean_score
from wsd_local.reports.judge.summary import Comparison
from wsd_local.reports.statistics import Estimate

JUDGED = Claim(
    "Judges prefer the replies",
    "A judge prefers WSD's replies to those of the base alone, and does not prefer those of the draft alone to them.",
    "A judge model compares the replies to each prompt in both orders, by its probabilities of the answers. Verdicts "
    "that change with the order count half. Length-controlled: at equal length. Intervals: 95 %, by the bootstrap over "
    "the prompts.",
    "A win rate of WSD against the base alone whose interval lies below 50 %, or a length-controlled one that does. A "
    "judge that agrees with itself in fewer than 70 % of the pairs when the order is exchanged refutes nothing and "
    "supports nothing.",
)
SCORED = Claim(
    "A reward model scores the replies higher",
    "A reward model scores WSD's replies higher than those of the base alone.",
    "The reward model reads each conversation with its reply. Scores have the model's own scale and compare replies to "
    "one prompt; equal ones count half. Intervals: 95 %, by the bootstrap over the prompts.",
    "A share of prompts in which WSD has the higher score whose interval lies below 50 %.",
)


@dataclass(frozen=True, slots=True)
class PairJudged:
    """Column `a` compared with column `b`; `too_long` counts questions that did not fit."""

    a: str
    b: str
    found: Comparison
    too_long: int


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge found about some pairs of columns."""

    judge: Mapping[str, Any]
    pairs: Sequence[PairJudged]

    def findings(self, failed: int, runs: Mapping[str, Any]) -> Findings:
        """The findings; `failed` counts what could not be answered or asked."""
        figures: list[Figure] = []
        for one in self.pairs:
            name = f"{one.a} against {one.b}"
            figures += [
                Figure(f"win rate, {name}", one.found.win_rate),
                Figure(f"length-controlled win rate, {name}", one.found.length_controlled),
                Figure(f"judge agrees with itself, {name}", one.found.agreement),
            ]
        values = {
            "judge": dict(self.judge),
            "comparisons": [
                {"a": one.a, "b": one.b, "too_long": one.too_long, **one.found.as_dict()} for one in self.pairs
            ],
        }
        notes = [f"{one.a} against {one.b}: {line}." for one in self.pairs for line in one.found.warnings]
        return Findings(figures, self._parts, values, [self._about, *notes], failed, runs)

    @property
    def _about(self) -> str:
        sha256 = self.judge.get("sha256")
        return f"Judge: {self.judge['model']}" + (f", SHA-256 {sha256}." if sha256 else f" at {self.judge['url']}.")

    def _parts(self) -> list[Chart | Table]:
        model = str(self.judge["model"])
        return [part for one in self.pairs for part in comparison_parts(one.found, (one.a, one.b), model)]


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a reward model, by column and place."""

    model: Mapping[str, Any]
    columns: Sequence[str]
    pairs: Sequence[tuple[str, str]]
    places: Sequence[Place]
    scores: Scores

    def findings(self, failed: int, runs: Mapping[str, Any]) -> Findings:
        """The findings; `failed` counts what could not be answered or scored."""
        means = {name: mean_score(self.scores, name, self.places) for name in self.columns}
        known = {name: one for name, one in means.items() if one is not None}
        wins = {f"{a} against {b}": one for a, b in self.pairs if (one := self._better(a, b)) is not None}
        figures = [Figure(f"higher score, {name}", one) for name, one in wins.items()]
        figures += [Figure(f"mean score, {name}", one, "number") for name, one in known.items()]
        values = {
            "model": dict(self.model),
            "means": {name: asdict(one) for name, one in known.items()},
            "better": {name: asdict(one) for name, one in wins.items()},
        }

        def parts() -> list[Chart | Table]:
            return score_parts(known, wins, str(self.model["model"]))

        notes = [f"Reward model: {self.model['model']}, SHA-256 {self.model['sha256']}."]
        return Findings(figures, parts, values, notes, failed, runs)

    def _better(self, a: str, b: str) -> Estimate | None:
        names = {a: "a", b: "b"}
        scores = {(names[name], place): score for (name, place), score in self.scores.items() if name in names}
        return better(scores, self.places)
