"""Files as records: bytes to text, and text to JSON objects, rows or lines, each with the line it begins at.

Contract: syntax alone; nothing is known here of what the fields mean. Text is what `wsd_local.system.inputs` makes of
bytes, so lines end at line feeds only: other separators of Unicode are part of the text. What keeps a file from being
read at all is a `UsageError` with file and line; what is wrong with one record is its `problem`.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.errors import UsageError
from wsd_local.system.inputs import json_problem, json_value, limited, unique
from wsd_local.units import plural

LARGEST = 1 << 30
"""Bytes of a data set at most, unpacked: 1 GiB."""

_SPACE = re.compile(r"[ \t\n]*")
_REST = re.compile(r"[^\n]*\n?")
"""The rest of a line, and its end."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, or why it is none; a file without lines has None for the line."""

    line: int | None
    value: Any = None
    problem: str | None = None


def unpacked(path: Path, data: bytes) -> bytes:
    """The bytes of a file that may be packed with gzip.

    Raises:
        UsageError: it cannot be unpacked, or would be too large.
    """
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            whole = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be unpacked ({error}): it is damaged or cut off, get it again") from error
    return limited(whole, str(path), LARGEST)


def line_records(text: str) -> Iterator[Record]:
    """Lines that are not blank."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield Record(number, line)


# -- JSON ----------------------------------------------------------------------------------------------------


def json_records(path: Path, text: str) -> list[Record]:
    """Values of a JSON list, or of lines with one value each.

    Raises:
        UsageError: the list is broken, or no line is JSON.
    """
    if text.lstrip().startswith("["):
        return _list_records(path, text)
    records = [_json_record(record) for record in line_records(text)]
    if records and all(record.problem is not None for record in records):
        raise UsageError(f"{path}:{records[0].line}: {records[0].problem}, and neither is any other line")
    return records


def _json_record(record: Record) -> Record:
    try:
        return Record(record.line, json_value(record.value))
    except ValueError as error:
        return Record(record.line, problem=f"is not JSON ({error})")


def _list_records(path: Path, text: str) -> list[Record]:
    decoder, records = json.JSONDecoder(object_pairs_hook=unique), []
    place = _end(_SPACE, text, text.index("[") + 1)
    line, counted = 1, 0
    while not text.startswith("]", place):
        line, counted = line + text.count("\n", counted, place), place
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            wrong = error.lineno if isinstance(error, json.JSONDecodeError) else line
            raise UsageError(f"{path}:{wrong}: the JSON list is broken ({json_problem(error)})") from error
        records.append(Record(line, value))
        place = _end(_SPACE, text, end)
        if text.startswith(",", place):
            place = _end(_SPACE, text, place + 1)
        elif not text.startswith("]", place):
            wrong = text.count("\n", 0, place) + 1
            raise UsageError(f"{path}:{wrong}: the JSON list is broken (there is no comma or ] after a record)")
    if (end := _end(_SPACE, text, place + 1)) < len(text):
        raise UsageError(f"{path}:{text.count(chr(10), 0, end) + 1}: there is something after the end of the JSON list")
    return records


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    """The end of a pattern's match at a place."""
    found = pattern.match(text, place)
    return place if found is None else found.end()


# -- CSV -----------------------------------------------------------------------------------------------------


def csv_header(text: str) -> list[str]:
    """Fields of the first line; none, if it is no row."""
    try:
        return next((row or [] for _, row in _rows(Path(), text.split("\n", 1)[0])), [])
    except UsageError:
        return []


def csv_records(path: Path, text: str) -> list[Record]:
    """Rows as dictionaries. The first row names the columns; they are separated by comma, semicolon or tab.

    Raises:
        UsageError: a quote is never closed, or two columns have one name.
    """
    rows = _rows(path, text)
    _, names = next(rows, (1, None))
    if names is None:
        raise UsageError(f"{path}:1: the first row does not name the columns")
    names = [name.strip() for name in names]
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise UsageError(f"{path}:1: two columns are named {twice[0]!r}: rename one")
    return [_csv_record(line, names, row) for line, row in rows]


def _csv_record(line: int, names: list[str], row: list[str] | None) -> Record:
    if row is None:
        return Record(line, problem="has text after a closing quote: write a quote inside a quoted field twice")
    if len(row) != len(names):
        return Record(line, problem=f"has {plural(len(row), 'field')}, and the first row has {len(names)}")
    return Record(line, dict(zip(names, row, strict=True)))


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str] | None]]:
    """Rows and the lines they begin at, without blank ones; None is a row with misplaced quotes.

    The `csv` module is not used because it has a global limit to the length of a field, and closes at the end of a file
    what was never closed.
    """
    first = text.split("\n", 1)[0]
    mark = next((sign for sign in ",;\t" if sign in first), ",")
    field = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|(?!")([^{mark}\n]*))({mark}|\n|\Z)?')
    place, line = 0, 1
    while place < len(text):
        begin, row, after = place, [], mark
        while after == mark:
            found = field.match(text, place)
            if found is None:
                wrong = line + text.count("\n", begin, place)
                raise UsageError(f"{path}:{wrong}: a quote is opened here and never closed")
            quoted, plain, after = found.groups()
            row.append(plain if quoted is None else quoted.replace('""', '"'))
            place = found.end()
        if after is None:
            place = _end(_REST, text, place)
        if text[begin:place].strip():
            yield line, None if after is None else row
        line += text.count("\n", begin, place)
