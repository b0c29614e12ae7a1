"""llama.cpp's own log lines as Python logging, and as causes of errors.

Contract: after `forward_logs()` native lines go to the logger `wsd_local.llama` (warnings and errors at their level,
the rest as debug) and nowhere else, never to a file descriptor. `captured()` collects the warnings and errors of its
thread inside it.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import llama_cpp

LOGGER = logging.getLogger("wsd_local.llama")
LOGGER.addHandler(logging.NullHandler())

_CAPTURED: ContextVar[list[str] | None] = ContextVar("captured", default=None)
"""Where this thread's warnings and errors are collected: threads that load models at once do not see each other's."""
_LEVELS = {3: logging.WARNING, 4: logging.ERROR}


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _forward(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    line, severity, lines = text.decode(errors="replace").rstrip(), _LEVELS.get(level, logging.DEBUG), _CAPTURED.get()
    if not line:
        return
    if lines is not None and severity >= logging.WARNING:
        lines.append(line)
    if lines is None or LOGGER.isEnabledFor(logging.DEBUG):
        LOGGER.log(severity, "%s", line)


def forward_logs() -> None:
    """Send native log lines to Python logging. Idempotent."""
    llama_cpp.llama_log_set(_forward, ctypes.c_void_p(0))


@contextmanager
def captured() -> Iterator[list[str]]:
    """Collect native warnings and errors of this thread. They are logged only at the level DEBUG: they become part of
    an error message."""
    lines: list[str] = []
    token = _CAPTURED.set(lines)
    try:
        yield lines
    finally:
        _CAPTURED.reset(token)


def cause(lines: list[str]) -> str:
    """The most informative native line: the first error, without the name of the C++ function."""
    for line in lines:
        text = line.split(": ", 1)[-1] if line.split(": ", 1)[0].isidentifier() else line
        if "error" in text.lower() or "fail" in text.lower() or "unable" in text.lower():
            return text.removeprefix("error loading model: ").strip()
    return lines[0] if lines else "llama.cpp gave no reason"
