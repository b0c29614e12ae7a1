"""A package index on this machine: the simple index of PEP 503 over HTTP on 127.0.0.1, with wheels made here.

Contract: `PackageIndex` holds wheels by project; what it does not hold is a 404. `cut` ends the connection after so
many bytes of a wheel, once; `status` answers every request for a wheel with an error. Requests for wheels are logged.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


def wheel(name: str, version: str, members: Mapping[str, bytes]) -> bytes:
    """A wheel for every Python and system."""
    module = re.sub(r"[-_.]+", "_", name)
    info = f"{module}-{version}.dist-info"
    files = dict(members) | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return out.getvalue()


class PackageIndex:
    """Serves wheels while it is open; `url` is what pip takes as its index."""

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut: dict[str, int] = {}
        self.status: int | None = None
        index = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                index._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}/simple"

    def add(self, name: str, version: str, members: Mapping[str, bytes]) -> int:
        """Put a wheel there: its size."""
        data = wheel(name, version, members)
        self.wheels[f"{re.sub(r'[-_.]+', '_', name)}-{version}-py3-none-any.whl"] = data
        return len(data)

    def __enter__(self) -> PackageIndex:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        place, _, file = request.path.rstrip("/").rpartition("/")
        if place == "/files" and file in self.wheels:
            self.asked.append(file)
            self._send(request, self.wheels[file], "application/octet-stream", self.cut.pop(file, None))
            return
        module = re.sub(r"[-_.]+", "_", file)
        links = [name for name in self.wheels if name.startswith(f"{module}-")] if place == "/simple" else []
        if not links:
            request.send_error(404)
            return
        page = "".join(f'<a href="/files/{name}">{name}</a>' for name in links)
        self._send(request, f"<!DOCTYPE html><html><body>{page}</body></html>".encode(), "text/html", None)

    def _send(self, request: BaseHTTPRequestHandler, body: bytes, kind: str, cut: int | None) -> None:
        if self.status is not None and kind != "text/html":
            request.send_error(self.status)
            return
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body if cut is None else body[:cut])
        request.close_connection = cut is not None
