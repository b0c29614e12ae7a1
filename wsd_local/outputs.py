"""The file of a run over a data set: one JSON object per line, longer with every reply, never wrong.

Contract: each line is on the disk before the next reply is waited for. After a kill or a power loss every line but the
last is whole; a torn last one is cut off when the file is opened again, and everything before it counts as done. What
is there was made with the same settings, models and input, or the file is refused. One run writes to it at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from filelock import FileLock, Timeout

from wsd_local.atomic import replaced
from wsd_local.errors import UsageError, WsdError

Key = tuple[int, int]
"""A record's place in the input and a turn of it, both from 0."""

INDIFFERENT = frozenset(
    {
        "check_chunk",
        "probabilities",
        "threads",
        "parallel",
        "resident",
        "load_mode",
        "n_gpu_layers",
        "draft_n_gpu_layers",
        "base_n_gpu_layers",
    }
)
"""Settings that change time, or what is reported, and not the replies."""


class Output:
    """An output file, opened to go on with it.

    `made_by` names all that replies depend on; it is part of every line. `done` are the replies that are there.

    Raises:
        UsageError: the file is no such file, was made otherwise (it says what differs), or is being written.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[Key, str] = {}
        self._made_by = dict(made_by)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"{path}: another run is writing to it; wait for it, or choose another --output") from None
        try:
            self._file: IO[bytes] = path.open("a+b")
            whole = self._read()
            self._file.truncate(whole)
        except OSError as error:
            self._unlock()
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        except BaseException:
            self._file.close()
            self._unlock()
            raise

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()
        self._unlock()

    def append(self, key: Key, values: Mapping[str, Any]) -> None:
        """Add a reply's line; it is on the disk when this returns.

        Raises:
            WsdError: the disk is full or gone; what was there before stays whole.
        """
        if key in self.done:
            raise ValueError(f"{key} is done")
        line = json.dumps({"index": key[0], "turn": key[1], **values, "run": self._made_by}, ensure_ascii=False)
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            self._cut(end)
            raise WsdError(f"{self.path}: cannot be written: {error.strerror}; the same command goes on") from error
        self.done[key] = str(values.get("text", ""))

    def _cut(self, end: int) -> None:
        """Forget what Python and the disk hold behind `end`."""
        descriptor = os.dup(self._file.fileno())
        try:
            os.ftruncate(descriptor, end)
        finally:
            os.close(descriptor)

    def sort(self) -> None:
        """Put the lines into the order of the input, if they are not."""
        found = list(self._lines())
        keys = [_key(values) for _, _, values in found]
        if keys == sorted(keys):
            return
        with replaced(self.path) as part, part.open("wb") as file:
            for _, line, _ in sorted(found, key=lambda one: _key(one[2])):
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._file.close()
        self._file = self.path.open("a+b")

    def values(self) -> Iterator[dict[str, Any]]:
        """What the lines hold."""
        for _, _, values in self._lines():
            yield values

    # -- reading ---------------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        """Number, bytes and values of every whole line."""
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                values = json.loads(line)
                _key(values)
            except (ValueError, KeyError, TypeError):
                raise UsageError(
                    f"{self.path}, line {number}: is not a line of a run; choose another --output"
                ) from None
            yield number, line, values

    def _read(self) -> int:
        """Take over what is there; return the length of its whole lines."""
        length = 0
        for number, line, values in self._lines():
            self._compare(number, values.get("run"))
            key = _key(values)
            if key in self.done:
                raise UsageError(f"{self.path}, line {number}: record {key[0]} is there twice; choose another --output")
            self.done[key] = values["text"]
            length += len(line)
        return length

    def _compare(self, number: int, theirs: object) -> None:
        ours = self._made_by
        if not isinstance(theirs, dict):
            raise UsageError(f"{self.path}, line {number}: does not say how it was made; choose another --output")
        for name in [*ours, *(name for name in theirs if name not in ours)]:
            if isinstance(ours.get(name), dict) and isinstance(theirs.get(name), dict):
                for inner in sorted({*ours[name], *theirs[name]} - INDIFFERENT):
                    self._require(number, inner.replace("_", "-"), ours[name].get(inner), theirs[name].get(inner))
            else:
                self._require(number, name.replace("_", "-"), ours.get(name), theirs.get(name))

    def _require(self, number: int, name: str, ours: object, theirs: object) -> None:
        if json.loads(json.dumps(ours)) != theirs:
            raise UsageError(
                f"{self.path}, line {number}: was made with another {name}: {_short(theirs)}, now {_short(ours)}; "
                "choose another --output, or set it back"
            )

    def _unlock(self) -> None:
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def _key(values: Mapping[str, Any]) -> Key:
    index, turn = values["index"], values["turn"]
    if not isinstance(values["text"], str) or type(index) is not int or type(turn) is not int:
        raise TypeError("not a reply")
    return index, turn


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
