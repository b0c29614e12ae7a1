"""A Hub on this machine: what `huggingface_hub` asks of the real one, over HTTP on 127.0.0.1.

Contract: `HubStandIn` holds repositories as dictionaries of bytes, answers as the Hub does (metadata at the Hub, the
bytes of large files at another address to which it redirects), logs every request, and misbehaves as `Fault`s say.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import sys
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
GOOD_TOKEN = "hf_good"
STRANGER_TOKEN = "hf_stranger"
"""A token of an account that no gated repository has let in."""

Kind = Literal["api", "head", "get"]


@dataclass(frozen=True)
class Asked:
    """One request. `kind` is `api` (JSON), `head` (metadata of a file) or `get` (its bytes, at last)."""

    kind: Kind
    path: str
    range: str | None
    token: str | None
    status: int


@dataclass
class Fault:
    """What goes wrong with one answer.

    `status` replaces it, `headers` are added; `content` replaces the bytes of the file; `cut` ends the connection after
    so many bytes of the body, politely or with a reset; `hold` stops there until the stand-in is closed; `whole`
    answers a range with everything; `chunked` leaves the length out.
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    cut: int | None = None
    reset: bool = False
    hold: bool = False
    whole: bool = False
    chunked: bool = False


@dataclass
class Repo:
    """Files by path. A `gated` one shows its metadata to everybody, and its files to those with the good token.

    Files whose names end in one of `in_git`, and all if not `lfs`, are kept in git: no SHA-256 of them is stated.
    """

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    commit: str = COMMIT
    lfs: bool = True
    xet: bool = False
    in_git: tuple[str, ...] = (".json", ".md", ".txt")

    def large(self, path: str) -> bool:
        """Whether a file is stored beside git."""
        return self.lfs and not path.endswith(self.in_git)


class HubStandIn:
    """Use it as a context manager; `url` is the endpoint."""

    def __init__(self, **repos: Repo) -> None:
        self.repos: dict[str, Repo] = dict(repos)
        self.log: list[Asked] = []
        self.next: dict[Kind, deque[Fault]] = {"api": deque(), "head": deque(), "get": deque()}
        self.always: dict[Kind, Fault] = {}
        self.closed = threading.Event()
        self._servers = [_Server(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        # Two names of this machine: `huggingface_hub` treats another host otherwise than its own, a token above all.
        hub, storage = (server.server_address[1] for server in self._servers)
        self.url, self.storage = f"http://127.0.0.1:{hub}", f"http://localhost:{storage}"
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> HubStandIn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def ranges(self) -> list[str | None]:
        """The ranges that were asked for of files' bytes, in order; None is a whole file."""
        return [asked.range for asked in self.log if asked.kind == "get"]

    def fault(self, kind: Kind) -> Fault:
        """What goes wrong with the next answer of this kind."""
        return self.next[kind].popleft() if self.next[kind] else self.always.get(kind, Fault())

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Bound(_Handler):
            """Answers for this stand-in."""

        Bound.hub = hub
        return Bound


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what tests are about."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    # -- what is asked for -----------------------------------------------------------------------------------

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if (stored := re.fullmatch(r"/stored/((?:datasets/)?[^/]+/[^/]+)/(.+)", path)) is not None:
            return self._bytes(self.hub.repos[stored[1]].files[stored[2]])
        kind: Kind = "head" if self.command == "HEAD" else "api"
        path = path.replace("/api/datasets/", "/api/models/datasets/")  # `datasets/OWNER/NAME` among the repositories
        asked = r"/api/models/((?:datasets/)?[^/]+/[^/]+?)(/revision/[^/]+|/tree/[^/]+)?"
        if (api := re.fullmatch(asked, path)) is not None:
            if not self._failed("api"):
                self._metadata(api[1], tree=(api[2] or "").startswith("/tree"))
            return None
        if (file := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)) is not None:
            return self._file(file[1], file[2], file[3])
        return self._json(404, {"error": "there is no such place"}, kind)

    def _metadata(self, name: str, *, tree: bool) -> None:
        repo = self._repo(name, "api")
        if repo is None:
            return
        if tree:
            self._json(200, [self._tree_row(path, repo) for path in repo.files], "api")
            return
        blobs = "blobs" in parse_qs(urlsplit(self.path).query)
        rows = [{"rfilename": path} | (self._details(path, repo) if blobs else {}) for path in repo.files]
        self._json(200, {"id": name, "modelId": name, "sha": repo.commit, "siblings": rows}, "api")

    def _details(self, path: str, repo: Repo) -> dict[str, Any]:
        data = repo.files[path]
        row: dict[str, Any] = {"size": len(data), "blobId": _sha1(data)}
        if repo.large(path):
            row["lfs"] = {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}
        return row

    def _tree_row(self, path: str, repo: Repo) -> dict[str, Any]:
        data = repo.files[path]
        lfs = {"lfs": {"oid": _sha256(data), "size": len(data), "pointerSize": 134}} if repo.large(path) else {}
        return {"type": "file", "path": path, "size": len(data), "oid": _sha1(data)} | lfs

    def _file(self, name: str, revision: str, path: str) -> None:
        kind: Kind = "head" if self.command == "HEAD" else "get"
        repo = self._repo(name, kind)
        if repo is None or (kind == "head" and self._failed("head")):
            return
        if repo.gated and self._token() != GOOD_TOKEN:
            known = self._token() is not None
            said = "you are not in the authorized list" if known else "Please log in"
            self._refuse(403 if known else 401, "GatedRepo", f"Access to model {name} is restricted. {said}.", kind)
            return
        if revision not in ("main", repo.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}", kind)
            return
        if path not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found", kind, {"X-Repo-Commit": repo.commit})
            return
        data = repo.files[path]
        headers = {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes", "ETag": f'"{_sha1(data)}"'}
        if not repo.large(path):
            if kind == "get":
                self._bytes(data)
            else:
                self._send(200, headers | {"Content-Length": str(len(data))}, kind)
            return
        headers |= {"X-Linked-ETag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data)), "Content-Length": "0"}
        if repo.xet:
            headers["X-Xet-Hash"] = _sha256(data)
            headers["X-Xet-Refresh-Route"] = f"{self.hub.url}/api/models/{name}/xet-read-token/{repo.commit}"
        headers["Location"] = f"{self.hub.storage}/stored/{name}/{path}"
        self._send(302, headers, kind if kind == "head" else None)

    def _repo(self, name: str, kind: Kind) -> Repo | None:
        repo = self.hub.repos.get(name)
        if self._token() not in (None, GOOD_TOKEN, STRANGER_TOKEN):
            self._refuse(401, "", "Invalid credentials in Authorization header", kind)
            return None
        if repo is not None and (not repo.private or self._token() == GOOD_TOKEN):
            return repo
        if self._token() is None:
            self._refuse(401, "RepoNotFound", "Invalid username or password.", kind)
        else:
            self._refuse(404, "RepoNotFound", "Repository not found", kind)
        return None

    # -- answers ---------------------------------------------------------------------------------------------

    def _bytes(self, data: bytes) -> None:
        if self._failed("get", peek=True):
            return
        fault = self.hub.fault("get")
        data = data if fault.content is None else fault.content
        start, status, headers = 0, 200, {"Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked is not None and not fault.whole:
            start, status = int(asked[1]), 206
            if start >= len(data):
                self._send(416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"}, "get")
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        headers |= fault.headers
        body = data[start:]
        self._send(
            status, headers | ({"Connection": "close"} if fault.chunked else {"Content-Length": str(len(body))}), "get"
        )
        self.wfile.write(body if fault.cut is None else body[: fault.cut])
        self.wfile.flush()
        if fault.hold:
            self.hub.closed.wait()
        if fault.cut is not None or fault.chunked:
            self._hang_up(reset=fault.reset)

    def _hang_up(self, *, reset: bool) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _failed(self, kind: Kind, *, peek: bool = False) -> bool:
        """Answer with the status of a fault, if that is what comes next."""
        waiting = self.hub.next[kind]
        fault = waiting[0] if waiting else self.hub.always.get(kind)
        if fault is None or fault.status is None:
            if waiting and not peek:
                waiting.popleft()
            return False
        fault = self.hub.fault(kind)
        self._send(fault.status or 500, {"Content-Length": "0"} | fault.headers, kind)
        return True

    def _refuse(self, status: int, code: str, said: str, kind: Kind, headers: dict[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code} if code else {}
        self._json(status, {"error": said}, kind, codes | {"X-Error-Message": said} | (headers or {}))

    def _json(self, status: int, value: Any, kind: Kind, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        plain = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        self._send(status, plain | (headers or {}), kind)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send(self, status: int, headers: dict[str, str], kind: Kind | None) -> None:
        if kind is not None:
            path = unquote(urlsplit(self.path).path)
            self.hub.log.append(Asked(kind, path, self.headers.get("Range"), self._token(), status))
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _token(self) -> str | None:
        said = self.headers.get("Authorization")
        return None if said is None else str(said).removeprefix("Bearer ")


def _sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
