"""Flow control of the terminal, which would swallow Ctrl+Q and Ctrl+S.

Contract: a terminal driver with flow control consumes both keys until Textual has taken the terminal over. Within
`no_flow_control()` they are input like all others, and what is typed meanwhile is read later. Light to import, so that
it can be entered before Textual is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def no_flow_control() -> Iterator[None]:
    """Turn flow control off for the block; a standard input that is no terminal is left alone."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (OSError, ValueError, AttributeError, termios.error):
        yield
        return
    without = list(before)
    without[0] &= ~(termios.IXON | termios.IXOFF)
    termios.tcsetattr(descriptor, termios.TCSANOW, without)
    try:
        yield
    finally:
        with suppress(termios.error):  # the terminal may be gone
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
