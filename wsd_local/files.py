"""Files that are made: checked before, written whole or not at all, and known by their SHA-256.

Contract: what is written appears under its name only when it is complete and on the disk; a failure leaves the old
file. A file that replaces another keeps its permissions; a new one has those that the umask leaves. A private file is
readable by its owner alone, whatever was there before. The checks before a file is made write and remove nothing.

A remembered hash holds for the file it was made of and no other: the key is path, size, time of modification, time of
the last change of any kind, inode and device. A program can set the time of modification, but not the time of change,
so a file whose bytes were replaced is hashed again (Windows keeps no time of change). The memory is a file in the cache
folder; one that cannot be read or written costs time, never an error.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from wsd_local.errors import UsageError, WsdError
from wsd_local.paths import cache_dir, make_folder
from wsd_local.system.inputs import json_value
from wsd_local.units import gb

PRIVATE = 0o600
"""Permissions of a private file."""
_OPEN_ALREADY = ("/dev/std", "/dev/fd/", "/proc/")
"""Beginnings of paths that name what a process has open."""
HashProgress = Callable[[int, int], None]
_TICK = 20_000_000
"""Nanoseconds after which a change gets another time, with room to spare; kernels count in steps of up to 10 ms."""
_COARSE = 2_000_000_000
"""The same for file systems that keep whole seconds."""


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
    """Permissions of a file; None if there is no file."""
    try:
        return stat.S_IMODE(path.stat().st_mode) & 0o777
    except OSError:
        return None


def _created_beside(path: Path, mode: int) -> Path:
    """A new empty file. The system applies the umask to `mode`, because a thread cannot read the umask safely."""
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


def check_free(output: Path, force: bool) -> None:
    """Raise `UsageError` if a file is in the way and may not be replaced, or something that is no file."""
    check_regular(output)
    if output.exists() and not force:
        raise UsageError(f"{output}: exists already; --force replaces it, --as and --output choose another name")


def check_file(output: Path) -> None:
    """Raise `UsageError` unless a file can be written under this name in a folder that is there: none is made."""
    check_regular(output)
    if not output.parent.is_dir():
        what = " is no folder" if output.parent.exists() else ": there is no such folder; make it first"
        raise UsageError(f"{output}: cannot be written: {output.parent}{what}, or name another file")


def check_regular(output: Path) -> None:
    """Raise `UsageError` if there is something of this name that is no file: a folder, a pipe, a device."""
    if (what := irregular(output)) is not None:
        raise UsageError(f"{output}: is {what}; name a file")


def irregular(path: Path) -> str | None:
    """What a path names, in words, if it exists and is no regular file; else None.

    Raises:
        UsageError: the path is not valid.
    """
    if os.name != "nt" and str(path.absolute()).startswith(_OPEN_ALREADY):
        return "what some program has open"
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISREG(mode):
        return None
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((what for test, what in kinds if test(mode)), "a device")


def check_disk(output: Path, needed: int) -> None:
    """Raise `WsdError` if the disk of `output` has not `needed` bytes free."""
    if (free := free_space(output.parent)) < needed:
        raise WsdError(
            f"{output.parent}: {gb(needed)} are needed and {gb(free)} are free; make room, or choose another disk"
        )


def free_space(folder: Path) -> int:
    """Free bytes of the disk on which a folder is, or would be made."""
    return shutil.disk_usage(existing_folder(folder)).free


def existing_folder(folder: Path) -> Path:
    """A folder, or the one that it would be made in."""
    folder = folder.absolute()
    return next(above for above in (folder, *folder.parents) if above.exists())


def file_sha256(path: Path, progress: HashProgress | None = None) -> str:
    """Hexadecimal SHA-256 of a file's bytes. `progress` receives the bytes read and their total."""
    known = known_sha256(path)
    if known is not None:
        return known
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        lasting = _settled(before)
        digest = _digest(file.fileno(), before.st_size, progress)
        unchanged = identity(os.fstat(file.fileno())) == identity(before)
    if lasting and unchanged:
        _remember(_key(path, before), digest)
    return digest


def known_sha256(path: Path) -> str | None:
    """The remembered SHA-256 of a file as it is now; None if there is none, or no file.

    Raises:
        FileNotFoundError: there is no such file.
    """
    return read_memory(_file()).get(_key(path, path.stat()))


def remember_sha256(path: Path, digest: str) -> None:
    """Remember a hash that was computed while the file was written; nothing may write to the file any more."""
    if _settled(path.stat()):
        _remember(_key(path, path.stat()), digest)


def identity(status: os.stat_result) -> tuple[int, ...]:
    """What changes whenever the bytes of a file do: size, both times, inode and device."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


def _settled(status: os.stat_result) -> bool:
    """Whether every later change will give the file another time; waits some milliseconds where that makes it so."""
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


def _remember(key: str, digest: str) -> None:
    path = key.partition("|")[0]
    others = {other: value for other, value in read_memory(_file()).items() if other.partition("|")[0] != path}
    write_memory(_file(), others | {key: digest})


def read_memory(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the cache folder; empty if it cannot be read."""
    try:
        known = json_value(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write_memory(path: Path, known: Mapping[str, Any]) -> None:
    """Keep a JSON object in a file of the cache folder; where it cannot be written, it is forgotten."""
    with suppress(OSError):
        write_text(path, json.dumps(known))
