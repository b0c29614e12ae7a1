"""A data set that was read, as plain frozen values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.prompts.messages import Message


@dataclass(frozen=True, slots=True)
class Item:
    """One record to answer.

    `index` is its place in the file from 0, whatever is left out; `id` the data set's own, if it has one that no other
    record has, else the index. `line` counts from 1; where a record has several lines it is the first. `messages` ends
    with a user message, or with the beginning of the reply; `later` are the user messages of further turns. `record`
    holds the input's own fields, ready for JSON; of a line of text it is `{"prompt": line}`. `unused` names those
    of its fields, and of its messages' fields, that say something and that the models do not read.
    """

    index: int
    id: str
    line: int | None
    messages: list[Message]
    later: tuple[str, ...]
    record: dict[str, Any]
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BadRecord:
    """One record that cannot be answered, and why."""

    index: int
    line: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """A file's records, good and bad, each in the file's order. `sha256` is of the file as it is on the disk.

    `same_id` counts the records that are named by their place because another has the same id.
    """

    path: Path
    format: str
    sha256: str
    items: list[Item]
    bad: list[BadRecord]
    same_id: int = 0

    @property
    def unused(self) -> dict[str, int]:
        """Fields that the models do not read, with the number of records in which they are not empty."""
        return dict(Counter(name for item in self.items for name in item.unused))
