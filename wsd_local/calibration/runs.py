"""Recording the prompts of a data set, one after the other, into a file that a stopped run continues.

Contract: a record is on the disk before the next prompt begins; one that is there is not made again. Further turns of a
prompt are asked after the draft's own answers. Each line of the file says what it was made by, and a file that was made
by anything else is refused (`datasets.run_file`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.calibration.deriving import Setting
from wsd_local.calibration.recording import record
from wsd_local.calibration.records import Record
from wsd_local.datasets import DataSet, Item
from wsd_local.datasets.batch import conversation_of, made_by
from wsd_local.datasets.run_file import Key, RunFile
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.paths import data_dir
from wsd_local.runtime.pair import Pair

OPTION = "--out"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One turn of a prompt: a record that was written, or an error."""

    item: Item
    turn: int
    record: Record | None = None
    error: WsdError | None = None


def default_file(pair: str, prompts: Path | None) -> Path:
    """Where the records of a pair are kept; those of one's own prompts apart from those of the program's."""
    parts = [pair, *([] if prompts is None else [prompts.name.split(".")[0]])]
    name = "-".join("".join(sign if sign in _NAME_CHARACTERS else "_" for sign in part) for part in parts)
    return data_dir() / "calibration" / f"{name}.jsonl"


class Recorder:
    """The part of `data` that `file` does not have yet. `done` of `total` turns are recorded.

    Args:
        pair: loaded with `recording.OVERRIDES`, its models hashed.
        data: the prompts.
        file: opened here for this pair, these prompts and settings.
        settings: from their switch points the base writes continuations.
        continuation: tokens of each, at most.
        stopped: whether to stop.

    Raises:
        UsageError: the file was made by something else, or a line of it is no record.
    """

    def __init__(
        self,
        pair: Pair,
        data: DataSet,
        file: RunFile,
        settings: Sequence[Setting],
        continuation: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pair, self._data, self._file = pair, data, file
        self._settings, self._continuation, self._stopped = settings, continuation, stopped
        grid = [[one.threshold, one.window] for one in settings]
        file.begin(made_by(pair, data, None) | {"calibration": {"continuation": continuation, "grid": grid}})
        self._keys = [(item.index, turn) for item in data.items for turn in range(1 + len(item.later))]
        self.total = len(self._keys)
        self.records()

    @property
    def done(self) -> int:
        """Turns that are recorded."""
        return sum(key in self._file.done for key in self._keys)

    def outcomes(self) -> Iterator[Outcome]:
        """Record what is left. After a failure the prompt's further turns are left out.

        Raises:
            CancelledError: the work was stopped; what is recorded stays.
            WsdError: a record could not be written.
        """
        for item in self._data.items:
            for turn in range(1 + len(item.later)):
                if (item.index, turn) in self._file.done:
                    continue
                outcome = self._recorded(item, turn)
                yield outcome
                if outcome.error is not None:
                    break

    def _recorded(self, item: Item, turn: int) -> Outcome:
        name = item.id if not item.later else f"{item.id}, turn {turn + 1}"
        messages = conversation_of(item, turn, self._file.done)
        if self._stopped():
            raise CancelledError("interrupted")
        try:
            made = record(
                self._pair,
                name,
                messages,
                self._settings,
                continuation=self._continuation,
                stopped=self._stopped,
            )
        except CancelledError:
            raise
        except WsdError as error:
            return Outcome(item, turn, error=error)
        self._file.append((item.index, turn), {"input": item.record, **made.as_dict()})
        return Outcome(item, turn, record=made)

    def records(self) -> list[Record]:
        """The records of these prompts that are in the file, in the prompts' order.

        Raises:
            UsageError: a line is no record.
        """
        found: dict[Key, Record] = {}
        for values in self._file.values():
            found[values["index"], values["turn"]] = _read(self._file.path, values)
        return [found[key] for key in self._keys if key in found]


def _read(path: Path, values: Mapping[str, Any]) -> Record:
    try:
        return Record.of(values)
    except (KeyError, TypeError, ValueError) as error:
        where = f"{path}, record {values['index']}"
        raise UsageError(
            f"{where}: is no whole record ({error}); remove the line, or choose another {OPTION}"
        ) from None
