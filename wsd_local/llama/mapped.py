"""Model files that are mapped into memory, and become shorter while they are used.

Contract: a page after a mapped file's end, or one that a failing disk cannot give, is a bus error (SIGBUS) for the
thread that touches it, which ends the process without a message. While a `MappedFile` is watched on 64-bit Linux, such
a page is replaced by zeros instead, the evaluation goes on to its end, and `check` raises a `ModelError`: its results
are thrown away. Bus errors elsewhere go on to the handler that was installed before.

This is what systemd does for its journal. llama.cpp's threads know no Python; a function made by ctypes can be
called on them, because they touch a model's pages only while they hold neither Python's lock nor one of the C library.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from wsd_local.errors import ModelError

_SIGINFO = 4
_ADDRESS = 16
"""Where `siginfo_t` holds the address, on 64-bit Linux."""
_READ, _PRIVATE_FIXED_ANONYMOUS = 0x1, 0x2 | 0x10 | 0x20


class MappedFile:
    """The files of one model, as long as they are in use."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.failed = False
        self._sizes: dict[tuple[int, int], tuple[Path, int]] = {}
        for path in paths:
            found = path.stat()
            self._sizes[found.st_dev, found.st_ino] = path, found.st_size
        if sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8:
            _handler().watch(self)

    def holds(self, inode: int) -> bool:
        """Whether one of the files has this number; the system names devices differently in different places."""
        return any(number == inode for _, number in self._sizes)

    def check(self) -> None:
        """Raise `ModelError` if a file has become shorter, or could not be read, since it was mapped."""
        for (device, inode), (path, size) in self._sizes.items():
            try:
                now = path.stat()
            except OSError:
                continue  # another name, or none any more: what is mapped stays what it was
            if (now.st_dev, now.st_ino) == (device, inode) and now.st_size < size:
                raise ModelError(
                    f"{path}: became shorter while it was in use, {now.st_size} of {size} bytes are left: "
                    "fetch or copy it again"
                )
        if self.failed:
            path, _ = next(iter(self._sizes.values()))
            raise ModelError(f"{path}: could not be read while it was in use: look at its disk, fetch or copy it again")


class _Action(ctypes.Structure):
    """`struct sigaction` of 64-bit Linux."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


class _Handler:
    """The handler of bus errors. There is one in a process, as there is one signal."""

    def __init__(self) -> None:
        self._watched: weakref.WeakSet[MappedFile] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._installed = False
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self._before = _Action()
        self._function = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(self._on_fault)

    def watch(self, file: MappedFile) -> None:
        """Handle bus errors of a file until it is gone."""
        with self._lock:
            self._watched.add(file)
            if not self._installed:
                action = _Action(ctypes.cast(self._function, ctypes.c_void_p).value, flags=_SIGINFO)
                self._installed = not self._libc.sigaction(
                    int(signal.SIGBUS), ctypes.byref(action), ctypes.byref(self._before)
                )

    def _on_fault(self, _number: int, info: int, _context: int) -> None:
        try:
            address = ctypes.c_uint64.from_address(info + _ADDRESS).value
            mended = self._mended(address)
        except Exception:
            mended = False
        if not mended:  # the instruction is tried again, now with the handler installed before
            self._libc.sigaction(int(signal.SIGBUS), ctypes.byref(self._before), None)
            self._installed = False

    def _mended(self, address: int) -> bool:
        """Put zeros from the page of `address` to the end of the mapping that it is in, if that is a watched file's."""
        with Path("/proc/self/maps").open(encoding="utf-8", errors="replace") as maps:
            for line in maps:
                span, _, _, _, inode, *_ = line.split(maxsplit=5)
                start, end = (int(part, 16) for part in span.split("-"))
                if not start <= address < end:
                    continue
                if inode == "0":
                    return True  # another thread was faster
                files = [file for file in self._watched if file.holds(int(inode))]
                for file in files:
                    file.failed = True
                page = address - address % os.sysconf("SC_PAGESIZE")
                return bool(files) and self._zeros(page, end - page)
        return False

    def _zeros(self, start: int, length: int) -> bool:
        found = self._libc.mmap(start, length, _READ, _PRIVATE_FIXED_ANONYMOUS, -1, 0)
        return bool(found == start)


@cache
def _handler() -> _Handler:
    return _Handler()
