"""The rule, against the formula written as a product."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.core.rules import SwitchDetector, SwitchPolicy, confidence
from wsd_local.errors import UsageError

probabilities = st.lists(st.floats(1e-6, 1.0), max_size=60)


def by_product(probs: list[float], window: int, threshold: float) -> int | None:
    for i in range(window - 1, len(probs)):
        if math.prod(probs[i - window + 1 : i + 1]) ** (1 / window) >= threshold:
            return i
    return None


@given(probabilities, st.integers(1, 12), st.floats(0, 1), st.lists(st.integers(1, 9)))
def test_index_is_that_of_the_formula_however_the_tokens_arrive(
    probs: list[float], window: int, threshold: float, sizes: list[int]
) -> None:
    expected = by_product(probs, window, threshold)
    detector, index, at = SwitchDetector(SwitchPolicy(window, threshold)), None, 0
    while at < len(probs) and index is None:
        size = sizes.pop() if sizes else 4
        index = detector.push([math.log(p) for p in probs[at : at + size]])
        at += size
    if index != expected:
        # The product and the mean of logarithms may round to different sides of an exact tie only.
        tied = min(i for i in (index, expected) if i is not None)
        assert math.isclose(confidence([math.log(p) for p in probs[tied - window + 1 : tied + 1]]), threshold)


@given(probabilities, st.integers(1, 12), st.integers(0, 60))
def test_truncating_forgets_exactly_what_came_later(probs: list[float], window: int, length: int) -> None:
    logprobs = [math.log(p) for p in probs]
    detector = SwitchDetector(SwitchPolicy(window, 2.0))
    detector.push(logprobs)
    detector.truncate(length)
    fresh = SwitchDetector(SwitchPolicy(window, 2.0))
    fresh.push(logprobs[:length])
    assert (detector.logprobs, detector.windows) == (fresh.logprobs, fresh.windows)


def test_threshold_zero_switches_at_the_first_window_even_at_probability_zero() -> None:
    assert SwitchDetector(SwitchPolicy(6, 0.0)).push([-math.inf] * 9) == 5


def test_threshold_above_one_never_switches() -> None:
    assert SwitchDetector(SwitchPolicy(1, 1.01)).push([0.0] * 99) is None


def test_no_window_is_defined_before_it_is_full() -> None:
    detector = SwitchDetector(SwitchPolicy(3, 0.5))
    assert detector.push([0.0, 0.0]) is None
    assert detector.windows == [None, None]
    assert detector.push([0.0]) == 2


def test_long_windows_do_not_underflow() -> None:
    assert math.isclose(confidence([math.log(1e-5)] * 400), 1e-5)


@pytest.mark.parametrize(("window", "threshold"), [(0, 0.8), (-3, 0.8), (6, -0.1), (6, math.nan)])
def test_values_that_cannot_be_meant_are_refused(window: int, threshold: float) -> None:
    with pytest.raises(UsageError):
        SwitchPolicy(window, threshold)
