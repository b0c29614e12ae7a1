"""Threads that prepare orders: one for those that are prepared quickly, others for those that may take long.

Contract: orders of a kind are prepared in the order in which they came. No short one waits for a long one.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from wsd_local.server.loaded import Loaded
from wsd_local.server.orders import Order

MOST_LONG = 2
"""Orders whose preparation may take long that are prepared at once."""

_Jobs = queue.SimpleQueue[tuple[Order, Loaded] | None]


class Preparing:
    """The threads; `prepare` is called in one of them for each order, and never fails."""

    def __init__(self, prepare: Callable[[Order, Loaded], None]) -> None:
        self._prepare = prepare
        self._short: _Jobs = queue.SimpleQueue()
        self._long: _Jobs = queue.SimpleQueue()
        self._served = [self._short, *[self._long] * MOST_LONG]
        self._threads = [
            threading.Thread(target=self._work, args=(jobs,), name="preparing", daemon=True) for jobs in self._served
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def put(self, order: Order, loaded: Loaded) -> None:
        """Have an order prepared."""
        (self._long if order.long else self._short).put((order, loaded))

    def close(self) -> None:
        """Prepare what was put, then end."""
        for jobs in self._served:
            jobs.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _work(self, jobs: _Jobs) -> None:
        while (job := jobs.get()) is not None:
            self._prepare(*job)
