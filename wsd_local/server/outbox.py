"""Events on their way to one client.

Contract: belongs to one event loop. The engine never waits for a client: events are put in at any speed and taken out
at the client's. What a slow client has not taken grows no faster than the reply itself, because neighbouring texts,
checks, tokens and reports of reading become one event each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

from wsd_local.events import Checked, Event, Reading, Text, Wrote

PATIENCE = 32
"""Events that may wait before they are joined."""


class Outbox:
    """The events of the replies to one request, each with the number of its reply."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Event]] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._news = asyncio.Event()

    def put(self, index: int, event: Event) -> None:
        """Add an event of the reply `index`."""
        if len(self._waiting) < PATIENCE or not self._joined(index, event):
            self._waiting.append((index, event))
        self._news.set()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows; `error` is raised after what waits."""
        self._ended, self._error = True, error
        self._news.set()

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """The events in their order, until the end."""
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._news.clear()
            await self._news.wait()

    def _joined(self, index: int, event: Event) -> bool:
        """Whether an event became a part of the newest of its kind that waits, if only news of progress follow that."""
        for place in range(len(self._waiting) - 1, -1, -1):
            other, waiting = self._waiting[place]
            if other != index:
                continue
            if (one := _one(waiting, event)) is not None:
                self._waiting[place] = (index, one)
                return True
            if not isinstance(waiting, Text | Checked | Reading | Wrote) or type(waiting) is type(event):
                return False
        return False


def _one(first: Event, second: Event) -> Event | None:
    """Two events as one; None if they cannot be one."""
    match first, second:
        case Text(), Text() if first.source == second.source:
            return replace(second, text=first.text + second.text)
        case Wrote(), Wrote():
            return Wrote(first.tokens + second.tokens)
        case Checked(), Checked() if second.start == first.start + len(first.probs):
            return Checked(first.start, first.probs + second.probs, first.windows + second.windows)
        case Reading(), Reading():
            return second
        case _:
            return None
