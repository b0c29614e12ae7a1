"""The mechanism, the sweep of settings, and the time of replies as findings.

Contract: pure; results of the three commands in, findings out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wsd_local.calibration import Setting
from wsd_local.reports.evidence.part import Claim, Figure, Findings
from wsd_local.reports.mechanism.figures import HEAD, MechanismResults
from wsd_local.reports.mechanism.parts import aligned_note, mechanism_parts
from wsd_local.reports.sweep import Cell, SweepResults
from wsd_local.reports.sweep_page import sweep_parts
from wsd_local.reports.times import BASE, TimeResults
from wsd_local.reports.times_page import time_parts

Runs = Mapping[str, Mapping[str, Any]]

_INTERVALS = "Intervals: 95 %, by the bootstrap over the prompts."
MECHANISM = Claim(
    "Well begun is half done",
    "What the base finds hard in an aligned reply is its beginning: it would seldom begin so itself, and goes on with "
    "ease once the beginning is given.",
    "The base reads the draft's whole replies, which gives its log-probability of every token. It also samples "
    "openings of its own at temperature 1, which are ranked with the aligned one by the base's likelihood and, with a "
    f"judge, by its grades. {_INTERVALS}",
    f"A perplexity of the first {HEAD} tokens that is no larger than that of the rest (a quotient of 1 or less); half "
    "or more of the base's own openings less likely than the aligned one; half or fewer of the prompts with an early "
    "switch; agreement that does not grow.",
)
SWEEP = Claim(
    "Threshold and window",
    "A wide range of settings works: the base takes over in nearly every reply, keeps a short opening, and then goes "
    "on as the draft would.",
    "Each prompt's whole draft is recorded once; what every threshold with every window would have done is computed "
    f"from the records. Time is estimated by what tokens cost there, against the base alone. {_INTERVALS}",
    "Settings around the usual one in which many replies have no switch or keep most of the draft, or in which the gap "
    "to the draft's own way to go on stays far from 0.",
)
TIME = Claim(
    "About the base's own time",
    "A reply of WSD takes about as long as one of the base alone.",
    "Whole replies are timed in several ways on the same prompts, one at a time and from empty caches, taking turns in "
    f"an order that rotates. The figures are medians of the quotient by prompt. {_INTERVALS}",
    "A quotient of WSD to the base alone whose interval lies well above 1. Replies differ in length; the quotient per "
    "token leaves that out.",
)


def mechanism_findings(found: MechanismResults, failed: int, runs: Runs) -> Findings:
    """What the mechanism's figures say; `failed` counts prompts, and questions to a judge."""
    return Findings(
        list(_mechanism(found)), lambda: mechanism_parts(found), found.as_dict(), [aligned_note(found)], failed, runs
    )


def _mechanism(found: MechanismResults) -> Iterator[Figure]:
    if found.beginning is not None:
        yield Figure(f"perplexity of the first {HEAD} tokens by that of the rest", found.beginning.quotient, "number")
    if found.likelihood is not None:
        yield Figure("base's own openings less likely than the aligned one", found.likelihood.beats)
    if found.judging is not None and found.judging.ranking is not None:
        yield Figure("base's own openings graded lower than the aligned one", found.judging.ranking.beats)
    yield Figure(f"switch within {found.openings.tokens} tokens", found.switches.early)
    if found.gain is not None:
        yield Figure(f"agreement after the first {HEAD} tokens minus within them", found.gain, "points")


def sweep_findings(found: SweepResults, present: Setting, failed: int, runs: Runs) -> Findings:
    """What the grid says, with the figures of the present setting, or of the one nearest to it."""

    def distance(cell: Cell) -> tuple[int, float]:
        return abs(cell.window - present.window), abs(cell.threshold - present.threshold)

    cell = min(found.cells, key=distance)
    setting = f"threshold {cell.threshold:g}, window {cell.window}"
    figures = [
        Figure(f"tokens kept, {setting}", cell.kept, "number"),
        Figure(f"no switch, {setting}", cell.without_switch),
    ]
    if cell.time is not None:
        figures.append(Figure(f"estimated time by base alone, {setting}", cell.time, "ratio"))
    if cell.gap is not None:
        figures.append(Figure(f"gap in nats per token, {setting}", cell.gap, "number"))
    return Findings(figures, lambda: sweep_parts(found), found.as_dict(), (), failed, runs)


def time_findings(found: TimeResults, failed: int, runs: Runs) -> Findings:
    """How long replies take by the base alone."""
    figures = []
    for way in found.ways:
        if way.name != BASE:
            figures.append(Figure(f"time by base alone: {way.name}", way.ratio, "ratio"))
            if way.token_ratio is not None:
                figures.append(Figure(f"time per token by base alone: {way.name}", way.token_ratio, "ratio"))
    return Findings(figures, lambda: time_parts(found), found.as_dict(), found.sentences(), failed, runs)
