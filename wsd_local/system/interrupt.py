"""Signals that ask the program to end: Ctrl-C (SIGINT), SIGTERM, SIGHUP where there is one, SIGQUIT.

Contract: such a signal ends a command in order: what it had written stays, the terminal is restored, child processes
end, and the exit code is 128 and the signal's number. SIGHUP stays ignored if it was when the program began (`nohup`).
Inside `signals_raise()` a signal raises `Interrupted` in the main thread, again if that was lost in a finalizer. Inside
`interruptible()`, for work in native code, it is noted at once and calls the registered function from a thread of its
own, because Python's handlers wait until llama.cpp returns; a second signal, half a second later or more, ends the
process there and then.
"""

from __future__ import annotations

import _thread
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from wsd_local.errors import CancelledError

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGBREAK")
_SHOW_CURSOR = "\x1b[?25h"
_AGAIN_S = 0.5
"""A signal that comes again sooner is the same one: `timeout` and shells send it to a process and to its group."""

_LATER_S = 0.05
"""Time for a finalizer to end before a signal that was lost in it is sent again."""

Handler = Callable[[int, FrameType | None], None]


def ending_signals() -> list[signal.Signals]:
    """The signals of this system that ask the program to end."""
    here = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    return [number for number in here if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN]


class Interrupted(BaseException):
    """A signal came; no error, so that nothing but the command line catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.exit_code = 128 + number


def _show_cursor() -> None:
    with suppress(OSError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())


class Stop:
    """Whether a stop was requested, and what is then called.

    `restore` makes the terminal usable again where the process ends at once.
    """

    def __init__(self, restore: Callable[[], None] = _show_cursor) -> None:
        self._restore = restore
        self.number: int | None = None
        self._since = 0.0
        self._call: Callable[[], None] | None = None

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.number is not None

    def request(self, number: int) -> None:
        """A signal arrived; a later one ends the process at once."""
        now = time.monotonic()
        if self.requested:
            if now - self._since < _AGAIN_S:
                return
            self._restore()
            os._exit(128 + number)
        self.number, self._since = number, now
        if self._call is not None:
            self._call()

    def on_request(self, function: Callable[[], None]) -> None:
        """Register the function to call; it is called now if a stop was requested already."""
        self._call = function
        if self.requested:
            function()


@contextmanager
def signals_raise() -> Iterator[None]:
    """A signal raises `Interrupted`, so that everything that is open is closed. Main thread only."""
    stop = Stop()
    report = sys.unraisablehook

    def interrupt(number: int, _frame: FrameType | None) -> None:
        is_first = not stop.requested
        stop.request(number)
        if is_first:
            raise Interrupted(number)

    def send_again(ignored: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a finalizer or, often while modules are imported, in a weak reference's."""
        if not isinstance(ignored.exc_value, Interrupted):
            report(ignored)
            return
        stop.number = None
        threading.Timer(_LATER_S, _send, (ignored.exc_value.number,)).start()

    sys.unraisablehook = send_again
    try:
        with handled(interrupt, ending_signals()):
            yield
    finally:
        sys.unraisablehook = report


def _send(number: int) -> None:
    """Send the main thread a signal, from another thread."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(signal.Signals(number))


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Watch for signals. Main thread only.

    Raises:
        Interrupted: a signal came and the work ended with `CancelledError`, or because the terminal is gone.
    """
    stop = Stop()
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while number := reader.recv(1):
            stop.request(number[0])
        reader.close()

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """`set_wakeup_fd` has written its number already."""

    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        with handled(ignore, ending_signals()):
            yield stop
    except (CancelledError, OSError) as error:
        if stop.number is not None:
            raise Interrupted(stop.number) from error
        raise
    finally:
        signal.set_wakeup_fd(descriptor)
        writer.close()


@contextmanager
def handled(handler: Handler, numbers: list[signal.Signals]) -> Iterator[None]:
    """Let `handler` handle these signals. Main thread only."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
