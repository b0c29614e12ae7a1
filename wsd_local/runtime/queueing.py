"""Who may use the models now: one reply at a time, the others wait.

Contract: safe from any thread. A reply has a place in the queue; the models are its own from its first event to its
last one, or until it is stopped or its events are closed. Waiting replies are served in order. No order of calls can
dead-lock: a reply whose consumer requests no further event gives way, to others of the same thread at once and to other
threads after `PATIENCE_S`, and goes on later where it stopped. `cancel` stops only the reply that is in progress, not
those that wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeVar, cast

from wsd_local.errors import BusyError, CancelledError, UsageError, WsdError

T = TypeVar("T")

PATIENCE_S = 1.0
"""Seconds for which a reply keeps the models while others wait and its next event is not requested."""

Busy = Literal["wait", "error"]
"""What a reply does if the pair is in use: wait, or raise `BusyError` at once."""

_END = object()


def waits(busy: Busy) -> bool:
    """Whether a reply waits if the models are in use.

    Raises:
        UsageError: it is neither `wait` nor `error`.
    """
    if busy not in ("wait", "error"):
        raise UsageError(f"busy is {busy!r}: it must be one of wait, error")
    return busy == "wait"


class Place:
    """The place of one reply in the queue."""

    __slots__ = ("cancelled", "made_at")

    def __init__(self, made_at: int) -> None:
        self.cancelled = False
        self.made_at = made_at


class Flag(Protocol):
    """Stops an evaluation from another thread."""

    def set(self) -> None:
        """Request a stop."""

    def clear(self) -> None:
        """Withdraw the request."""


class ReplyQueue:
    """The queue of replies for one pair, or within one conversation.

    Args:
        what: what is in use, for messages.
        flag: set when the reply in progress is to stop.
        patience: see `PATIENCE_S`; None: a reply never gives way.
        clock: a time in seconds.
    """

    def __init__(
        self,
        what: str,
        flag: Flag,
        patience: float | None = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._flag, self._patience, self._clock = what, flag, patience, clock
        self._changed = threading.Condition()
        self._queue: deque[Place] = deque()
        self._holder: Place | None = None
        self._working = False
        self._thread = 0
        self._left = 0.0
        self._cancels = 0
        self._closed = False

    def place(self) -> Place:
        """A place for a new reply."""
        return Place(self._cancels)

    @property
    def waiting(self) -> int:
        """Number of replies that wait."""
        return len(self._queue)

    def hold(self, place: Place, events: Iterator[T], *, wait: bool = True) -> Generator[T, None, None]:
        """The `events` of a reply, each computed only while the models are its own.

        Raises:
            BusyError: another reply is in progress and `wait` is False, or waiting could never end.
            CancelledError: the reply was cancelled while it waited.
            WsdError: the queue is closed.
        """
        try:
            while True:
                self._enter(place, wait=wait)
                wait = True
                try:
                    event = next(events, _END)
                finally:
                    self._leave()
                if event is _END:
                    return
                yield cast(T, event)
        finally:
            if isinstance(events, Generator):
                events.close()
            self._release(place)

    @contextmanager
    def held(self, *, wait: bool = True) -> Iterator[None]:
        """The models for work that is no reply.

        Raises:
            BusyError, CancelledError, WsdError: as `hold`.
        """
        place = self.place()
        self._enter(place, wait=wait)
        try:
            yield
        finally:
            self._leave()
            self._release(place)

    def cancel(self, place: Place | None = None) -> None:
        """Stop one reply, in progress or waiting; without a `place`, the one in progress.

        If none is in progress, all replies that have a place and have not begun are stopped.
        """
        with self._changed:
            place = place or self._holder
            if place is None:
                self._cancels += 1
                self._flag.set()
                return
            place.cancelled = True
            if place is self._holder:
                self._flag.set()
            self._changed.notify_all()

    def interrupt(self, place: Place) -> None:
        """Stop the evaluation in progress if the models are this place's own; its work then calls `resumes`."""
        with self._changed:
            if place is self._holder:
                self._flag.set()

    def resumes(self, place: Place) -> bool:
        """Whether work that was stopped may go on: by `interrupt`, not because it was cancelled or all is closed."""
        with self._changed:
            if self._closed or place.cancelled or place.made_at < self._cancels:
                return False
            self._flag.clear()
            return True

    def is_cancelled(self, place: Place) -> bool:
        """Whether a reply that has not begun was cancelled, or the one within whose work it is prepared."""
        inside = self._working and self._thread == threading.get_ident()
        holder = self._holder if inside else None
        return place.cancelled or place.made_at < self._cancels or (holder is not None and holder.cancelled)

    def close(self) -> None:
        """Stop the reply in progress, wait until it has stopped, and refuse all others.

        Raises:
            BusyError: called from within that reply's own work.
        """
        with self._changed:
            if self._working and self._thread == threading.get_ident():
                raise BusyError(f"{self._what} cannot be closed from inside its own work")
            self._closed = True
            self._flag.set()
            self._changed.notify_all()
            while self._working:
                self._changed.wait()

    # -- one step --------------------------------------------------------------------------------------------

    def _enter(self, place: Place, *, wait: bool) -> None:
        with self._changed:
            self._require_open()
            if self._working and self._thread == threading.get_ident():
                raise BusyError(f"{self._what} is used from within its own work, which could never go on")
            if self._working and self._holder is place:
                raise BusyError(f"{self._what} is already working on this in another thread")
            if self._holder is not place:
                self._wait_for(place, wait=wait)
                self._holder = place
                place.cancelled = place.cancelled or place.made_at < self._cancels
                (self._flag.set if place.cancelled else self._flag.clear)()
            self._working, self._thread = True, threading.get_ident()

    def _wait_for(self, place: Place, *, wait: bool) -> None:
        if self._is_free() and not self._queue:
            return
        if self._holder is not None and self._thread == threading.get_ident() and not self._working:
            if wait and self._patience is not None:  # only this thread can make the other reply go on
                return
            wait = False
        if not wait:
            raise BusyError(f"{self._what} is in use: another answer is in progress")
        self._queue.append(place)
        try:
            while self._queue[0] is not place or not self._is_free():
                self._changed.wait(self._patience_left())
                self._require_open()
                if place.cancelled:
                    raise CancelledError("stopped while waiting")
        finally:
            self._queue.remove(place)
            self._changed.notify_all()

    def _is_free(self) -> bool:
        """Whether no reply has the models, or one whose next event was not requested for too long."""
        if self._holder is None:
            return True
        left = self._patience_left()
        return left is not None and left <= 0

    def _patience_left(self) -> float | None:
        if self._working or self._patience is None or self._holder is None:
            return None
        return max(0.0, self._patience - (self._clock() - self._left))

    def _leave(self) -> None:
        with self._changed:
            self._working, self._left = False, self._clock()
            if self._queue or self._closed:
                self._changed.notify_all()

    def _release(self, place: Place) -> None:
        with self._changed:
            place.cancelled, place.made_at = False, self._cancels
            if self._holder is place and not self._working:
                self._holder = None
                if not self._closed:
                    self._flag.clear()
            self._changed.notify_all()

    def _require_open(self) -> None:
        if self._closed:
            raise WsdError(f"{self._what} is closed; load it again")
