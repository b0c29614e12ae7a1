"""Where a server listens: addresses, ports, certificates.

Contract: everything that can be wrong with them is found before models are loaded, as one line.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
from contextlib import suppress
from pathlib import Path

from wsd_local.errors import UsageError, WsdError, reason, short

MOST_PORTS = 65535


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach a host."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host, at one port; port 0: one that is free.

    Raises:
        UsageError: there is no such host, or it is not this machine.
        WsdError: the port is in use, or may not be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise UsageError(f"host is {short(host)}: there is no such address; 127.0.0.1 is this machine") from None
    listeners: list[socket.socket] = []
    failed: OSError | None = None
    for family, address in dict.fromkeys((family, place[0]) for family, _, _, _, place in found):
        dual = family == socket.AF_INET6 and address == "::" and socket.has_dualstack_ipv6()
        try:
            listener = socket.create_server((str(address), port), family=family, backlog=2048, dualstack_ipv6=dual)
        except OSError as error:
            # A machine may know ::1 for localhost and have no IPv6: one address is enough.
            failed = failed or error
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                break
            continue
        listeners.append(listener)
        port = listener.getsockname()[1]
    if failed is not None and (not listeners or failed.errno == errno.EADDRINUSE):
        for listener in listeners:
            listener.close()
        raise _explained(host, port, failed)
    return listeners


def _explained(host: str, port: int, error: OSError) -> WsdError:
    if error.errno == errno.EADDRINUSE:
        return WsdError(f"port {port} of {host} is in use: end what uses it, or choose another with --port (0: any)")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"host is {short(host)}: this machine does not have that address")
    return WsdError(f"port {port} of {host} cannot be used: {reason(error)}; choose another with --port (0: any)")


def url_of(host: str, port: int, *, secure: bool) -> str:
    """The address at which a browser of this machine finds the server."""
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = "127.0.0.1"
    name = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{name}:{port}"


def tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What encrypts connections; None without a certificate.

    Raises:
        UsageError: the files cannot be read, are no PEM, do not belong together, or the key has a password.
    """
    if certificate is None:
        if key is not None:
            raise UsageError("ssl-keyfile is given without ssl-certfile: give the certificate too")
        return None
    for option, path in (("ssl-certfile", certificate), ("ssl-keyfile", key)):
        if path is not None:
            _require_readable(option, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """Let new connections use what is in the files now.

    Raises:
        UsageError: as `tls`.
    """

    def password() -> str:
        raise UsageError(f"ssl-keyfile: {key or certificate} is protected by a password: give a key without one")

    try:
        context.load_cert_chain(certificate, key, password)
    except UsageError:
        raise
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in str(error):
            raise UsageError(f"ssl-keyfile: {key} is not the key of {certificate}") from None
        what = f"{certificate} and {key}" if key is not None else f"{certificate} (which must hold the key too)"
        raise UsageError(f"ssl-certfile: {what} cannot be used as certificate and key in PEM form") from None
    except OSError as error:
        raise UsageError(f"ssl-certfile: {certificate}: {reason(error)}") from None


def _require_readable(option: str, path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise UsageError(f"{option}: {path}: {reason(error)}") from None
