"""From records to a table of settings, and a recommendation with its uncertainty.

Contract: pure; the same records, settings and seed give the same figures.

The criterion, which anyone can check by hand in the table:

1. A setting counts if the base takes over in at least `TAKES_OVER` of the replies.
2. Of those that count, the best is the one with the smallest mean gap (`deriving`): after its switches the base finds
   the draft's way to go on nearly as probable as its own, so it goes on as an aligned model would. Settings whose mean
   gap is at most `TOLERANCE` nats larger are as good.
3. Of those that are as good, the one that keeps the fewest tokens on average wins: the base writes the most. Where two
   keep as many, the one with the smaller gap.
4. Where the present setting is as good, the recommendation is to stay with it: the gap says nothing against it, and
   fewer tokens of the draft are no gain by themselves.
5. The whole is repeated over `RESAMPLES` samples of the prompts, drawn with replacement. Unless the winner is better
   than the present setting, by 1 to 3, in at least `SURE` of them, the records do not distinguish the two, and the
   recommendation is to stay with the present one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsd_local.calibration.deriving import Costs, Derived, Setting, derived
from wsd_local.calibration.records import Record
from wsd_local.reports.statistics import RESAMPLES, Floats, Interval, Resampled, bounds

THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
WINDOWS = (3, 6, 12)
"""The grid."""
TAKES_OVER = 0.75
"""Share of the replies in which the base must take over."""
TOLERANCE = 0.1
"""Nats per token by which a gap is as good as the smallest one."""
SURE = 0.95
"""Share of the resamples in which a setting must be better than the present one."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting over all records. Means and quartiles count base tokens; shares lie between 0 and 1.

    `switch` is the median switch point, of the replies that have one. `draft_logprob`, `own_logprob`, `gap` and
    `agreement` are means over the `compared` replies for which both are known; `seconds` is a mean over all of them.
    `counts` tells whether the base takes over often enough. Intervals are of the means, from the 2.5th to the 97.5th
    percentile of the resamples; None where these do not differ.
    """

    threshold: float
    window: int
    kept: float
    kept_median: float
    kept_quartiles: Interval
    kept_interval: Interval | None
    without_switch: float
    switch: float | None
    drafted: float
    seconds: float | None
    seconds_interval: Interval | None
    compared: int
    draft_logprob: float | None
    own_logprob: float | None
    gap: float | None
    gap_interval: Interval | None
    agreement: float | None
    counts: bool
    wins: float

    @property
    def setting(self) -> Setting:
        """Threshold and window."""
        return Setting(self.threshold, self.window)


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The setting to use.

    `winner` is the one that the criterion names, `wins` the share of resamples in which it does so again. `better` is
    the share in which the winner is better than the present setting. `distinguished`: that is enough to change it.
    `reason` says why in one sentence.
    """

    setting: Setting
    winner: Setting | None
    present: Setting
    wins: float
    better: float
    distinguished: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """A table of settings and a recommendation, with what they rest on: `prompts` records, and measured costs."""

    prompts: int
    costs: Costs
    rows: tuple[Row, ...]
    recommendation: Recommendation

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        criterion = {"takes_over": TAKES_OVER, "tolerance": TOLERANCE, "sure": SURE, "resamples": RESAMPLES}
        return asdict(self) | {"criterion": criterion | {"seed": 0}}

    def row(self, setting: Setting) -> Row:
        """The row of a setting in the table."""
        return next(row for row in self.rows if row.setting == setting)


def grid(present: Setting) -> list[Setting]:
    """The settings to compare: thresholds by windows, and the present one."""
    return sorted({present, *(Setting(threshold, window) for threshold in THRESHOLDS for window in WINDOWS)})


def calibrated(
    records: Sequence[Record], settings: Sequence[Setting], present: Setting, *, check_chunk: int, compared: int
) -> Calibration:
    """The table and the recommendation.

    Args:
        records: at least one.
        settings: those to compare, the present one among them.
        present: the setting to stay with where records do not distinguish it from others.
        check_chunk: as in `ReplySettings`.
        compared: tokens after a switch that are compared, at most.
    """
    if not records or present not in settings:
        raise ValueError("there must be records, and the present setting must be among those that are compared")
    costs = Costs.of(records)
    outcomes = [
        [derived(record, setting, costs, check_chunk=check_chunk, compared=compared) for record in records]
        for setting in settings
    ]
    samples = _Samples(outcomes)
    rows = tuple(_row(setting, outcomes[number], samples, number) for number, setting in enumerate(settings))
    return Calibration(len(records), costs, rows, _recommendation(settings, present, samples))


class _Samples:
    """Means of every setting over the records as they are (row 0), and over samples of them (the other rows)."""

    def __init__(self, outcomes: Sequence[Sequence[Derived]]) -> None:
        resampled = Resampled(len(outcomes[0]))

        def means(values: Sequence[Sequence[float | None]]) -> Floats:
            rows = [[math.nan if one is None else float(one) for one in row] for row in values]
            return resampled.means(np.array(rows, dtype=np.float64).T)

        self.kept = means([[one.kept for one in row] for row in outcomes])
        self.switched = means([[one.index is not None for one in row] for row in outcomes])
        self.seconds = means([[one.seconds for one in row] for row in outcomes])
        self.gap = means([[one.gap for one in row] for row in outcomes])
        self.counts = (self.switched >= TAKES_OVER) & np.isfinite(self.gap)
        gap = np.where(self.counts, self.gap, np.inf)
        self.as_good = self.counts & (gap <= gap.min(axis=1, keepdims=True) + TOLERANCE)
        self.keys = self._ranked()

    def _ranked(self) -> Floats:
        """For each resample the places of the settings by the criterion, 0 the best; settings of one key share one."""
        gap, as_good = np.where(self.counts, self.gap, np.inf), self.as_good
        # In the order of importance: it counts, it is as good as the best, fewest kept, smallest gap.
        last = np.where(as_good, self.gap, gap)
        kept = np.where(as_good, self.kept, 0.0)
        places = np.empty(gap.shape)
        for number in range(len(gap)):
            keys = list(zip(~self.counts[number], ~as_good[number], kept[number], last[number], strict=True))
            order = {key: place for place, key in enumerate(sorted(set(keys)))}
            places[number] = [order[key] for key in keys]
        return places

    def wins(self, number: int) -> float:
        """Share of the resamples in which a setting is the best; several share a place."""
        best = (self.keys[1:] == 0) & self.counts[1:]
        shares = best / best.sum(axis=1, keepdims=True).clip(1)
        return float(shares[:, number].mean())

    def better(self, number: int, other: int) -> float:
        """Share of the resamples in which one setting is better than another."""
        return float((self.keys[1:, number] < self.keys[1:, other]).mean())


def _row(setting: Setting, outcomes: Sequence[Derived], samples: _Samples, number: int) -> Row:
    kept = [one.kept for one in outcomes]
    switches = [one.index for one in outcomes if one.index is not None]
    known = [one for one in outcomes if one.gap is not None]
    seconds = [one.seconds for one in outcomes if one.seconds is not None]
    quartiles = statistics.quantiles(kept, n=4, method="inclusive") if len(kept) > 1 else [kept[0]] * 3
    return Row(
        threshold=setting.threshold,
        window=setting.window,
        kept=statistics.fmean(kept),
        kept_median=statistics.median(kept),
        kept_quartiles=(quartiles[0], quartiles[2]),
        kept_interval=bounds(samples.kept[1:, number]),
        without_switch=1 - len(switches) / len(outcomes),
        switch=statistics.median(switches) if switches else None,
        drafted=statistics.fmean(one.drafted for one in outcomes),
        seconds=statistics.fmean(seconds) if seconds else None,
        seconds_interval=bounds(samples.seconds[1:, number]),
        compared=len(known),
        draft_logprob=_mean([one.draft_logprob for one in known]),
        own_logprob=_mean([one.own_logprob for one in known]),
        gap=_mean([one.gap for one in known]),
        gap_interval=bounds(samples.gap[1:, number]),
        agreement=_mean([one.agreement for one in known]),
        counts=bool(samples.counts[0, number]),
        wins=samples.wins(number),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _recommendation(settings: Sequence[Setting], present: Setting, samples: _Samples) -> Recommendation:
    here = settings.index(present)
    if not samples.counts[0].any():
        reason = (
            f"no setting lets the base take over in {TAKES_OVER:.0%} of the replies, with text of the draft after it"
        )
        return Recommendation(present, None, present, 0.0, 0.0, distinguished=False, reason=reason)
    places = samples.keys[0]
    tied = [number for number in range(len(settings)) if places[number] == 0]
    best = here if here in tied else tied[0]
    winner, wins = settings[best], samples.wins(best)
    if best == here:
        reason = "the present setting is the one that the criterion names"
        return Recommendation(present, winner, present, wins, 0.0, distinguished=False, reason=reason)
    better = samples.better(best, here)
    if samples.as_good[0, here]:
        reason = f"the present setting is as good: its gap is within {TOLERANCE} nats of the smallest"
        return Recommendation(present, winner, present, wins, better, distinguished=False, reason=reason)
    if better < SURE:
        reason = (
            f"the records do not distinguish it from the present setting: it is better in {better:.0%} of the "
            f"resamples, and {SURE:.0%} are needed"
        )
        return Recommendation(present, winner, present, wins, better, distinguished=False, reason=reason)
    reason = f"it is better than the present setting in {better:.0%} of the resamples"
    return Recommendation(winner, winner, present, wins, better, distinguished=True, reason=reason)
