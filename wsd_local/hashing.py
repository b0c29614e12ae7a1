"""Whole-file SHA-256, made once per file.

Contract: a remembered hash holds for the file it was made of and no other: the key is path, size, time of modification,
time of the last change of any kind, inode and device. A program can set the time of modification, but not the time of
change, so a file whose bytes were replaced is hashed again (Windows keeps no time of change). The memory is a file in
the cache folder; one that cannot be read or written costs time, never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from wsd_local.atomic import write_text
from wsd_local.inputs import json_value
from wsd_local.paths import cache_dir

HashProgress = Callable[[int, int], None]

_TICK = 20_000_000
"""Nanoseconds after which a change gets another time, with room to spare; kernels count in steps of up to 10 ms."""
_COARSE = 2_000_000_000
"""The same for file systems that keep whole seconds."""


def file_sha256(path: Path, cache: Path | None = None, progress: HashProgress | None = None) -> str:
    """Hexadecimal SHA-256 of a file's bytes. `progress` receives the bytes read and their total."""
    known = known_sha256(path, cache)
    if known is not None:
        return known
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        lasting = _settled(before)
        digest = _digest(file.fileno(), before.st_size, progress)
        unchanged = identity(os.fstat(file.fileno())) == identity(before)
    if lasting and unchanged:
        _remember(_key(path, before), digest, cache)
    return digest


def known_sha256(path: Path, cache: Path | None = None) -> str | None:
    """The remembered SHA-256 of a file as it is now; None if there is none, or no file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return _read(cache or _file()).get(_key(path, path.stat()))


def remember_sha256(path: Path, digest: str) -> None:
    """Remember a hash that was made while the file was written, by whoever wrote it, and is done with it."""
    if _settled(path.stat()):
        _remember(_key(path, path.stat()), digest, None)


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes whenever the bytes of a file do: size, both times, inode and device."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _settled(status: os.stat_result) -> bool:
    """Whether every later change of the file will have another time; waits some milliseconds for that."""
    changed = status.st_mtime_ns if os.name == "nt" else status.st_ctime_ns
    age = time.time_ns() - changed
    if changed % 1_000_000 == 0:
        return age > _COARSE
    if 0 <= age < _TICK:
        time.sleep((_TICK - age) / 1e9)
    return age >= 0


def _key(path: Path, status: os.stat_result) -> str:
    return "|".join(map(str, (path.resolve(), *identity(status))))


def _digest(descriptor: int, total: int, progress: HashProgress | None) -> str:
    digest, done = hashlib.sha256(), 0
    while block := os.read(descriptor, 1 << 20):
        digest.update(block)
        done += len(block)
        if progress is not None:
            progress(done, total)
    return digest.hexdigest()


def _file() -> Path:
    return cache_dir() / "sha256.json"


def _read(cache: Path) -> dict[str, str]:
    try:
        known = json_value(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(key: str, digest: str, cache: Path | None) -> None:
    cache = cache or _file()
    path = key.partition("|")[0]
    try:
        others = {other: value for other, value in _read(cache).items() if other.partition("|")[0] != path}
        write_text(cache, json.dumps(others | {key: digest}))
    except OSError:
        return
