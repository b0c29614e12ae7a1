"""Many replies at once over one pair: continuous batching.

Contract: prompts wait in order; as many replies as the contexts have sequences are in progress, and a finished one
makes room for the next at once. Every reply is what it would be alone, up to near ties of quantised weights in batches
of another shape: its samplers, limits and errors are its own. The result is one flat stream of all replies' events,
each with the key of its prompt. A reply can be stopped alone, from any thread: an evaluation in progress is then taken
back, and repeated for the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from wsd_local.errors import CancelledError, WsdError
from wsd_local.events import Event
from wsd_local.prompts.messages import Prompt
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.job import Job
from wsd_local.runtime.queueing import Busy, waits
from wsd_local.runtime.setup import Setup, start

K = TypeVar("K")

MOST_ABORTS = 4
"""Evaluations that may be taken back one after the other; those who stop later wait for the end of the next one."""

STAGE = 256
"""Replies that are drafted before the base is loaded, if one model is in memory at a time."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A reply failed; the others go on."""

    kind: ClassVar[str] = "failed"
    error: WsdError

    def as_dict(self) -> dict[str, Any]:
        """The error's message."""
        return {"event": self.kind, "error": str(self.error)}


class Work(Protocol):
    """What a fleet works on, prepared: a `Run` is one."""

    @property
    def job(self) -> Job:
        """What the engine advances."""
        ...

    def opening(self) -> Iterator[Event]:
        """Events before any work."""
        ...

    def closing(self) -> Iterator[Event]:
        """Events when the work is done; also those of work that was stopped."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[K]):
    """Work that waits; `prepared` makes it."""

    key: K
    prepared: Callable[[], Work]


class Fleet(Generic[K]):
    """Replies in progress over one pair. Together they have one place in its queue.

    `add`, `enter` and `stop` may be called from any thread.

    Args:
        pair: the pair that answers.
        parallel: replies at once; None: as many as its contexts have sequences.
        busy: what they do if the pair is in use; None: the pair's default.
    """

    def __init__(self, pair: Setup, parallel: int | None = None, busy: Busy | None = None) -> None:
        self._pair, self._models, self._engine = pair, pair.models, pair.engine
        self._place, self._wait = self._models.queue.place(), waits(pair.busy if busy is None else busy)
        self.parallel = parallel or self._models.loading.parallel
        self._waiting: deque[_Waiting[K]] = deque()
        self._live: dict[K, Work] = {}
        self._lock = threading.Lock()
        self._known: set[K] = set()
        self._stopped: set[K] = set()
        self._aborts = 0

    def add(self, key: K, prompt: Prompt | RawPrompt, *, first: bool = False, **overrides: Any) -> None:
        """Add a prompt, before all that wait if it is `first`. Possible while others are answered."""
        self._join(key, partial(start, self._pair, prompt, stopped=partial(self._is_stopped, key), **overrides), first)

    def enter(self, key: K, work: Work) -> None:
        """Add what is prepared already, so that its preparation delays no other reply."""
        self._join(key, lambda: work)

    def stop(self, key: K) -> bool:
        """Stop one reply, at once and in whatever phase it is; the others go on and lose nothing.

        A reply that has begun ends with `Finished`, one that waits with `Failed`; one that is over already is left.
        Returns whether it had not begun, and so never will.
        """
        with self._lock:
            if key not in self._known:
                return False
            self._stopped.add(key)
        if any(waiting.key == key for waiting in list(self._waiting)):
            return True
        if self._aborts < MOST_ABORTS:
            self._models.queue.interrupt(self._place)
        return False

    def cancel(self) -> None:
        """Stop the work on all replies, as `Pair.cancel` does; `events` raises `CancelledError`."""
        self._models.queue.cancel(self._place)

    @property
    def live(self) -> dict[K, Work]:
        """What is in progress."""
        return dict(self._live)

    @property
    def waiting(self) -> int:
        """Number of replies that wait for their turn."""
        return len(self._waiting)

    @property
    def shown_tokens(self) -> int:
        """Tokens of the replies in progress that are final."""
        return sum(work.job.machine.shown_tokens for work in list(self._live.values()))

    def events(self) -> Generator[tuple[K, Event], None, None]:
        """Work until all prompts are answered.

        Raises:
            BusyError: the pair is in use, and waiting was not wanted or could never end.
            CancelledError: `Pair.cancel` was called. Called again, `events` goes on.
        """
        return self._models.queue.hold(self._place, self._events(), wait=self._wait)

    def steps(self) -> Generator[list[tuple[K, Event]], None, None]:
        """As `events`: what each evaluation brought, together."""
        return self._models.queue.hold(self._place, self._steps(), wait=self._wait)

    def _events(self) -> Iterator[tuple[K, Event]]:
        for step in self._steps():
            yield from step

    def _steps(self) -> Iterator[list[tuple[K, Event]]]:
        while self._waiting or self._live:
            yield [*self._begin(), *self._dropped()]
            try:
                self._engine.advance([work.job for work in self._live.values()])
            except CancelledError:
                if not self._models.queue.resumes(self._place):
                    raise
                self._aborts += 1
            else:
                self._aborts = 0
            yield [*self._news(), *self._dropped()]
            if not self._live:  # nobody was delayed
                self._aborts = 0

    def _news(self) -> Iterator[tuple[K, Event]]:
        for key, work in list(self._live.items()):
            for event in work.job.events():
                yield key, event
            if work.job.over:
                yield from self._end(key, work)

    def _begin(self) -> Iterator[tuple[K, Event]]:
        apart = self._models.loading.resident == "one"
        most = max(self.parallel, STAGE) if apart else self.parallel
        if apart and self._live:  # a prompt that joins now would have the draft loaded again
            return
        while self._waiting and len(self._live) < most:
            waiting = self._waiting.popleft()
            key = waiting.key
            try:
                if self._is_stopped(key):
                    raise CancelledError("stopped while waiting")
                work = waiting.prepared()
            except CancelledError as error:
                if not self._is_stopped(key):
                    self._waiting.appendleft(waiting)
                    raise
                self._forget(key)
                yield key, Failed(error)
                continue
            except WsdError as error:
                self._forget(key)
                yield key, Failed(error)
                continue
            work.job.stopwatch.resume()
            self._live[key] = work
            for event in work.opening():
                yield key, event

    def _dropped(self) -> Iterator[tuple[K, Event]]:
        """What was stopped leaves."""
        if not self._stopped:
            return
        with self._lock:
            stopped = set(self._stopped)
        for key in stopped & self._live.keys():
            yield from self._end(key, self._live[key])
        for waiting in [waiting for waiting in list(self._waiting) if waiting.key in stopped]:
            self._waiting.remove(waiting)
            self._forget(waiting.key)
            yield waiting.key, Failed(CancelledError("stopped while waiting"))

    def _end(self, key: K, work: Work) -> Iterator[tuple[K, Event]]:
        del self._live[key]
        self._forget(key)
        work.job.put_away()
        work.job.stopwatch.update()
        if work.job.error is not None:
            yield key, Failed(work.job.error)
            return
        for event in work.closing():
            yield key, event

    def _join(self, key: K, prepared: Callable[[], Work], first: bool = False) -> None:
        with self._lock:
            self._known.add(key)
        waiting = _Waiting(key, prepared)
        (self._waiting.appendleft if first else self._waiting.append)(waiting)

    def _forget(self, key: K) -> None:
        with self._lock:
            self._known.discard(key)
            self._stopped.discard(key)

    def _is_stopped(self, key: K) -> bool:
        return key in self._stopped
