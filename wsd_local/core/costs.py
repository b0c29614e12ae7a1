"""What was measured of a pair while it answered: what evaluations cost, and how many proposed tokens were taken.

Contract: pure; seconds and counts are told. What follows from them is here too: the tokens that a round of proposals
gives on average, and the acceptance from which on proposals pay.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import median

from wsd_local.events import Source

BUCKET = 32
"""Evaluations of more tokens are counted with those of the next lower power of two."""


class Costs:
    """Seconds that an evaluation of some tokens of one sequence takes: medians of the last ones, and linear between."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=7))
        self._medians: dict[int, float] = {}
        self._least: list[tuple[int, float]] | None = None

    def saw(self, tokens: int, seconds: float) -> None:
        """An evaluation of so many tokens took so long."""
        size = tokens if tokens <= BUCKET else 1 << tokens.bit_length() - 1
        self._seen[size].append(seconds * size / tokens)
        self._medians.pop(size, None)
        self._least = None

    def age(self) -> None:
        """Another text begins: of each size only the last measurement counts."""
        for seen in self._seen.values():
            while len(seen) > 1:
                seen.popleft()
        self._medians.clear()
        self._least = None

    @property
    def known(self) -> bool:
        """Whether single tokens were seen."""
        return 1 in self._seen

    def of(self, tokens: int) -> float:
        """Seconds for so many tokens; what one token costs must be known."""
        points = self._points()
        after = bisect_right(points, tokens, key=itemgetter(0))
        lower, below = points[after - 1]
        if after == len(points):
            return below * tokens / lower
        upper, above = points[after]
        return below + (above - below) * (tokens - lower) / (upper - lower)

    def _points(self) -> list[tuple[int, float]]:
        """Sizes with their medians, or a larger size's if that is less: then it is a better measurement."""
        if self._least is None:
            least, found = math.inf, []
            for size in sorted(self._seen, reverse=True):
                if size not in self._medians:
                    self._medians[size] = median(self._seen[size])
                least = min(least, self._medians[size])
                found.append((size, least))
            self._least = found[::-1]
        return self._least


class Acceptance:
    """Share of proposed tokens that were taken; the older, the less one counts."""

    FADING, WEIGHT = 0.97, 4.0

    def __init__(self, prior: float) -> None:
        self._taken, self._seen = prior * self.WEIGHT, self.WEIGHT

    @property
    def rate(self) -> float:
        """The share, below 1."""
        return min(self._taken / self._seen, 0.99)

    def saw(self, taken: float, refused: float) -> None:
        """So many were taken, and so many were looked at and not taken."""
        fading = self.FADING ** (taken + refused)
        self._taken = self._taken * fading + taken
        self._seen = self._seen * fading + taken + refused

    def renew(self) -> None:
        """Another text begins, of which less is known."""
        if self._seen > self.WEIGHT:
            self._taken, self._seen = self.rate * self.WEIGHT, self.WEIGHT


def expected(rate: float, length: int) -> float:
    """Tokens that a round gives on average: those taken before the first refused one, and the base's own."""
    return (1 - rate ** (length + 1)) / (1 - rate)


def break_even(prices: Sequence[float], plain: float) -> float | None:
    """The acceptance from which on a length exists that pays; None if none pays even where all is taken.

    `prices` are the seconds of rounds with 1, 2, … proposals, `plain` those of a token without.
    """

    def pays(rate: float) -> bool:
        return any(expected(rate, length) * plain > price for length, price in enumerate(prices, 1))

    if all((length + 1) * plain <= price for length, price in enumerate(prices, 1)):
        return None
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if pays(middle) else (middle, high)
    return high


@dataclass(slots=True)
class Experience:
    """What was measured of a pair: costs of each model, the acceptance of each kind of proposal, and seconds lost."""

    costs: Mapping[Source, Costs] = field(default_factory=lambda: {"draft": Costs(), "base": Costs()})
    acceptance: Mapping[str, Acceptance] = field(
        default_factory=lambda: {
            "draft": Acceptance(0.75),
            "constraint": Acceptance(0.9),
            "look-up 3": Acceptance(0.4),
            "look-up 5": Acceptance(0.6),
            "look-up 9": Acceptance(0.8),
        }
    )
    lost: float = 0.0
