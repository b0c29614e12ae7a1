"""Data sets as Parquet files: the same records as in JSON, and one line for what is wrong."""

from __future__ import annotations

import gzip
import io
import json
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from wsd_local.datasets import parquet as reader
from wsd_local.datasets import read
from wsd_local.datasets.parquet import parquet_records
from wsd_local.errors import UsageError


def packed(rows: list[dict[str, Any]], **options: Any) -> bytes:
    """Rows as a Parquet file."""
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out, **options)
    return out.getvalue()


def saved(folder: Path, rows: list[dict[str, Any]], name: str = "a.parquet") -> Path:
    """A file with these rows."""
    path = folder / name
    path.write_bytes(packed(rows))
    return path


CHAT = [
    {"role": "user", "content": "One"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "Three"},
]
SETS: list[tuple[str, dict[str, Any]]] = [
    ("jsonl", {"prompt": "One", "id": "x"}),
    ("jsonl", {"messages": CHAT}),
    ("alpaca_eval", {"instruction": "Translate.", "input": "Good morning", "output": "Bonjour"}),
    ("mt_bench", {"turns": ["One", "Two"], "question_id": 81}),
    ("arena_hard", {"turns": [{"content": "One"}]}),
    ("naive", {"context": CHAT}),
    ("hh", {"chosen": "\n\nHuman: One\n\nAssistant: two", "rejected": "\n\nHuman: One\n\nAssistant: no"}),
]


@pytest.mark.parametrize(("format", "record"), SETS, ids=lambda value: value if isinstance(value, str) else "")
def test_rows_are_read_as_the_same_records_in_json(format: str, record: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(record), encoding="utf-8")
    ours, theirs = read(saved(tmp_path, [record, record])), read(tmp_path / "a.jsonl")
    assert ours.format == theirs.format == format and len(ours.items) == 2 and not ours.bad
    first, other = ours.items[0], theirs.items[0]
    assert (first.messages, first.later, first.record, first.unused) == (
        other.messages,
        other.later,
        other.record,
        other.unused,
    )


def test_columns_that_are_null_are_no_fields(tmp_path: Path) -> None:
    data = read(saved(tmp_path, [{"prompt": "One", "messages": None}, {"prompt": None, "messages": CHAT}]))
    assert [item.messages[-1]["content"] for item in data.items] == ["One", "Three"]
    assert [item.line for item in data.items] == [None, None]


def test_a_column_holds_the_prompts(tmp_path: Path) -> None:
    path = saved(tmp_path, [{"n": 1, "Text": "One", "other": "x"}])
    assert read(path).items[0].messages == [{"role": "user", "content": "One"}]
    assert read(path, column="other").items[0].messages == [{"role": "user", "content": "x"}]
    with pytest.raises(UsageError, match=r"a\.parquet: there is no column 'none'; the columns are 'n', 'Text'"):
        read(path, column="none")


def test_what_json_does_not_have(tmp_path: Path) -> None:
    row = {
        "prompt": "One",
        "when": datetime(2020, 2, 3, 4, 5),
        "day": date(2020, 2, 3),
        "price": Decimal("1.50"),
        "image": b"\xff\xfe",
        "name": "ü".encode(),
        "score": float("nan"),
    }
    assert read(saved(tmp_path, [row])).items[0].record == {
        "prompt": "One",
        "when": "2020-02-03T04:05:00",
        "day": "2020-02-03",
        "price": "1.50",
        "image": "2 bytes",
        "name": "ü",
        "score": None,
    }


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd"])
def test_however_it_is_packed(compression: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {number}"} for number in range(700)]
    data = packed(rows, compression=compression, row_group_size=300)
    for name, content in (("a", data), ("a.parquet.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        assert [item.record for item in read(tmp_path / name).items] == rows


def test_what_is_wrong_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packed([{"prompt": "One"}])
    for content in (whole[:-9], b"PAR1", b"", b"prompt\nx"):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.parquet: is no Parquet file that can be read") as caught:
            read(tmp_path / "a.parquet")
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UsageError, match=r"a\.parquet: has no record"):
        read(saved(tmp_path, []))
    with pytest.raises(UsageError, match="which column holds the prompts"):
        read(saved(tmp_path, [{"a": "x", "b": "y"}]))
    path = saved(tmp_path, [{"prompt": "One"}, {"prompt": " "}])
    assert [(bad.index, bad.line) for bad in read(path).bad] == [(1, None)]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"which is read with the extra `parquet`: pip install pyarrow"):
        read(path)


def test_a_small_file_is_unpacked_no_further_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LARGEST", 1_000_000)
    data = packed([{"prompt": "a" * 100_000}] * 200)
    assert len(data) < 100_000
    with pytest.raises(UsageError, match="unpacks to more than"):
        parquet_records(tmp_path / "a.parquet", data)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_texts_come_back(texts: list[str]) -> None:
    records = parquet_records(Path("a"), packed([{"prompt": text} for text in texts]))
    assert [record.value for record in records] == [{"prompt": text} for text in texts]
