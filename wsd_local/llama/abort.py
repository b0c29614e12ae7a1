"""Stopping an evaluation from another thread.

Contract: `Cancellation.set()` makes every evaluation that watches it stop: within one graph node on the CPU back end,
between two evaluations elsewhere. It stays set until `clear()`.

llama.cpp calls an abort callback after every graph node. A Python function there would cost more than the
evaluation of a small model, so the callback is C's `strlen` over one flag byte: 0 for an empty string, 1 else.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from wsd_local.errors import CancelledError


class Cancellation:
    """A flag that native code can read. Safe to set from any thread and from signal handlers."""

    def __init__(self) -> None:
        self.flag = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Request a stop."""
        self.flag[0] = b"\x01"

    def clear(self) -> None:
        """Forget an earlier request."""
        self.flag[0] = b"\x00"

    @property
    def is_set(self) -> bool:
        """Whether the work is to stop."""
        return self.flag.raw[0] != 0

    def check(self) -> None:
        """Raise `CancelledError` if the work is to stop."""
        if self.is_set:
            raise CancelledError("stopped")


def native_callback(kind: Any) -> Any:
    """`strlen` as a callback of the ctypes function type `kind`."""
    libc = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
    return ctypes.cast(libc.strlen, kind)
