"""The rule, against the formula written as a product."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.core.rules import Score, Window, geometric_mean
from wsd_local.errors import UsageError

probabilities = st.lists(st.floats(1e-6, 1.0), max_size=60)


def pushed(rule: Window, logprobs: list[float]) -> tuple[int | None, list[float | None]]:
    """The index from which the base writes, and the confidence at each token up to there."""
    start, confidences = None, []
    for logprob in logprobs:
        start = rule.push(Score(logprob))
        confidences.append(rule.confidence)
        if start is not None:
            break
    return start, confidences


def by_product(probs: list[float], window: int, threshold: float) -> int | None:
    for i in range(window - 1, len(probs)):
        if math.prod(probs[i - window + 1 : i + 1]) ** (1 / window) >= threshold:
            return i
    return None


@given(probabilities, st.integers(1, 12), st.floats(0, 1))
def test_index_is_that_of_the_formula(probs: list[float], window: int, threshold: float) -> None:
    expected = by_product(probs, window, threshold)
    start, _ = pushed(Window(window, threshold), [math.log(p) for p in probs])
    index = None if start is None else start - 1
    # The product and the mean of logarithms may round to different sides of an exact tie only.
    first = min((i for i in (index, expected) if i is not None), default=window - 1)
    assert index == expected or math.isclose(
        geometric_mean([math.log(p) for p in probs[first - window + 1 : first + 1]]), threshold
    )


@given(probabilities, st.integers(1, 12), st.floats(0, 1))
def test_what_is_kept_whatever_follows_is_kept(probs: list[float], window: int, threshold: float) -> None:
    rule, promised, start = Window(window, threshold), [window], None
    for prob in probs:
        start = rule.push(Score(math.log(prob)))
        if start is not None:
            break
        promised.append(rule.kept_at_least)
    assert start is None or start >= max(*promised, rule.lookahead)


@given(probabilities, st.integers(1, 12), st.integers(0, 60))
def test_truncating_forgets_exactly_what_came_later(probs: list[float], window: int, length: int) -> None:
    logprobs = [math.log(p) for p in probs]
    rule, fresh = Window(window, 2.0), Window(window, 2.0)
    pushed(rule, logprobs)
    rule.truncate(length)
    pushed(fresh, logprobs[:length])
    assert (rule.confidence, rule.kept_at_least) == (fresh.confidence, fresh.kept_at_least)
    assert pushed(rule, logprobs) == pushed(fresh, logprobs)


def test_threshold_zero_switches_at_the_first_window_even_at_probability_zero() -> None:
    assert pushed(Window(6, 0.0), [-math.inf] * 9) == (6, [None] * 5 + [0.0])


def test_threshold_above_one_never_switches() -> None:
    assert pushed(Window(1, 1.01), [0.0] * 99) == (None, [1.0] * 99)


def test_no_window_is_defined_before_it_is_full() -> None:
    assert pushed(Window(3, 0.5), [0.0] * 9) == (3, [None, None, 1.0])


def test_another_threshold_judges_what_is_scored_from_then_on() -> None:
    rule = Window(1, 0.9)
    assert rule.push(Score(math.log(0.5))) is None
    rule.threshold = 0.4
    assert rule.push(Score(math.log(0.5))) == 2


def test_long_windows_do_not_underflow() -> None:
    assert math.isclose(geometric_mean([math.log(1e-5)] * 400), 1e-5)


@pytest.mark.parametrize(("window", "threshold"), [(0, 0.8), (-3, 0.8), (6, -0.1), (6, math.nan)])
def test_values_that_cannot_be_meant_are_refused(window: int, threshold: float) -> None:
    with pytest.raises(UsageError):
        Window(window, threshold)
