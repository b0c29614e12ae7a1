"""The file of the chat store: opening it, lending its connections, saying what is wrong with it.

Contract: WAL, so that readers and one writer do not wait for each other; every change is one short transaction that has
the write lock from its beginning (`BEGIN IMMEDIATE`), and waits up to `BUSY_S` seconds for another program's. A commit
is on the disk when it returns (`synchronous=FULL`): a killed process loses no commit, and neither does a power cut, as
far as the disk does what it reports. Nothing is written to a file that is no chat store, or a newer program's. The file
and its log are readable by their owner alone.

What is deleted is overwritten in the file, and the log is emptied (`sweep`). Copies that were made before (exports,
backups, snapshots of a file system, blocks that a flash disk has set aside) are out of reach.

A connection is lent to one call at a time, whatever its thread; a store in memory has just one, and calls take turns.
"""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from wsd_local.errors import UsageError, WsdError, reason
from wsd_local.paths import data_dir, make_folder, make_private
from wsd_local.store import schema

if TYPE_CHECKING:
    from wsd_local.store.schema import Step

BUSY_S = 10.0
"""How long a call waits for another program's change."""

STEP_MS = 50
"""Steps in which a change waits, so that the waiting can be cut short."""

SWEEP_S = 1.0
"""How long `sweep` waits for those who read."""

_ADVICE = (
    ("not a database", "is no chat store: move it away or name another file"),
    ("malformed", "is damaged: move it away to begin a new one; `sqlite3 FILE .recover` may save what is in it"),
    ("locked", "another program keeps changing it: try again"),
    ("readonly", "cannot be written: look at the permissions of the file and its folder"),
    ("unable to open", "cannot be opened: look at the permissions of the file and its folder"),
    ("full", "the disk is full: nothing of this change was kept"),
    ("no such module: fts5", "this Python's SQLite has no full-text search (FTS5): use another build of Python"),
)


class StoreError(WsdError):
    """The chat store cannot be opened, read or written."""


class GoneError(StoreError):
    """What is to be written belongs to a chat that was deleted."""


class ChatFile:
    """Connections to one chat store; `path` None is a store in memory.

    Raises:
        StoreError: the file cannot be opened, is no chat store, is damaged, or is of a newer program.
    """

    def __init__(self, path: Path | None, steps: Sequence[Step] = schema.STEPS) -> None:
        self.path = path
        self._steps = steps
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._turn = threading.Lock() if path is None else nullcontext()
        self._closed = False
        self._unswept = False
        self._until = math.inf
        with self._explained():
            self._open()

    def close(self) -> None:
        """Close the connections; one that is lent is closed when it comes back."""
        self._sweep_again()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def hurry(self, within: float) -> None:
        """From now on no change waits for another program after `within` seconds, also one that waits already."""
        self._until = time.monotonic() + within

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one state of the store for as long as it is lent."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A connection for one change: all of it is kept, or with an error nothing."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection
        self._sweep_again()

    def sweep(self) -> bool:
        """Empty the log, which holds what was deleted until then; whether that could be done.

        While another connection reads an older state it cannot be emptied: it is tried again after each change and at
        the end.
        """
        if self.path is None:
            return True
        self._unswept = True
        with self._explained(), self._lent() as connection:
            try:
                connection.execute(f"PRAGMA busy_timeout = {SWEEP_S * 1000:.0f}")
                (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")
        self._unswept = bool(busy)
        return not busy

    def _sweep_again(self) -> None:
        if self._unswept:
            with suppress(StoreError):
                self.sweep()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._turn, self._explained(), self._lent() as connection:
            self._begin(connection, begin)
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _begin(self, connection: sqlite3.Connection, begin: str) -> None:
        """Begin a transaction, when other programs let us."""
        if begin == "BEGIN":
            connection.execute(begin)
            return
        last = time.monotonic() + BUSY_S
        connection.execute(f"PRAGMA busy_timeout = {STEP_MS}")
        try:
            while not _begun(connection, begin, min(last, self._until)):
                pass
        finally:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")

    @contextmanager
    def _lent(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self._name}: the chat store was closed")
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect("rw")
        try:
            yield connection
        finally:
            with self._lock:
                kept = not self._closed
                if kept:
                    self._idle.append(connection)
            if not kept:
                connection.close()

    # -- opening ---------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return "chats in memory" if self.path is None else str(self.path)

    def _open(self) -> None:
        if self.path is None:
            connection = self._connect("memory")
            self._upgrade(connection)
            self._idle.append(connection)
            return
        try:
            make_folder(self.path.parent)
            size = self.path.stat().st_size if self.path.exists() else 0
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be opened: {reason(error)}") from error
        if self.path.is_dir():
            raise StoreError(f"{self.path}: is a folder: name a file")
        if size and self._is_current():
            for suffix in ("", "-wal", "-shm"):  # an older program may have left them open to others
                make_private(self.path.with_name(self.path.name + suffix))
            return
        with suppress(OSError):  # the log beside it gets the same permissions
            self.path.touch(0o600, exist_ok=False)
        connection = self._connect("rwc")
        try:
            _enter_wal(connection)
            self._upgrade(connection)
        finally:
            connection.close()

    def _is_current(self) -> bool:
        """Whether all steps have been applied to the file. Leaves a file that must not be used as it was."""
        assert self.path is not None
        log = self.path.with_name(f"{self.path.name}-wal")
        # Closing a writable connection moves a dead program's log into the file, a read-only one leaves it. Without a
        # log it is the other way round: the read-only one would leave an empty one.
        connection = self._connect("ro" if log.exists() and log.stat().st_size else "rw")
        try:
            connection.execute("BEGIN")  # another program may be making the file: see all of that, or nothing
            return self._check(connection)
        finally:
            connection.close()

    def _check(self, connection: sqlite3.Connection) -> bool:
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and mark != schema.APPLICATION_ID:
            raise StoreError(f"{self.path}: is no chat store: move it away or name another file")
        known, found = [step.__name__ for step in self._steps], schema.applied(connection)
        if newer := [name for name in found if name not in known]:
            raise StoreError(
                f"{self.path}: was written by a newer wsd-local (it knows {', '.join(newer)}): "
                "update wsd-local, or set WSD_LOCAL_DATA to another folder; the file was not touched"
            )
        return found == known

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            if not self._check(connection):  # another program may have been faster
                schema.apply(connection, self._steps)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def _connect(self, mode: str) -> sqlite3.Connection:
        target = ":memory:" if self.path is None else f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            target, uri=self.path is not None, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        if mode != "ro":
            # secure_delete: what is deleted is overwritten, and not only forgotten.
            try:
                for setting in ("foreign_keys = ON", "synchronous = FULL", "secure_delete = ON", "temp_store = MEMORY"):
                    connection.execute(f"PRAGMA {setting}")
            except sqlite3.Error:
                connection.close()
                raise
        return connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            message = str(error)
            advice = next((text for words, text in _ADVICE if words in message), message)
            raise StoreError(f"{self._name}: {advice}") from error
        except OverflowError as error:
            raise UsageError(f"{self._name}: a number is too large to be an id") from error


def _begun(connection: sqlite3.Connection, begin: str, last: float) -> bool:
    """Whether a transaction could be begun within one step; an error if it could not by `last`."""
    try:
        connection.execute(begin)
    except sqlite3.OperationalError as error:
        if "locked" not in str(error) or time.monotonic() >= last:
            raise
        time.sleep(0.01)  # SQLite does not always wait
        return False
    return True


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Two programs that begin at once: SQLite lets one of them fail here without waiting."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def default_path() -> Path:
    """Where chats are kept."""
    return data_dir() / "chats.db"
