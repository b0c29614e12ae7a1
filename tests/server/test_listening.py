"""Addresses and ports at which a server listens."""

from __future__ import annotations

import socket

import pytest

from wsd_local.errors import UsageError, WsdError
from wsd_local.server.listening import bound, is_loopback, url_of


@pytest.mark.parametrize("host", ["localhost", "LocalHost.", "127.0.0.1", "127.8.9.1", "::1"])
def test_this_machine_alone(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "box", "localhost.example", "", "::ffff:192.0.2.1"])
def test_other_machines_too(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("host", "secure", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:80"),
        ("box.example", True, "https://box.example:80"),
        ("0.0.0.0", False, "http://127.0.0.1:80"),
        ("::", False, "http://127.0.0.1:80"),
        ("::1", True, "https://[::1]:80"),
    ],
)
def test_what_a_browser_is_given(host: str, secure: bool, url: str) -> None:
    assert url_of(host, 80, secure=secure) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_free_port(host: str) -> None:
    listeners = bound(host, 0)
    ports = {listener.getsockname()[1] for listener in listeners}
    assert len(ports) == 1
    with socket.create_connection(("127.0.0.1", ports.pop())):
        assert len(listeners) <= 2
    for listener in listeners:
        listener.close()


def test_all_addresses_of_both_kinds() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("expected: no IPv6 here")
    (listener,) = bound("::", 0)
    with listener, socket.create_connection(("127.0.0.1", listener.getsockname()[1])) as connection:
        assert connection.getpeername()[1] == listener.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_port_in_use_is_taken_by_nobody_else(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(WsdError, match="in use"):
        bound(host, other.getsockname()[1])


@pytest.mark.parametrize("host", ["", "192.0.2.1", "a..b", "x" * 300, "no.such.host.invalid"])
def test_what_is_no_address_of_this_machine(host: str) -> None:
    with pytest.raises(UsageError, match="host is"):
        bound(host, 0)
