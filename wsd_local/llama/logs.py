"""llama.cpp's own log lines as Python logging, and as causes of errors.

Contract: after `forward_logs()` native lines go to the logger `wsd_local.llama` (warnings and errors at their level,
the rest as debug) and nowhere else, never to a file descriptor. `captured()` collects the warnings and errors inside
it.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import llama_cpp

LOGGER = logging.getLogger("wsd_local.llama")
LOGGER.addHandler(logging.NullHandler())

_LEVELS = {3: logging.WARNING, 4: logging.ERROR}


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _forward(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    line = text.decode(errors="replace").rstrip()
    if line:
        LOGGER.log(_LEVELS.get(level, logging.DEBUG), "%s", line)


def forward_logs() -> None:
    """Send native log lines to Python logging. Idempotent."""
    llama_cpp.llama_log_set(_forward, ctypes.c_void_p(0))


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def captured() -> Iterator[list[str]]:
    """Collect native warnings and errors. They do not propagate: they become part of an error message."""
    collector, propagate = _Collector(), LOGGER.propagate
    LOGGER.addHandler(collector)
    LOGGER.propagate = LOGGER.isEnabledFor(logging.DEBUG)
    try:
        yield collector.lines
    finally:
        LOGGER.removeHandler(collector)
        LOGGER.propagate = propagate


def cause(lines: list[str]) -> str:
    """The most informative native line: the first error, without the name of the C++ function."""
    for line in lines:
        text = line.split(": ", 1)[-1] if line.split(": ", 1)[0].isidentifier() else line
        if "error" in text.lower() or "fail" in text.lower() or "unable" in text.lower():
            return text.removeprefix("error loading model: ").strip()
    return lines[0] if lines else "llama.cpp gave no reason"
