"""The chat store, opened.

Contract: all chats are in one SQLite file, which any number of programs and threads may use at once. `chats`,
`messages`, `replies` and `presets` are its parts, over one file. Chats that are off the record are in a store of their
own, `Store(":memory:")`, which is never in a file; ids are unique within one store, so both identify a chat.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsd_local.store import queries, rows, schema
from wsd_local.store.chats import Chats
from wsd_local.store.file import ChatFile, default_path
from wsd_local.store.messages import Messages
from wsd_local.store.presets import Presets
from wsd_local.store.replies import Replies
from wsd_local.store.rows import Hit
from wsd_local.store.settling import settle
from wsd_local.store.writer import FLUSH_S, MakeTimer

if TYPE_CHECKING:
    from wsd_local.store.schema import Step


def _now() -> datetime:
    return datetime.now(UTC)


class Store:
    """The chats of a file, by default `chats.db` in the data folder; `:memory:` is a store off the record.

    Opening it settles replies whose program is gone, and empties the bin of chats that have been in it for long.

    Args:
        path: the file; it is made if it is not there.
        clock: the current time.
        flush_s: seconds after which the text of a reply is written.
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
        self._file = ChatFile(None if path == ":memory:" else Path(path or default_path()), steps)
        self.chats = Chats(self._file, clock)
        self.messages = Messages(self._file, clock)
        self.replies = Replies(self._file, clock, flush_s, timer)
        self.presets = Presets(self._file)
        try:
            settle(self._file)
            self.chats.empty_bin()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The file; None off the record."""
        return self._file.path

    def hurry(self, within: float) -> None:
        """Wait for other programs at most `within` seconds from now on, whatever is called: this program ends."""
        self._file.hurry(within)

    def close(self) -> None:
        """Close the file. Replies that are still written count as cancelled."""
        self.replies.close()
        self._file.close()

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Messages of all branches that a query finds (see `wsd_local.store.finding`), best first."""
        columns = "messages.id, chat, role, messages.text, messages.created, title"
        with self._file.reading() as db:
            found = queries.found(db, text, columns, "JOIN chats ON chats.id = chat AND deleted IS NULL", limit)
        return [rows.hit(row, text) for row in found]

    def export(self, chat_id: int, kind: Literal["markdown", "json"], *, all_branches: bool = False) -> str:
        """A chat as a text file: the branch that is shown, or all of them.

        Raises:
            UsageError: there is none with this id.
        """
        from wsd_local.store import exporting

        chat = self.chats.get(chat_id)
        shown = [] if chat.head is None else self.messages.branch(chat.head)
        messages = self.messages.of(chat_id) if all_branches else shown
        if kind == "markdown":
            return exporting.markdown(chat, messages, numbered=all_branches)
        return exporting.as_json(chat, messages, {message.id: self.messages.tokens(message.id) for message in messages})
