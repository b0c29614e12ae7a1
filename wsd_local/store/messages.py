"""The messages of chats, as trees: editing or asking again makes a sibling, and the head says which branch is shown.

Contract: a message is never changed, except by the writer of the reply that it is (see `replies`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from wsd_local.errors import UsageError
from wsd_local.prompts.messages import Role
from wsd_local.store import finding, queries, rows, tree
from wsd_local.store.file import ChatFile
from wsd_local.store.finding import clean, one_line
from wsd_local.store.rows import MessageRow, State

if TYPE_CHECKING:
    from wsd_local.core.written import ReplyToken


class Messages:
    """The messages of all chats of a store."""

    def __init__(self, file: ChatFile, clock: Callable[[], datetime]) -> None:
        self._file, self._clock = file, clock

    def add(self, chat_id: int, parent: int | None, role: Role, text: str) -> int:
        """A message that is whole; it becomes the head. Returns its id.

        Raises:
            UsageError: the chat, or the parent in it, is not there.
        """
        with self._file.changing() as db:
            added = insert(db, self._clock, chat_id, parent, role, clean(text), "finished")
            if role == "user" and (title := next((line for line in text.splitlines() if line.strip()), "")):
                db.execute("UPDATE chats SET title = ? WHERE id = ? AND title = ''", (one_line(title), chat_id))
        return added

    def get(self, message_id: int) -> MessageRow:
        """One message.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.reading() as db:
            return queries.message(db, message_id)

    def of(self, chat_id: int) -> list[MessageRow]:
        """All messages of a chat, of every branch, oldest first."""
        with self._file.reading() as db:
            queries.chat(db, chat_id)
            return [
                queries.shown(row) for row in db.execute(f"{queries.MESSAGE} WHERE chat = ? ORDER BY id", (chat_id,))
            ]

    def tokens(self, message_id: int) -> tuple[ReplyToken, ...]:
        """The tokens of a reply with sources and probabilities, as of the last run that came to its end."""
        with self._file.reading() as db:
            found = db.execute("SELECT tokens FROM replies WHERE message = ?", (message_id,)).fetchone()
        return rows.unpacked(None if found is None else found["tokens"])

    def branch(self, message_id: int) -> list[MessageRow]:
        """The messages from the first one to this one.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.reading() as db:
            return tree.branch(db, message_id)

    def siblings(self, message_id: int) -> list[int]:
        """The messages that answer the same one, itself among them, oldest first.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.reading() as db:
            return tree.siblings(db, message_id)

    def places(self, chat_id: int) -> dict[int, tuple[int, int]]:
        """For each message of a chat its number among its siblings, from 1, and how many they are."""
        with self._file.reading() as db:
            families = tree.families(db, chat_id)
        return {one: (at, len(family)) for family in families.values() for at, one in enumerate(family, 1)}

    def leaves(self, chat_id: int) -> list[int]:
        """The ends of all branches of a chat in the order of the tree: older siblings and all below them come first."""
        with self._file.reading() as db:
            return tree.leaves(tree.families(db, chat_id))

    def leaf(self, message_id: int) -> int:
        """The newest message below this one, or itself: where a change of branch leads.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.reading() as db:
            return tree.leaf(db, message_id)

    def withdraw(self, message_id: int) -> None:
        """Delete a message and all below it; the one before it becomes the head.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.changing() as db:
            row = queries.message(db, message_id)
            below = tree.below(db, message_id)
            db.execute("UPDATE chats SET head = ? WHERE id = ?", (row.parent, row.chat))
            db.executemany("DELETE FROM messages WHERE id = ?", [(one,) for one in below])
            queries.forget(db, len(below))
        self._file.sweep()

    def set_head(self, chat_id: int, message_id: int | None) -> None:
        """Which message is shown last; None shows none.

        Raises:
            UsageError: the chat, or the message in it, is not there.
        """
        with self._file.changing() as db:
            queries.chat(db, chat_id)
            queries.require_in(db, chat_id, message_id)
            db.execute("UPDATE chats SET head = ? WHERE id = ?", (message_id, chat_id))


def insert(
    db: sqlite3.Connection,
    clock: Callable[[], datetime],
    chat_id: int,
    parent: int | None,
    role: Role,
    text: str,
    state: State,
) -> int:
    """Add a message, which becomes the head; its id.

    Raises:
        UsageError: the chat, or the parent in it, is not there.
    """
    if role not in ("system", "user", "assistant"):
        raise UsageError(f"a message has the role {role!r}; it must be system, user or assistant")
    queries.chat(db, chat_id)
    queries.require_in(db, chat_id, parent)
    index = None if state == "writing" else finding.words(text)
    made = db.execute(
        "INSERT INTO messages (chat, parent, role, text, words, state, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (chat_id, parent, role, text, index, state, rows.moment(clock())),
    )
    added = queries.inserted(made)
    show(db, clock, chat_id, added)
    return added


def show(db: sqlite3.Connection, clock: Callable[[], datetime], chat_id: int, message_id: int) -> None:
    """Make a message the head of its chat, which has changed now."""
    now = rows.moment(clock())
    db.execute("UPDATE chats SET head = ?, updated = ? WHERE id = ?", (message_id, now, chat_id))
