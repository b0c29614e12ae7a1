"""`wsd-local tune`: its arithmetic by hand and by properties, its turns on a scripted clock, and its words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.reports.contention import Elsewhere
from wsd_local.reports.tune.candidates import Candidate, Source
from wsd_local.reports.tune.deciding import COVERAGE, LEAST_ROUNDS, Median, Shape, median_of, reply_time, usual_shape
from wsd_local.reports.tune.knobs import Lengths
from wsd_local.reports.tune.openings import Openings
from wsd_local.reports.tune.replies import Confirmed, Way, chosen, confirm
from wsd_local.reports.tune.rounds import (
    MOST_ROUNDS,
    Deadline,
    Finding,
    Knob,
    KnobRounds,
    best_ways,
    findings,
    measure_in_turns,
    predicted,
)
from wsd_local.reports.tune.tuning import LEAST_PROMPT, MOST_DEEP, MOST_PROMPT, Tuned, lengths_for, ways_of
from wsd_local.reports.tune.words import part_rows, recommendation, reply_rows, sentences

SHAPE = Shape(drafted=16, checked=8, kept=7, continued=40, chunk=8)
COSTS = {"draft_read": 1.0, "draft_token": 0.1, "base_read": 4.0, "base_token": 0.5, "check": 0.2}
PRESENT_S = 1.0 + 4.0 + 16 * 0.1 + 8 * 0.2 + 40 * 0.5


class Clock:
    """A clock that goes on only where something is measured."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def take(self, seconds: float) -> float:
        """Work that takes so long."""
        self.now += seconds
        return seconds


# -- a median and its interval ---------------------------------------------------------------------------------------


def test_five_rounds_are_the_least_whose_range_is_an_interval() -> None:
    assert median_of([3.0, 1.0, 2.0]) == Median(2.0, 1.0, 3.0, 3)
    assert median_of([5.0, 1.0, 2.0, 3.0, 4.0]) == Median(3.0, 1.0, 5.0, 5)
    assert median_of([float(value) for value in range(8)]) == Median(3.5, 1.0, 6.0, 8), "one is left out at each end"
    with pytest.raises(ValueError, match="no values"):
        median_of([])


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_an_interval_holds_its_median_and_covers_it_often_enough(values: list[float]) -> None:
    found = median_of(values)
    assert min(values) <= found.low <= found.value <= found.high <= max(values)
    ordered = sorted(values)
    left_out = ordered.index(found.low) if len(set(values)) == len(values) else 0
    covered = 1 - 2 * sum(math.comb(len(values), place) for place in range(left_out + 1)) / 2 ** len(values)
    assert covered >= COVERAGE or left_out == 0


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([0.5] * 4, "too few rounds"),
        ([0.5, 0.6, 0.55, 0.52, 0.9], "faster"),
        ([0.5, 0.6, 0.55, 0.52, 1.1], "no difference"),
        ([0.985] * 9, "no difference"),
        ([1.2, 1.3, 1.1, 1.25, 1.4], "slower"),
    ],
    ids=["too few", "faster", "noise", "too small", "slower"],
)
def test_a_difference_within_noise_is_none(values: list[float], verdict: str) -> None:
    assert median_of(values).verdict == verdict


@given(st.lists(st.floats(0.2, 5), min_size=LEAST_ROUNDS, max_size=12))
def test_faster_means_that_the_whole_interval_is_faster(values: list[float]) -> None:
    found = median_of(values)
    assert found.verdict != "too few rounds"
    assert found.verdict != "faster" or (found.high < 1 and found.value < 1)
    assert found.verdict != "slower" or (found.low > 1 and found.value > 1)


# -- a whole reply from its parts ------------------------------------------------------------------------------------


def test_a_reply_is_the_sum_of_its_parts() -> None:
    assert reply_time(COSTS, SHAPE) == pytest.approx(PRESENT_S)


def test_larger_chunks_check_and_draft_more() -> None:
    larger = SHAPE.with_chunk(32)
    assert (larger.checked, larger.drafted, larger.chunk) == (32, 40, 32), "the eight that were held back stay"
    smaller = SHAPE.with_chunk(4)
    assert (smaller.checked, smaller.drafted) == (8, 16), "two chunks of four hold seven tokens"
    assert SHAPE.with_chunk(8) is SHAPE


@given(st.floats(1, 100), st.integers(1, 64))
def test_whatever_is_kept_is_checked(kept: float, chunk: int) -> None:
    found = replace(SHAPE, kept=kept).with_chunk(chunk)
    assert found.checked >= kept or found.chunk == SHAPE.chunk
    assert found.drafted >= found.checked


def test_the_usual_reply_is_made_of_medians() -> None:
    found = usual_shape([SHAPE, replace(SHAPE, kept=9, drafted=20), replace(SHAPE, kept=30, drafted=64)])
    assert (found.kept, found.drafted, found.continued, found.chunk) == (9, 20, 40, 8)


# -- turns -----------------------------------------------------------------------------------------------------------


def scripted(clock: Clock, times: dict[str, Callable[[int], float]], order: list[str], name: str = "threads") -> Knob:
    """A knob whose ways take times by the number of their turn, and move the base's tokens."""
    turns = dict.fromkeys(times, 0)

    def measure(way: str) -> dict[str, float]:
        order.append(way)
        seconds = clock.take(times[way](turns[way]))
        turns[way] += 1
        return {"base_token": seconds}

    return Knob(name, {way: way for way in times}, measure)


def test_the_way_that_begins_rotates() -> None:
    clock, order = Clock(), list[str]()
    knob = scripted(clock, {"2": lambda _: 0.5, "1": lambda _: 0.5, "4": lambda _: 0.5}, order)
    measure_in_turns([KnobRounds(knob)], COSTS, SHAPE, Deadline(100, clock))
    assert order[:9] == ["2", "1", "4", "1", "4", "2", "4", "2", "1"]


def test_a_clear_difference_ends_the_rounds_and_noise_does_not() -> None:
    clock, order = Clock(), list[str]()
    clear = KnobRounds(scripted(clock, {"2": lambda _: 0.5, "1": lambda _: 0.9}, order))
    noisy = KnobRounds(scripted(clock, {"off": lambda n: 0.5, "on": lambda n: 0.3 + 0.4 * (n % 2)}, order, "flash"))
    measure_in_turns([clear, noisy], COSTS, SHAPE, Deadline(1000, clock))
    assert len(clear.rounds) == LEAST_ROUNDS and len(noisy.rounds) == MOST_ROUNDS
    slower, same = findings([clear, noisy], COSTS, SHAPE)
    assert slower.ratio.verdict == "slower"
    assert same.ratio.verdict == "no difference"
    assert best_ways([slower, same]) == {}


def test_a_load_that_comes_and_goes_moves_both_ways_and_no_quotient() -> None:
    clock = Clock()
    busy: Callable[[int], float] = lambda turn: 3.0 if turn % 2 else 1.0  # noqa: E731
    knob = KnobRounds(scripted(clock, {"2": lambda n: 0.5 * busy(n), "1": lambda n: 0.4 * busy(n)}, []))
    measure_in_turns([knob], COSTS, SHAPE, Deadline(1000, clock))
    (found,) = findings([knob], COSTS, SHAPE)
    assert found.ratio.verdict == "faster"
    for quotient in knob.quotients("1", COSTS, SHAPE):
        assert 0.8 < quotient < 0.9


def test_no_round_is_begun_whose_time_is_not_left() -> None:
    clock, order = Clock(), list[str]()
    knob = KnobRounds(scripted(clock, {"2": lambda _: 10.0, "1": lambda _: 10.0}, order))
    measure_in_turns([knob], COSTS, SHAPE, Deadline(65, clock))
    assert len(knob.rounds) == 3 and clock.now == 60
    (found,) = findings([knob], COSTS, SHAPE)
    assert found.ratio.verdict == "too few rounds"


@given(st.floats(0, 200), st.floats(0.1, 30))
def test_the_time_is_exceeded_by_less_than_a_first_round(seconds: float, each: float) -> None:
    clock = Clock()
    knobs = [KnobRounds(scripted(clock, {"a": lambda _: each, "b": lambda _: each}, [], name)) for name in ("x", "y")]
    measure_in_turns(knobs, COSTS, SHAPE, Deadline(seconds, clock))
    assert clock.now <= seconds + 2 * each + 1e-6
    assert len(knobs[0].rounds) >= len(knobs[1].rounds)


def test_a_short_time_is_enough_for_the_first_setting() -> None:
    clock = Clock()
    knobs = [KnobRounds(scripted(clock, {"a": lambda _: 1.0, "b": lambda _: 0.5}, [], name)) for name in ("x", "y")]
    measure_in_turns(knobs, COSTS, SHAPE, Deadline(8.5, clock))
    assert [len(knob.rounds) for knob in knobs] == [LEAST_ROUNDS, 1]
    assert findings(knobs, COSTS, SHAPE)[0].ratio.verdict == "faster"


def test_a_stop_ends_the_turns() -> None:
    def stop(what: str) -> None:
        raise KeyboardInterrupt(what)

    knob = KnobRounds(scripted(Clock(), {"2": lambda _: 1.0, "1": lambda _: 1.0}, []))
    with pytest.raises(KeyboardInterrupt, match="threads, round 1"):
        measure_in_turns([knob], COSTS, SHAPE, Deadline(10, Clock()), stop)


# -- from findings to ways -------------------------------------------------------------------------------------------


def finding(knob: str, way: str, *quotients: float, value: Any = None, replies: bool = True, **costs: float) -> Finding:
    usual = {name: COSTS[name] for name in costs}
    return Finding(knob, way, way if value is None else value, "present", median_of(quotients), replies, costs, usual)


FASTER = (0.8, 0.81, 0.79, 0.8, 0.82)


def test_of_each_setting_the_fastest_way_is_taken() -> None:
    found = [
        finding("threads", "1", *FASTER),
        finding("threads", "4", 0.7, 0.71, 0.69, 0.7, 0.72),
        finding("flash attention", "on", 0.7, 1.4, 0.9, 1.1, 1.0),
        finding("load mode", "mmap", *FASTER, replies=False),
    ]
    assert {knob: one.way for knob, one in best_ways(found).items()} == {"threads": "4"}


def test_a_prediction_multiplies_what_each_setting_changes() -> None:
    best = {
        "draft type": finding("draft type", "Q8_0", *FASTER, draft_read=0.5, draft_token=0.05),
        "threads": finding("threads", "4", *FASTER, base_token=0.25, draft_token=0.05),
    }
    expected = 0.5 + 4.0 + 16 * 0.025 + 8 * 0.2 + 40 * 0.25
    assert predicted(best, COSTS, SHAPE) == pytest.approx(expected / PRESENT_S)
    assert predicted({}, COSTS, SHAPE) == 1


def test_ways_are_the_present_one_all_that_is_faster_and_other_proposals() -> None:
    best = {
        "threads": finding("threads", "4", *FASTER, value=4),
        "check chunk": finding("check chunk", "16", *FASTER, value=16),
    }
    present, faster, off = ways_of(best, "auto", proposals=True)
    assert present == Way("present")
    assert (faster.loading, faster.reply) == ({"threads": 4}, {"check_chunk": 16})
    assert off.reply == {"check_chunk": 16, "speculation": "off"} and off.loading == faster.loading
    assert [way.name for way in ways_of({}, "draft", proposals=True)] == ["present", "proposals auto", "proposals off"]
    assert ways_of({}, "auto", proposals=False) == [present], "a setting that was given stays"


def answers(clock: Clock, times: dict[str, float], order: list[str]) -> Callable[[Way, int], float]:
    def answer(way: Way, number: int) -> float:
        order.append(way.name)
        return clock.take(times[way.name] * (1 + 0.5 * (number % 2)))

    return answer


def test_whole_replies_take_turns_and_confirm_the_fastest() -> None:
    clock, order = Clock(), list[str]()
    ways = [Way("present"), Way("a"), Way("b")]
    found = confirm(ways, answers(clock, {"present": 2.0, "a": 1.6, "b": 1.5}, order), Deadline(1000, clock))
    assert order[:6] == ["present", "a", "b", "a", "b", "present"]
    assert [one.ratio.value for one in found] == [pytest.approx(0.8), pytest.approx(0.75)]
    taken = chosen(found)
    assert taken is not None and taken.way.name == "b" and taken.ratio.count == LEAST_ROUNDS


def test_replies_that_are_as_fast_confirm_nothing() -> None:
    clock = Clock()
    found = confirm([Way("present"), Way("a")], answers(clock, {"present": 2.0, "a": 1.99}, []), Deadline(1000, clock))
    assert chosen(found) is None


def test_too_few_replies_confirm_nothing() -> None:
    clock = Clock()
    found = confirm([Way("present"), Way("a")], answers(clock, {"present": 9.0, "a": 1.0}, []), Deadline(30, clock))
    assert found[0].ratio.count < LEAST_ROUNDS and chosen(found) is None
    assert clock.now <= 30 + 15


@given(st.floats(10, 3600), st.floats(1e-4, 10), st.floats(1e-3, 10), st.integers(100, 8192))
def test_lengths_fit_the_time_and_the_context(seconds: float, read_s: float, token_s: float, room: int) -> None:
    found = lengths_for(seconds, read_s, token_s, 64, room)
    assert LEAST_PROMPT <= found.prompt <= min(MOST_PROMPT, max(room, LEAST_PROMPT))
    assert 8 <= found.reply <= 64
    assert found.deep == 0 or 2 * found.prompt <= found.deep <= min(MOST_DEEP, room)
    assert found.prompt == LEAST_PROMPT or found.prompt * read_s <= 0.02 * seconds
    assert found.reply == 8 or found.reply * token_s <= 0.03 * seconds


# -- words -----------------------------------------------------------------------------------------------------------


def tuned(**changes: Any) -> Tuned:
    found = Tuned(
        source=Source(Path("draft-q4_1.gguf"), "Q4_1", 1000),
        lengths=Lengths(200, 64, 500),
        shape=SHAPE,
        costs=COSTS,
        findings=(
            finding("threads", "1", 1.2, 1.3, 1.1, 1.25, 1.4, base_token=0.7),
            finding("flash attention", "on", 0.7, 1.4, 0.9, 1.1, 1.0, base_token=0.5),
            finding("load mode", "mmap", *FASTER, replies=False),
        ),
        left_out={"prompt step": "given, so it stays"},
        candidates=(Candidate("Q4_0", Path("q4_0.gguf")), Candidate("Q4_K_M", None, "no time was left to make it")),
        openings={"Q4_0": Openings(20, 9, 3)},
        predicted=None,
        confirmed=(),
        elsewhere=Elsewhere(0.5, 0.0),
        seconds=100.0,
    )
    return replace(found, **changes)


def test_what_does_not_matter_is_called_so() -> None:
    rows = {row[0]: row for row in part_rows(tuned())}
    assert rows["threads"][-2] == "slower" and "base writes 700 (500)" in rows["threads"][-1]
    assert rows["flash attention"][-2] == "no difference"
    assert rows["load mode"][-2] == "faster to load"
    text = "\n".join(sentences(tuned()))
    for part in (
        "stay with the present settings",
        "prompt step (given, so it stays)",
        "Q4_K_M (no time was left to make it)",
        "Q4_0 writes 9 of 20 greedy openings otherwise than the present draft, first at token 4 (median): too many",
        "quantising again loses more",
        "too much for figures to be relied on",
    ):
        assert part in text


def test_a_recommendation_names_settings_gain_and_interval() -> None:
    confirmed = (
        Confirmed(Way("a", {"threads": 4}), median_of(FASTER), 8.0, 10.0),
        Confirmed(Way("b"), median_of([1.0] * 5), 10.0, 10.0),
    )
    found = tuned(confirmed=confirmed, recommended={"draft": "Q8_0", "threads": 4, "check_chunk": 16}, predicted=0.79)
    assert recommendation(found) == (
        "recommendation: the draft in Q8_0, threads 4, check-chunk 16: whole replies took 0.80 of the present time "
        "(0.79 to 0.82, 5 replies)"
    )
    assert [row[-1] for row in reply_rows(found)] == ["faster", "no difference"]
    assert found.as_dict()["replies"][0]["settings"] == {"threads": 4}
    assert "Predicted from the parts with all that is faster: 0.79" in "\n".join(sentences(found))
    assert "whole replies confirm no other way" in recommendation(tuned(confirmed=confirmed))


def test_openings_must_be_compared_often_enough() -> None:
    assert Openings(20, 5).acceptable and not Openings(20, 6).acceptable
    assert not Openings(3, 0).acceptable
