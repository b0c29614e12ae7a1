"""Who may use the models now: one reply at a time, the others wait.

Contract: safe from any thread. A reply takes its turn at its first event and keeps it until its last one, until it is
stopped, or until its events are closed. What waits is served in its order. No order of calls can dead-lock: a reply
whose consumer stays away gives way, to others of the same thread at once and to other threads after `PATIENCE_S`, and
goes on later where it stopped. `cancel` stops only the reply whose turn it is, not those that wait.
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
"""Seconds for which a reply keeps its turn while its next event is not requested and others wait."""

Busy = Literal["wait", "error"]
"""What a reply does that finds the pair in use: wait for its turn, or raise `BusyError` at once."""

_END = object()


def waits(busy: Busy) -> bool:
    """Whether a reply waits for its turn.

    Raises:
        UsageError: it is neither `wait` nor `error`.
    """
    if busy not in ("wait", "error"):
        raise UsageError(f"busy is {busy!r}: it must be one of wait, error")
    return busy == "wait"


class Turn:
    """One reply's place among those that use the same models."""

    __slots__ = ("cancelled", "made_at")

    def __init__(self, made_at: int) -> None:
        self.cancelled = False
        self.made_at = made_at


class Flag(Protocol):
    """What stops an evaluation from another thread."""

    def set(self) -> None:
        """Ask for a stop."""

    def clear(self) -> None:
        """Forget an earlier request."""


class Turns:
    """The turns at one pair, or in one conversation.

    Args:
        what: what is in use, for messages.
        flag: set while the reply whose turn it is shall stop.
        patience: see `PATIENCE_S`; None: a turn is never given up.
        clock: seconds.
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
        self._queue: deque[Turn] = deque()
        self._holder: Turn | None = None
        self._working = False
        self._thread = 0
        self._left = 0.0
        self._cancels = 0
        self._closed = False

    def turn(self) -> Turn:
        """A place for a new reply."""
        return Turn(self._cancels)

    @property
    def waiting(self) -> int:
        """Replies that wait for their turn."""
        return len(self._queue)

    def hold(self, turn: Turn, events: Iterator[T], *, wait: bool = True) -> Generator[T, None, None]:
        """What `events` gives, worked out only while it is this turn.

        Raises:
            BusyError: somebody else's turn has not ended and `wait` is False, or waiting could never end.
            CancelledError: it was cancelled while it waited.
            WsdError: all is closed.
        """
        try:
            while True:
                self._enter(turn, wait=wait)
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
            self._release(turn)

    @contextmanager
    def held(self, *, wait: bool = True) -> Iterator[None]:
        """A turn for work that is no reply.

        Raises:
            BusyError, CancelledError, WsdError: as `hold`.
        """
        turn = self.turn()
        self._enter(turn, wait=wait)
        try:
            yield
        finally:
            self._leave()
            self._release(turn)

    def cancel(self, turn: Turn | None = None) -> None:
        """Stop one reply, also one that waits; if none is named, the one whose turn it is.

        Where it is nobody's turn, those are meant that have been made and not begun.
        """
        with self._changed:
            turn = turn or self._holder
            if turn is None:
                self._cancels += 1
                self._flag.set()
                return
            turn.cancelled = True
            if turn is self._holder:
                self._flag.set()
            self._changed.notify_all()

    def is_cancelled(self, turn: Turn) -> bool:
        """Whether a turn that has not begun was cancelled, or the one inside which this thread prepares it."""
        inside = self._working and self._thread == threading.get_ident()
        holder = self._holder if inside else None
        return turn.cancelled or turn.made_at < self._cancels or (holder is not None and holder.cancelled)

    def close(self) -> None:
        """Stop what runs, wait until it has stopped, and let nobody in any more.

        Raises:
            BusyError: called from inside the work that would have to end first.
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

    def _enter(self, turn: Turn, *, wait: bool) -> None:
        with self._changed:
            self._require_open()
            if self._working and self._thread == threading.get_ident():
                raise BusyError(f"{self._what} is asked from inside its own work, which could never go on")
            if self._working and self._holder is turn:
                raise BusyError(f"{self._what} is working on this already, in another thread")
            if self._holder is not turn:
                self._wait_for(turn, wait=wait)
                self._holder = turn
                turn.cancelled = turn.cancelled or turn.made_at < self._cancels
                (self._flag.set if turn.cancelled else self._flag.clear)()
            self._working, self._thread = True, threading.get_ident()

    def _wait_for(self, turn: Turn, *, wait: bool) -> None:
        if self._is_free() and not self._queue:
            return
        if self._holder is not None and self._thread == threading.get_ident() and not self._working:
            if wait and self._patience is not None:  # this thread would have to end the other one first
                return
            wait = False
        if not wait:
            raise BusyError(f"{self._what} is in use: another answer is in progress")
        self._queue.append(turn)
        try:
            while self._queue[0] is not turn or not self._is_free():
                self._changed.wait(self._patience_left())
                self._require_open()
                if turn.cancelled:
                    raise CancelledError("stopped while waiting")
        finally:
            self._queue.remove(turn)
            self._changed.notify_all()

    def _is_free(self) -> bool:
        """Whether it is nobody's turn, or that of one whose consumer stays away."""
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

    def _release(self, turn: Turn) -> None:
        with self._changed:
            turn.cancelled, turn.made_at = False, self._cancels
            if self._holder is turn and not self._working:
                self._holder = None
                if not self._closed:
                    self._flag.clear()
            self._changed.notify_all()

    def _require_open(self) -> None:
        if self._closed:
            raise WsdError(f"{self._what} is closed; load it again")
