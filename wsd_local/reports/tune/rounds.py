"""Measuring several ways in turns, within a time that is set.

Contract: in each round every way of a knob is measured once; the one that begins rotates, and its present value always
takes part. A round is begun only if the last one's time is left, and whatever is measured can raise to stop. Seconds
come from a clock that is given, so that tests script it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsd_local.reports.tune.deciding import LEAST_ROUNDS, Costs, Median, Shape, median_of, reply_time

MOST_ROUNDS = 9

Measured = Mapping[str, float]
"""Seconds by name: the costs of a reply that this knob moves; others for people to see."""
Clock = Callable[[], float]


@dataclass(slots=True)
class Deadline:
    """A moment until which work may go on, `seconds` from now."""

    seconds: float
    clock: Clock
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.clock()

    @property
    def spent(self) -> float:
        """Seconds since it was set."""
        return self.clock() - self.begun

    @property
    def left(self) -> float:
        """Seconds that are left; negative once it has passed."""
        return self.seconds - self.spent

    def share(self, part: float) -> Deadline:
        """A deadline for a part of what is left."""
        return Deadline(max(0.0, self.left * part), self.clock)


@dataclass(frozen=True, slots=True)
class Knob:
    """A setting with the ways to be compared.

    `ways` are values by their names for people; the first is the present one. `measure` measures one way once.
    `shape_of` is the usual reply under a way, where that differs. `replies`: whether it changes the time of replies, so
    that it is judged by that; else by `seconds` of what it measures.
    """

    name: str
    ways: Mapping[str, Any]
    measure: Callable[[Any], Measured]
    shape_of: Callable[[Any, Shape], Shape] = lambda value, shape: shape
    replies: bool = True

    @property
    def present(self) -> str:
        """The name of the present way."""
        return next(iter(self.ways))


@dataclass(slots=True)
class KnobRounds:
    """A knob and what its rounds measured, by way."""

    knob: Knob
    rounds: list[dict[str, Measured]] = field(default_factory=list)
    last_s: float = 0.0

    def once(self, clock: Clock) -> None:
        """Measure every way once, in this round's order."""
        begun, names = clock(), list(self.knob.ways)
        first = len(self.rounds) % len(names)
        found = {name: self.knob.measure(self.knob.ways[name]) for name in [*names[first:], *names[:first]]}
        self.rounds.append({name: found[name] for name in names})
        self.last_s = clock() - begun

    def medians(self, way: str) -> dict[str, float]:
        """The medians of what was measured of a way."""
        names = dict.fromkeys(name for one in self.rounds for name in one[way])
        return {name: statistics.median(one[way][name] for one in self.rounds) for name in names}

    def quotients(self, way: str, usual: Costs, shape: Shape) -> list[float]:
        """Of each round: the time with this way, divided by that with the present one.

        A reply's time where the knob changes that, with the `usual` costs for what it does not measure; else the sum of
        what it measures.
        """
        return [
            self._time(one[way], way, usual, shape)
            / self._time(one[self.knob.present], self.knob.present, usual, shape)
            for one in self.rounds
        ]

    def _time(self, measured: Measured, way: str, usual: Costs, shape: Shape) -> float:
        if not self.knob.replies:
            return sum(measured.values())
        costs = {name: measured.get(name, seconds) for name, seconds in usual.items()}
        return reply_time(costs, self.knob.shape_of(self.knob.ways[way], shape))

    def settled(self, usual: Costs, shape: Shape) -> bool:
        """Whether every way's verdict is clear."""
        others = [way for way in self.knob.ways if way != self.knob.present]
        return bool(self.rounds) and all(median_of(self.quotients(way, usual, shape)).settled for way in others)


def usual_costs(knobs: Sequence[KnobRounds], first: Costs) -> dict[str, float]:
    """The present ways' costs: medians over all rounds of all knobs that measure them, else what was measured first."""
    found = dict(first)
    for cost in first:
        seen = [
            one[rounds.knob.present][cost]
            for rounds in knobs
            for one in rounds.rounds
            if rounds.knob.replies and cost in one[rounds.knob.present]
        ]
        if seen:
            found[cost] = statistics.median(seen)
    return found


def measure_in_turns(
    knobs: Sequence[KnobRounds],
    first: Costs,
    shape: Shape,
    deadline: Deadline,
    progress: Callable[[str], None] = lambda what: None,
) -> None:
    """Measure all knobs until each is settled, has `MOST_ROUNDS`, or the time is over.

    In their order they get the rounds of a verdict, so that a short time is enough for the first ones; then more, in
    turns.
    """
    goals = [(rounds, LEAST_ROUNDS) for rounds in knobs]
    goals += [(rounds, number) for number in range(LEAST_ROUNDS + 1, MOST_ROUNDS + 1) for rounds in knobs]
    for rounds, goal in goals:
        while len(rounds.rounds) < goal and deadline.left > rounds.last_s:
            if rounds.settled(usual_costs(knobs, first), shape):
                break
            progress(f"{rounds.knob.name}, round {len(rounds.rounds) + 1}")
            rounds.once(deadline.clock)


@dataclass(frozen=True, slots=True)
class Finding:
    """One way of a knob against the present one: `ratio` is of a reply's time, or of what the knob measures.

    `costs` and `usual` are medians of what was measured of this way, and of the present one.
    """

    knob: str
    way: str
    value: Any
    present: str
    ratio: Median
    replies: bool
    costs: Mapping[str, float] = field(default_factory=dict)
    usual: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "knob": self.knob,
            "way": self.way,
            "present": self.present,
            "ratio": self.ratio.value,
            "low": self.ratio.low,
            "high": self.ratio.high,
            "rounds": self.ratio.count,
            "verdict": self.ratio.verdict,
            "of": "reply" if self.replies else "loading",
            "seconds": dict(self.costs),
            "present_seconds": dict(self.usual),
        }


def findings(knobs: Sequence[KnobRounds], first: Costs, shape: Shape) -> list[Finding]:
    """What every way came to, in the order of the knobs; a knob without a round is left out."""
    usual = usual_costs(knobs, first)
    found = []
    for rounds in knobs:
        knob = rounds.knob
        for way in [way for way in knob.ways if way != knob.present] if rounds.rounds else []:
            ratio = median_of(rounds.quotients(way, usual, shape))
            medians = rounds.medians(way), rounds.medians(knob.present)
            found.append(Finding(knob.name, way, knob.ways[way], knob.present, ratio, knob.replies, *medians))
    return found


def best_ways(found: Sequence[Finding]) -> dict[str, Finding]:
    """Of each knob the way that makes a reply shortest, where it is faster than the present one beyond noise.

    What changes loading alone is for people to see: how a file is loaded is chosen by memory.
    """
    best: dict[str, Finding] = {}
    for one in found:
        if one.ratio.verdict != "faster" or not one.replies:
            continue
        if one.knob not in best or one.ratio.value < best[one.knob].ratio.value:
            best[one.knob] = one
    return best


def predicted(best: Mapping[str, Finding], costs: Costs, shape: Shape, chunk: int | None = None) -> float:
    """The time of a reply with all the best ways, divided by the present one.

    Each way changes the costs that it measured by the quotient of its medians; they are taken to be independent.

    Args:
        best: the ways by knob.
        costs: the present ones.
        shape: of the usual reply.
        chunk: tokens that are checked together with the best ways; None: as at present.
    """
    changed = dict(costs)
    for one in best.values():
        for name in changed.keys() & one.costs.keys() & one.usual.keys():
            changed[name] *= one.costs[name] / one.usual[name]
    return reply_time(changed, shape.with_chunk(chunk or shape.chunk)) / reply_time(costs, shape)
