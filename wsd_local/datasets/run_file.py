"""The file of a run over a data set: one JSON object per line, which grows with every reply and is whole at any time.

Contract: each line is on the disk before the next reply is waited for. After a kill or a power loss every line but the
last is whole; a torn last one is cut off when the file is opened again, and everything before it counts as done. What
is there was made with the same settings, models and input, or the file is refused. One run writes to it at a time; the
lock is on the file itself, so that no second file is needed, and none is left.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wsd_local.errors import UsageError, WsdError, reason
from wsd_local.files import check_file, replaced
from wsd_local.system.inputs import json_value

Key = tuple[int, int]
"""A record's place in the input and a turn of it, both from 0."""

_BEGIN = b'{"index": '

INDIFFERENT = frozenset(
    {
        "check_chunk",
        "probabilities",
        "speculation",
        "threads",
        "ubatch",
        "parallel",
        "resident",
        "load_mode",
        "prompt_cache",
        "prompt_cache_size",
        "n_gpu_layers",
        "draft_n_gpu_layers",
        "base_n_gpu_layers",
    }
)
"""Settings that change time, or what is reported, and not the replies."""


class RunFile:
    """An output file, opened to continue it. `done` are the replies in it; `option` names it on the command line.

    With `renews` a record may be there again, and its last line counts; `sort` removes those before it.

    Raises:
        UsageError: the file is no such file, or cannot be written, or is being written.
    """

    def __init__(self, path: Path, *, option: str = "--output", renews: bool = False) -> None:
        self.path, self._choose, self._renews = path, f"choose another {option}", renews
        self.done: dict[Key, str] = {}
        self._made_by: dict[str, Any] = {}
        self._descriptor: int | None = None
        check_file(path)
        try:
            self._descriptor = opened_alone(path)
            os.ftruncate(self._descriptor, self._read())
        except TakenError:
            self._close()
            raise UsageError(f"{path}: another run is writing to it; wait for it, or {self._choose}") from None
        except OSError as error:
            self._close()
            raise UsageError(f"{path}: cannot be written: {reason(error)}; {self._choose}") from error
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> RunFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def begin(self, made_by: Mapping[str, Any]) -> None:
        """Name all that replies depend on, ready for JSON; it becomes part of every line.

        Raises:
            UsageError: the file was made with other settings; the message names them.
        """
        self._made_by = dict(made_by)
        for number, _, values in self._lines():
            self._compare(number, values.get("run"))

    @property
    def made_by(self) -> dict[str, Any] | None:
        """What the first line says that it was made by; None if there is no line."""
        for _, _, values in self._lines():
            found = values.get("run")
            return found if isinstance(found, dict) else None
        return None

    def append(self, key: Key, values: Mapping[str, Any]) -> None:
        """Add a reply's line; it is on the disk when this returns.

        Raises:
            WsdError: the disk is full or gone; what was there before stays whole.
        """
        if self._descriptor is None or (key in self.done and not self._renews):
            raise ValueError(f"{key} is done, or the file is closed")
        values = {"index": key[0], "turn": key[1], **values, "run": self._made_by}
        add_line(self._descriptor, self.path, values)
        self.done[key] = str(values.get("text", ""))

    def sort(self) -> None:
        """Put the lines into the order of the input, each record once, if they are not."""
        keys = list[Key]()
        found = dict[Key, bytes]()
        for _, line, values in self._lines():
            keys.append(key_of(values))
            found[keys[-1]] = line
        if keys == sorted(found):
            return
        with replaced(self.path) as part:
            with part.open("wb") as file:
                file.writelines(found[key] for key in sorted(found))
            in_order = opened_alone(part)  # locked before other programs can find it by its name
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = in_order

    def values(self) -> Iterator[dict[str, Any]]:
        """The values of the lines; of a record that is there again, those of its last one."""
        last = {key_of(values): number for number, _, values in self._lines()} if self._renews else {}
        for number, _, values in self._lines():
            if last.get(key_of(values), number) == number:
                yield values

    # -- reading ---------------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        return run_lines(self.path, self._choose)

    def _read(self) -> int:
        """Read the lines that are there; returns the length of the whole ones."""
        length = 0
        for number, line, values in self._lines():
            key = key_of(values)
            if key in self.done and not self._renews:
                raise UsageError(f"{self.path}, line {number}: record {key[0]} is there twice; {self._choose}")
            self.done[key] = values["text"]
            length += len(line)
        return length

    def _compare(self, number: int, theirs: object) -> None:
        where = f"{self.path}, line {number}"
        if not isinstance(theirs, dict):
            raise UsageError(f"{where}: does not say how it was made; {self._choose}")
        for name, was, now in differences(theirs, self._made_by):
            raise UsageError(f"{where}: was made with another {name}: {was}, now {now}; {self._choose}, or set it back")

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def run_lines(path: Path, advice: str) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Number, bytes and values of every whole line; a torn last one ends them.

    Raises:
        UsageError: a line is not one of a run; `advice` says what to do then.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n") and _is_torn(line):
                return
            try:
                values = json_value(line if line.endswith(b"\n") else b"")
                key_of(values)
            except (ValueError, KeyError, TypeError):
                raise UsageError(f"{path}, line {number}: is not a line of a run; {advice}") from None
            yield number, line, values


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What two lines do not say alike of how they were made: its name, and both values in short.

    What changes time alone is left out, and so is the shape of the work, of which users are warned instead.
    """
    for name in [*second, *(name for name in first if name not in second)]:
        one, other = first.get(name), second.get(name)
        if name == "shape":
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            inner = sorted({*one, *other} - INDIFFERENT)
            pairs = [(part, one.get(part), other.get(part)) for part in inner]
        else:
            pairs = [(name, one, other)]
        for part, was, now in pairs:
            if json.loads(json.dumps(was)) != json.loads(json.dumps(now)):
                yield part.replace("_", "-"), _short(was), _short(now)


class TakenError(Exception):
    """Another run writes to the file."""


def add_line(descriptor: int, path: Path, values: Mapping[str, Any]) -> None:
    """Write values as a line at the end of a file; it is on the disk when this returns.

    Raises:
        WsdError: the disk is full or gone; what was there before stays whole.
    """
    line = memoryview(json.dumps(values, ensure_ascii=False).encode() + b"\n")
    end = os.fstat(descriptor).st_size
    try:
        while line:
            line = line[os.write(descriptor, line) :]
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, end)
        raise WsdError(f"{path}: cannot be written: {reason(error)}; the same command goes on") from error


def opened_alone(path: Path) -> int:
    """A file that this run alone writes to, until it is closed."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = os.open(path, flags, 0o666)
        try:
            _lock(descriptor)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the program that had it has put another file in its place


def _lock(descriptor: int) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(descriptor, 1 << 62, os.SEEK_SET)  # a locked byte cannot be read, so one that will never be there
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise TakenError from None


def _is_torn(end: bytes) -> bool:
    """Whether bytes without a line's end are the beginning of one of our lines, or damage of a power loss."""
    end = end.rstrip(b"\0")
    return end.startswith(_BEGIN) or _BEGIN.startswith(end)


def key_of(values: Mapping[str, Any]) -> Key:
    """The place of a line's reply. KeyError or TypeError if it has none, or no text."""
    index, turn = values["index"], values["turn"]
    if not isinstance(values["text"], str) or type(index) is not int or type(turn) is not int:
        raise TypeError("not a reply")
    return index, turn


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
