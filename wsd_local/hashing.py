"""Whole-file SHA-256, made once per file.

Contract: the hash is remembered by path, size and modification time in the cache folder; a cache that cannot be
read or written costs time, never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from wsd_local.atomic import write_text
from wsd_local.inputs import json_value
from wsd_local.paths import cache_dir

HashProgress = Callable[[int, int], None]


def file_sha256(path: Path, cache: Path | None = None, progress: HashProgress | None = None) -> str:
    """Hexadecimal SHA-256 of a file's bytes. `progress` is told the bytes read and their total."""
    cache = cache or cache_dir() / "sha256.json"
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    known = _read(cache)
    if key not in known:
        with path.open("rb") as file:
            known[key] = _digest(file.fileno(), status.st_size, progress)
        _write(cache, known)
    return known[key]


def _digest(descriptor: int, total: int, progress: HashProgress | None) -> str:
    digest, done = hashlib.sha256(), 0
    while block := os.read(descriptor, 1 << 20):
        digest.update(block)
        done += len(block)
        if progress is not None:
            progress(done, total)
    return digest.hexdigest()


def _read(cache: Path) -> dict[str, str]:
    try:
        known = json_value(cache.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(cache: Path, known: dict[str, str]) -> None:
    try:
        write_text(cache, json.dumps(known))
    except OSError:
        return
