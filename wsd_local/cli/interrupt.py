"""Ctrl-C while native code runs.

Contract: inside `interruptible()` the first SIGINT or SIGTERM is noted at once and calls what was asked for, from a
thread of its own; the second ends the process. Python's own handlers would wait until llama.cpp returns.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from wsd_local.errors import CancelledError

_SHOW_CURSOR = "\x1b[?25h"


class Stop:
    """Whether a stop was asked for, and what then happens."""

    def __init__(self) -> None:
        self.asked = False
        self._call: Callable[[], None] | None = None

    def ask(self) -> None:
        """A signal came; the second one does not wait for anybody."""
        if self.asked:
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR.encode())
            os._exit(CancelledError.exit_code)
        self.asked = True
        if self._call is not None:
            self._call()

    def calls(self, function: Callable[[], None]) -> None:
        """What to call, now if a stop was asked for already."""
        self._call = function
        if self.asked:
            function()


@contextmanager
def interruptible() -> Iterator[Stop]:
    """Watch for signals. Main thread only."""
    stop = Stop()
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while reader.recv(1):
            stop.ask()
        reader.close()

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """The byte that `set_wakeup_fd` wrote says it already."""

    handlers = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield stop
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()
