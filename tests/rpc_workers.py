"""Workers for tests: real ones in processes of their own, stand-ins that answer wrongly, and a bad network.

`needs_rpc` marks tests of a llama.cpp that was built with RPC; CI builds it so.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import pytest

from wsd_local.llama.rpc import available
from wsd_local.system.rpc import Endpoint

needs_rpc = pytest.mark.skipif(not available(), reason="expected: llama.cpp was built without RPC (make llama)")

Client = Callable[[socket.socket], None]


def free_port() -> int:
    """A port of this machine at which nothing listens."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


@dataclass(slots=True)
class RealWorker:
    """`wsd-local rpc-worker` on a port of this machine, and what it wrote on standard error."""

    port: int
    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        """Kill it, and its server, without a chance to say goodbye."""
        for one in [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Stop its server, as a machine that hangs does: connections stay, and nothing is answered."""
        for one in psutil.Process(self.process.pid).children(recursive=True):
            os.kill(one.pid, signal.SIGSTOP)


@contextmanager
def worker(
    *options: str, port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[RealWorker]:
    """A worker that answers; `environment` holds variables of its own."""
    port = port or free_port()
    command = [sys.executable, "-m", "wsd_local", "rpc-worker", "--port", str(port), "--threads", "1", *options]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | dict(environment or {})
    )
    found = RealWorker(port, process)
    ready = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            found.lines.append(line.decode())
            if "use it: " in found.lines[-1]:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    ready.wait()
    try:
        assert process.poll() is None, found.lines
        yield found
    finally:
        with suppress(psutil.NoSuchProcess):
            found.kill()
        reader.join()


@contextmanager
def workers(number: int) -> Iterator[list[RealWorker]]:
    """So many workers."""
    with ExitStack() as stack:
        yield [stack.enter_context(worker()) for _ in range(number)]


@contextmanager
def stand_in(client: Client) -> Iterator[Endpoint]:
    """Something that listens, and does with each client what `client` does, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []

    def one(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            client(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection = listener.accept()[0]
                open_ones.append(connection)
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield Endpoint("127.0.0.1", listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_ones:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def received(connection: socket.socket) -> tuple[int, bytes]:
    """One command of the protocol: its number and its body."""
    command, size = struct.unpack("<BQ", _exactly(connection, 9))
    return command, _exactly(connection, size)


def answer(connection: socket.socket, body: bytes) -> None:
    """Send an answer of the protocol."""
    connection.sendall(struct.pack("<Q", len(body)) + body)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise OSError("closed")
        data += part
    return data


class BadNetwork:
    """Forwards a port to a worker, until `stalls` is set: from then on nothing passes, and connections stay open."""

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self.stalls, self._port, self._delay = threading.Event(), port, delay

    def __call__(self, client: socket.socket) -> None:
        """Serve one connection, as `stand_in` wants it."""
        with socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=self._forward, args=(server, client), daemon=True)
            back.start()
            self._forward(client, server)
            back.join()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        pause = threading.Event()
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if self.stalls.is_set():
                    continue
                if self._delay:
                    pause.wait(self._delay)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
