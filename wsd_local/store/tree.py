"""The messages of a chat as a tree: a message is the child of the one that it answers.

Contract: each function takes the connection of the caller's transaction, and reads only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from wsd_local.store import queries
from wsd_local.store.rows import MessageRow

Families = dict[int | None, list[int]]
"""Messages that answer the same one, by that one, oldest first."""

_BELOW = (
    "WITH RECURSIVE below (id, chat) AS (SELECT id, chat FROM messages WHERE id = ? "
    "UNION ALL SELECT m.id, m.chat FROM messages m JOIN below ON m.chat = below.chat AND m.parent = below.id)"
)


def branch(db: sqlite3.Connection, message_id: int) -> list[MessageRow]:
    """The messages from the first one to this one; `UsageError` if there is none with this id."""
    path = db.execute(
        "WITH RECURSIVE path (id, parent) AS ("
        "SELECT id, parent FROM messages WHERE id = ? "
        "UNION ALL SELECT m.id, m.parent FROM messages m JOIN path ON m.id = path.parent"
        f") {queries.MESSAGE} WHERE id IN (SELECT id FROM path) ORDER BY id",
        (message_id,),
    ).fetchall()
    if not path:
        raise queries.unknown("message", message_id)
    return [queries.shown(row) for row in path]


def siblings(db: sqlite3.Connection, message_id: int) -> list[int]:
    """The messages that answer the same one, oldest first; `UsageError` if there is none with this id."""
    found = db.execute(
        "SELECT other.id FROM messages AS own JOIN messages AS other "
        "ON other.chat = own.chat AND other.parent IS own.parent WHERE own.id = ? ORDER BY other.id",
        (message_id,),
    ).fetchall()
    if not found:
        raise queries.unknown("message", message_id)
    return [row["id"] for row in found]


def leaf(db: sqlite3.Connection, message_id: int) -> int:
    """The newest message below this one, or itself; `UsageError` if there is none with this id."""
    (newest,) = db.execute(f"{_BELOW} SELECT max(id) FROM below", (message_id,)).fetchone()
    if newest is None:
        raise queries.unknown("message", message_id)
    return int(newest)


def below(db: sqlite3.Connection, message_id: int) -> list[int]:
    """A message and all below it."""
    return [row["id"] for row in db.execute(f"{_BELOW} SELECT id FROM below", (message_id,))]


def families(db: sqlite3.Connection, chat_id: int) -> Families:
    """All messages of a chat by what they answer."""
    found: Families = {}
    for row in db.execute("SELECT id, parent FROM messages WHERE chat = ? ORDER BY id", (chat_id,)):
        found.setdefault(row["parent"], []).append(row["id"])
    return found


def leaves(found: Mapping[int | None, Sequence[int]]) -> list[int]:
    """The ends of all branches: older siblings and all below them come first."""
    ends: list[int] = []
    left = list(reversed(found.get(None, [])))
    while left:
        message = left.pop()
        answers = found.get(message, [])
        left += reversed(answers)
        if not answers:
            ends.append(message)
    return ends
