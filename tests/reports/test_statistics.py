"""Intervals and tests: against figures worked out by hand, and properties that any correct one has."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsd_local.reports.statistics import (
    NO_INTERVAL,
    Resampled,
    bootstrap,
    bounds,
    difference,
    estimates,
    mcnemar,
    mean,
    median,
    rate,
    rate_difference,
    score_interval,
    share,
    share_difference,
)

HITS = st.lists(st.booleans(), min_size=1, max_size=60)
PAIRS = st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60)


@settings(max_examples=25, deadline=None)
@given(HITS)
def test_a_share_lies_in_its_interval_and_the_interval_between_0_and_1(hits: list[bool]) -> None:
    found = share(hits)
    assert found.value == pytest.approx(sum(hits) / len(hits))
    assert found.low is not None and found.high is not None
    assert 0 <= found.low <= found.value <= found.high <= 1 and found.low < found.high
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
    low, high = found.interval or (math.nan, math.nan)
    assert high - low == pytest.approx(width, rel=0.1)
    inner_low, inner_high = mean([float(n % 2) for n in range(1000)], level=0.5).interval or (math.nan, math.nan)
    assert low < inner_low < 0.5 < inner_high < high


def test_the_interval_covers_the_truth_about_as_often_as_its_level_says() -> None:
    generator = np.random.default_rng(3)
    samples = generator.normal(2.0, 1.0, size=(200, 50))
    intervals = [found.interval or (math.nan, math.nan) for found in map(mean, samples.tolist())]
    covered = sum(low <= 2.0 <= high for low, high in intervals)
    assert 180 <= covered <= 198


def test_the_same_values_give_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(4).normal(size=40).tolist()
    assert mean(values) == mean(values)
    assert mean(values, seed=1) != mean(values)


def test_items_are_drawn_whole() -> None:
    """A difference within items that is the same in each has no spread, however much the items differ."""
    first = [float(n) for n in range(50)]
    found = difference(first, [value + 2 for value in first])
    assert (found.value, found.interval) == (2, None)


def test_draws_without_a_value_are_left_out() -> None:
    kinds = np.array([1.0, 1.0, 0.0])
    found = bootstrap(
        3, lambda places: float(kinds[places].sum() / kinds[places].any()) if kinds[places].any() else math.nan
    )
    assert found.interval is not None and not any(map(math.isnan, found.interval))
    assert bootstrap(2, lambda _: math.nan).interval is None


ALIKE = st.floats(-1e6, 1e6).flatmap(lambda value: st.integers(1, 30).map(lambda count: [value] * count))


@settings(max_examples=8, deadline=None)
@given(ALIKE)
def test_items_that_are_all_alike_leave_no_interval(values: list[float]) -> None:
    """One item is such a case; rounding in a mean is no spread."""
    for found in (mean(values), median(values), bootstrap(len(values), lambda places: values[int(places[0])] / 3)):
        assert found.interval is None and found.between(str) == NO_INTERVAL
    table = np.array([values]).T
    resampled = Resampled(len(values))
    for figures in (resampled.means(table), resampled.ratios(table, np.full_like(table, 0.1)), np.exp(table / 1e6)):
        [column] = estimates(figures.repeat(2 if len(figures) == 1 else 1, axis=0), table)
        assert column is not None and column.count == len(values) and column.interval is None
    assert bounds([]) is None


def test_a_figure_with_a_spread_has_an_interval_however_small_it_is() -> None:
    assert mean([1000.0, 1000.01]).interval == pytest.approx((1000.0, 1000.01))
    assert mean([0.0, 1e-12]).interval == pytest.approx((0.0, 1e-12))


def test_what_cannot_be_estimated_is_an_error() -> None:
    with pytest.raises(ValueError, match="no items"):
        mean([])
    with pytest.raises(ValueError, match="no items"):
        share_difference([], [])
    with pytest.raises(ValueError, match="shorter"):
        share_difference([True, False], [True])
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


# -- differences of shares of the same items -------------------------------------------------------------------


def test_tangos_interval_is_the_published_one() -> None:
    """Of 21 patients 7 had the condition only after the treatment and one only before it (Bentur et al., 2009)."""
    assert score_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("count", [1, 10, 100])
def test_columns_that_are_equal_on_every_item_may_differ_on_others(count: int) -> None:
    """Where no item differs the bounds have a closed form: the score test of a share of 0."""
    found = share_difference([n % 2 == 0 for n in range(count)], [n % 2 == 0 for n in range(count)])
    square = 1.959964**2
    assert found.value == 0
    assert found.interval == pytest.approx((-square / (count + square), square / (count + square)), abs=1e-6)


@given(PAIRS.filter(bool))
def test_a_difference_of_shares_lies_in_its_interval_and_turns_with_the_columns(pairs: list[tuple[bool, bool]]) -> None:
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    found, turned = share_difference(first, second), share_difference(second, first)
    low, high = found.interval or (math.nan, math.nan)
    assert -1 <= low <= found.value <= high <= 1 and low < high
    assert found.value == pytest.approx((sum(second) - sum(first)) / len(pairs))
    assert turned.interval == pytest.approx((-high, -low))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_the_bounds_are_where_the_score_test_begins_to_reject(counts: tuple[int, int, int]) -> None:
    """The statistic, with the most probable share against the difference found by trying a thousand of them."""
    count, more, fewer = counts[0], min(counts[1:]), max(counts[1:]) - min(counts[1:])
    for sign, bound in zip((-1, 1), score_interval(more, fewer, count), strict=True):
        for place, inside in ((bound - sign * 0.02, True), (bound + sign * 0.02, False)):
            if not -1 < place < 1 or (inside and sign * (place - (more - fewer) / count) < 0):
                continue
            against = np.linspace(max(0.0, -place), (1 - place) / 2, 1001)[1:-1]
            likelihood = more * np.log(against + place) + fewer * np.log(against)
            likelihood += (count - more - fewer) * np.log(1 - 2 * against - place)
            share_against = against[int(np.argmax(likelihood))]
            variance = count * (2 * share_against + place - place**2)
            assert ((more - fewer - count * place) ** 2 <= 3.8415 * variance) == inside


def test_rates_of_wins_count_ties_as_halves_and_are_unsure_of_ties_alone() -> None:
    assert rate([1.0, 0.0, 1.0]) == share([True, False, True])
    mixed = rate([1.0, 0.5, 0.0, 0.5])
    assert mixed.value == 0.5 and mixed.interval is not None
    ties = rate([0.5] * 20)
    half = 1.959964**2 / (20 + 1.959964**2) / 2
    assert ties.value == 0.5 and ties.interval == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert rate_difference([1.0, 0.0], [0.0, 0.0]) == share_difference([True, False], [False, False])
    assert rate_difference([0.5, 1.0], [0.5, 0.0]).interval == pytest.approx((-1, 0))
    assert rate_difference([0.5, 1.0], [0.5, 1.0]).interval == pytest.approx(score_interval(0, 0, 2))


def _covered(count: int, more: float, fewer: float) -> float:
    """How probable it is that the interval of `count` items holds the true difference of two shares."""
    found = 0.0
    for a in range(count + 1):
        for b in range(count + 1 - a):
            low, high = score_interval(a, b, count)
            if low <= more - fewer <= high:
                ways = math.comb(count, a) * math.comb(count - a, b)
                found += ways * more**a * fewer**b * (1 - more - fewer) ** (count - a - b)
    return found


@pytest.mark.parametrize(
    ("more", "fewer"), [(0.0, 0.0), (0.02, 0.0), (0.05, 0.05), (0.1, 0.02), (0.2, 0.2), (0.3, 0.05), (0.5, 0.3)]
)
def test_the_interval_of_a_difference_covers_the_truth_about_as_often_as_its_level_says(
    more: float, fewer: float
) -> None:
    """By all outcomes of 20 items, weighted by their probability: no draws, and none of their noise."""
    assert _covered(20, more, fewer) >= 0.93


def test_the_bootstrap_of_a_difference_does_not() -> None:
    """Of 20 items 2 % would count for the second column: two thirds of such samples show none, and no spread."""
    generator = np.random.default_rng(7)
    samples = generator.random((60, 20)) < 0.02
    intervals = [mean(row.astype(float).tolist()).interval for row in samples]
    covered = sum(one is not None and one[0] <= 0.02 <= one[1] for one in intervals)
    own = [score_interval(int(row.sum()), 0, 20) for row in samples]
    assert covered < 30 and sum(low <= 0.02 <= high for low, high in own) >= 55
