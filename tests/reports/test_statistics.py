"""Intervals and tests: against figures worked out by hand, and properties that any correct one has."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsd_local.reports.statistics import bootstrap, difference, mcnemar, mean, share

HITS = st.lists(st.booleans(), min_size=1, max_size=60)
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


@settings(max_examples=25, deadline=None)
@given(HITS)
def test_a_share_lies_in_its_interval_and_the_interval_between_0_and_1(hits: list[bool]) -> None:
    found = share(hits)
    assert found.value == pytest.approx(sum(hits) / len(hits))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.count == len(hits)


@pytest.mark.parametrize(("count", "bound"), [(1, 0.975), (10, 0.3085), (20, 0.1684), (100, 0.0362)])
def test_a_share_of_0_or_1_is_not_certain(count: int, bound: float) -> None:
    """The bounds are those of Clopper and Pearson's table for a level of 95 %."""
    none, every = share([False] * count), share([True] * count)
    assert (none.low, every.high) == (0, 1)
    assert none.high == pytest.approx(bound, abs=1e-4)
    assert every.low == pytest.approx(1 - bound, abs=1e-4)


def test_an_interval_has_the_width_of_the_normal_approximation() -> None:
    found = mean([float(n % 2) for n in range(1000)])
    width = 2 * 1.96 * math.sqrt(0.25 / 1000)
    assert found.high - found.low == pytest.approx(width, rel=0.1)
    narrower = mean([float(n % 2) for n in range(1000)], level=0.5)
    assert found.low < narrower.low < 0.5 < narrower.high < found.high


def test_the_interval_covers_the_truth_about_as_often_as_its_level_says() -> None:
    generator = np.random.default_rng(3)
    samples = generator.normal(2.0, 1.0, size=(200, 50))
    covered = sum(found.low <= 2.0 <= found.high for found in map(mean, samples.tolist()))
    assert 180 <= covered <= 198


def test_the_same_values_give_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(4).normal(size=40).tolist()
    assert mean(values) == mean(values)
    assert mean(values, seed=1) != mean(values)


def test_items_are_drawn_whole() -> None:
    """A difference within items has no interval where it is the same in each, however much the items differ."""
    first = [float(n) for n in range(50)]
    found = difference(first, [value + 2 for value in first])
    assert (found.value, found.low, found.high) == (2, 2, 2)


def test_draws_without_a_value_are_left_out() -> None:
    kinds = np.array([1.0, 1.0, 0.0])
    found = bootstrap(
        3, lambda places: float(kinds[places].sum() / kinds[places].any()) if kinds[places].any() else math.nan
    )
    assert not math.isnan(found.low) and not math.isnan(found.high)
    assert bootstrap(2, lambda _: math.nan).count == 2


def test_what_cannot_be_estimated_is_an_error() -> None:
    with pytest.raises(ValueError, match="no items"):
        mean([])
    with pytest.raises(ValueError, match="shorter"):
        difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="shorter"):
        mcnemar([True, False], [True])


@given(PAIRS)
def test_mcnemar_is_the_binomial_tail_counted_out(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    found = mcnemar(first, second)
    assert found.only_first == pairs.count((True, False))
    assert found.only_second == pairs.count((False, True))
    turned = mcnemar(second, first)
    assert (turned.only_first, turned.only_second, turned.p) == (found.only_second, found.only_first, found.p)
    assert 0 < found.p <= 1


@pytest.mark.parametrize(("one", "two"), [*product(range(6), range(6))])
def test_mcnemar_counts_every_outcome_that_is_as_uneven(one: int, two: int) -> None:
    first = [True] * one + [False] * two
    outcomes = list(product((True, False), repeat=one + two))
    uneven = sum(abs(2 * sum(outcome) - one - two) >= abs(one - two) for outcome in outcomes)
    wanted = Fraction(uneven, len(outcomes))
    assert mcnemar(first, [not hit for hit in first]).p == pytest.approx(float(wanted))
