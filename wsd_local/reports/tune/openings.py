"""How many greedy openings a draft of another type writes otherwise than the present one.

Contract: the same prompts, the same tokens (the vocabulary is the same file's), from empty caches. Where the time ends,
fewer prompts are compared, and their number is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wsd_local.reports.tune.probe import Probe
from wsd_local.reports.tune.rounds import Deadline

PROMPTS, LENGTH = 20, 24
"""Prompts that are compared, and draft tokens of each opening."""
MOST_CHANGED = 0.25
"""Share of openings that a draft may change and still be recommended."""


@dataclass(frozen=True, slots=True)
class Openings:
    """Of `compared` openings, `changed` are not the same token by token; `first` is the median place of the first
    difference."""

    compared: int
    changed: int
    first: int | None = None

    @property
    def acceptable(self) -> bool:
        """Whether few enough have changed, of enough that were compared."""
        return self.compared >= PROMPTS // 2 and self.changed <= MOST_CHANGED * self.compared

    def as_dict(self) -> dict[str, int | None]:
        """For JSON."""
        return {"compared": self.compared, "changed": self.changed, "first_difference": self.first}


class Present:
    """The present draft's openings, written when they are first needed."""

    def __init__(self, probe: Probe, prompts: Sequence[Sequence[int]]) -> None:
        self.prompts = prompts[:PROMPTS]
        self._probe = probe
        self._found: dict[int, list[int]] = {}

    def opening(self, index: int) -> list[int]:
        """The opening of one prompt."""
        if index not in self._found:
            self._found[index] = self._probe.opening(self.prompts[index], LENGTH)
        return self._found[index]


def compare(
    present: Present, other: Probe, deadline: Deadline, progress: Callable[[str], None] = lambda what: None
) -> Openings:
    """Compare another draft's openings with the present one's, prompt by prompt, until the time is over."""
    places: list[int] = []
    compared = 0
    for index, prompt in enumerate(present.prompts):
        if deadline.left <= 0:
            break
        progress(f"opening {index + 1} of {len(present.prompts)}")
        ours, theirs = present.opening(index), other.opening(prompt, LENGTH)
        compared += 1
        if ours != theirs:
            both = zip(ours, theirs, strict=False)
            shorter = min(len(ours), len(theirs))
            places.append(next((place for place, (one, two) in enumerate(both) if one != two), shorter))
    return Openings(compared, len(places), sorted(places)[len(places) // 2] if places else None)
