"""Downloads from the Hub into files: in as many attempts as necessary, each of which resumes the last one.

Contract: a partial file holds bytes from the beginning of the file and nothing else, so that an interrupted transfer
can be resumed. All bytes are hashed: while they are written, or, if they arrived in more than one piece, the whole file
afterwards; `verify` compares the hash with the one that the Hub states. A callback for progress may raise, which ends
the transfer. Errors of the network pass through; `WsdError` is raised for wrong responses of a server.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from wsd_local.errors import WsdError
from wsd_local.files import file_sha256
from wsd_local.system.network import AGENT, http_package, hub_token, requested_wait, session

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
TransferPhase = Literal["download", "verify"]
TransferProgress = Callable[[int, int, TransferPhase], None]
"""Receives the bytes done, their total and the phase; an exception from it stops the transfer."""
Report = Callable[[int, TransferPhase], None]
"""The same for one file, whose size is known."""

LONGEST_WAIT = 120.0
"""Seconds: a server that requests a longer wait than this is given up."""

_GIT_HASH = 40
_PASSING = (408, 416, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Xet:
    """Where the Hub's chunk storage has a file."""

    hash: str
    refresh: str


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as the Hub describes it.

    `blob` is its name among the bytes in the cache; `sha256` is None if the Hub does not state it, as for a small file
    that is kept in git, whose `blob` is git's own hash.
    """

    path: str
    size: int
    blob: str
    sha256: str | None = None
    xet: Xet | None = None

    @property
    def git_hash(self) -> str | None:
        """The SHA-1 that git knows the bytes by, if that is what names them."""
        return self.blob if len(self.blob) == _GIT_HASH else None


@dataclass(frozen=True, slots=True)
class Remote:
    """The address of a file's bytes. The token goes to the Hub alone, which messages call `name`."""

    name: str
    endpoint: str
    url: str
    token: str | None = None
    waits: tuple[float, ...] = ()

    def headers(self) -> dict[str, str]:
        """The headers of every request to the Hub."""
        token = hub_token(self.endpoint, self.token)
        return {"User-Agent": AGENT} | ({"Authorization": f"Bearer {token}"} if token else {})


# -- attempts ------------------------------------------------------------------------------------------------------


def with_retries(call: Callable[[], T], waits: tuple[float, ...]) -> T:
    """The result of a small request, which is repeated after each of `waits` while its failure may be temporary."""
    from huggingface_hub.errors import HfHubHTTPError

    http, failures = http_package(), 0
    while True:
        try:
            return call()
        except (http.TransportError, HfHubHTTPError) as error:
            wait = _wait(error, failures, waits)
            # A server that cannot be reached twice will not be there in some seconds either.
            unreachable = failures > 0 and isinstance(error, http.ConnectError)
            if wait is None or unreachable or isinstance(error, http.UnsupportedProtocol):
                raise
        failures += 1
        time.sleep(wait)


class _Streamed:
    """SHA-256 of the bytes that are written, as long as they are one piece from the beginning of the file."""

    def __init__(self) -> None:
        self.begins(0)

    def begins(self, start: int) -> None:
        """A piece begins at byte `start`."""
        self._digest, self._at, self._whole = hashlib.sha256(), 0, start == 0

    def add(self, chunk: bytes) -> None:
        """The next bytes."""
        if self._whole:
            self._digest.update(chunk)
            self._at += len(chunk)

    def sha256(self, size: int) -> str | None:
        """The hash of a file of `size` bytes; None if the file must be read to compute it."""
        return self._digest.hexdigest() if self._whole and self._at == size else None


def complete(part: Path, file: RemoteFile, remote: Remote, report: Report) -> str | None:
    """Fetch the bytes of a file that `part` does not have yet; returns their SHA-256 if they came in one piece.

    Raises:
        WsdError: the server sends another file, or too few bytes, or `part` had too many.
    """
    from huggingface_hub.errors import HfHubHTTPError

    http, streamed = http_package(), _Streamed()
    if part.is_symlink():
        part.unlink()
    part.touch()
    furthest = have = size_of(part)
    failures, by_xet = 0, file.xet is not None and _xet_is_there()
    while have < file.size:
        failure: Exception | None = None
        report(have, "download")
        try:
            stream = _xet(remote, file, have) if by_xet else _http(remote, file, have)
            with stream as (start, chunks):
                _append(part, start, chunks, file, report, streamed)
        except _XetError:
            by_xet = False
            have = size_of(part)
            continue
        except (http.TransportError, HfHubHTTPError) as error:
            failure = error
            if isinstance(error, HfHubHTTPError) and error.response.status_code == 416:
                os.truncate(part, 0)
        have = size_of(part)
        if have > furthest:
            furthest, failures = have, 0
        if have < file.size:
            wait = _wait(failure, failures, remote.waits)
            if wait is None:
                raise failure or WsdError(f"{remote.name} sends only {have} of {file.size} bytes of {file.path}")
            failures += 1
            _pause(wait, partial(report, have, "download"))
    if have > file.size:
        part.unlink()
        raise WsdError(f"{file.path}: more bytes came than there should be, and were removed; run the command again")
    return streamed.sha256(file.size)


def _wait(error: Exception | None, failures: int, waits: tuple[float, ...]) -> float | None:
    """Seconds until the next attempt, None if there is to be none."""
    from huggingface_hub.errors import HfHubHTTPError

    if failures >= len(waits):
        return None
    if isinstance(error, HfHubHTTPError):
        wanted = requested_wait(error.response)
        if error.response.status_code not in _PASSING or (wanted is not None and wanted > LONGEST_WAIT):
            return None
        return waits[failures] if wanted is None else wanted
    return waits[failures]


# -- over HTTP -----------------------------------------------------------------------------------------------------


@contextmanager
def _http(remote: Remote, file: RemoteFile, have: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    headers = remote.headers() | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    # The Hub's own address each time: what it redirects to is signed, and valid for a while only. The session
    # takes the token out of a request to another host.
    with session().stream("GET", remote.url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        start, size = _place(response)
        page = response.headers.get("Content-Type", "").startswith("text/html")
        if page or size not in (None, file.size) or start not in (0, have):
            what = "a web page" if page else f"{size} bytes from {start} on"
            raise WsdError(
                f"{remote.name} sends {what} for {file.path}, which has {file.size} bytes; none of it is kept: "
                "check the network, or try again later"
            )
        yield start, response.iter_bytes()


def _place(response: httpx2.Response) -> tuple[int, int | None]:
    """Where the bytes of a response begin in the file, and the size of the file if the response states it."""
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == 206 and stated is not None:
        return int(stated[1]), None if stated[2] == "*" else int(stated[2])
    length = response.headers.get("Content-Length", "")
    coded = response.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdecimal() and not coded else None


# -- from the Hub's chunk storage ----------------------------------------------------------------------------------


class _XetError(Exception):
    """The chunk storage cannot be used; plain HTTP can go on from the bytes that came."""


@contextmanager
def _xet(remote: Remote, file: RemoteFile, have: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    assert file.xet is not None
    chunks = _xet_chunks(file.xet, file.size, have, remote.headers())
    with closing(chunks):
        yield have, chunks


def _xet_is_there() -> bool:
    from huggingface_hub.constants import HF_HUB_DISABLE_XET

    return not HF_HUB_DISABLE_XET and importlib.util.find_spec("hf_xet") is not None


def _xet_chunks(xet: Xet, size: int, have: int, headers: dict[str, str]) -> Generator[bytes, None, None]:
    """The rest of a file in its order; the token goes to the Hub alone, which lends one for the storage."""
    try:
        module = importlib.import_module("hf_xet")
        group = module.XetSession().new_download_stream_group(
            token_refresh_url=xet.refresh, token_refresh_headers=headers
        )
        stream = group.download_stream(module.XetFileInfo(xet.hash, size), start=have or None)
    except Exception as error:
        raise _XetError from error
    try:
        yield from stream
    except Exception as error:
        raise _XetError from error
    finally:
        stream.cancel()


# -- files ---------------------------------------------------------------------------------------------------------


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Alone with a file, after another program that fetches it; `waiting` is called until then, and may raise."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    while not lock.is_locked:
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            waiting()
    try:
        yield
    finally:
        lock.release()


def _append(
    part: Path, start: int, chunks: Iterable[bytes], file: RemoteFile, report: Report, streamed: _Streamed
) -> None:
    """Write the bytes that arrive, from byte `start` on; unbuffered, so that none is lost if the process is killed."""
    streamed.begins(start)
    with part.open("r+b", buffering=0) as out:
        out.truncate(start)
        done = out.seek(start)
        for chunk in chunks:
            if done + len(chunk) > file.size:
                out.truncate(start)
                raise WsdError(
                    f"{file.path} should have {file.size} bytes, and the server sends more; none of it is kept: "
                    "try again later"
                )
            streamed.add(chunk)
            view = memoryview(chunk)
            while view:
                view = view[out.write(view) :]
            done += len(chunk)
            report(done, "download")


def verify(part: Path, file: RemoteFile, streamed: str | None, report: Report) -> str:
    """See that what was transferred is what the Hub states: its SHA-256. `streamed` is that of the bytes as they came.

    Raises:
        WsdError: its size or a hash is another; it was removed.
    """
    if streamed is None:
        streamed = _hashed(part, "sha256", b"", report)
    else:
        report(file.size, "verify")
    problem = _difference(part, file, streamed)
    if problem is not None:
        part.unlink(missing_ok=True)
        raise WsdError(f"{file.path}: the bytes are wrong ({problem}); they were removed, run the command again")
    return streamed


def wrong(path: Path, file: RemoteFile, report: Report) -> str | None:
    """How a file that was there already differs from what the Hub states; None if it does not."""
    if path.stat().st_size != file.size:
        return _difference(path, file, "")
    return _difference(path, file, file_sha256(path, progress=lambda done, _total: report(done, "verify")))


def _difference(path: Path, file: RemoteFile, sha256: str) -> str | None:
    size = path.stat().st_size
    if size != file.size:
        return f"it has {size} bytes, and should have {file.size}"
    if file.sha256 not in (None, sha256):
        return f"its SHA-256 is {sha256}, and should be {file.sha256}"
    if file.git_hash is not None:
        git_hash = _hashed(path, "sha1", b"blob %d\0" % size, lambda _done, _phase: None)
        if git_hash != file.git_hash:
            return f"its hash in git is {git_hash}, and should be {file.git_hash}"
    return None


def _hashed(path: Path, kind: Literal["sha1", "sha256"], begin: bytes, report: Report) -> str:
    # Git's SHA-1 is no proof against its owner, who could make two files of one hash; it is all that is stated.
    digest, done = hashlib.new(kind, begin, usedforsecurity=kind == "sha256"), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            done += len(block)
            report(done, "verify")
    return digest.hexdigest()


def _pause(seconds: float, report: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0:
        report()
        time.sleep(min(rest, 0.2))


def size_of(path: Path) -> int:
    """Bytes of a file; none, if there is no file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
