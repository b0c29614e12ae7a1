"""One record from one line of a stream."""

from __future__ import annotations

from typing import Any

from wsd_local.datasets.formats import FORMATS, MissingField, detected, record_of
from wsd_local.datasets.items import Item
from wsd_local.errors import UsageError
from wsd_local.system.inputs import json_value, text_of


def check_line_format(format: str | None) -> None:
    """Raise `UsageError` for a format whose records are not lines of one turn."""
    if format is not None and (format not in FORMATS or format in ("csv", "mt_bench")):
        raise UsageError(f"--input - cannot read {format!r}: give JSON lines of one turn, or --format text")


def line_record(line: bytes, index: int, format: str | None, system: str | None) -> Item:
    """The record in line `index` (from 0) of a stream; without a format it is found by the record's fields.

    Raises:
        ValueError: the line is not JSON, or holds no record of one turn.
    """
    value = _value(line, format)
    item = record_of(format or _detected(value), index, index + 1, value, system)
    if item.later:
        raise ValueError("asks several turns, and --input - answers one: put it into a file")
    return item


def _value(line: bytes, format: str | None) -> Any:
    text = text_of(line)
    if format == "text":
        return text
    try:
        return json_value(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error


def _detected(value: Any) -> str:
    try:
        return detected(value) if isinstance(value, dict) else "jsonl"
    except MissingField:
        return "jsonl"
