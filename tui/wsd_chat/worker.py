"""The one thread in which models work.

Contract: jobs run one after the other in their order; a job is a function of the worker that may `tell` news, which
the screen takes with `take` when it likes: the models never wait for it. `stop` ends one job, and no
other: one that still waits finds itself stopped when its turn comes. While nothing waits, `idle` runs, and stops as
soon as something does.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from wsd_local.errors import WsdError, message_of
from wsd_local.runtime.pair import Pair

Job = Callable[["Worker"], None]


class Ticket:
    """A job that waits, runs or is done. `stopped` once it should end."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether somebody asked for its end."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Ask for its end."""
        self._stop.set()


class Failed:
    """A job ended with an error that a person can read."""

    def __init__(self, error: Exception, ticket: Ticket) -> None:
        self.error, self.ticket = error, ticket
        self.message = message_of(error) if isinstance(error, WsdError | OSError) else f"internal error: {error!r}"


class Worker:
    """A thread with a queue of jobs, and the pair that they work with."""

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self.idle: Callable[[Worker], None] | None = None
        self.busy = False
        self._tickets: deque[Ticket] = deque()
        self._closing = False
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._told: deque[Any] = deque()
        self._idling = threading.Lock()
        self._is_idle = False
        self._thread = threading.Thread(target=self._work, name="models", daemon=True)
        self._thread.start()

    def do(self, job: Job) -> Ticket:
        """Run a job when those before it are done; preparing for the next turn ends at once."""
        ticket = Ticket()
        with self._idling:
            self._tickets.append(ticket)
            self._jobs.put(job)
            if self._is_idle:
                self._interrupt()
        return ticket

    def stop(self, ticket: Ticket | None = None) -> None:
        """End a job; None is the one that runs, or is about to."""
        with self._idling:
            first = self._tickets[0] if self._tickets else None
            if ticket is None:
                ticket = first
            if ticket is not None:
                ticket.stop()
        if ticket is first:
            self._interrupt()

    @property
    def stopped(self) -> bool:
        """Whether the job that runs should end."""
        return self._closing or bool(self._tickets and self._tickets[0].stopped)

    def close(self) -> None:
        """End everything and wait for it; what waits does not run any more."""
        self._closing = True
        self.stop()
        self._jobs.put(None)
        self._thread.join()

    def tell(self, news: Any) -> None:
        """Say something to the screen."""
        self._told.append(news)

    def take(self) -> Iterator[Any]:
        """What was told since the last time."""
        with contextlib.suppress(IndexError):
            while True:
                yield self._told.popleft()

    @property
    def waits(self) -> bool:
        """Whether a job waits, so that idle work should end."""
        return not self._jobs.empty()

    def _interrupt(self) -> None:
        if (pair := self.pair) is not None:
            pair.cancel()

    def _work(self) -> None:
        while True:
            job = self._next()
            if job is None:
                break
            self.busy = True
            try:
                if not self._closing:
                    job(self)
            except Exception as error:
                self.tell(Failed(error, self._tickets[0]))
            finally:
                self.busy = False
                with self._idling:
                    self._tickets.popleft()
        if self.pair is not None:
            self.pair.close()

    def _next(self) -> Job | None:
        with contextlib.suppress(queue.Empty):
            return self._jobs.get_nowait()
        if self.idle is not None:
            self._while_idle(self.idle)
        return self._jobs.get()

    def _while_idle(self, idle: Callable[[Worker], None]) -> None:
        with self._idling:
            self._is_idle = True
        try:
            if not self.waits:
                idle(self)
        except WsdError:
            pass  # what could not be prepared is done when it is asked for, and fails there
        finally:
            with self._idling:
                self._is_idle = False
                if self.pair is not None:
                    self.pair.cancellation.clear()
