"""A client that speaks HTTP by hand, to go away when a test wants it to."""

from __future__ import annotations

import json
import socket
import struct
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 60
"""Seconds after which a client that waits for an answer that never comes fails its test."""


class Wire:
    """One request on a connection of its own; it is sent on entering.

    Args:
        url: the server's, without a path.
        path: what is requested, by POST.
        body: the request's JSON.
    """

    def __init__(self, url: str, path: str, **body: Any) -> None:
        place = urlsplit(url)
        assert place.hostname is not None and place.port is not None
        data = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", f"Host: {place.netloc}", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(data)}", "Connection: close", "", ""]
        self._request = "\r\n".join(lines).encode() + data
        self._socket = socket.create_connection((place.hostname, place.port), timeout=PATIENCE)
        self.received = b""

    def __enter__(self) -> Wire:
        self._socket.sendall(self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()

    def until(self, text: bytes) -> bytes:
        """What was received, up to this text at least."""
        while text not in self.received:
            more = self._socket.recv(65536)
            assert more, f"the server ended the answer before {text!r}: {self.received!r}"
            self.received += more
        return self.received

    def rest(self) -> bytes:
        """All that was received, when the server has ended the connection."""
        while more := self._socket.recv(65536):
            self.received += more
        return self.received

    def hang_up(self) -> None:
        """Close the connection."""
        self._socket.close()

    def reset(self) -> None:
        """Break the connection, so that the server's next write to it fails."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
