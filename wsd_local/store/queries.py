"""Queries that several parts of the store use.

Contract: each takes the connection of the caller's transaction.
"""

from __future__ import annotations

import sqlite3

from wsd_local.errors import UsageError
from wsd_local.store.finding import clean, match_expression
from wsd_local.store.rows import MessageRow, message_row
from wsd_local.store.writer import is_alive

CHAT = "SELECT chats.*, (SELECT count(*) FROM messages WHERE chat = chats.id) AS messages FROM chats"
MESSAGE = (
    "SELECT messages.*, replies.pair, settings, spans, finish_reason, error, report, ended, writer_pid, writer_started "
    "FROM messages LEFT JOIN replies ON message = id"
)


def chat(db: sqlite3.Connection, chat_id: int) -> sqlite3.Row:
    """A chat's columns and its number of messages; `UsageError` if there is none."""
    row: sqlite3.Row | None = db.execute(f"{CHAT} WHERE id = ?", (chat_id,)).fetchone()
    if row is None:
        raise unknown("chat", chat_id)
    return row


def message(db: sqlite3.Connection, message_id: int) -> MessageRow:
    """A message with its reply; `UsageError` if there is none."""
    row = db.execute(f"{MESSAGE} WHERE id = ?", (message_id,)).fetchone()
    if row is None:
        raise unknown("message", message_id)
    return shown(row)


def shown(row: sqlite3.Row) -> MessageRow:
    """A message; one whose writer is gone counts as cancelled, even before that is recorded."""
    gone = row["state"] == "writing" and not is_alive(row["writer_pid"], row["writer_started"])
    return message_row(row, "cancelled" if gone else row["state"])


def require_in(db: sqlite3.Connection, chat_id: int, message_id: int | None) -> None:
    """Raise `UsageError` unless a message is of this chat."""
    if message_id is None:
        return
    if not db.execute("SELECT 1 FROM messages WHERE id = ? AND chat = ?", (message_id, chat_id)).fetchone():
        raise UsageError(f"there is no message {message_id} in chat {chat_id}")


def found(db: sqlite3.Connection, query: str, columns: str, join: str = "", limit: int = -1) -> list[sqlite3.Row]:
    """Columns of the messages that a query finds; a query of signs alone is looked for as it is."""
    expression = match_expression(query)
    if expression is not None:
        sql = f"FROM messages_fts JOIN messages ON messages.id = messages_fts.rowid {join} WHERE messages_fts MATCH ?"
        order = "" if columns.startswith("DISTINCT") else "ORDER BY rank, messages.id DESC"
        return db.execute(f"SELECT {columns} {sql} {order} LIMIT ?", (expression, limit)).fetchall()
    signs = clean(query).replace("\0", " ").strip()
    if not signs:
        return []
    for special in "\\%_":
        signs = signs.replace(special, f"\\{special}")
    return db.execute(
        f"SELECT {columns} FROM messages {join} WHERE messages.text LIKE ? ESCAPE '\\' AND state <> 'writing' "
        "ORDER BY messages.id DESC LIMIT ?",
        (f"%{signs[:1000]}%", limit),
    ).fetchall()


def inserted(cursor: sqlite3.Cursor) -> int:
    """The id of the row that a statement added."""
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def forget(db: sqlite3.Connection, deleted: int) -> None:
    """Take deleted words out of the index, which keeps them until it is rewritten."""
    if deleted:
        db.execute("INSERT INTO messages_fts (messages_fts) VALUES ('optimize')")


def unknown(kind: str, number: int) -> UsageError:
    """The error for an id that is not there."""
    return UsageError(f"there is no {kind} {number}: wsd-local chats list shows what there is")
