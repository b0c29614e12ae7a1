"""What a worker is asked before llama.cpp may connect to it: every wrong answer is one line, in time."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import ExitStack
from unittest.mock import patch

import pytest
from rpc_workers import Client, answer, free_port, received, stand_in

from wsd_local.errors import UsageError, WorkerError
from wsd_local.load_settings import LoadSettings
from wsd_local.system.rpc import Endpoint, ask, endpoints
from wsd_local.system.sockets import connections
from wsd_local.system.sockets import received as count_of
from wsd_local.workers import server

OURS = (7, 0, 0)
BRIEF = 0.3


def good(connection: socket.socket, version: tuple[int, int, int] = OURS, devices: int = 2) -> None:
    """A worker with devices of 1 GiB, 2 GiB, … of which a quarter is free."""
    while True:
        command, body = received(connection)
        if command == 14:
            answer(connection, bytes(version) + bytes(25))
        elif command == 15:
            answer(connection, struct.pack("<I", devices))
        else:
            size = (struct.unpack("<I", body)[0] + 1) << 30
            answer(connection, struct.pack("<QQ", size // 4, size))


def test_a_worker_names_its_memory() -> None:
    with stand_in(good) as endpoint:
        assert ask(endpoint, OURS).memory == ((1 << 28, 1 << 30), (1 << 29, 1 << 31))


@pytest.mark.parametrize("version", [(6, 0, 0), (8, 0, 0), (7, 1, 0), (7, 0, 1)])
def test_another_version_is_refused_with_both_numbers(version: tuple[int, int, int]) -> None:
    with stand_in(lambda connection: good(connection, version)) as endpoint, pytest.raises(WorkerError) as error:
        ask(endpoint, OURS)
    assert ".".join(map(str, version)) in str(error.value) and "7.0.0" in str(error.value)
    assert str(endpoint) in str(error.value) and "llama-cpp-python" in str(error.value)


def test_a_worker_that_does_not_know_todays_greeting_is_asked_for_its_version() -> None:
    def old(connection: socket.socket) -> None:
        if received(connection)[1] == b"":
            answer(connection, bytes((2, 0, 0)))

    with stand_in(old) as endpoint, pytest.raises(WorkerError, match=r"2\.0\.0 .*7\.0\.0"):
        ask(endpoint, OURS)


def test_nothing_listens() -> None:
    port = free_port()
    with pytest.raises(WorkerError, match=f"127.0.0.1:{port} is not there.*rpc-worker --port {port}"):
        ask(Endpoint("127.0.0.1", port), OURS)


def silent(connection: socket.socket) -> None:
    while connection.recv(1024):
        pass


def dripping(connection: socket.socket) -> None:
    pause = threading.Event()
    while not pause.wait(0.05):
        connection.sendall(b"\x1c")


@pytest.mark.parametrize("client", [silent, dripping])
def test_what_answers_too_slowly_is_given_up_in_time(client: Client) -> None:
    with stand_in(client) as endpoint, pytest.raises(WorkerError, match=r"does not answer.*one at a time"):
        ask(endpoint, OURS, BRIEF)


WRONG = [b"HTTP/1.1 400 Bad Request\r\n\r\n" * 9, b"", bytes(8), struct.pack("<Q", 2) + b"ab", b"\xff" * 64]


@pytest.mark.parametrize("wrong", WRONG, ids=range(len(WRONG)))
def test_what_is_no_worker_is_said_to_be_none(wrong: bytes) -> None:
    with stand_in(lambda connection: connection.sendall(wrong)) as endpoint, pytest.raises(WorkerError) as error:
        ask(endpoint, OURS)
    assert "no RPC worker" in str(error.value)


def test_a_worker_that_stops_after_its_greeting() -> None:
    def half(connection: socket.socket) -> None:
        received(connection)
        answer(connection, bytes(OURS) + bytes(25))
        received(connection)

    with stand_in(half) as endpoint, pytest.raises(WorkerError, match="no RPC worker"):
        ask(endpoint, OURS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "HOST:PORT"),
        ("host", "HOST:PORT"),
        ("host:", "HOST:PORT"),
        ("host:0", "HOST:PORT"),
        ("host:65536", "HOST:PORT"),
        ("host:x", "HOST:PORT"),
        (":50052", "IPv4"),
        ("[::1]:50052", "IPv4"),
        ("a b:1", "IPv4"),
        ("a:1,a:1", "twice"),
        (",".join(f"h:{port}" for port in range(1, 18)), "at most 16"),
    ],
)
def test_addresses_that_are_written_wrongly(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        endpoints(text)
    with pytest.raises(UsageError, match=words):
        LoadSettings(rpc=text)


def test_addresses() -> None:
    assert endpoints("a:1, 10.0.0.2:50052") == (Endpoint("a", 1), Endpoint("10.0.0.2", 50052))


def test_what_does_not_go_with_workers() -> None:
    with pytest.raises(UsageError, match="prompt-cache and rpc"):
        LoadSettings(rpc="a:1", prompt_cache="here")
    with pytest.raises(UsageError, match="rpc-timeout"):
        LoadSettings(rpc_timeout=0)


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="expected: only Linux shows what came over a connection")
def test_a_client_that_sends_no_greeting_is_disconnected() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        quiet, polite = (stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(2))
        accepted = [stack.enter_context(listener.accept()[0]) for _ in range(2)]
        polite.sendall(bytes(server.GREETING))
        assert accepted[1].recv(server.GREETING, socket.MSG_WAITALL)
        seen: dict[int, float] = {}
        with patch.object(server, "connections", lambda: _copies(accepted)):
            server.watch(seen, 0.0)
            server.watch(seen, server.SILENT_S + 1)
        assert quiet.recv(1) == b"", "it was disconnected"
        polite.setblocking(False)
        with pytest.raises(BlockingIOError):
            polite.recv(1)
        assert accepted[1].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def _copies(sockets: list[socket.socket]) -> dict[int, socket.socket]:
    """As `connections`, but of no others: this process has more."""
    return {one.fileno(): one.dup() for one in sockets}


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="expected: only Linux shows a process its open files")
def test_connections_of_this_process_are_found_and_left_open() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        mine = stack.enter_context(socket.create_connection(listener.getsockname()))
        theirs = stack.enter_context(listener.accept()[0])
        for one in socket.socketpair():
            stack.enter_context(one)
        theirs.sendall(b"12345")
        assert mine.recv(5, socket.MSG_WAITALL) == b"12345"
        counts = []
        for copy in connections().values():
            with copy:
                if copy.getpeername() == mine.getpeername():
                    counts.append(count_of(copy))
        assert counts == [5]
        theirs.sendall(b"!")
        assert mine.recv(1) == b"!"
