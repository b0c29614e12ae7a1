"""Ctrl-C while native code runs.

Contract: inside `interruptible(stop)` the first SIGINT or SIGTERM calls `stop` at once, from a thread of its own;
the second ends the process. Python's own handlers would wait until llama.cpp returns.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_INTERRUPTED = 130


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[threading.Event]:
    """Watch for signals; the event that is given tells whether one came. Main thread only."""
    asked = threading.Event()
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def watch() -> None:
        while reader.recv(1):
            if asked.is_set():
                os._exit(EXIT_INTERRUPTED)
            asked.set()
            stop()
        reader.close()

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """The byte that `set_wakeup_fd` wrote says it already."""

    handlers = {number: signal.signal(number, ignore) for number in (signal.SIGINT, signal.SIGTERM)}
    descriptor = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield asked
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()
