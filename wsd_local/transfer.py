"""Bytes of the Hub, written to files: in as many attempts as it takes, each from where the last one ended.

Contract: a file that is under way holds nothing but bytes from its beginning, so that whoever is interrupted can go on
from them; `check` says whether they are the right ones. What is told the progress may raise, and that ends a transfer.
Errors of the network pass through; `WsdError` is raised for what a server sends wrongly.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from wsd_local.errors import WsdError
from wsd_local.hashing import file_sha256

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")
Phase = Literal["download", "verify"]
Tell = Callable[[int, Phase], None]
"""Told the bytes of a file that are done, and what is done with them."""

LONGEST_WAIT = 120.0
"""A server that asks for more seconds than this is not waited for."""

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
    that is kept in git.
    """

    path: str
    size: int
    blob: str
    sha256: str | None = None
    xet: Xet | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of a file are to be had; the token goes to the Hub alone."""

    endpoint: str
    url: str
    token: str | None = None
    waits: tuple[float, ...] = ()

    def headers(self) -> dict[str, str]:
        """What every question to the Hub brings along."""
        from huggingface_hub import get_token
        from huggingface_hub.constants import HF_HUB_DISABLE_IMPLICIT_TOKEN

        token = self.token or (None if HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token())
        return {"User-Agent": "wsd-local"} | ({"Authorization": f"Bearer {token}"} if token else {})


# -- attempts ------------------------------------------------------------------------------------------------------


def asked(call: Callable[[], T], waits: tuple[float, ...]) -> T:
    """The answer to a question of some bytes, asked again after each of `waits` while the failure may pass."""
    from huggingface_hub.errors import HfHubHTTPError

    http, failures = http_package(), 0
    while True:
        try:
            return call()
        except (http.TransportError, HfHubHTTPError) as error:
            wait = _wait(error, failures, waits)
            # Where nobody answers, nobody will in some seconds.
            unheard = failures > 0 and isinstance(error, http.ConnectError)
            if wait is None or unheard or isinstance(error, http.UnsupportedProtocol):
                raise
        failures += 1
        time.sleep(wait)


def complete(part: Path, file: RemoteFile, source: Source, tell: Tell) -> None:
    """Bring the bytes of a file that `part` does not have yet.

    Raises:
        WsdError: the server sends something else than the file, or too few bytes, or `part` had too many.
    """
    from huggingface_hub.errors import HfHubHTTPError

    http = http_package()
    part.touch()
    furthest = have = size_of(part)
    failures, by_xet = 0, file.xet is not None and _xet_is_there()
    while have < file.size:
        failure: Exception | None = None
        tell(have, "download")
        try:
            stream = _xet(source, file, have) if by_xet else _http(source, file, have)
            with stream as (start, chunks):
                _append(part, start, chunks, file, tell)
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
            wait = _wait(failure, failures, source.waits)
            if wait is None:
                raise failure or WsdError(f"{source.endpoint} sends only {have} of {file.size} bytes of {file.path}")
            failures += 1
            _pause(wait, partial(tell, have, "download"))
    if have > file.size:
        part.unlink()
        raise WsdError(f"{file.path}: more bytes came than there should be, and were removed; run the command again")


def _wait(error: Exception | None, failures: int, waits: tuple[float, ...]) -> float | None:
    """Seconds until the next attempt, None if there is to be none."""
    from huggingface_hub.errors import HfHubHTTPError

    if failures >= len(waits):
        return None
    if isinstance(error, HfHubHTTPError):
        wanted = asked_wait(error)
        if error.response.status_code not in _PASSING or (wanted is not None and wanted > LONGEST_WAIT):
            return None
        return waits[failures] if wanted is None else wanted
    return waits[failures]


def asked_wait(error: HfHubHTTPError) -> float | None:
    """Seconds that the server asks to wait."""
    headers = error.response.headers
    after = re.fullmatch(r"\s*(\d+)\s*", headers.get("Retry-After", ""), re.ASCII)
    limit = re.search(r"r=0;\s*t=(\d+)", headers.get("RateLimit", ""), re.ASCII)
    found = after or (limit if error.response.status_code == 429 else None)
    return None if found is None else float(found[1])


# -- over HTTP -----------------------------------------------------------------------------------------------------


@contextmanager
def _http(source: Source, file: RemoteFile, have: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    from huggingface_hub import get_session
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    headers = source.headers() | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    # The Hub's own address each time: what it redirects to is signed, and valid for a while only. The session
    # takes the token out of a request to another host.
    with get_session().stream("GET", source.url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
        hf_raise_for_status(response)
        start, size = _place(response)
        page = response.headers.get("Content-Type", "").startswith("text/html")
        if page or size not in (None, file.size) or start not in (0, have):
            what = "a web page" if page else f"{size} bytes from {start} on"
            raise WsdError(
                f"{source.endpoint} sends {what} for {file.path}, which has {file.size} bytes; none of it is kept: "
                "check the network, or try again later"
            )
        yield start, response.iter_bytes()


def _place(response: httpx2.Response) -> tuple[int, int | None]:
    """Where the bytes of an answer begin in the file, and the size of the file as far as it is told."""
    told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == 206 and told is not None:
        return int(told[1]), None if told[2] == "*" else int(told[2])
    length = response.headers.get("Content-Length", "")
    coded = response.headers.get("Content-Encoding", "identity") != "identity"
    return 0, int(length) if length.isdecimal() and not coded else None


def http_package() -> Any:
    """What `huggingface_hub` speaks HTTP with: its 1.x and 2.x differ."""
    from huggingface_hub.errors import HfHubHTTPError

    return importlib.import_module(HfHubHTTPError.__bases__[0].__module__.partition(".")[0])


# -- from the Hub's chunk storage ----------------------------------------------------------------------------------


class _XetError(Exception):
    """The chunk storage cannot be used; plain HTTP can go on from the bytes that came."""


@contextmanager
def _xet(source: Source, file: RemoteFile, have: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    assert file.xet is not None
    chunks = _xet_chunks(file.xet, file.size, have, source.headers())
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


def _append(part: Path, start: int, chunks: Iterable[bytes], file: RemoteFile, tell: Tell) -> None:
    """Write what comes, from `start` on; unbuffered, so that nothing is lost when the process is killed."""
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
            view = memoryview(chunk)
            while view:
                view = view[out.write(view) :]
            done += len(chunk)
            tell(done, "download")


def check(path: Path, file: RemoteFile, tell: Tell) -> None:
    """See that a file is what the Hub states.

    Raises:
        WsdError: its size or its SHA-256 is another; it was removed.
    """
    size, problem = path.stat().st_size, None
    if size != file.size:
        problem = f"it has {size} bytes, and should have {file.size}"
    elif file.sha256 is not None:
        digest = file_sha256(path, progress=lambda done, _total: tell(done, "verify"))
        if digest != file.sha256:
            problem = f"its SHA-256 is {digest}, and should be {file.sha256}"
    if problem is not None:
        for wrong in (path.resolve(), path):
            wrong.unlink(missing_ok=True)
        raise WsdError(f"{file.path}: the bytes are wrong ({problem}); they were removed, run the command again")


def _pause(seconds: float, tell: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0:
        tell()
        time.sleep(min(rest, 0.2))


def size_of(path: Path) -> int:
    """Bytes of a file; none, if there is no file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def one_line(said: object) -> str:
    """Text of a server on one line."""
    return "".join(sign for sign in " ".join(str(said).split()) if sign.isprintable())[:200]
