"""Workers of llama.cpp's RPC on other machines: their addresses, and what they answer.

Contract: `endpoints` reads addresses. `ask` holds a short conversation with one worker over a socket of its own, within
a time limit, because llama.cpp's own client waits for ever where nothing answers, and ends the process where the answer
is wrong. A worker serves one client at a time: who asks while another client is connected gets no answer.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wsd_local.errors import UsageError, WorkerError, reason, short

if TYPE_CHECKING:
    import socket

PORT = 50052
"""Where workers listen by llama.cpp's custom."""
MOST_WORKERS = 16
"""What llama.cpp can take."""
PATIENCE = 5.0
"""Seconds for one conversation."""
IDLE_S, INTERVAL_S, ATTEMPTS = 10, 5, 3
"""A connection over which nothing came for so long is probed so often, and then counts as lost: 25 s in all."""

Version = tuple[int, int, int]
_HELLO, _COUNT, _MEMORY = 14, 15, 11
_CAPABILITIES = 24
"""Bytes of a greeting since version 4 of the protocol; earlier ones have none."""
_LONGEST_ANSWER = 4096
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a worker listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker answered: free and total bytes of each of its devices."""

    endpoint: Endpoint
    memory: tuple[tuple[int, int], ...]


def endpoints(text: str) -> tuple[Endpoint, ...]:
    """The addresses in `HOST:PORT,HOST:PORT,…`.

    Raises:
        UsageError: one is written wrongly, or occurs twice, or they are too many.
    """
    found = tuple(_endpoint(part.strip()) for part in text.split(","))
    if len(set(found)) < len(found):
        raise UsageError(f"rpc is {short(text)}: it names a worker twice", about="rpc")
    if len(found) > MOST_WORKERS:
        raise UsageError(f"rpc names {len(found)} workers: llama.cpp takes at most {MOST_WORKERS}", about="rpc")
    return found


def _endpoint(text: str) -> Endpoint:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise UsageError(f"rpc has {short(text)}: a worker is written HOST:PORT, as in 127.0.0.1:{PORT}", about="rpc")
    if not _HOST.fullmatch(host):
        raise UsageError(
            f"rpc has {short(text)}: the host must be a name or an IPv4 address, which is all that llama.cpp takes",
            about="rpc",
        )
    return Endpoint(host, int(port))


def ask(endpoint: Endpoint, version: Version, patience: float = PATIENCE) -> Worker:
    """Ask a worker for its devices; `version` is the protocol that it must speak.

    Raises:
        WorkerError: it cannot be reached, does not answer in time, is no worker, or speaks another version.
    """
    deadline = time.monotonic() + patience
    with _connection(endpoint, deadline) as connection:
        try:
            found = _version(connection.request(_HELLO, bytes(_CAPABILITIES)))
        except _NoAnswerError:
            found = _old_version(endpoint, deadline)
        if found != version:
            raise WorkerError(
                f"the RPC worker {endpoint} speaks version {_dotted(found)} of the protocol, and the llama.cpp here "
                f"version {_dotted(version)}: install the same llama-cpp-python on both machines"
            )
        try:
            (count,) = struct.unpack("<I", connection.request(_COUNT, b""))
            memory = [struct.unpack("<QQ", connection.request(_MEMORY, struct.pack("<I", i))) for i in range(count)]
        except (_NoAnswerError, struct.error):
            raise _no_worker(endpoint) from None
    return Worker(endpoint, tuple((free, total) for free, total in memory))


class _NoAnswerError(Exception):
    """The connection was closed, or what came is no answer."""


@dataclass(frozen=True, slots=True)
class _Connection:
    """A connection on which everything must be done before `deadline`."""

    socket: socket.socket
    deadline: float

    def request(self, command: int, body: bytes) -> bytes:
        """Send one command; the body of its answer."""
        self.socket.settimeout(self._left())
        self.socket.sendall(struct.pack("<BQ", command, len(body)) + body)
        (size,) = struct.unpack("<Q", self._receive(8))
        if size > _LONGEST_ANSWER:
            raise _NoAnswerError
        return self._receive(size)

    def _receive(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            self.socket.settimeout(self._left())
            part = self.socket.recv(size - len(data))
            if not part:
                raise _NoAnswerError
            data += part
        return data

    def _left(self) -> float:
        if (left := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return left


@contextmanager
def _connection(endpoint: Endpoint, deadline: float) -> Iterator[_Connection]:
    """A connection to a worker; what the system refuses becomes a `WorkerError`."""
    import socket

    connected = False
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
            connection = _Connection(opened, deadline)
            opened.settimeout(connection._left())
            opened.connect((endpoint.host, endpoint.port))
            connected = True
            yield connection
    except TimeoutError:
        what = (
            "accepts a connection and does not answer: another program uses it (it serves one at a time), or it hangs"
            if connected
            else "cannot be reached: nothing answers at that address"
        )
        raise WorkerError(f"the RPC worker {endpoint} {what}") from None
    except ConnectionRefusedError:
        raise WorkerError(
            f"the RPC worker {endpoint} is not there: nothing listens at that port; start it on that machine with "
            f"wsd-local rpc-worker --port {endpoint.port}"
        ) from None
    except (ConnectionError, _NoAnswerError):
        raise _no_worker(endpoint) from None
    except OSError as error:
        raise WorkerError(f"the RPC worker {endpoint} cannot be reached: {reason(error)}") from None


def _no_worker(endpoint: Endpoint) -> WorkerError:
    return WorkerError(f"{endpoint}: what answers there is no RPC worker of llama.cpp; check host and port")


def _old_version(endpoint: Endpoint, deadline: float) -> Version:
    """The version of a worker that refuses today's greeting, if it answers the one of former versions."""
    with _connection(endpoint, deadline) as connection:
        return _version(connection.request(_HELLO, b""))


def _version(answer: bytes) -> Version:
    if len(answer) < 3:
        raise _NoAnswerError
    return answer[0], answer[1], answer[2]


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def guard(connected: socket.socket) -> None:
    """Let the system notice that the machine at the other end is gone, although nothing is sent."""
    import socket

    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
    for option, value in (
        (idle, IDLE_S),
        (getattr(socket, "TCP_KEEPINTVL", None), INTERVAL_S),
        (getattr(socket, "TCP_KEEPCNT", None), ATTEMPTS),
    ):
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * (IDLE_S + INTERVAL_S * ATTEMPTS))
