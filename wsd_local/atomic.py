"""Files that are either the old or the new, never half.

Contract: what is written appears under its name only when it is complete and on the disk; a failure leaves the old
file. A file that replaces another keeps its permissions; a new one has those that the umask leaves. A private file is
readable by its owner alone, whatever was there before.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from wsd_local.paths import make_folder
from wsd_local.target import irregular

PRIVATE = 0o600
"""Permissions of a private file."""


@contextmanager
def replaced(path: Path, *, private: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; it takes the place of `path` if no error is raised inside.

    Folders above it are made.

    Raises:
        OSError: it cannot be written, or is no regular file.
    """
    if (what := irregular(path)) is not None:
        raise OSError(errno.EINVAL, f"is {what}, and no file", str(path))
    make_folder(path.parent)
    kept = PRIVATE if private else _permissions(path)
    part = _created_beside(path, 0o666 if kept is None else PRIVATE)
    try:
        yield part
        _flush(part)
        if kept is not None:
            part.chmod(kept)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a whole file."""
    with replaced(path, private=private) as part:
        part.write_text(text, encoding="utf-8")


def flush_folder(folder: Path) -> None:
    """Wait until a new name in a folder is on the disk, where the system can do that."""
    if os.name == "nt":
        return
    with suppress(OSError):  # a folder that may be written but not read; a file system that flushes none
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _permissions(path: Path) -> int | None:
    """Of a file that is there; None if there is none."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except OSError:
        return None


def _created_beside(path: Path, mode: int) -> Path:
    """A new empty file; the system takes the umask off `mode`, which no thread could ask for safely."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        except FileExistsError:
            continue
        return part


def _flush(path: Path) -> None:
    """Wait until what was written to a file is on the disk."""
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
