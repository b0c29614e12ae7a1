"""How the time of an evaluation is divided among its parts.

Contract: pure but for the clock and the parts' own work, which the caller passes in. First the first few prompts of
each part are measured, which tells what a prompt costs. What is left is divided so that every part receives the same
time; what a part does not need goes to the others. That is repeated with the costs measured by then, until nothing is
left to do or no further prompt fits. The estimates may be wrong: a part that was begun is not cut off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

FIRST = 2
"""Prompts of a part that are measured before time is divided."""
_LEAST_S = 1e-6
_ROUNDING = 1e-9


@dataclass(slots=True)
class Progress:
    """How far a part is: `count` of `total` prompts are measured, which took `seconds`."""

    total: int
    count: int = 0
    seconds: float = 0.0

    @property
    def cost(self) -> float:
        """Seconds for a prompt, as far as it is known."""
        return max(_LEAST_S, self.seconds / self.count) if self.count else _LEAST_S

    @property
    def need(self) -> float:
        """Seconds that the rest takes."""
        return (self.total - self.count) * self.cost


Measure = Callable[[str, int], float | None]
"""Measures the first so many prompts of a part: the seconds of work that it took, or None if the part failed."""


def shares(needs: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Seconds for each part: the same for all, and no more than it needs; the rest goes to the others."""
    found: dict[str, float] = {}
    left = max(0.0, seconds)
    for name in sorted(needs, key=lambda one: needs[one]):
        found[name] = min(needs[name], left / (len(needs) - len(found)))
        left -= found[name]
    return found


def divide(
    parts: Mapping[str, Progress],
    seconds: float,
    measure: Measure,
    clock: Callable[[], float],
    kept: Callable[[], None] = lambda: None,
) -> None:
    """Measure parts until all are done or `seconds` are over; `parts` say then how far each is.

    `kept` is called whenever that has changed.
    """
    end = clock() + seconds
    alive = dict(parts)

    def run(name: str, count: int) -> None:
        part, before = parts[name], parts[name].count
        took = measure(name, count)
        if took is None:
            del alive[name]
        elif count > before:
            part.count, part.seconds = count, part.seconds + took
            kept()

    for name, part in parts.items():
        if part.count:
            run(name, part.count)
    for name, part in parts.items():
        if not part.count and clock() < end:
            run(name, min(FIRST, part.total))
    while _round(alive, end, run, clock) or _one_more(alive, end, run, clock):
        pass


def _one_more(
    alive: Mapping[str, Progress], end: float, run: Callable[[str, int], None], clock: Callable[[], float]
) -> bool:
    """Where no share is long enough for a prompt, measure the cheapest one that fits; whether there is one."""
    waiting = [name for name, part in alive.items() if 0 < part.count < part.total]
    name = min(waiting, key=lambda one: alive[one].cost, default=None)
    if name is None or alive[name].cost > end - clock():
        return False
    run(name, alive[name].count + 1)
    return True


def _round(
    alive: Mapping[str, Progress], end: float, run: Callable[[str, int], None], clock: Callable[[], float]
) -> bool:
    """Give each unfinished part its share of what is left; whether any of them received a prompt."""
    waiting = [name for name, part in alive.items() if 0 < part.count < part.total]
    went_on = False
    while waiting:
        needs = {name: alive[name].need for name in waiting}
        name = waiting.pop(0)
        part = alive[name]
        more = min(part.total - part.count, math.floor(shares(needs, end - clock())[name] / part.cost + _ROUNDING))
        if more > 0 and clock() < end:
            run(name, part.count + more)
            went_on = True
    return went_on
