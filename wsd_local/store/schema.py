"""The tables of the chat store, as migrations from an empty file to the present schema.

Contract: a step that was published is never changed, only followed by another one; each is applied once, in order, and
sqlite-utils writes its name into the file. A name there that is not among `STEPS` means that a newer program was here.

`messages` are a tree: `parent` is what a message answers, `chats.head` the message that is shown last. What is found
by full text is `searchable`: `words` where a script has no spaces (see `wsd_local.store.finding`), else the text; a
reply gets there when it is no longer being written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database

    Step = Callable[[Database], None]

MIGRATION_SET = "wsd-local"
APPLICATION_ID = 0x77736443
"""`wsdC` in SQLite's header: the file is a chat store, and no other program's."""


def first(db: Database) -> None:
    """Chats, messages, replies, presets, full-text search."""
    for statement in _FIRST:
        db.execute(statement)


_FIRST = (
    """
    CREATE TABLE chats (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        title TEXT NOT NULL,
        pair TEXT NOT NULL,
        system TEXT,
        preset TEXT,
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        deleted TEXT,
        head INTEGER REFERENCES messages (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED
    )
    """,
    "CREATE INDEX chats_head ON chats (head)",
    """
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        chat INTEGER NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
        parent INTEGER,
        role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
        text TEXT NOT NULL,
        words TEXT,
        state TEXT NOT NULL CHECK (state IN ('writing', 'finished', 'cancelled', 'failed')),
        created TEXT NOT NULL,
        UNIQUE (chat, id),
        FOREIGN KEY (chat, parent) REFERENCES messages (chat, id) DEFERRABLE INITIALLY DEFERRED
    )
    """,
    "CREATE INDEX messages_parent ON messages (chat, parent)",
    "CREATE INDEX messages_writing ON messages (id) WHERE state = 'writing'",
    """
    CREATE TABLE replies (
        message INTEGER PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
        pair TEXT NOT NULL,
        settings TEXT NOT NULL,
        spans TEXT NOT NULL,
        finish_reason TEXT,
        error TEXT,
        report TEXT NOT NULL,
        tokens BLOB,
        ended TEXT,
        writer_pid INTEGER NOT NULL,
        writer_started REAL NOT NULL
    )
    """,
    "CREATE TABLE presets (name TEXT PRIMARY KEY, pair TEXT NOT NULL, system TEXT, settings TEXT NOT NULL)",
    """
    CREATE VIEW searchable AS
        SELECT id, coalesce(words, text) AS body FROM messages WHERE state <> 'writing'
    """,
    """
    CREATE VIRTUAL TABLE messages_fts USING fts5 (
        body, content = 'searchable', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
    )
    """,
    """
    CREATE TRIGGER messages_said AFTER INSERT ON messages WHEN new.state <> 'writing' BEGIN
        INSERT INTO messages_fts (rowid, body) VALUES (new.id, coalesce(new.words, new.text));
    END
    """,
    """
    CREATE TRIGGER messages_gone AFTER DELETE ON messages WHEN old.state <> 'writing' BEGIN
        INSERT INTO messages_fts (messages_fts, rowid, body)
            VALUES ('delete', old.id, coalesce(old.words, old.text));
    END
    """,
    """
    CREATE TRIGGER messages_changed AFTER UPDATE OF text, words, state ON messages
    WHEN old.state <> 'writing' OR new.state <> 'writing' BEGIN
        INSERT INTO messages_fts (messages_fts, rowid, body)
            SELECT 'delete', old.id, coalesce(old.words, old.text) WHERE old.state <> 'writing';
        INSERT INTO messages_fts (rowid, body)
            SELECT new.id, coalesce(new.words, new.text) WHERE new.state <> 'writing';
    END
    """,
)

STEPS: tuple[Step, ...] = (first,)


def applied(connection: sqlite3.Connection) -> list[str]:
    """Names of the steps that were applied to a file. Reads only, and without sqlite-utils: its import takes 0.3 s."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = '_sqlite_migrations'").fetchone():
        return []
    rows = connection.execute(
        "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY rowid", (MIGRATION_SET,)
    )
    return [str(name) for (name,) in rows]


def apply(connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """Apply the steps that are not applied yet, inside the transaction that the caller has begun."""
    from sqlite_utils import Database, Migrations

    migrations = Migrations(MIGRATION_SET)
    for step in steps:
        migrations(name=step.__name__)(step)
    migrations.apply(Database(connection, recursive_triggers=False, execute_plugins=False))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
