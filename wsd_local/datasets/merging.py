"""Shards of a run over a data set, joined into one file as if one process had answered the whole of it.

Contract: shards are files of `run_file` that were made alike, with the same input, models and settings; each record is
in one of them. What is wrong with them is reported before anything is written, and the joined file is written whole or
not at all, in the order of the input. Without the input itself, records that are missing after the last one that is
there cannot be known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsd_local.datasets.items import DataSet
from wsd_local.datasets.run_file import Key, differences, run_lines
from wsd_local.datasets.run_file import key_of as _key_of
from wsd_local.errors import UsageError, WsdError, reason
from wsd_local.files import replaced
from wsd_local.units import plural

_SHOWN = 5
"""Records that a message names."""
_ADVICE = "give files that `wsd-local run --input` wrote"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a line is: its file, the line's number, and its bytes."""

    path: Path
    number: int
    start: int
    length: int


@dataclass(slots=True)
class Shards:
    """Shards that belong together: where the line of each reply is, and how they were made.

    `shapes` has what `run.shape` says, once each, and `torn` the files whose last line is not whole.
    """

    places: dict[Key, _Place] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)
    shapes: list[Any] = field(default_factory=list)
    torn: list[Path] = field(default_factory=list)

    @property
    def records(self) -> set[int]:
        """Records of which there is a reply."""
        return {index for index, _ in self.places}

    def missing(self, data: DataSet | None) -> list[int]:
        """Records of which not every turn is there, in order.

        Args:
            data: the input, which says what there should be; None: everything up to the last reply that is there.
        """
        if data is not None:
            wanted = [(item.index, turn) for item in data.items for turn in range(1 + len(item.later))]
        else:
            turns: dict[int, int] = {}
            for index, turn in self.places:
                turns[index] = max(turns.get(index, 0), turn)
            wanted = [(i, t) for i in range(max(turns, default=-1) + 1) for t in range(turns.get(i, 0) + 1)]
        return sorted({key[0] for key in wanted if key not in self.places})


def opened(paths: Sequence[Path]) -> Shards:
    """The lines of shards.

    Raises:
        UsageError: a file cannot be read, is no run, was made otherwise than the first, or has a record of another.
    """
    shards, first = Shards(), None
    for path in paths:
        start = 0
        for number, line, values in _lines(path):
            where = f"{path}, line {number}"
            made_by = values.get("run")
            if not isinstance(made_by, dict):
                raise UsageError(f"{where}: does not say how it was made; {_ADVICE}")
            if first is None:
                first, shards.made_by = path, made_by
            for name, own, theirs in differences(made_by, shards.made_by):
                raise UsageError(
                    f"{where}: was made with another {name}: {own}, and {first} with {theirs}; join shards of one run"
                )
            key = _key_of(values)
            if (other := shards.places.get(key)) is not None:
                raise UsageError(
                    f"{where}: record {key[0]} is in {other.path}, line {other.number}, too; leave one of the two out"
                )
            shards.places[key] = _Place(path, number, start, len(line))
            start += len(line)
            if made_by.get("shape") not in shards.shapes:
                shards.shapes.append(made_by.get("shape"))
        if start < path.stat().st_size:
            shards.torn.append(path)
    if not shards.places:
        raise UsageError("there is no reply in these files: nothing to join")
    return shards


def _lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    try:
        yield from run_lines(path, _ADVICE)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {reason(error)}; {_ADVICE}") from error


def require_input(shards: Shards, data: DataSet) -> None:
    """Raise `UsageError` if the shards are not of this input."""
    if shards.made_by.get("input_sha256") != data.sha256:
        raise UsageError(f"{data.path}: is another input than that of the shards: its SHA-256 is {data.sha256}")


def require_whole(shards: Shards, data: DataSet | None) -> None:
    """Raise `UsageError` if a reply is missing, or a shard was stopped in the midst of a line."""
    if shards.torn:
        raise UsageError(
            f"{shards.torn[0]}: its last line is not whole: let the command that writes it go on, or give --partial"
        )
    if found := shards.missing(data):
        raise UsageError(
            f"{plural(len(found), 'record')} missing: {named(found)}; let the shards go on, name the file that is "
            "left out, or give --partial"
        )


def named(records: Sequence[int]) -> str:
    """Some records by their places in the input."""
    more = f" and {len(records) - _SHOWN} more" if len(records) > _SHOWN else ""
    return ", ".join(map(str, records[:_SHOWN])) + more


def join(shards: Shards, output: Path) -> None:
    """Write the lines of the shards in the order of the input.

    Raises:
        WsdError: the file cannot be written; nothing is left of it.
    """
    files = {place.path for place in shards.places.values()}
    opened_files = {}
    try:
        opened_files = {path: path.open("rb") for path in files}
        with replaced(output) as part, part.open("wb") as joined:
            for key in sorted(shards.places):
                place = shards.places[key]
                source = opened_files[place.path]
                source.seek(place.start)
                joined.write(source.read(place.length))
    except OSError as error:
        raise WsdError(f"{output}: cannot be written: {reason(error)}") from error
    finally:
        for source in opened_files.values():
            source.close()
