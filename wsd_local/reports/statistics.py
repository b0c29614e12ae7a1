"""Intervals and tests for measured figures: the bootstrap, and McNemar's exact test.

Contract: pure; the same values and seed give the same interval. An interval is the percentile bootstrap's, made by
drawing the measured items (questions, prompts, pairs) with replacement; values of one item stay together. A share of 0
or 1 has no spread to draw from, so that its interval is Clopper and Pearson's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000
LEVEL = 0.95

Places = npt.NDArray[np.int_]
"""Places of the drawn items, from 0; an item may be there several times."""


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
    if count < 1:
        raise ValueError("no items")
    generator = np.random.default_rng(seed)
    value = float(statistic(np.arange(count)))
    drawn = np.array([statistic(generator.integers(count, size=count)) for _ in range(resamples)], dtype=float)
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Estimate(value, value, value, count)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), count)


def mean(values: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The mean of values with its interval. ValueError without any."""
    items = np.asarray(values, dtype=float)
    return bootstrap(len(items), lambda places: float(items[places].mean()), level=level, seed=seed)


def share(hits: Sequence[bool], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The share of items that are true with its interval. ValueError without any."""
    found = mean([float(hit) for hit in hits], level=level, seed=seed)
    bound = ((1 - level) / 2) ** (1 / found.count)
    if found.value == 0:
        return Estimate(0.0, 0.0, 1 - bound, found.count)
    return Estimate(1.0, bound, 1.0, found.count) if found.value == 1 else found


def difference(first: Sequence[float], second: Sequence[float], *, level: float = LEVEL, seed: int = 0) -> Estimate:
    """The mean of `second` minus that of `first`, both of the same items in the same order, with its interval.

    Raises:
        ValueError: the numbers of items differ, or there is none.
    """
    return mean([b - a for a, b in zip(first, second, strict=True)], level=level, seed=seed)


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
