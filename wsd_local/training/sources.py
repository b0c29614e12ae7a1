"""A preference set's file: its records, whatever form they have.

Contract: reads a whole file and writes nothing. JSON lines, a JSON list and Parquet, each also packed with gzip; the
contents decide, not the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsd_local.datasets.parquet import MAGIC, parquet_records
from wsd_local.datasets.records import LARGEST, Record, json_records, unpacked
from wsd_local.errors import UsageError
from wsd_local.system.inputs import decoded, read_bytes


@dataclass(frozen=True, slots=True)
class Source:
    """A file and its records; `sha256` is of the file as it is on the disk."""

    path: Path
    sha256: str
    records: Sequence[Record]

    @property
    def unit(self) -> str:
        """What records are counted in: lines, or rows where the file has no lines."""
        return "row" if self.records and all(record.line is None for record in self.records) else "line"

    def place(self, index: int) -> int:
        """The line, or the row, at which a record begins, from 1."""
        line = self.records[index].line
        return index + 1 if line is None else line


def read_source(path: Path) -> Source:
    """The records of a preference set.

    Raises:
        UsageError: the file cannot be read, or is neither JSON nor Parquet.
    """
    data = read_bytes(path, LARGEST)
    content = unpacked(path, data)
    if content.startswith(MAGIC):
        records = parquet_records(path, content)
    else:
        text = decoded(content, str(path))
        records = json_records(path, text) if text.strip() else []
    if not records:
        raise UsageError(f"{path}: has no record: there is nothing to prepare")
    return Source(path, hashlib.sha256(data).hexdigest(), records)
