"""The prompt cache on disk: a folder of bounded size, with a file for each saved state.

Contract: a file holds the state of one sequence, the tokens it stands for, and a few facts. It is written under
another name and renamed, and read only if all its bytes are those that were written: SHA-256 covers every one of them.
A file that is damaged is removed; files whose names are not of this cache are never touched. All files together take
at most `most` bytes and at most `SHARE` of what is free on the disk; the one that was unused for longest goes first.
Several processes may use one folder: those that write or remove wait for one another, those that read do not. Files and
a folder made here are their owner's alone. Nothing here knows llama.cpp.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wsd_local.errors import UsageError
from wsd_local.fields import require_kinds
from wsd_local.files import PRIVATE, free_space
from wsd_local.paths import make_folder
from wsd_local.system.inputs import json_value

SHARE = 0.05
"""Largest part of the free disk that all files together take."""
PATIENCE_S = 10.0
"""Seconds to wait for another process that writes."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_MAGIC = b"wsd-kv 1"
_HEAD = struct.Struct("<8sII32s")
"""Magic, bytes of the facts, number of tokens, SHA-256 of what stands before and of facts and tokens."""
_MOST_FACTS = 1 << 16
_NAME = re.compile(r"[0-9a-f]{24}-[0-9a-f]{24}\.state")
_PART = re.compile(r"\.[0-9a-f]{24}-[0-9a-f]{24}\.state\.[0-9a-f]{8}\.part")

Tokens = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a state.

    `key` names the kind of context that can continue it, `model` is for people. The state has `size` bytes with the
    SHA-256 `sha256`. `evaluates` is the number of tokens that were evaluated in a second, `reads` the number of bytes
    that can be read in one.
    """

    key: str
    model: str
    size: int
    sha256: str
    evaluates: float
    reads: float


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """A file of the cache, without the state itself. `total` is its size in bytes, `used` a time in nanoseconds."""

    path: Path
    facts: Facts
    tokens: Tokens
    total: int
    used: int


@dataclass(frozen=True, slots=True)
class _File:
    """A name in the folder that is the cache's own."""

    path: Path
    size: int
    used: int


class PromptFiles:
    """The files in `folder`; `most` bytes, and `free` tells how many are free on its disk."""

    def __init__(self, folder: Path, most: int, free: Callable[[Path], int] = free_space) -> None:
        self.folder = folder
        self._most, self._free = most, free
        self._known: dict[Path, State] = {}

    def find(self, key: str) -> list[State]:
        """The states of one key; files that are damaged are removed."""
        return [state for state in self._states(_short(key)) if state.facts.key == key]

    def all(self) -> list[State]:
        """All states, the one that was used last first; files that are damaged are removed."""
        return sorted(self._states(""), key=lambda state: -state.used)

    def payload(self, state: State) -> bytearray | None:
        """The bytes of a state, which counts as used now; None, and it is removed, if they are not those written."""
        data = bytearray(state.facts.size)
        try:
            with state.path.open("rb") as file:
                file.seek(state.total - len(data))
                whole = file.readinto(data) == len(data) and not file.read(1)
        except OSError:
            return None
        if not whole or hashlib.sha256(data).hexdigest() != state.facts.sha256:
            self.remove(state)
            return None
        with suppress(OSError):
            os.utime(state.path)
        return data

    def write(self, facts: Facts, tokens: Tokens, data: memoryview) -> bool:
        """Add a state; older ones make room. Returns False, and nothing was written, if it is too large.

        Raises:
            OSError: it cannot be written.
        """
        known, numbers = json.dumps(asdict(facts)).encode(), tokens.astype("<i4").tobytes()
        start = _HEAD.pack(_MAGIC, len(known), len(tokens), _digest(known, numbers))
        path = self.folder / f"{_short(facts.key)}-{hashlib.sha256(numbers).hexdigest()[:24]}.state"
        self.make_folder()
        with self._alone():
            if path.exists():  # another process had the same to write
                return True
            if not self._make_room(len(start) + len(known) + len(numbers) + len(data)):
                return False
            part = self.folder / f".{path.name}.{secrets.token_hex(4)}.part"
            try:
                with os.fdopen(os.open(part, _NEW, PRIVATE), "wb") as file:
                    for piece in (start, known, numbers, data):
                        file.write(piece)
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        return True

    def trim(self) -> None:
        """Remove what is too much, because the disk is fuller than it was.

        Raises:
            OSError: the folder cannot be used.
        """
        if self.folder.is_dir():
            with self._alone():
                self._make_room(0)

    def remove(self, state: State) -> None:
        """Remove a state."""
        with suppress(OSError):
            state.path.unlink()

    def clear(self) -> tuple[int, int]:
        """Remove everything: the number of files and their bytes.

        Raises:
            OSError: a file cannot be removed.
        """
        if not self.folder.is_dir():
            return 0, 0
        count = freed = 0
        with self._alone():
            for file in self._files():
                file.path.unlink(missing_ok=True)
                count, freed = count + 1, freed + file.size
        return count, freed

    # -- the folder ------------------------------------------------------------------------------------------

    def make_folder(self) -> None:
        make_folder(self.folder.parent)
        self.folder.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process writes or removes; what one left that was ended while it wrote is removed."""
        from filelock import FileLock

        with FileLock(self.folder / ".lock", timeout=PATIENCE_S, mode=PRIVATE):
            for path in self.folder.iterdir():
                if _PART.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            yield

    def _files(self) -> list[_File]:
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with suppress(OSError):
                        if entry.is_file(follow_symlinks=False):
                            status = entry.stat(follow_symlinks=False)
                            found.append(_File(Path(entry.path), status.st_size, status.st_mtime_ns))
        return found

    def _make_room(self, size: int) -> bool:
        """Remove old files until `size` bytes may be added; whether they may be now."""
        files = sorted(self._files(), key=lambda file: file.used)
        total, free = sum(file.size for file in files), self._free(self.folder)
        if size > min(self._most, SHARE * (free + total - size)):
            return False
        for file in files:
            if total + size <= min(self._most, SHARE * (free - size)):
                break
            file.path.unlink(missing_ok=True)
            total, free = total - file.size, free + file.size
        return total + size <= min(self._most, SHARE * (free - size))

    def _states(self, prefix: str) -> Iterator[State]:
        try:
            files = [file for file in self._files() if file.path.name.startswith(prefix)]
        except OSError:
            return
        for file in files:
            known = self._known.get(file.path)
            if known is None or (known.total, known.used) != (file.size, file.used):
                known = _read(file)
                if known is None:
                    self._known.pop(file.path, None)
                    continue
                self._known[file.path] = known
            yield known


def _short(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:24]


def _digest(facts: bytes, tokens: bytes) -> bytes:
    start = _HEAD.pack(_MAGIC, len(facts), len(tokens) // 4, bytes(32))
    return hashlib.sha256(start + facts + tokens).digest()


def _read(file: _File) -> State | None:
    """A file without its state; None, and it is removed, if it is damaged. One that cannot be read stays."""
    try:
        with file.path.open("rb") as opened:
            head = opened.read(_HEAD.size)
            state = None
            if len(head) == _HEAD.size:
                magic, size, count, digest = _HEAD.unpack(head)
                if magic == _MAGIC and size <= _MOST_FACTS and size + 4 * count <= file.size:
                    known, numbers = opened.read(size), opened.read(4 * count)
                    if _digest(known, numbers) == digest:
                        state = _stated(file, known, numbers)
    except OSError:
        return None
    if state is None:
        with suppress(OSError):
            file.path.unlink()
    return state


def _stated(file: _File, known: bytes, numbers: bytes) -> State | None:
    try:
        facts = Facts(**json_value(known))
        require_kinds(facts)
    except (TypeError, ValueError, UsageError):  # of another program, or another version of this one
        return None
    if min(facts.evaluates, facts.reads) <= 0:
        return None
    if _HEAD.size + len(known) + len(numbers) + facts.size != file.size:
        return None
    return State(file.path, facts, np.frombuffer(numbers, dtype="<i4"), file.size, file.used)
