"""What was measured of a pair while it answered: what evaluations cost, and how many proposed tokens were accepted.

Contract: pure; seconds and counts are given. Reading a value changes nothing; only `saw`, `age` and `renew` do. What
follows from the measurements is here too: the expected number of tokens of a round of proposals, and the lowest
acceptance at which proposals pay.
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
"""Evaluations of more tokens than this share one entry with those of the next lower power of two."""


class Costs:
    """Seconds that an evaluation of some tokens of one sequence takes: medians of the last ones, linear in between."""

    def __init__(self) -> None:
        self._seen: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=7))
        self._medians: dict[int, float] = {}
        self._least: list[tuple[int, float]] | None = None

    def saw(self, tokens: int, seconds: float) -> None:
        """Record an evaluation of `tokens` tokens."""
        size = tokens if tokens <= BUCKET else 1 << tokens.bit_length() - 1
        self._seen[size].append(seconds * size / tokens)
        self._medians.pop(size, None)
        self._least = None

    def age(self) -> None:
        """Another text begins: keep only the last measurement of each size."""
        for seen in self._seen.values():
            while len(seen) > 1:
                seen.popleft()
        self._medians.clear()
        self._least = None

    @property
    def known(self) -> bool:
        """Whether a single token was measured."""
        return 1 in self._seen

    def of(self, tokens: int) -> float:
        """Seconds for an evaluation of `tokens` tokens; `known` must hold."""
        points = self._points()
        after = bisect_right(points, tokens, key=itemgetter(0))
        lower, below = points[after - 1]
        if after == len(points):
            return below * tokens / lower
        upper, above = points[after]
        return below + (above - below) * (tokens - lower) / (upper - lower)

    def _points(self) -> list[tuple[int, float]]:
        """Sizes with their medians, or a larger size's median where that is less: then it is the better measurement."""
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
    """Share of proposed tokens that were accepted; the older a token, the less it counts."""

    FADING, WEIGHT = 0.97, 4.0

    def __init__(self, prior: float) -> None:
        self._taken, self._seen = prior * self.WEIGHT, self.WEIGHT

    @property
    def rate(self) -> float:
        """The share, below 1."""
        return min(self._taken / self._seen, 0.99)

    def saw(self, taken: float, refused: float) -> None:
        """Record numbers of accepted and of refused tokens."""
        fading = self.FADING ** (taken + refused)
        self._taken = self._taken * fading + taken
        self._seen = self._seen * fading + taken + refused

    def renew(self) -> None:
        """Another text begins: what is known counts as little as a guess."""
        if self._seen > self.WEIGHT:
            self._taken, self._seen = self.rate * self.WEIGHT, self.WEIGHT


def expected(rate: float, length: int) -> float:
    """Expected tokens of a round: those accepted before the first refused one, and the base's own."""
    return (1 - rate ** (length + 1)) / (1 - rate)


def break_even(prices: Sequence[float], plain: float) -> float | None:
    """The lowest acceptance at which some length pays; None if none pays even where all is accepted.

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

    def begin_text(self) -> None:
        """Another text begins: older measurements count less."""
        for acceptance in self.acceptance.values():
            acceptance.renew()
        for costs in self.costs.values():
            costs.age()
