"""What a setting would have done, from a record alone: arithmetic, checked by hand and by properties."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.calibration import Continuation, Costs, Record, Setting, derived
from wsd_local.calibration.deriving import switch_points
from wsd_local.errors import UsageError

FREE = Costs(0.0, 0.0, 0.0)


def record(probs: Sequence[float], continuations: Sequence[Continuation] = (), name: str = "one") -> Record:
    """A draft of one base token per draft token, each settled when the next one is there."""
    return Record(
        id=name,
        text="x" * len(probs),
        ended="draft_end",
        tokens=tuple(range(len(probs))),
        logprobs=tuple(math.log(prob) for prob in probs),
        agrees=tuple(prob > 0.5 for prob in probs),
        settled=tuple(range(len(probs))),
        continuations=tuple(continuations),
        drafted=(10, 1.0),
        checked=(10, 0.5),
        written=(10, 2.0),
    )


def test_a_record_survives_json() -> None:
    import json

    made = record([0.5, 0.9], [Continuation(1, (4, 5), (-0.1, -0.2), True)])
    assert Record.of(json.loads(json.dumps(made.as_dict()))) == made


@pytest.mark.parametrize("name", ["tokens", "logprobs", "continuations", "drafted", "settled", "ended"])
def test_a_record_that_lacks_a_value_is_refused(name: str) -> None:
    values = record([0.5, 0.9]).as_dict()
    values[name] = [[]]
    if name == "ended":
        del values[name]
    with pytest.raises((KeyError, TypeError, ValueError)):
        Record.of(values)


def test_the_switch_keeps_the_window_that_passes() -> None:
    probs = [0.1, 0.2, 0.9, 0.9, 0.9, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    found = derived(record(probs), Setting(0.85, 3), Costs(1.0, 10.0, 100.0), check_chunk=4, compared=4)
    assert (found.index, found.kept) == (4, 5)
    # Chunks of 4: the window passes in the second one, of which every token is checked; one more is drafted.
    assert (found.checked, found.drafted) == (8, 9)
    assert found.seconds == pytest.approx(9 * 1.0 + 8 * 10.0 + (12 - 5) * 100.0)


def test_the_first_chunk_holds_a_window() -> None:
    found = derived(record([0.9] * 30), Setting(0.5, 12), FREE, check_chunk=8, compared=4)
    assert (found.kept, found.checked, found.drafted) == (12, 12, 13)
    found = derived(record([0.1] * 12 + [0.9] * 18), Setting(0.8, 12), FREE, check_chunk=8, compared=4)
    assert (found.kept, found.checked) == (24, 28)


def test_without_a_switch_the_whole_draft_is_kept() -> None:
    found = derived(record([0.5] * 20), Setting(0.8, 6), FREE, check_chunk=8, compared=4)
    assert (found.index, found.kept, found.checked, found.drafted) == (None, 20, 20, 20)
    assert found.gap is None and found.agreement is None
    assert derived(record([]), Setting(0.0, 6), FREE, check_chunk=8, compared=4).kept == 0


def test_the_draft_and_the_base_are_compared_over_as_many_tokens() -> None:
    own = Continuation(3, (7, 8), (math.log(0.8), math.log(0.5)), True)
    found = derived(
        record([0.9, 0.9, 0.9, 0.4, 0.6, 0.1, 0.1], [own]), Setting(0.8, 3), FREE, check_chunk=8, compared=4
    )
    assert found.draft_logprob == pytest.approx((math.log(0.4) + math.log(0.6)) / 2)
    assert found.own_logprob == pytest.approx((math.log(0.8) + math.log(0.5)) / 2)
    assert found.gap == pytest.approx(math.log(0.8 * 0.5 / (0.4 * 0.6)) / 2)
    assert found.agreement == 0.5


def test_where_no_continuation_was_recorded_there_is_no_gap() -> None:
    found = derived(record([0.9] * 3 + [0.4] * 6), Setting(0.8, 3), FREE, check_chunk=8, compared=4)
    assert found.gap is None and found.draft_logprob == pytest.approx(math.log(0.4))


def test_a_cost_that_is_not_known_leaves_the_time_open() -> None:
    one = record([0.9] * 9)
    assert Costs.of([one]).seconds(1, 1, 1) == pytest.approx(0.1 + 0.05 + 0.2)
    assert Costs(0.1, None, 0.1).seconds(1, 0, 1) == pytest.approx(0.2)
    assert Costs(0.1, None, 0.1).seconds(1, 1, 1) is None


def test_settings_are_checked() -> None:
    for threshold, window in ((-0.1, 6), (math.nan, 6), (0.5, 0)):
        with pytest.raises(UsageError):
            Setting(threshold, window)


PROBS = st.lists(st.floats(1e-6, 1.0), max_size=60)
WINDOW = st.integers(1, 14)


@given(PROBS, WINDOW, st.floats(0, 1.2), st.floats(0, 1.2), st.integers(1, 12))
def test_a_higher_threshold_keeps_no_less(
    probs: list[float], window: int, one: float, other: float, chunk: int
) -> None:
    low, high = sorted((one, other))
    earlier, later = (
        derived(record(probs), Setting(threshold, window), FREE, check_chunk=chunk, compared=4)
        for threshold in (low, high)
    )
    assert earlier.kept <= later.kept
    assert earlier.checked <= later.checked and earlier.drafted <= later.drafted
    assert later.index is None or earlier.index is not None


@given(PROBS, WINDOW)
def test_zero_keeps_a_window_and_above_one_nothing_passes(probs: list[float], window: int) -> None:
    at_once = derived(record(probs), Setting(0.0, window), FREE, check_chunk=8, compared=4)
    assert at_once.kept == min(window, len(probs))
    assert (at_once.index is None) == (len(probs) < window)
    assert derived(record(probs), Setting(1.1, window), FREE, check_chunk=8, compared=4).index is None


@given(PROBS, WINDOW, st.floats(0, 1), st.integers(1, 12))
def test_what_is_kept_was_checked_and_what_is_checked_was_drafted(
    probs: list[float], window: int, threshold: float, chunk: int
) -> None:
    found = derived(record(probs), Setting(threshold, window), FREE, check_chunk=chunk, compared=4)
    assert found.kept <= found.checked <= found.drafted <= len(probs)
    assert found.checked < found.kept + max(chunk, window)
    if found.index is not None:
        assert switch_points(record(probs).logprobs, [Setting(threshold, window)]) == [found.kept]
