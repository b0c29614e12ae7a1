"""Intervals and tests for measured figures: the bootstrap, intervals of shares, McNemar's exact test, Cohen's kappa.

Contract: pure; the same values and seed give the same interval. An interval is the percentile bootstrap's, made by
drawing the measured items (questions, prompts, pairs) with replacement; values of one item stay together. One item, or
items that are all alike, leave nothing to draw from: then a figure has no interval. Two figures have one nevertheless:
a share of 0 or 1 has Clopper and Pearson's, and the difference of two shares of the same items has always Tango's score
interval (Statistics in Medicine 17, 1998, 891-908), which stays wide where no item differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95
NO_INTERVAL = "none"
"""What stands in the place of an interval where there is none."""
NO_INTERVAL_NOTE = "none: of one item, or of items that are all alike, there is no interval"
TIE = 0.5
"""Points of a tie in a rate of wins."""
_ROUNDING = 1e-9
"""Width of an interval by its bounds from which it is more than rounding."""
_STEPS = 60
"""Halvings of a range in which a bound is looked for: more than a float has digits."""

Places = npt.NDArray[np.int_]
"""Places of the drawn items, from 0; an item may be there several times."""
Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]
"""Lower and upper bound."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of `count` items with the bounds of its interval; both are None where there is none."""

    value: float
    low: float | None
    high: float | None
    count: int

    @property
    def interval(self) -> Interval | None:
        """Both bounds."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def between(self, form: Callable[[float], str], dash: str = " to ") -> str:
        """The interval as text."""
        return between(self.interval, form, dash)


def between(interval: Interval | None, form: Callable[[float], str], dash: str = " to ") -> str:
    """An interval as text, its bounds written by `form`."""
    return NO_INTERVAL if interval is None else dash.join(map(form, interval))


@dataclass(frozen=True, slots=True)
class McNemar:
    """Two ways of answering the same items: how many only one of them got right, and the exact two-sided p-value."""

    only_first: int
    only_second: int
    p: float


def bootstrap(
    count: int,
    statistic: Callable[[Places], float],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """A statistic of `count` items with its interval.

    Args:
        count: number of items.
        statistic: computes the figure from the places of items. A draw for which it is NaN is left out.
        resamples: number of draws.
        level: the interval's coverage, between 0 and 1.
        seed: of the draws.

    Raises:
        ValueError: there is no item.
    """
    samples = draws(count, resamples=resamples, seed=seed)
    value = float(statistic(np.arange(count)))
    drawn = np.array([statistic(places) for places in samples], dtype=float)
    low, high = bounds(drawn, level) or (None, None)
    return Estimate(value, low, high, count)


def draws(count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Places]:
    """Samples of `count` items, drawn with replacement; the same for the same seed.

    Raises:
        ValueError: there is no item.
    """
    if count < 1:
        raise ValueError("no items")
    generator = np.random.default_rng(seed)
    return (generator.integers(count, size=count) for _ in range(resamples))


def bounds(drawn: npt.ArrayLike, level: float = LEVEL) -> Interval | None:
    """The interval of a figure from its values in the samples, without those that are NaN.

    None without any, and where the samples do not differ: they say nothing of how far off the figure may be.
    """
    known = np.asarray(drawn, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return None
    low, high = (float(one) for one in np.quantile(known, [(1 - level) / 2, (1 + level) / 2]))
    return None if high - low <= _ROUNDING * max(abs(low), abs(high)) else (low, high)


class Resampled:
    """The samples of `draws` for many figures of the same items at once.

    Tables of values have a row for each item and a column for each figure; NaN is a value that is not known. Results
    have a row for the items as they are (row 0) and one for each sample, and the same columns.
    """

    def __init__(self, count: int) -> None:
        drawn = [np.bincount(places, minlength=count) for places in draws(count)]
        self._weights: Floats = np.vstack([np.ones(count), *drawn]).astype(np.float64)

    def means(self, values: Floats) -> Floats:
        """Means of the known values; NaN where there is none."""
        return self.ratios(values, np.ones_like(values))

    def ratios(self, values: Floats, divisors: Floats) -> Floats:
        """Sums of values over sums of their divisors, of the items for which both are known; NaN without any."""
        known = np.isfinite(values) & np.isfinite(divisors)
        above = self._weights @ np.where(known, values, 0.0)
        below = self._weights @ np.where(known, divisors, 0.0)
        return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def estimates(figures: Floats, values: Floats) -> list[Estimate | None]:
    """Each column of what `Resampled` gives as a figure with its interval; None where it is not known.

    Args:
        figures: a result of `Resampled`.
        values: the table that it is of, in which the items with a known value are counted.
    """
    found: list[Estimate | None] = []
    for column, count in zip(figures.T, np.isfinite(values).sum(axis=0), strict=True):
        value = float(column[0])
        low, high = bounds(column[1:]) or (None, None)
        found.append(None if math.isnan(value) else Estimate(value, low, high, int(count)))
    return found


def mean(values: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The mean of values with its interval. ValueError without any."""
    items = np.asarray(values, dtype=float)
    return bootstrap(len(items), lambda places: float(items[places].mean()), level=level, seed=seed)


def share(hits: Sequence[bool], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The share of items that are true with its interval. ValueError without any."""
    return uncertain(mean([float(hit) for hit in hits], level=level, seed=seed), level)


def uncertain(found: Estimate, level: float = LEVEL) -> Estimate:
    """A share with its interval; that of 0 or 1, which has no spread to draw from, becomes Clopper and Pearson's."""
    bound = ((1 - level) / 2) ** (1 / found.count)
    if found.value == 0:
        return replace(found, low=0.0, high=1 - bound)
    return replace(found, low=bound, high=1.0) if found.value == 1 else found


def share_difference(first: Sequence[bool], second: Sequence[bool], *, level: float = LEVEL) -> Estimate:
    """The share of items that are true in `second` minus that in `first`, with Tango's score interval.

    Raises:
        ValueError: the numbers of items differ, or there is none.
    """
    pairs = list(zip(first, second, strict=True))
    if not pairs:
        raise ValueError("no items")
    one, two = sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
    low, high = score_interval(two, one, len(pairs), level)
    return Estimate((two - one) / len(pairs), low, high, len(pairs))


def tied(found: Estimate) -> Estimate:
    """A rate of wins, ties as halves, of ties alone: half of what wins minus losses may be, around one half."""
    low, high = score_interval(0, 0, found.count)
    return replace(found, low=(1 + low) / 2, high=(1 + high) / 2)


def rate(points: Sequence[float]) -> Estimate:
    """The mean of points, 1 for a win, 0 for a loss and 0.5 for a tie, with its interval. ValueError without any."""
    if TIE not in points:
        return share([point == 1 for point in points])
    found = mean(points)
    return tied(found) if set(points) == {TIE} else found


def rate_difference(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """The rate of `second` minus that of `first`, both of the same items in the same order, with its interval.

    Raises:
        ValueError: the numbers of items differ, or there is none.
    """
    if TIE not in {*first, *second}:
        return share_difference([point == 1 for point in first], [point == 1 for point in second])
    found = difference(first, second)
    if list(first) != list(second):
        return found
    low, high = score_interval(0, 0, found.count)
    return replace(found, low=low, high=high)


def score_interval(more: int, fewer: int, count: int, level: float = LEVEL) -> Interval:
    """Tango's interval of (more - fewer) / count: all differences that a score test does not reject.

    Args:
        more: items that count for the difference.
        fewer: items that count against it.
        count: all items, those that count for neither among them.
        level: the interval's coverage, between 0 and 1.
    """
    return -_highest(fewer, more, count, level), _highest(more, fewer, count, level)


def _highest(more: int, fewer: int, count: int, level: float) -> float:
    """The largest difference that the score test does not reject."""
    square = NormalDist().inv_cdf((1 + level) / 2) ** 2

    def stands(difference: float) -> bool:
        # The most probable share of items against it, if this were the true difference.
        linear = (2 * count - more + fewer) * difference - more - fewer
        constant = -fewer * difference * (1 - difference)
        share = (math.sqrt(max(0.0, linear**2 - 8 * count * constant)) - linear) / (4 * count)
        return (count * difference - (more - fewer)) ** 2 <= square * count * (
            2 * share + difference * (1 - difference)
        )

    low, high = (more - fewer) / count, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if stands(middle) else (low, middle)
    return low


def median(values: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The median of values with its interval. ValueError without any."""
    items = np.asarray(values, dtype=float)
    return bootstrap(len(items), lambda places: float(np.median(items[places])), level=level, seed=seed)


def difference(first: Sequence[float], second: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The mean of `second` minus that of `first`, both of the same items in the same order, with its interval.

    Raises:
        ValueError: the numbers of items differ, or there is none.
    """
    return mean([b - a for a, b in zip(first, second, strict=True)], level=level, seed=seed)


def kappa(first: Sequence[int] | Places, second: Sequence[int] | Places) -> float:
    """Cohen's kappa of two classifications of the same items, classes counted from 0.

    1 is agreement throughout, 0 what chance gives to two that share these frequencies. NaN where both have one and the
    same class throughout, so that chance explains everything, and without items.
    """
    one, two = np.asarray(first), np.asarray(second)
    if not len(one):
        return math.nan
    classes = int(max(one.max(), two.max())) + 1
    by_chance = float(np.bincount(one, minlength=classes) @ np.bincount(two, minlength=classes)) / len(one) ** 2
    return (float((one == two).mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's exact test of two columns of the same items in the same order.

    Under the null hypothesis each item that only one column got right is either column's with probability 1/2.

    Raises:
        ValueError: the numbers of items differ.
    """
    pairs = list(zip(first, second, strict=True))
    one = sum(a and not b for a, b in pairs)
    two = sum(b and not a for a, b in pairs)
    tail = sum(math.comb(one + two, k) for k in range(min(one, two) + 1))
    return McNemar(one, two, min(1.0, 2 * tail / 2 ** (one + two)))
