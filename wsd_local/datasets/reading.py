"""Reading a data set from a file.

Contract: `read` looks at the whole file before it returns. The form (lines, CSV, JSON) is recognised by the contents of
the file and by the ending of its name, the format by the first record's fields, unless it is given.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from wsd_local.datasets.formats import (
    COLUMNS,
    FORMATS,
    MissingField,
    detected,
    own_id,
    prompt_column,
    record_of,
    require_fields,
)
from wsd_local.datasets.items import BadRecord, DataSet, Item
from wsd_local.datasets.parquet import MAGIC, parquet_records
from wsd_local.datasets.records import LARGEST, Record, csv_header, csv_records, json_records, line_records, unpacked
from wsd_local.errors import UsageError, nearest
from wsd_local.system.inputs import decoded, read_bytes

_Form = Literal["lines", "csv", "json", "parquet"]
_JSON = re.compile(r'\s*(?:\[\s*)?\{\s*["}]')
"""How a JSON object, or a list of them, begins."""


def read(
    path: Path,
    *,
    format: str | None = None,
    column: str | None = None,
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
    system: str | None = None,
) -> DataSet:
    """A data set from a file, which may be packed with gzip.

    Args:
        path: the file.
        format: one of `FORMATS`; None: recognised by the content.
        column: the column of a table that holds the prompts.
        limit: read only so many records of the file.
        shard: i and n: of those, every n-th, beginning with the i-th. The n shards are the whole, each record once.
        system: system message for the records that have none.

    Raises:
        UsageError: the file as a whole cannot be read as a data set, or an argument is not valid.
    """
    if format is not None and format not in FORMATS:
        raise UsageError(f"there is no format {format!r}{nearest(format, list(FORMATS))}")
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: it counts records and must be at least 1")
    first, step = (1, 1) if shard is None else _checked_shard(shard, f"{shard[0]}/{shard[1]}")
    data = read_bytes(path, LARGEST)
    format, column, records = _records(path, unpacked(path, data), format, column)
    ids = _names(records)
    items: list[Item] = []
    bad: list[BadRecord] = []
    for index in range(len(records))[:limit][first - 1 :: step]:
        record = records[index]
        try:
            if record.problem is not None:
                raise ValueError(record.problem)
            item = record_of(format, index, record.line, record.value, system, column)
        except ValueError as error:
            bad.append(BadRecord(index, record.line, str(error)))
        else:
            items.append(replace(item, id=ids[index]))
    own = Counter(own_id(item.record) for item in items)
    same = sum(count for name, count in own.items() if name is not None and count > 1)
    return DataSet(path, format, hashlib.sha256(data).hexdigest(), items, bad, same)


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N` as two numbers.

    Raises:
        UsageError: it is not written so, or I is not between 1 and N.
    """
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip(), re.ASCII)
    return _checked_shard((int(found[1]), int(found[2])) if found else (0, 0), text)


def _checked_shard(shard: tuple[int, int], text: str) -> tuple[int, int]:
    if not 1 <= shard[0] <= shard[1]:
        raise UsageError(f"shard is {text!r}: it must be I/N, such as 1/4, with I from 1 to N")
    return shard


# -- form and format -----------------------------------------------------------------------------------------


def _records(
    path: Path, data: bytes, format: str | None, column: str | None
) -> tuple[str, str | None, Sequence[Record]]:
    """The format, the column of prompts if the rows of a table are read as such, and the records."""
    form, records = _parsed(path, data, format, column)
    if column is not None and form not in ("csv", "parquet"):
        raise UsageError(f"{path}: is no CSV file, so there is no column {column!r}: leave the column out")
    if form == "lines":
        return "text", None, records
    if not records:
        raise UsageError(f"{path}: has no record: there is nothing to answer")
    sample = next((record for record in records if isinstance(record.value, dict)), None)
    if sample is None:
        problem = records[0].problem or "is not a JSON object"
        raise UsageError(f"{_place(path, records[0])}: {problem}, like all records")
    try:
        name = format
        if form == "csv" or (form == "parquet" and column is not None):
            name, column = _row_format(list(sample.value), format, column)
        elif name is None:
            name, column = _detected(form, sample.value)
        require_fields(name, sample.value, column)
    except MissingField as error:
        claim = "" if format is None else f", so the file is not of the format {format}"
        raise UsageError(f"{_place(path, sample)}: {error}{claim}") from error
    except UsageError as error:
        raise UsageError(f"{path}{'' if form == 'parquet' else ':1'}: {error}") from error
    return name, column, records


def _place(path: Path, record: Record) -> str:
    return str(path) if record.line is None else f"{path}:{record.line}"


def _parsed(path: Path, data: bytes, format: str | None, column: str | None) -> tuple[_Form, Sequence[Record]]:
    if data.startswith(MAGIC) or ".parquet" in path.suffixes:
        return "parquet", parquet_records(path, data)
    text = decoded(data, str(path))
    if not text.strip():
        raise UsageError(f"{path}: is empty: there is nothing to answer")
    form = _form(path, text, format, column)
    if form == "lines":
        return form, list(line_records(text))
    return form, csv_records(path, text) if form == "csv" else json_records(path, text)


def _detected(form: _Form, record: dict[str, Any]) -> tuple[str, str | None]:
    """The format of a record; a row of a table may also be known by the name of a column."""
    try:
        return detected(record), None
    except MissingField:
        if form != "parquet":
            raise
        return "csv", prompt_column(list(record))


def _row_format(names: Sequence[str], format: str | None, column: str | None) -> tuple[str, str | None]:
    """How rows are read: by a column of prompts, unless other columns identify a format."""
    if column is None and format is None and {"Question", "Best Answer"} <= set(names):
        return "truthfulqa", None
    if column is None and format is not None and format != "csv":
        return format, None
    return format or "csv", prompt_column(names, column)


def _form(path: Path, text: str, format: str | None, column: str | None) -> _Form:
    endings = [ending.lower() for ending in path.suffixes if ending.lower() != ".gz"]
    ending = endings[-1] if endings else ""
    if format == "text":
        return "lines"
    if _JSON.match(text):
        if format == "csv":
            raise UsageError(f"{path}: is JSON, and not CSV: leave the format out")
        return "json"
    if format == "jsonl" or (format != "csv" and ending in (".json", ".jsonl", ".ndjson")):
        return "json"
    if format is not None or column is not None or ending in (".csv", ".tsv") or _is_table(path, text):
        return "csv"
    return "lines"


def _is_table(path: Path, text: str) -> bool:
    """Whether a first line names columns and the next row has as many, so that these are no prompts with commas."""
    names = [name.strip() for name in csv_header(text)]
    if len(names) < 2 or not all(names) or not any(name.lower() in COLUMNS for name in names):
        return False
    try:
        return any(record.problem is None for record in csv_records(path, text)[:1])
    except UsageError:
        return False


def _names(records: Sequence[Record]) -> list[str]:
    """Names of all records; those of answerable records are unique."""
    own = [own_id(record.value) if isinstance(record.value, dict) else None for record in records]
    counts = Counter(own)
    names = [str(index) if name is None or counts[name] > 1 else name for index, name in enumerate(own)]
    used = [name for name, record in zip(names, records, strict=True) if isinstance(record.value, dict | str)]
    return names if len(set(used)) == len(used) else [str(index) for index in range(len(records))]
