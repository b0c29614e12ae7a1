"""Figures of a measurement, and the tables that compare them.

Contract: pure. A figure has a name and a unit: seconds, unless the name states another unit (`_rate`: tokens per
second, `_tokens`: a number of tokens, `_bytes`). `rows` evaluates `Comparison`s: medians over repetitions, and
quotients within each repetition, because other load on the machine changes between them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wsd_local.units import gib

Figures = dict[str, float]
"""What one repetition measured, by name."""
Unit = Literal["s", "ms", "tokens/s", "bytes"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A row of a table: a figure, over another where there is one, and a goal for the quotient (else the figure)."""

    what: str
    figure: str
    unit: Unit
    against: str = ""
    other: str = ""
    goal: float | None = None
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over repetitions. `measured` and `other` are in seconds, tokens per second or bytes."""

    comparison: Comparison
    measured: float
    other: float | None
    ratio: float | None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None if there is none."""
        goal = self.comparison.goal
        if goal is None:
            return None
        value = self.measured if self.ratio is None else self.ratio
        return value >= goal if self.comparison.at_least else value <= goal

    def cells(self) -> tuple[str, ...]:
        """As people read it: what, measured, against, ratio, goal, met."""
        comparison = self.comparison
        against = "" if self.other is None else f"{shown(self.other, comparison.unit)}: {comparison.against}"
        ratio = "" if self.ratio is None else f"{self.ratio:.3f}"
        goal, met = "", ""
        if comparison.goal is not None:
            value = f"{comparison.goal:g}" if comparison.other else shown(comparison.goal, comparison.unit)
            goal = f"{'≥' if comparison.at_least else '≤'} {value}"
            met = "yes" if self.met else "no"
        return comparison.what, shown(self.measured, comparison.unit), against, ratio, goal, met

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        comparison = asdict(self.comparison)
        names = {
            "figure": comparison["figure"],
            "other": comparison["other"] or None,
            "against": comparison["against"] or None,
        }
        values = {"measured": self.measured, "other_measured": self.other, "ratio": self.ratio}
        return {"what": comparison["what"], **names, **values, "goal": comparison["goal"], "met": self.met}


COLUMNS = ("what", "measured", "against", "ratio", "goal", "met")


def shown(value: float, unit: Unit) -> str:
    """A figure as people read it."""
    if unit == "bytes":
        return gib(value)
    if unit == "ms":
        return f"{value * 1000:.2f} ms"
    if unit == "tokens/s":
        return f"{value:.1f} tokens/s" if value >= 10 else f"{value:.2f} tokens/s"
    return f"{value:.2f} s" if value >= 1 else f"{value:.3f} s"


PARTS = (
    Comparison("draft reads the prompt", "draft_prompt_rate", "tokens/s"),
    Comparison("base reads the prompt", "base_prompt_rate", "tokens/s"),
    Comparison("draft writes", "draft_token_rate", "tokens/s"),
    Comparison("base writes", "base_token_rate", "tokens/s"),
    Comparison("base checks one token of a chunk", "check_token_s", "ms", "base writes one token", "base_token_s"),
)
WHOLE = (
    Comparison("whole reply", "reply_s", "s", "sum of its parts", "sum_s", 1.03),
    Comparison("whole reply", "reply_s", "s", "the same, evaluations only", "steps_sum_s"),
    Comparison("whole reply", "reply_s", "s", "base alone", "base_s"),
    Comparison("whole reply with proposals", "speculative_s", "s", "without", "reply_s", 1.03),
    Comparison("whole reply with proposals", "speculative_s", "s", "base alone", "base_s"),
    Comparison("first text", "first_text_s", "s", "base alone", "base_first_text_s", 0.4),
    Comparison("40th token", "token_40_s", "s", "base alone", "base_token_40_s"),
    Comparison("longest gap", "longest_gap_s", "s", "base alone", "base_longest_gap_s"),
    Comparison("own Python between calls into llama.cpp", "own_s", "s", "whole reply", "reply_s", 0.01),
)
MEMORY = (
    Comparison("growth of resident memory", "resident_bytes", "bytes", "weights and caches", "needed_bytes", 1.1),
)


def rows(repetitions: Sequence[Figures], comparisons: Iterable[Comparison]) -> list[Row]:
    """Those comparisons whose figures were measured; quotients come from repetitions that have both figures."""
    found = []
    for comparison in comparisons:
        both = [
            figures
            for figures in repetitions
            if comparison.figure in figures and (comparison.other or comparison.figure) in figures
        ]
        if both:
            measured = statistics.median(figures[comparison.figure] for figures in both)
            other = statistics.median(figures[comparison.other] for figures in both) if comparison.other else None
            quotients = (
                [figures[comparison.figure] / figures[comparison.other] for figures in both] if comparison.other else []
            )
            found.append(Row(comparison, measured, other, statistics.median(quotients) if quotients else None))
    return found


def sums(parts: Figures, whole: Figures) -> Figures:
    """What the parts of a reply take together.

    `sum_s` counts all drafted, checked and continued tokens. `steps_sum_s` counts evaluations: the first token of each
    model comes with its prompt or with the last check, and takes none of its own.
    """
    prompts = parts["draft_prompt_s"] + parts["base_prompt_s"] + whole["checked_tokens"] * parts["check_token_s"]

    def together(drafted: str, continued: str) -> float:
        return prompts + whole[drafted] * parts["draft_token_s"] + whole[continued] * parts["base_token_s"]

    return {
        "sum_s": together("drafted_tokens", "continued_tokens"),
        "steps_sum_s": together("draft_steps_tokens", "base_steps_tokens"),
    }


def about_proposals(repetitions: Sequence[Figures]) -> list[str]:
    """What proposals did in each repetition that had some, in words."""
    found = [figures for figures in repetitions if "speculative_s" in figures]
    if not found:
        return []

    def each(name: str, form: str, otherwise: str) -> str:
        return ", ".join(format(figures[name], form) if name in figures else otherwise for figures in found)

    taken = ", ".join(f"{f['accepted_tokens']:.0f} of {f['proposed_tokens']:.0f}" for f in found)
    rounds, shares = each("proposal_rounds", ".0f", ""), each("examined_acceptance", ".0%", "none")
    least = each("break_even", ".0%", "none that is known")
    return [
        f"Proposals, by repetition: taken {taken} in {rounds} rounds; of those looked at {shares}; "
        f"the share from which the draft's pay: {least}."
    ]
