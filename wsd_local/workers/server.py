"""`wsd_local.workers.server ENDPOINT THREADS [CACHE]`: llama.cpp's RPC server in a process of its own.

Contract: run by `wsd-local rpc-worker`, because the server cannot be stopped from inside and a client can crash it.
A client whose machine is gone, and one that connects and sends no greeting, are disconnected: the server would wait for
them and answer nobody else. With `version` as ENDPOINT it writes the version of its protocol and ends.
"""

from __future__ import annotations

import sys
import threading
import time

from wsd_local.errors import WorkerError
from wsd_local.llama import rpc
from wsd_local.system import rpc as workers
from wsd_local.system.sockets import connections, received

GREETING = 33
"""Bytes that a client sends first."""
SILENT_S = 10.0
"""Seconds after which a client that has sent less is disconnected."""


def watch(seen: dict[int, float], now: float) -> None:
    """Guard the clients' connections once, and end those that stay silent; `seen` is when each came, by its inode."""
    import socket

    found = connections()
    for inode, connection in found.items():
        with connection:
            if inode not in seen:
                seen[inode] = now
                workers.guard(connection)
            count = received(connection)
            if count is not None and count < GREETING and now - seen[inode] > SILENT_S:
                connection.shutdown(socket.SHUT_RDWR)
    for inode in [inode for inode in seen if inode not in found]:
        del seen[inode]


def _watch() -> None:
    seen: dict[int, float] = {}
    while True:
        time.sleep(1)
        try:
            watch(seen, time.monotonic())
        except OSError:  # a client left meanwhile
            continue


def main() -> int:
    """Entry point."""
    endpoint, *more = sys.argv[1:]
    try:
        if endpoint == "version":
            rpc.serve("", None, 1)
            return 0
        threads, cache = int(more[0]), more[1] if len(more) > 1 else None
        kept = rpc.report_free_memory()
        threading.Thread(target=_watch, daemon=True).start()
        rpc.serve(endpoint, cache, threads)
    except WorkerError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    del kept
    return 1


if __name__ == "__main__":
    sys.exit(main())
