"""Recording the prompts of a data set, one after the other, into a file that a stopped run continues.

Contract: a record is on the disk before the next prompt begins; one that is there is not made again. Further turns of a
prompt are asked after the draft's own answers. Each line of the file says what it was made by, and a file that was made
by anything else is refused (`datasets.run_file`). The settings that are compared are no part of that: where others are
compared, the continuations that a record lacks are added to it, and nothing else is made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.calibration.deriving import Setting, missing_starts
from wsd_local.calibration.recording import completed, record
from wsd_local.calibration.records import Record
from wsd_local.datasets import DataSet, Item
from wsd_local.datasets.batch import conversation_of, made_by
from wsd_local.datasets.run_file import Key, RunFile
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.paths import as_name, data_dir
from wsd_local.prompts.messages import Message
from wsd_local.runtime.pair import Pair

OPTION = "--out"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One turn of a prompt: a record that was written, or an error."""

    item: Item
    turn: int
    record: Record | None = None
    error: WsdError | None = None


def default_file(pair: str, prompts: Path | None, folder: str = "calibration") -> Path:
    """Where the records of a pair are kept; those of one's own prompts apart from those of the program's."""
    name = "-".join(map(as_name, [pair, *([] if prompts is None else [prompts.name.split(".")[0]])]))
    return data_dir() / folder / f"{name}.jsonl"


class Recorder:
    """The part of `data` that `file` does not have yet. `done` of `total` turns are recorded.

    A record counts as done once it has a continuation from every switch point of the settings; `lacking` are those that
    were in the file without some.

    Args:
        pair: loaded with `recording.OVERRIDES`, its models hashed.
        data: the prompts.
        file: opened with `renews`, here for this pair and these prompts.
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
        file.begin(made_by(pair, data, None) | {"calibration": {"continuation": continuation}})
        self._keys = [(item.index, turn) for item in data.items for turn in range(1 + len(item.later))]
        self.total = len(self._keys)
        self._before = self._made()
        self._complete = {key for key, one in self._before.items() if not missing_starts(one, settings)}
        self.lacking = len(self._before) - len(self._complete)

    @property
    def done(self) -> int:
        """Turns that are recorded."""
        return len(self._complete)

    def outcomes(self) -> Iterator[Outcome]:
        """Record what is left. After a failure the prompt's further turns are left out.

        Raises:
            CancelledError: the work was stopped; what is recorded stays.
            WsdError: a record could not be written.
        """
        for item in self._data.items:
            for turn in range(1 + len(item.later)):
                if (item.index, turn) in self._complete:
                    continue
                outcome = self._recorded(item, turn)
                yield outcome
                if outcome.error is not None:
                    break

    def _recorded(self, item: Item, turn: int) -> Outcome:
        key, name = (item.index, turn), item.id if not item.later else f"{item.id}, turn {turn + 1}"
        if self._stopped():
            raise CancelledError("interrupted")
        how: dict[str, Any] = {"continuation": self._continuation, "stopped": self._stopped}
        try:
            if key in self._before:
                made = completed(self._pair, self._before[key], self._settings, **how)
            else:
                messages = conversation_of(item, turn, self._file.done)
                made = record(self._pair, name, messages, self._settings, **how)
        except CancelledError:
            raise
        except WsdError as error:
            return Outcome(item, turn, error=error)
        self._file.append(key, {"input": item.record, **made.as_dict()})
        self._complete.add(key)
        return Outcome(item, turn, record=made)

    def prompted(self) -> list[tuple[Record, list[Message]]]:
        """The records of these prompts that are in the file, in the prompts' order, each with its conversation.

        Raises:
            UsageError: a line is no record.
        """
        found, texts = self._made(), self._file.done
        turns = [(item, turn) for item in self._data.items for turn in range(1 + len(item.later))]
        return [
            (found[item.index, turn], conversation_of(item, turn, texts))
            for item, turn in turns
            if (item.index, turn) in found
        ]

    def _made(self) -> dict[Key, Record]:
        wanted = set(self._keys)
        lines = (values for values in self._file.values() if (values["index"], values["turn"]) in wanted)
        return {(values["index"], values["turn"]): _read(self._file.path, values) for values in lines}


def _read(path: Path, values: Mapping[str, Any]) -> Record:
    try:
        return Record.of(values)
    except (KeyError, TypeError, ValueError) as error:
        where = f"{path}, record {values['index']}"
        raise UsageError(
            f"{where}: is no whole record ({error}); remove the line, or choose another {OPTION}"
        ) from None
