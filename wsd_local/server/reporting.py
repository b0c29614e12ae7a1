"""What comes of the engine's steps: to the event loops of the clients, and to the observer.

Contract: for the engine's thread. All that a step brought to one event loop arrives there in one call, when it is
counted.
"""

from __future__ import annotations

import time
from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from wsd_local.events import Event, Text
from wsd_local.runtime.fleet import Failed
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.scoring import Scored
from wsd_local.server.observing import Observer
from wsd_local.server.orders import Crew, Key, Order

_LAST = (Finished, Scored, Failed)


class Reporter:
    """Reports steps.

    Args:
        observer: receives what happens to requests.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.begun: dict[Key, float] = {}
        """When work on what is in progress began."""
        self._spoke: set[Key] = set()

    def forget(self) -> None:
        """Nothing is in progress any more."""
        self.begun.clear()
        self._spoke.clear()

    def report(self, crew: Crew, step: Sequence[tuple[Key, Event]], ended: Callable[[Order], None]) -> None:
        """Report what a step brought; `ended` is called for orders that are over by it, before their clients know."""
        now = time.monotonic()
        for key in crew.live.keys() - self.begun.keys():
            self.begun[key] = now
            self._observer.started(key[0].model, key[0].waited)
        loops: dict[AbstractEventLoop, list[tuple[Order, int, Event]]] = {}
        for key, event in step:
            order, index = key
            self._observe(key, event)
            loops.setdefault(order.loop, []).append((order, index, event))
            if isinstance(event, _LAST):
                self._spoke.discard(key)
                self.begun.pop(key, None)
                if order.ends(index):
                    ended(order)
        for loop, events in loops.items():
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(_deliver, events)

    def _observe(self, key: Key, event: Event) -> None:
        order, seconds = key[0], key[0].waited
        match event:
            case Finished():
                stopped = event.reply.finish_reason == "cancelled"
                report: Callable[..., None] = self._observer.cancelled if stopped else self._observer.finished
                report(order.model, event.reply, seconds)
            case Scored():
                self._observer.scored(order.model, len(event.tokens), event.cached, seconds)
            case Failed() if order.stopped:
                self._observer.cancelled(order.model, None, seconds)
            case Failed():
                self._observer.failed(order.model, event.error, seconds)
            case Text() if key not in self._spoke:
                self._spoke.add(key)
                self._observer.first_text(order.model, seconds)


def _deliver(events: Iterable[tuple[Order, int, Event]]) -> None:
    for order, index, event in events:
        order.receive(index, event)
