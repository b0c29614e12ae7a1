"""What one setting would have done with one record.

Contract: pure arithmetic; nothing is run again. The switch point is the one of `core.rules.Window` over the recorded
log-probabilities. What is drafted and checked until it is known follows from the chunks in which `core.decoding` checks
settled tokens.

After a switch that keeps `k` tokens, the draft's own continuation (its tokens from `k` on) is compared with what the
base writes there, over the same number of tokens: as many as both have, at most those that were recorded. `gap` is the
base's mean log-probability of its own tokens minus that of the draft's, in nats per token: 0 where the base finds the
draft's way to go on as probable as its own.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsd_local.calibration.records import Continuation, Record
from wsd_local.core.rules import geometric_mean, require_threshold, require_window


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """A threshold and a window, as in `ReplySettings`.

    Raises:
        UsageError: a value is outside its range.
    """

    threshold: float
    window: int

    def __post_init__(self) -> None:
        require_threshold(self.threshold)
        require_window(self.window)


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds per token: one that the draft writes, one that the base checks, one that the base writes.

    None where no record has such tokens.
    """

    drafted: float | None = None
    checked: float | None = None
    written: float | None = None

    @classmethod
    def of(cls, records: Sequence[Record]) -> Costs:
        """Of all records together: seconds over tokens."""

        def per_token(spent: Iterable[tuple[int, float]]) -> float | None:
            pairs = list(spent)
            tokens = sum(count for count, _ in pairs)
            return math.fsum(seconds for _, seconds in pairs) / tokens if tokens else None

        return cls(
            per_token(record.drafted for record in records),
            per_token(record.checked for record in records),
            per_token(record.written for record in records),
        )

    def seconds(self, drafted: int, checked: int, written: int) -> float | None:
        """Seconds for so many tokens of each kind; None where a cost that is needed is not known."""
        parts = ((self.drafted, drafted), (self.checked, checked), (self.written, written))
        if any(cost is None and count for cost, count in parts):
            return None
        return math.fsum((cost or 0.0) * count for cost, count in parts)


@dataclass(frozen=True, slots=True)
class Derived:
    """What one setting would have done with one record.

    Args:
        index: the switch point; None if no window passes.
        kept: tokens of the draft that are kept: all of them without a switch.
        drafted: draft tokens written until the decision.
        checked: base tokens checked until the decision.
        seconds: estimated time of a reply that is as long as the whole draft, prompts not counted.
        draft_logprob: the base's mean log-probability of the draft's tokens after the switch; None without any.
        own_logprob: that of its own tokens there; None where it was not recorded.
        agreement: share of these draft tokens that the base would have written itself; None without any.
    """

    index: int | None
    kept: int
    drafted: int
    checked: int
    seconds: float | None
    draft_logprob: float | None = None
    own_logprob: float | None = None
    agreement: float | None = None

    @property
    def gap(self) -> float | None:
        """By how much the base prefers its own continuation, in nats per token; None where it is not known."""
        if self.draft_logprob is None or self.own_logprob is None:
            return None
        return self.own_logprob - self.draft_logprob


def switch_index(logprobs: Sequence[float], setting: Setting) -> int | None:
    """The first token at which the window's geometric mean reaches the threshold; None if it never does."""
    window = setting.window
    ends = range(window, len(logprobs) + 1)
    return next((end - 1 for end in ends if geometric_mean(logprobs[end - window : end]) >= setting.threshold), None)


def switch_points(logprobs: Sequence[float], settings: Iterable[Setting]) -> list[int]:
    """The different numbers of tokens that the settings keep where a window passes, rising."""
    found = (switch_index(logprobs, setting) for setting in settings)
    return sorted({index + 1 for index in found if index is not None})


def missing_starts(record: Record, settings: Iterable[Setting]) -> list[int]:
    """Where the base takes over under some setting within the draft, and no continuation is recorded."""
    known = {one.start for one in record.continuations}
    points = switch_points(record.logprobs, settings)
    return [start for start in points if start < len(record.tokens) and start not in known]


def derived(record: Record, setting: Setting, costs: Costs, *, check_chunk: int, compared: int) -> Derived:
    """What a setting would have done.

    Args:
        record: a prompt's.
        setting: threshold and window.
        costs: seconds per token.
        check_chunk: tokens that are checked together, as in `ReplySettings`.
        compared: tokens after a switch that are compared, at most.
    """
    length = len(record.logprobs)
    index = switch_index(record.logprobs, setting)
    kept = length if index is None else index + 1
    checked = length if index is None else _border(kept, length, check_chunk, setting.window)
    drafted = _drafted(record.settled, checked, whole=index is None)
    seconds = costs.seconds(drafted, checked, length - kept)
    if index is None or kept == length:
        return Derived(index, kept, drafted, checked, seconds)
    own = next((one for one in record.continuations if one.start == kept), None)
    following, own_logprob = _compared(record, kept, own, compared)
    return Derived(
        index,
        kept,
        drafted,
        checked,
        seconds,
        draft_logprob=_mean(record.logprobs[kept : kept + following]),
        own_logprob=own_logprob,
        agreement=_mean([float(one) for one in record.agrees[kept : kept + following]]),
    )


def _border(kept: int, length: int, chunk: int, window: int) -> int:
    """Tokens that are checked when the switch is found: the first chunk holds a window at least."""
    border = max(chunk, window)
    if kept > border:
        border += -(-(kept - border) // chunk) * chunk
    return min(border, length)


def _drafted(settled: Sequence[int], checked: int, *, whole: bool) -> int:
    """Draft tokens after which so many base tokens can be checked; all of them for a whole draft."""
    return len(settled) if whole else min(bisect_left(settled, checked) + 1, len(settled))


def _compared(record: Record, kept: int, own: Continuation | None, most: int) -> tuple[int, float | None]:
    """How many of the draft's tokens are compared, and the base's mean log-probability of its own."""
    following = min(most, len(record.logprobs) - kept)
    if own is None or not own.logprobs:
        return following, None
    following = min(following, len(own.logprobs))
    return following, _mean(own.logprobs[:following])


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
