"""Chats, their messages, and presets.

Contract: everything said is in one SQLite file, that any number of programs and threads may use at once. A message is
never changed but by the reply that it is: editing or asking again makes a sibling, and `head` says which branch is
shown. Chats that are off the record are in a store of their own, `Store(":memory:")`, which no file ever sees; it has
its own ids, so a chat is known by its store and its id.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from wsd_local.errors import UsageError
from wsd_local.store import finding, queries, rows, schema, tree
from wsd_local.store.file import ChatFile, StoreError, default_path
from wsd_local.store.finding import clean
from wsd_local.store.rows import ChatRow, Hit, MessageRow, Preset, Role, Span, State
from wsd_local.store.settling import settle
from wsd_local.store.writer import FLUSH_S, MakeTimer, Reference, ReplyWriter, insert_reply

if TYPE_CHECKING:
    from wsd_local.core.decoding import ReplyToken
    from wsd_local.store.schema import Step

TITLE_LENGTH = 60


def _now() -> datetime:
    return datetime.now(UTC)


class Store:
    """The chats of a file, by default `chats.db` in the data folder; `:memory:` is a store off the record.

    Args:
        path: the file; it is made if it is not there.
        clock: the time that is written down.
        flush_s: seconds after which what a reply says is written.
        timer: calls back after them.
        steps: the schema.

    Raises:
        StoreError: the file cannot be opened, is no chat store, is damaged, or is of a newer program.
    """

    def __init__(
        self,
        path: Path | Literal[":memory:"] | None = None,
        *,
        clock: Callable[[], datetime] = _now,
        flush_s: float = FLUSH_S,
        timer: MakeTimer = threading.Timer,
        steps: Sequence[Step] = schema.STEPS,
    ) -> None:
        self._clock, self._flush_s, self._timer = clock, flush_s, timer
        self._writers: set[ReplyWriter] = set()
        self._file = ChatFile(None if path == ":memory:" else Path(path or default_path()), steps)
        try:
            settle(self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The file; None off the record."""
        return self._file.path

    @property
    def off_the_record(self) -> bool:
        """Whether nothing of this is in a file."""
        return self._file.path is None

    def hurry(self, within: float) -> None:
        """Wait for other programs no longer than `within` seconds from now, whatever is called: this program ends."""
        self._file.hurry(within)

    def close(self) -> None:
        """Close the file. Replies that are still written count as cancelled."""
        for writer in list(self._writers):
            with contextlib.suppress(StoreError):
                writer.close()
        self._file.close()

    # -- chats -------------------------------------------------------------------------------------------------------

    def chats(self, query: str = "", *, limit: int | None = None, deleted: bool = False) -> list[ChatRow]:
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
        values = (_line(title), clean(pair), _cleaned(system), _cleaned(preset), now, now)
        with self._file.changing() as db:
            made = db.execute(
                "INSERT INTO chats (title, pair, system, preset, created, updated) VALUES (?, ?, ?, ?, ?, ?)", values
            )
        return _id(made)

    def chat(self, chat_id: int) -> ChatRow:
        """One chat, also from the bin.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.reading() as db:
            return rows.chat_row(queries.chat(db, chat_id))

    def rename(self, chat_id: int, title: str) -> None:
        """Give a chat another title."""
        self._set(chat_id, title=_line(title))

    def configure(self, chat_id: int, *, pair: str, system: str | None, preset: str | None) -> None:
        """What the next replies of a chat are made with; each reply keeps what it was made with."""
        self._set(chat_id, pair=clean(pair), system=_cleaned(system), preset=_cleaned(preset))

    def delete(self, chat_id: int) -> None:
        """Put a chat into the bin."""
        self._set(chat_id, deleted=rows.moment(self._clock()))

    def restore(self, chat_id: int) -> None:
        """Take a chat out of the bin."""
        self._set(chat_id, deleted=None)

    def purge(self, older_than: timedelta | None = None) -> int:
        """Delete for good what has been in the bin for longer than this, or all of it; how many chats that were."""
        before = "~" if older_than is None else rows.moment(self._clock() - older_than)
        with self._file.changing() as db:
            done = db.execute("DELETE FROM chats WHERE deleted < ?", (before,)).rowcount
            queries.forget(db, done)
        if done:
            self._file.sweep()
        return done

    def erase(self, chat_id: int) -> bool:
        """Delete a chat for good, whether it is in the bin or not; whether it is out of the log too (see `sweep`).

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.changing() as db:
            queries.chat(db, chat_id)
            db.execute("DELETE FROM chats WHERE id = ?", (chat_id,))
            queries.forget(db, 1)
        return self._file.sweep()

    # -- messages ----------------------------------------------------------------------------------------------------

    def add(self, chat_id: int, parent: int | None, role: Role, text: str) -> int:
        """A message that is whole; it becomes the head. Returns its id.

        Raises:
            UsageError: the chat, or the parent in it, is not there.
        """
        with self._file.changing() as db:
            added = self._insert(db, chat_id, parent, role, clean(text), "finished")
            if role == "user" and (title := next((line for line in text.splitlines() if line.strip()), "")):
                db.execute("UPDATE chats SET title = ? WHERE id = ? AND title = ''", (_line(title), chat_id))
        return added

    def begin_reply(
        self, chat_id: int, parent: int, *, pair: str, settings: Mapping[str, Any], given: str = ""
    ) -> ReplyWriter:
        """A new reply to `parent`; it becomes the head. `given` is a beginning that a person wrote.

        Raises:
            UsageError: the chat, or the parent in it, is not there.
        """
        given = clean(given)
        spans = (Span("given", len(given)),) if given else ()
        with self._file.changing() as db:
            added = self._insert(db, chat_id, parent, "assistant", given, "writing")
            insert_reply(db, added, clean(pair), settings, spans)
        return self._writer(Reference(added, chat_id, given, spans))

    def continue_reply(self, message_id: int, *, pair: str, settings: Mapping[str, Any]) -> ReplyWriter:
        """Go on with a reply that was stopped, under the same id; it becomes the head.

        What is said is added to what is there; `finish` replaces both by the whole. If nothing is said, `fail` and
        `close` leave the reply as it was before.

        Raises:
            UsageError: there is no such message, or models did not write it.
            StoreError: it is being written just now.
        """
        with self._file.changing() as db:
            message = queries.message(db, message_id)
            if message.reply is None:
                raise UsageError(f"message {message_id} is no reply that could be gone on with")
            if message.state == "writing":
                raise StoreError(f"message {message_id} is being written just now: stop that first")
            (tokens,) = db.execute("SELECT tokens FROM replies WHERE message = ?", (message_id,)).fetchone()
            db.execute("UPDATE messages SET state = 'writing' WHERE id = ?", (message_id,))
            insert_reply(db, message_id, clean(pair), settings, message.reply.spans)
            self._head(db, message.chat, message_id)
        reply = message.reply
        said = rows.unpacked(tokens)
        before = Reference(message_id, message.chat, message.text, reply.spans, said, reply.report, message)
        return self._writer(before)

    def message(self, message_id: int) -> MessageRow:
        """One message.

        Raises:
            UsageError: there is none with this id.
        """
        with self._file.reading() as db:
            return queries.message(db, message_id)

    def messages(self, chat_id: int) -> list[MessageRow]:
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
        """Take back a message and all below it, as if it had not been said; the one before it becomes the head.

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

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Messages of all branches with what is looked for (see `wsd_local.store.finding`), best first."""
        columns = "messages.id, chat, role, messages.text, messages.created, title"
        with self._file.reading() as db:
            found = queries.found(db, text, columns, "JOIN chats ON chats.id = chat AND deleted IS NULL", limit)
        return [rows.hit(row, *finding.snippet(row["text"], text)) for row in found]

    # -- presets -----------------------------------------------------------------------------------------------------

    def presets(self) -> list[Preset]:
        """All presets by name."""
        with self._file.reading() as db:
            return queries.presets(db)

    def save_preset(self, preset: Preset) -> None:
        """Keep a preset; one of the same name is replaced.

        Raises:
            UsageError: its name is empty.
        """
        if not (name := _line(preset.name)):
            raise UsageError("a preset needs a name")
        with self._file.changing() as db:
            queries.save_preset(db, name, preset)

    def delete_preset(self, name: str) -> None:
        """Forget a preset; chats that were begun with it stay as they are.

        Raises:
            UsageError: there is none of this name.
        """
        with self._file.changing() as db:
            if not db.execute("DELETE FROM presets WHERE name = ?", (clean(name),)).rowcount:
                raise UsageError(f"there is no preset {name!r}")

    def export(self, chat_id: int, kind: Literal["markdown", "json"], *, all_branches: bool = False) -> str:
        """A chat as a text file: the branch that is shown, or all of them.

        Raises:
            UsageError: there is none with this id.
        """
        from wsd_local.store import exporting

        chat = self.chat(chat_id)
        shown = [] if chat.head is None else self.branch(chat.head)
        messages = self.messages(chat_id) if all_branches else shown
        if kind == "markdown":
            return exporting.markdown(chat, messages, numbered=all_branches)
        return exporting.as_json(chat, messages, {message.id: self.tokens(message.id) for message in messages})

    # -- inside ------------------------------------------------------------------------------------------------------

    def _set(self, chat_id: int, **columns: str | None) -> None:
        names = ", ".join(f"{name} = ?" for name in columns)
        with self._file.changing() as db:
            if not db.execute(f"UPDATE chats SET {names} WHERE id = ?", (*columns.values(), chat_id)).rowcount:
                raise queries.unknown("chat", chat_id)

    def _insert(
        self, db: sqlite3.Connection, chat_id: int, parent: int | None, role: Role, text: str, state: State
    ) -> int:
        if role not in ("system", "user", "assistant"):
            raise UsageError(f"a message has the role {role!r}; it must be system, user or assistant")
        queries.chat(db, chat_id)
        queries.require_in(db, chat_id, parent)
        index = None if state == "writing" else finding.words(text)
        made = db.execute(
            "INSERT INTO messages (chat, parent, role, text, words, state, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (chat_id, parent, role, text, index, state, rows.moment(self._clock())),
        )
        self._head(db, chat_id, _id(made))
        return _id(made)

    def _head(self, db: sqlite3.Connection, chat_id: int, message_id: int) -> None:
        now = rows.moment(self._clock())
        db.execute("UPDATE chats SET head = ?, updated = ? WHERE id = ?", (message_id, now, chat_id))

    def _writer(self, before: Reference) -> ReplyWriter:
        writer = ReplyWriter(self._file, before, self._clock, self._flush_s, self._timer, self._writers.discard)
        self._writers.add(writer)
        return writer


def _line(text: str) -> str:
    """One line that fits into a list."""
    line = " ".join(clean(text).replace("\0", " ").split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def _cleaned(text: str | None) -> str | None:
    return None if text is None else clean(text)


def _id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid
