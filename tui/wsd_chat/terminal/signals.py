"""Signals end the chat as its own key does: the reply so far is kept, the terminal is restored.

Contract: inside `ending(app)` SIGTERM, SIGHUP, SIGQUIT and SIGINT make the app exit with 128 and the signal's number.
If native code delays that by more than `PATIENCE_S` seconds, or if another signal follows, the process ends at once,
after restoring the terminal.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from textual.app import App

from wsd_local.system.interrupt import Interrupted, Stop, ending_signals, handled

PATIENCE_S = 10.0

_ORDINARY = (
    "".join(f"\x1b[?{mode}l" for mode in (1000, 1002, 1003, 1006, 1015, 1004, 2004, 2026, 1049)) + "\x1b[<u\x1b[?25h"
)
"""No mouse reports, no focus reports, no bracketed paste, the ordinary screen and keyboard, a cursor."""


@contextmanager
def ending(app: App[Any]) -> Iterator[None]:
    """Make signals end the app. Main thread only."""
    restore = _restorer()
    stop = Stop(restore)

    def give_up(number: int) -> None:
        restore()
        os._exit(128 + number)

    def end(number: int, _frame: FrameType | None) -> None:
        is_first = not stop.requested
        stop.request(number)
        if not is_first:
            return
        watch = threading.Timer(PATIENCE_S, give_up, [number])
        watch.daemon = True
        watch.start()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise Interrupted(number) from None
        loop.call_soon_threadsafe(app.exit, None, 128 + number)

    with handled(end, ending_signals()):
        try:
            yield
        finally:  # also where the app failed because its terminal is gone
            if stop.number is not None:
                raise Interrupted(stop.number)


def _restorer() -> Callable[[], None]:
    """A function that makes the terminal what it is now, without the app's help."""
    descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
    attributes: list[Any] | None = None
    with suppress(ImportError, OSError):
        import termios

        with suppress(termios.error):
            attributes = termios.tcgetattr(descriptor)

    def restore() -> None:
        with suppress(OSError):
            os.write(descriptor, _ORDINARY.encode())
        if attributes is not None:
            import termios

            with suppress(termios.error):
                termios.tcsetattr(descriptor, termios.TCSANOW, attributes)

    return restore
