"""What follows from times that were measured in turns: quotients, their interval, a verdict, the time of a whole reply.

Contract: pure. Two ways are compared by the quotients of their times within a round, because other load on the machine
changes between rounds. The interval of a median holds whatever the times are distributed as (order statistics), and a
difference that lies within it, or is too small to matter, is no recommendation.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

LEAST_ROUNDS = 5
"""Rounds without which there is no verdict: the least whose range covers the median nine times of ten."""
COVERAGE = 0.9
LEAST_GAIN = 0.02
"""Share of a reply's time below which a difference does not matter."""
HOLD_BACK = 4
"""Draft tokens that are written and not checked yet when a chunk is complete, about."""

Verdict = Literal["faster", "slower", "no difference", "too few rounds"]


@dataclass(frozen=True, slots=True)
class Median:
    """The median of `count` values, and the bounds between which the true one lies nine times of ten."""

    value: float
    low: float
    high: float
    count: int

    @property
    def verdict(self) -> Verdict:
        """Of quotients of times: what the first way is against the second."""
        if self.count < LEAST_ROUNDS:
            return "too few rounds"
        if abs(self.value - 1) < LEAST_GAIN or self.low <= 1 <= self.high:
            return "no difference"
        return "faster" if self.value < 1 else "slower"

    @property
    def settled(self) -> bool:
        """Whether more rounds would change nothing: it is clear, or all of the interval is too small to matter."""
        if self.count < LEAST_ROUNDS:
            return False
        return self.verdict in ("faster", "slower") or max(abs(self.low - 1), abs(self.high - 1)) < LEAST_GAIN


def median_of(values: Sequence[float]) -> Median:
    """The median with its interval; of few values the whole range, which then covers less than nine times of ten.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values")
    ordered, count = sorted(values), len(values)
    left_out = 0
    while count - 2 * (left_out + 1) >= 1 and _coverage(count, left_out + 1) >= COVERAGE:
        left_out += 1
    return Median(statistics.median(ordered), ordered[left_out], ordered[count - 1 - left_out], count)


def _coverage(count: int, left_out: int) -> float:
    """How often the median lies between values of which so many are left out at each end."""
    below = sum(math.comb(count, place) for place in range(left_out + 1))
    return 1 - 2 * below / float(2**count)


# -- a whole reply from its parts ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """A usual reply in tokens: what the draft wrote, what the base checked, kept and wrote. `chunk` were checked
    together."""

    drafted: float
    checked: float
    kept: float
    continued: float
    chunk: int

    def with_chunk(self, chunk: int) -> Shape:
        """The same reply where `chunk` tokens are checked together.

        Checks come in whole chunks: the base checks what fills the last one, and the draft writes as much and what is
        held back.
        """
        if chunk == self.chunk:
            return self
        checked = chunk * math.ceil(max(self.kept, 1) / chunk)
        drafted = checked + (self.drafted - self.checked if self.drafted > self.checked else HOLD_BACK)
        return replace(self, checked=checked, drafted=drafted, chunk=chunk)


Costs = Mapping[str, float]
"""Seconds: `draft_read`, `base_read` (a whole prompt), `draft_token`, `base_token`, `check` (one token of a chunk)."""


def reply_time(costs: Costs, shape: Shape) -> float:
    """Seconds that a reply takes, as the sum of its parts."""
    return (
        costs["draft_read"]
        + costs["base_read"]
        + shape.drafted * costs["draft_token"]
        + shape.checked * costs["check"]
        + shape.continued * costs["base_token"]
    )


def usual_shape(shapes: Sequence[Shape]) -> Shape:
    """The medians of several replies.

    Raises:
        ValueError: there is none.
    """
    if not shapes:
        raise ValueError("no replies")
    middle = {
        name: float(statistics.median(getattr(shape, name) for shape in shapes))
        for name in ("drafted", "checked", "kept", "continued")
    }
    return Shape(**middle, chunk=shapes[0].chunk)
