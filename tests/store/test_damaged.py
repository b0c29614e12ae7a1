"""A chat store with values of wrong kinds inside: one line names the place, and nothing else happens."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replies import reply

from wsd_local.errors import WsdError
from wsd_local.store import Preset, Store, StoreError

COLUMNS = {
    "chats": ("title", "pair", "system", "preset", "created", "updated", "deleted", "head"),
    "messages": ("text", "parent", "created"),
    "replies": ("pair", "settings", "spans", "finish_reason", "error", "report", "tokens", "ended"),
    "presets": ("pair", "system", "settings"),
}
VALUES = (b"\xff", "x", "null", "5", "[]", "[1]", "{}", '[["draft"]]', '{"draft": 3}', '{"switch": []}', "[" * 9000)
REPORTS = (
    '{"draft": {"model": 1, "kept_tokens": 1}, "base": {}, "timings": {}}',
    '{"draft": {"model": "a", "kept_tokens": 1}, "base": {"model": "b", "tokens": 2}}',
    '{"switch": {"confidence": "high"}}',
    '{"pieces": [3]}',
    '{"pieces": [["a", "draft", null]]}',
    '{"checked": {"probs": 1, "windows": []}}',
    '{"discarded": 5}',
)
READS: tuple[Callable[[Store], Any], ...] = (
    lambda store: store.chats.find(),
    lambda store: store.chats.find("answer"),
    lambda store: store.chats.get(1),
    lambda store: store.messages.of(1),
    lambda store: store.messages.branch(2),
    lambda store: store.messages.tokens(2),
    lambda store: store.search("answer"),
    lambda store: store.presets.all(),
    lambda store: store.export(1, "markdown"),
    lambda store: store.export(1, "json"),
    lambda store: store.replies.resume(2, pair="demo", settings={}).close(),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one chat, a question, its answer, a preset."""
    path = tmp_path / "chats.db"
    with Store(path) as store:
        chat = store.chats.create()
        question = store.messages.add(chat, None, "user", "one?")
        store.replies.begin(chat, question, pair="demo", settings={}).finish(reply("Great ", "answer"))
        store.presets.save(Preset("mine"))
    return path


def put(path: Path, table: str, column: str, value: object) -> bool:
    """Write a value into every row; False if the schema refuses it."""
    with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.Error):
        connection.execute(f"UPDATE {table} SET {column} = ?", (value,))
        connection.commit()
        return True
    return False


@pytest.mark.parametrize(("table", "column"), [(table, one) for table, all_ in COLUMNS.items() for one in all_])
def test_a_wrong_value_is_no_internal_error(path: Path, table: str, column: str) -> None:
    written = 0
    for value in (*VALUES, *(REPORTS if column == "report" else ())):
        written += put(path, table, column, value)
        for read in READS:
            with Store(path) as store:
                try:
                    read(store)
                except WsdError as error:
                    assert "\n" not in str(error) and len(str(error)) < 400
    assert written


@pytest.mark.parametrize("report", REPORTS)
def test_a_damaged_report_names_its_message(path: Path, report: str) -> None:
    assert put(path, "replies", "report", report)
    with Store(path) as store, pytest.raises(StoreError, match=r"damaged at message 2 of chat 1: .*chats rm"):
        store.messages.branch(2)
