"""Parquet files as records.

Contract: rows become JSON objects. A column that is null in a row is no field of that row's record. What JSON does not
have becomes text: times and dates as in ISO 8601, decimals as they are written, bytes as text if they are UTF-8, else
their number; NaN is null. The library is imported when a Parquet file is read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from wsd_local.datasets.records import LARGEST, Record
from wsd_local.errors import UsageError

MAGIC = (b"PAR1", b"PARE")
_ROWS = 256
"""Rows that are decompressed together."""


def parquet_records(path: Path, data: bytes) -> list[Record]:
    """Rows of a Parquet file, which have no lines.

    Raises:
        UsageError: pyarrow is not installed, the file is damaged or encrypted, or it would be too large.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            f"{path}: is a Parquet file, which is read with the extra `parquet`: pip install pyarrow"
        ) from error
    try:
        with parquet.ParquetFile(io.BytesIO(data)) as file:
            groups = range(file.metadata.num_row_groups)
            _check_size(path, sum(file.metadata.row_group(group).total_byte_size for group in groups))
            return [Record(None, _plain_row(row)) for row in _rows(path, file)]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{path}: is no Parquet file that can be read ({why}): get it again") from error


def _rows(path: Path, file: Any) -> Iterator[dict[str, Any]]:
    size = 0
    for batch in file.iter_batches(batch_size=_ROWS, use_threads=False):
        size += batch.nbytes
        _check_size(path, size)
        yield from batch.to_pylist()


def _check_size(path: Path, size: int) -> None:
    if size > LARGEST:
        raise UsageError(f"{path}: unpacks to more than {LARGEST >> 20} MiB, which is the most that is read: split it")


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in row.items() if value is not None}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return f"{len(value)} bytes"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return value if isinstance(value, str | int | float | None) else str(value)
