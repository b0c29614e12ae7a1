"""The TCP connections that native code of this process has open.

Contract: for native code that opens sockets without time-outs and does not hand them out. On systems that do not show
a process its open files there are none.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

_FILES = Path("/proc/self/fd")
_BYTES_RECEIVED = 128
"""Place of `tcpi_bytes_received` in Linux's `struct tcp_info`."""


def connections() -> dict[int, socket.socket]:
    """A copy of each connected TCP socket, by its inode; to be closed by the caller, which leaves the original open."""
    found: dict[int, socket.socket] = {}
    for name in os.listdir(_FILES) if _FILES.is_dir() else []:  # noqa: PTH208 - Path.iterdir holds the folder open
        with suppress(OSError):
            if not (_FILES / name).readlink().name.startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
            try:
                if copy.family not in (socket.AF_INET, socket.AF_INET6) or copy.type != socket.SOCK_STREAM:
                    raise OSError
                copy.getpeername()
                found.setdefault(os.fstat(copy.fileno()).st_ino, copy)
            except OSError:  # a listening socket, or one of another kind
                copy.close()
    return found


def received(connection: socket.socket) -> int | None:
    """Bytes that came over a connection so far; None where the system does not count them."""
    if not hasattr(socket, "TCP_INFO"):
        return None
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("<Q", info, _BYTES_RECEIVED)[0]) if len(info) >= _BYTES_RECEIVED + 8 else None
