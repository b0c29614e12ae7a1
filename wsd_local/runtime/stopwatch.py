"""When things happened in one reply.

Contract: seconds of work; the pause of an interrupted reply does not count. Only `resume`, `update` and `saw` change
values, so that any thread can read them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from wsd_local.events import Event, Switched, Text


@dataclass(slots=True)
class Stopwatch:
    """Times of one reply, in seconds from its beginning, and the seconds and tokens of drafting and writing."""

    clock: Callable[[], float] = time.perf_counter
    first_text: float | None = None
    switch: float | None = None
    token_40: float | None = None
    longest_gap: float = 0.0
    total: float = 0.0
    draft_s: float = 0.0
    draft_steps: int = 0
    base_s: float = 0.0
    base_steps: int = 0
    base_begun: bool = False
    _resumed: float = 0.0
    _last_text: float | None = None

    def resume(self) -> None:
        """The work begins, or goes on after a pause."""
        self._resumed = self.clock() - self.total

    def update(self) -> float:
        """Bring `total` up to date, and return it: seconds of work so far."""
        self.total = self.clock() - self._resumed
        return self.total

    def saw(self, event: Event, shown_tokens: int) -> None:
        """Record the time of an event; `shown_tokens` counts the reply's tokens that are shown by then."""
        if isinstance(event, Switched):
            self.switch = self.update()
        if isinstance(event, Text):
            self._saw_text(self.update(), shown_tokens)

    def _saw_text(self, now: float, shown_tokens: int) -> None:
        if self.first_text is None:
            self.first_text = now
        elif self._last_text is not None:
            self.longest_gap = max(self.longest_gap, now - self._last_text)
        if self.token_40 is None and shown_tokens >= 40:
            self.token_40 = now
        self._last_text = now
