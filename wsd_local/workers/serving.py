"""This machine as a worker: llama.cpp's RPC server, supervised.

Contract: the server runs in a child process that ends with this one. `serve` returns only by an error: a stop is one
too.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsd_local.errors import UsageError, WorkerError, reason, short
from wsd_local.system import child
from wsd_local.system.child import Stoppable
from wsd_local.system.rpc import Endpoint, Worker, ask
from wsd_local.workers.devices import SERVER, protocol_version

_CONNECTED, _LEFT = "Accepted client connection", "Client connection closed"
"""What the server writes for each client."""
_STEP_S, _MOST_S = 0.1, 60.0
_ANY = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Watching:
    """What is called when the server is ready, with what it answers, and when a client comes (True) or leaves."""

    ready: Callable[[Worker], None]
    client: Callable[[bool], None]


def listening_at(host: str, port: int) -> Endpoint:
    """The IPv4 address and port of this machine that these are, if they are free.

    Raises:
        UsageError: there is no such address here, or the port cannot be used.
    """
    try:
        address = str(socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        raise UsageError(f"host is {short(host)}: it must be an IPv4 address of this machine") from None
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            raise UsageError(
                f"{host}:{port} cannot be listened at: {reason(error).lower()}; choose another --port, or --host"
            ) from None
    return Endpoint(address, port)


def serve(place: Endpoint, cache: Path | None, threads: int, watching: Watching, stoppable: Stoppable) -> None:
    """Serve this machine's devices until it is stopped.

    Args:
        place: where it listens.
        cache: folder for weights, made if it is not there; None: they are sent every time.
        threads: for the CPU.
        watching: what happens.
        stoppable: receives the function that ends it.

    Raises:
        CancelledError: it was stopped.
        WorkerError: the installed llama.cpp has no RPC, or the server ended by itself.
    """
    version = protocol_version()
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    ended, clients = threading.Event(), -1  # the first client is the question whether it is ready

    def announce() -> None:
        here = Endpoint("127.0.0.1" if place.host == _ANY else place.host, place.port)
        for _ in range(int(_MOST_S / _STEP_S)):
            try:
                found = ask(here, version)
            except WorkerError:
                if ended.wait(_STEP_S):
                    return
                continue
            watching.ready(found)
            return

    def read(line: str) -> None:
        nonlocal clients
        clients += line == _CONNECTED
        if clients > 0 and line in (_CONNECTED, _LEFT):
            watching.client(line == _CONNECTED)

    threading.Thread(target=announce, daemon=True).start()
    arguments = [SERVER, str(place), str(threads), *([] if cache is None else [str(cache)])]
    try:
        code, lines = child.run(arguments, read, stoppable)
    finally:
        ended.set()
    told = next((line for line in reversed(lines) if line not in (_CONNECTED, _LEFT)), f"exit code {code}")
    raise WorkerError(f"llama.cpp's RPC server on {place} ended by itself: {told}")
