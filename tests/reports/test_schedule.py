"""How the time of an evaluation is divided among its parts, with a clock of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.reports.evidence.schedule import FIRST, Progress, divide, shares


@dataclass
class Work:
    """Parts whose prompts cost what is said, and one of which may fail at a number of prompts."""

    costs: Mapping[str, float]
    fails: Mapping[str, int] = field(default_factory=dict)
    now: float = 0.0
    done: dict[str, int] = field(default_factory=dict)
    calls: list[tuple[str, int]] = field(default_factory=list)

    def measure(self, name: str, count: int) -> float | None:
        self.calls.append((name, count))
        if count > self.fails.get(name, count):
            return None
        took = self.costs[name] * max(0, count - self.done.get(name, 0))
        self.now += took
        self.done[name] = max(count, self.done.get(name, 0))
        return took

    def divided(self, parts: dict[str, Progress], seconds: float) -> dict[str, int]:
        divide(parts, seconds, self.measure, lambda: self.now)
        return {name: part.count for name, part in parts.items()}


def test_every_part_receives_the_same_time_and_what_one_does_not_need_goes_to_the_others() -> None:
    work = Work({"cheap": 1.0, "dear": 10.0, "short": 1.0})
    found = work.divided({"cheap": Progress(10_000), "dear": Progress(10_000), "short": Progress(5)}, 405.0)
    assert (found["dear"], found["short"]) == (20, 5)
    assert found["cheap"] == 200 and work.now == 405.0


def test_a_prompt_that_fits_is_measured_where_no_share_is_long_enough_for_one() -> None:
    work = Work({"one": 10.0, "two": 30.0, "three": 100.0})
    assert work.divided({name: Progress(50) for name in work.costs}, 292.0) == {"one": 3, "two": 2, "three": 2}


def test_the_first_prompts_are_all_that_fits_and_later_parts_wait() -> None:
    work = Work({"one": 100.0, "two": 1.0})
    assert work.divided({"one": Progress(10), "two": Progress(10)}, 50.0) == {"one": FIRST, "two": 0}
    assert work.calls == [("one", FIRST)]


def test_what_is_known_from_before_is_measured_again_and_parts_that_are_not_begun_come_first() -> None:
    work = Work({"one": 1.0, "two": 1.0}, done={"one": 8})
    parts = {"one": Progress(8, 8, 8.0), "two": Progress(4)}
    assert work.divided(parts, 3.5) == {"one": 8, "two": 3}
    assert work.calls == [("one", 8), ("two", FIRST), ("two", 3)]
    assert work.now == 3.0


def test_a_part_that_fails_is_left_as_it_is() -> None:
    work = Work({"one": 1.0, "two": 1.0}, fails={"one": 4})
    assert work.divided({"one": Progress(50), "two": Progress(50)}, 30.0) == {"one": FIRST, "two": 28}
    assert [call for call in work.calls if call[0] == "one"] == [("one", FIRST), ("one", 15)]


def test_costs_that_were_guessed_too_high_are_corrected() -> None:
    """The first prompts took longer than the others."""

    class Warming(Work):
        def measure(self, name: str, count: int) -> float | None:
            before = self.now
            super().measure(name, count)
            if count == FIRST:
                self.now += 50.0
            return self.now - before

    assert Warming({"one": 1.0}).divided({"one": Progress(100)}, 1000.0) == {"one": 100}


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.floats(0.01, 50), st.integers(1, 200)), min_size=1),
    st.floats(0.1, 5000),
)
def test_no_part_is_measured_beyond_its_prompts_and_time_is_not_left_unused(
    parts: dict[str, tuple[float, int]], seconds: float
) -> None:
    work = Work({name: cost for name, (cost, _) in parts.items()})
    found = work.divided({name: Progress(total) for name, (_, total) in parts.items()}, seconds)
    assert all(0 <= found[name] <= total for name, (_, total) in parts.items())
    dearest = max(cost for cost, _ in parts.values())
    assert work.now <= seconds + FIRST * dearest + 1e-6
    begun = [name for name, (_, total) in parts.items() if 0 < found[name] < total]
    if begun and all(found.values()):
        assert work.now > seconds - max(parts[name][0] for name in begun) * len(begun) - 1e-6


@pytest.mark.parametrize("seconds", [0.0, 1.0, 7.0, 100.0])
def test_shares_are_no_more_than_there_is_and_no_more_than_is_needed(seconds: float) -> None:
    needs = {"a": 1.0, "b": 3.0, "c": 50.0}
    found = shares(needs, seconds)
    assert sum(found.values()) <= seconds + 1e-9
    assert all(found[name] <= needs[name] for name in needs)
    assert found["a"] <= found["b"] <= found["c"]
