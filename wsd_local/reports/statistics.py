"""Intervals and tests for measured figures: the bootstrap, McNemar's exact test, and Cohen's kappa.

Contract: pure; the same values and seed give the same interval. An interval is the percentile bootstrap's, made by
drawing the measured items (questions, prompts, pairs) with replacement; values of one item stay together. A share of 0
or 1 has no spread to draw from, so that its interval is Clopper and Pearson's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95

Places = npt.NDArray[np.int_]
"""Places of the drawn items, from 0; an item may be there several times."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of `count` items with the bounds of its interval."""

    value: float
    low: float
    high: float
    count: int


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
    low, high = bounds(drawn, level) or (value, value)
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


def bounds(drawn: npt.ArrayLike, level: float = LEVEL) -> tuple[float, float] | None:
    """The interval of a figure from its values in the samples, without those that are NaN; None without any."""
    known = np.asarray(drawn, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


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
        interval = bounds(column[1:])
        value = float(column[0])
        found.append(None if interval is None or math.isnan(value) else Estimate(value, *interval, int(count)))
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
