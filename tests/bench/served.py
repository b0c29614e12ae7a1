"""Servers to be measured, each in a process of its own, and a client that costs little.

Contract: a server is ready when `serving` or `llama_server` is entered, and has ended when it is left; ours with exit
code 0. A `Call` is one request by hand over a connection of its own: what a client library costs is not measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

PATIENCE = 600.0
"""Seconds that a server may take to load its models, or to answer."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server in progress: its URL, its process, and the file with what it writes."""

    url: str
    process: psutil.Process
    log: Path

    def resident(self) -> int:
        """Resident memory of the process and its children in bytes."""
        found = 0
        for one in [self.process, *self.process.children(recursive=True)]:
            try:
                found += one.memory_info().rss
            except psutil.NoSuchProcess:  # meanwhile
                continue
        return found


@contextmanager
def serving(*options: str, config: str = "") -> Iterator[Served]:
    """`wsd-local serve` on a free port, with folders of its own.

    Args:
        options: of the command.
        config: what its configuration file holds.

    Raises:
        RuntimeError: it does not start, or does not end in order.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = {name: f"{folder}/{name.lower()}" for name in ("CACHE", "DATA", "CONFIG")}
        Path(own["CONFIG"]).write_text(config)
        environment = {**os.environ, **{f"WSD_LOCAL_{name}": path for name, path in own.items()}}
        command = [sys.executable, "-m", "wsd_local", "serve", "--port", "0", *options]
        with _started(command, Path(folder) / "log", environment, r"listening on (\S+)") as served:
            yield served
        code = served.process.wait()
        if code:
            raise RuntimeError(f"the server ended with exit code {code}: {served.log.read_text()[-2000:]}")


@contextmanager
def llama_server(folder: Path, *options: str) -> Iterator[Served]:
    """llama.cpp's own server on a free port.

    Args:
        folder: where `build_peers.sh` put it.
        options: of the program.

    Raises:
        RuntimeError: it does not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as own:
        command = [str(folder / "llama-server"), "--host", "127.0.0.1", "--port", str(port), "--no-ui", *options]
        environment = {**os.environ, "GGML_NO_BACKTRACE": "1"}
        with _started(command, Path(own) / "log", environment, f"()http://127.0.0.1:{port}") as served:
            yield served


@contextmanager
def _started(command: list[str], log: Path, environment: dict[str, str], place: str) -> Iterator[Served]:
    """A server that is ready; `place` finds its URL in what it writes."""
    with log.open("wb") as out:
        process = psutil.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ((found := re.search(place, log.read_text(errors="replace"))) and is_healthy(_url(found))):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield Served(_url(found), process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait()


def _url(found: re.Match[str]) -> str:
    return found[1] or found[0]


def is_healthy(url: str) -> bool:
    """Whether a server answers requests."""
    try:
        with urlopen(f"{url}/health") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass(slots=True)
class Call:
    """One request and what came of it, in seconds after it was sent."""

    url: str
    path: str
    body: dict[str, Any] | None = None
    status: int = 0
    received: bytearray = field(default_factory=bytearray)
    sent_at: float = 0.0
    first_byte: float | None = None
    first_text: float | None = None
    seconds: float = 0.0

    async def send(self, *, text_begins: bytes | None = None, leave: float | int | None = None) -> None:
        """Send it and receive the answer to its end.

        Args:
            text_begins: what the first text is recognised by.
            leave: go away after so many seconds (a float), or after so many pieces of the answer (an int).
        """
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self.sent_at = time.perf_counter()
        try:
            writer.write(self._request(f"{host}:{port}"))
            await writer.drain()
            if isinstance(leave, float):
                with_limit = asyncio.wait_for(self._receive(reader, text_begins, None), leave)
                await asyncio.gather(with_limit, return_exceptions=True)
            else:
                await self._receive(reader, text_begins, leave)
        finally:
            self.seconds = time.perf_counter() - self.sent_at
            writer.close()

    async def _receive(self, reader: asyncio.StreamReader, text_begins: bytes | None, pieces: int | None) -> None:
        left = pieces
        while left != 0 and (more := await reader.read(1 << 16)):
            now = time.perf_counter() - self.sent_at
            if self.first_byte is None:
                self.first_byte, self.status = now, int(more.split(b" ", 2)[1])
            self.received += more
            if self.first_text is None and text_begins is not None and text_begins in self.received:
                self.first_text = now
            left = None if left is None else left - 1

    def _request(self, host: str) -> bytes:
        method, data = ("GET", b"") if self.body is None else ("POST", json.dumps(self.body).encode())
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"] if data else []
        return "\r\n".join([*lines, "", ""]).encode() + data
