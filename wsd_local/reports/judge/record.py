"""The file of a judge's verdicts: a header, and one line for each answer, which grows as they come.

Contract: each line is on the disk before the next question is asked. After a kill every line but the last is whole; a
torn last one is cut off when the file is opened again. The header names judge, inputs and way of asking with their
hashes, and a file with another one is refused. One run writes to it at a time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsd_local.datasets.run_file import TakenError, add_line, opened_alone
from wsd_local.errors import UsageError, reason, short
from wsd_local.files import check_file
from wsd_local.system.inputs import json_value

Key = tuple[int, int, str]
"""Index and turn of a reply, and which question it was: an order, or a file."""

_BEGIN = b'{"wsd_local_'


class VerdictFile:
    """A file of verdicts, opened to continue it. `done` are their log-probabilities; `option` names the file.

    Raises:
        UsageError: it is another file, was made by other inputs, cannot be written, or is being written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, option: str = "--output") -> None:
        self.path, self._choose = path, f"choose another {option}"
        self.done: dict[Key, tuple[float, ...]] = {}
        self._header = {"wsd_local_verdicts": 1, **json.loads(json.dumps(header))}
        self._descriptor: int | None = None
        check_file(path)
        try:
            self._descriptor = opened_alone(path)
            length = self._read()
            os.ftruncate(self._descriptor, length)
            if length == 0:
                self._write(self._header)
        except TakenError:
            raise UsageError(f"{path}: another run is writing to it; wait for it, or {self._choose}") from None
        except OSError as error:
            self.close()
            raise UsageError(f"{path}: cannot be written: {reason(error)}; {self._choose}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VerdictFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, key: Key, logprobs: Sequence[float], more: Mapping[str, Any]) -> None:
        """Add an answer; it is on the disk when this returns.

        Raises:
            WsdError: the disk is full or gone; what was there before stays whole.
        """
        index, turn, which = key
        self._write({"index": index, "turn": turn, "which": which, "logprobs": list(logprobs), **more})
        self.done[key] = tuple(logprobs)

    def close(self) -> None:
        """Close it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # -- reading and writing ---------------------------------------------------------------------------------

    def _write(self, values: Mapping[str, Any]) -> None:
        assert self._descriptor is not None
        add_line(self._descriptor, self.path, values)

    def _read(self) -> int:
        """Read the lines that are there; returns the length of the whole ones."""
        length = 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n") and (number > 1 or _BEGIN.startswith(line) or line.startswith(_BEGIN)):
                    break
                try:
                    values = json_value(line)
                    if number == 1:
                        self._compare(values)
                    else:
                        self._keep(values)
                except (ValueError, KeyError, TypeError):
                    raise UsageError(f"{self.path}, line {number}: is not a line of verdicts; {self._choose}") from None
                length += len(line)
        return length

    def _compare(self, theirs: Any) -> None:
        if "wsd_local_verdicts" not in theirs:
            raise ValueError("another file")
        for name in [*self._header, *(name for name in theirs if name not in self._header)]:
            if self._header.get(name) != theirs.get(name):
                raise UsageError(
                    f"{self.path}: was made with another {name}: {short(theirs.get(name))}, now "
                    f"{short(self._header.get(name))}; move it away, or {self._choose}"
                )

    def _keep(self, values: Any) -> None:
        key = values["index"], values["turn"], values["which"]
        logprobs = tuple(float(value) for value in values["logprobs"])
        if [type(part) for part in key] != [int, int, str] or key in self.done or not logprobs:
            raise ValueError("no verdict")
        self.done[key] = logprobs
