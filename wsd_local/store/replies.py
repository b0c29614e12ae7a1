"""Replies on their way into the store: each gets a writer.

Contract: see `writer`. Replies that are still written when the store is closed count as cancelled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from wsd_local.errors import UsageError
from wsd_local.store import queries, rows
from wsd_local.store.file import ChatFile, StoreError
from wsd_local.store.finding import clean
from wsd_local.store.messages import insert, show
from wsd_local.store.rows import Span
from wsd_local.store.writer import MakeTimer, Reference, ReplyWriter, insert_reply


class Replies:
    """Begins replies, and continues stopped ones."""

    def __init__(self, file: ChatFile, clock: Callable[[], datetime], flush_s: float, timer: MakeTimer) -> None:
        self._file, self._clock, self._flush_s, self._timer = file, clock, flush_s, timer
        self._writers: set[ReplyWriter] = set()

    def begin(
        self, chat_id: int, parent: int, *, pair: str, settings: Mapping[str, Any], given: str = ""
    ) -> ReplyWriter:
        """A new reply to `parent`; it becomes the head. `given` is a beginning that a person wrote.

        Raises:
            UsageError: the chat, or the parent in it, is not there.
        """
        given = clean(given)
        spans = (Span("given", len(given)),) if given else ()
        with self._file.changing() as db:
            added = insert(db, self._clock, chat_id, parent, "assistant", given, "writing")
            insert_reply(db, added, clean(pair), settings, spans)
        return self._writer(Reference(added, chat_id, given, spans))

    def resume(self, message_id: int, *, pair: str, settings: Mapping[str, Any]) -> ReplyWriter:
        """Continue a reply that was stopped, under the same id; it becomes the head.

        New text is added to what is there; `finish` replaces both by the whole. Without new text, `fail` and `close`
        leave the reply as it was before.

        Raises:
            UsageError: there is no such message, or models did not write it.
            StoreError: it is being written just now.
        """
        with self._file.changing() as db:
            message = queries.message(db, message_id)
            if message.reply is None:
                raise UsageError(f"message {message_id} is no reply that could be continued")
            if message.state == "writing":
                raise StoreError(f"message {message_id} is being written just now: stop it first")
            (tokens,) = db.execute("SELECT tokens FROM replies WHERE message = ?", (message_id,)).fetchone()
            db.execute("UPDATE messages SET state = 'writing' WHERE id = ?", (message_id,))
            insert_reply(db, message_id, clean(pair), settings, message.reply.spans)
            show(db, self._clock, message.chat, message_id)
        reply = message.reply
        before = Reference(
            message_id, message.chat, message.text, reply.spans, rows.unpacked(tokens), reply.report, message
        )
        return self._writer(before)

    def close(self) -> None:
        """Close all writers; one that cannot write any more is left alone."""
        for writer in list(self._writers):
            with contextlib.suppress(StoreError):
                writer.close()

    def _writer(self, before: Reference) -> ReplyWriter:
        writer = ReplyWriter(self._file, before, self._clock, self._flush_s, self._timer, self._writers.discard)
        self._writers.add(writer)
        return writer
