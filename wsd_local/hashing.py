"""Whole-file SHA-256, made once per file.

Contract: the hash is remembered by path, size and modification time in the cache folder; a cache that cannot be
read or written costs time, never an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from wsd_local.paths import cache_dir


def file_sha256(path: Path, cache: Path | None = None) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    cache = cache or cache_dir() / "sha256.json"
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
    known = _read(cache)
    if key not in known:
        with path.open("rb") as file:
            known[key] = _digest(file.fileno())
        _write(cache, known)
    return known[key]


def _digest(descriptor: int) -> str:
    digest = hashlib.sha256()
    while block := os.read(descriptor, 1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _read(cache: Path) -> dict[str, str]:
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(cache: Path, known: dict[str, str]) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as file:
            json.dump(known, file)
        Path(file.name).replace(cache)
    except OSError:
        return
