"""Chats, and the bin for deleted ones.

Contract: a deleted chat stays in the bin for `BIN_DAYS` days, in which it can be restored; after them it is erased as
soon as a program opens the store. `erase` deletes a chat at once and for good.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from wsd_local.store import finding, queries, rows
from wsd_local.store.file import ChatFile
from wsd_local.store.finding import clean, cleaned, one_line
from wsd_local.store.rows import ChatRow

BIN_DAYS = 30


class Chats:
    """The chats of a store."""

    def __init__(self, file: ChatFile, clock: Callable[[], datetime]) -> None:
        self._file, self._clock = file, clock

    def find(self, query: str = "", *, limit: int | None = None, deleted: bool = False) -> list[ChatRow]:
        """Chats, newest activity first; with a query those whose title or messages have it. `deleted`: the bin."""
        wanted = "IS NOT NULL" if deleted else "IS NULL"
        with self._file.reading() as db:
            found = db.execute(f"{queries.CHAT} WHERE deleted {wanted} ORDER BY updated DESC, id DESC").fetchall()
            if query.strip():
                inside = {row["chat"] for row in queries.found(db, query, "DISTINCT chat")}
                found = [row for row in found if row["id"] in inside or finding.contains(row["title"], query)]
        return [rows.chat_row(row) for row in found[:limit]]

    def create(
        self, *, title: str = "", pair: str = "demo", system: str | None = None, preset: str | None = None
    ) -> int:
        """A new chat's id. Without a title the first question gives it one."""
        now = rows.moment(self._clock())
        values = (one_line(title), clean(pair), cleaned(system), cleaned(preset), now, now)
        with self._file.changing() as db:
            made = db.execute(
                "INSERT INTO chats (title, pair, system, preset, created, updated) VALUES (?, ?, ?, ?, ?, ?)", values
            )
        return queries.inserted(made)

    def get(self, chat_id: int) -> ChatRow:
        """One chat, also from the bin.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.reading() as db:
            return rows.chat_row(queries.chat(db, chat_id))

    def rename(self, chat_id: int, title: str) -> None:
        """Give a chat another title."""
        self._set(chat_id, title=one_line(title))

    def configure(self, chat_id: int, *, pair: str, system: str | None, preset: str | None) -> None:
        """What the next replies of a chat are made with; each reply keeps what it was made with."""
        self._set(chat_id, pair=clean(pair), system=cleaned(system), preset=cleaned(preset))

    def delete(self, chat_id: int) -> None:
        """Move a chat to the bin."""
        self._set(chat_id, deleted=rows.moment(self._clock()))

    def restore(self, chat_id: int) -> None:
        """Take a chat out of the bin."""
        self._set(chat_id, deleted=None)

    def empty_bin(self) -> int:
        """Erase what has been in the bin for longer than `BIN_DAYS` days; the number of chats."""
        before = rows.moment(self._clock() - timedelta(days=BIN_DAYS))
        with self._file.reading() as db:
            if db.execute("SELECT 1 FROM chats WHERE deleted < ?", (before,)).fetchone() is None:
                return 0
        with self._file.changing() as db:
            count = db.execute("DELETE FROM chats WHERE deleted < ?", (before,)).rowcount
            queries.forget(db, count)
        self._file.sweep()
        return count

    def erase(self, chat_id: int) -> bool:
        """Delete a chat for good, in the bin or not; returns whether the log holds it no more (see `ChatFile.sweep`).

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.changing() as db:
            queries.chat(db, chat_id)
            db.execute("DELETE FROM chats WHERE id = ?", (chat_id,))
            queries.forget(db, 1)
        return self._file.sweep()

    def _set(self, chat_id: int, **columns: str | None) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._file.changing() as db:
            if not db.execute(f"UPDATE chats SET {names} WHERE id = ?", (*columns.values(), chat_id)).rowcount:
                raise queries.unknown("chat", chat_id)
