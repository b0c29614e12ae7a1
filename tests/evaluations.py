"""Evaluations of real contexts: counted, and held at a chosen one until it is stopped.

For tests of what a server does when a client goes away: what it evaluates afterwards is counted, not timed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from wsd_local.llama.batch import Part
from wsd_local.llama.context import Context

PATIENCE = 60
"""Seconds after which a test that waits for something that never happens fails."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation: the model's file name, and for each sequence the first position and the number of tokens."""

    model: str
    parts: tuple[tuple[int, int], ...]

    @property
    def is_step(self) -> bool:
        """Whether each sequence has one token."""
        return all(count == 1 for _, count in self.parts)


class Evaluations:
    """Evaluations in the order in which they begin."""

    def __init__(self) -> None:
        self.begun: list[Evaluation] = []
        self.stopped: list[Evaluation] = []
        """Those that were held, and did not take place because the work was stopped."""
        self._hold: Callable[[Evaluation], bool] | None = None
        self._waits = True
        self._held = threading.Event()
        self._released = threading.Event()

    def hold(self, which: Callable[[Evaluation], bool], *, waits: bool = True) -> None:
        """The next evaluation that this is true of waits until it is stopped, or until `release`.

        Without `waits` it takes place at once, and `held` tells only that it has begun.
        """
        self._waits = waits
        self._held.clear()
        self._released.clear()
        self._hold = which

    def held(self) -> None:
        """Wait until an evaluation is held."""
        assert self._held.wait(PATIENCE), f"no such evaluation: {self.begun}"

    def release(self) -> None:
        """Let it take place."""
        self._released.set()

    def before(self, context: Context, parts: Sequence[Part]) -> None:
        """Record an evaluation, and hold it if it is the one."""
        found = Evaluation(context.model.path.name, tuple((part.start, part.end - part.start) for part in parts))
        self.begun.append(found)
        if self._hold is not None and self._hold(found):
            self._hold = None
            self._held.set()
            while self._waits and not context._cancellation.is_set and not self._released.wait(0.001):
                pass
            if context._cancellation.is_set:
                self.stopped.append(found)


@contextmanager
def evaluations() -> Iterator[Evaluations]:
    """The evaluations of all contexts while the test is inside."""
    found = Evaluations()
    original = Context._decode

    def decode(self: Context, parts: Sequence[Part]) -> Any:
        found.before(self, parts)
        return original(self, parts)

    with patch.object(Context, "_decode", decode):
        yield found
