"""A reply on its way into the store.

Contract: text is written to the file `flush_s` seconds after it was added, by a timer of its own, so that the thread
that makes the reply waits for no disk and no other program, and text is written even if no more follows. Only `finish`,
`fail`, `close` and `flush` wait. A reply whose program was killed keeps a beginning of its text, and counts as
cancelled.

Process id and start time show whether the program is alive. A wrong guess does no harm: the next flush or the end of
the reply records the state again.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from wsd_local import events
from wsd_local.errors import WsdError
from wsd_local.store import rows
from wsd_local.store.file import ChatFile, GoneError
from wsd_local.store.finding import clean, words
from wsd_local.store.rows import MessageRow, Span, State, Writer

if TYPE_CHECKING:
    from wsd_local.core.written import ReplyToken
    from wsd_local.runtime.reply import Reply

FLUSH_S = 0.5
"""Seconds from new text to the beginning of its write."""


class Timer(Protocol):
    """What `threading.Timer` does, as far as it is needed."""

    daemon: bool

    def start(self) -> None:
        """Call back once, later, in another thread."""

    def cancel(self) -> None:
        """Do not call back."""


MakeTimer = Callable[[float, Callable[[], None]], Timer]


@dataclass(slots=True)
class PartialReply:
    """The state of a reply that is being written."""

    text: str = ""
    pieces: list[tuple[int, Writer, float | None]] = field(default_factory=list)
    probs: list[float | None] = field(default_factory=list)
    windows: list[float | None] = field(default_factory=list)
    switch: dict[str, Any] | None = None

    def add(self, text: str, source: Writer, prob: float | None = None) -> None:
        """More text."""
        text = clean(text)
        self.text += text
        self.pieces.append((len(text), source, prob))

    def check(self, event: events.Checked) -> None:
        """The base's scores of the draft; those from before a stop are not known here."""
        missing = [None] * (event.start - len(self.probs))
        self.probs[event.start :] = [*missing, *event.probs]
        self.windows[event.start :] = [*missing, *event.windows]

    def report(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """For the column, over the report of an earlier run."""
        checked = {"probs": self.probs, "windows": self.windows}
        switch = {} if self.switch is None else {"switch": self.switch}
        return {**before, "checked": checked, "pieces": self.pieces, **switch}


@dataclass(frozen=True, slots=True)
class Reference:
    """Which reply is written, and its state when that began: `continued` is the stopped reply that is continued."""

    id: int
    chat: int
    text: str = ""
    spans: tuple[Span, ...] = ()
    tokens: tuple[ReplyToken, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    continued: MessageRow | None = None


class ReplyWriter:
    """Writes one reply. Made by `Replies.begin` and `Replies.resume`.

    Its methods may be called from any thread. `trouble` is why the last timed write failed, None if it did not: what
    was not written is written with the next one.
    """

    def __init__(
        self,
        file: ChatFile,
        reference: Reference,
        clock: Callable[[], datetime],
        flush_s: float = FLUSH_S,
        timer: MakeTimer = threading.Timer,
        closed: Callable[[ReplyWriter], None] = lambda writer: None,
    ) -> None:
        self.id = reference.id
        self.trouble: WsdError | None = None
        self._file, self._before, self._clock = file, reference, clock
        self._flush_s, self._make_timer, self._closed = flush_s, timer, closed
        before = [(span.length, span.source, None) for span in reference.spans]
        self._partial = PartialReply(reference.text, [*before])
        self._timer: Timer | None = None
        self._dirty = self._done = False
        self._buffer = threading.Lock()  # guards the text: held for moments
        self._write = threading.RLock()  # over writing it: an older state never comes after a newer one

    def __enter__(self) -> ReplyWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what a reply emits ------------------------------------------------------------------------------------------

    def text(self, event: events.Text) -> None:
        """More of the reply."""
        with self._buffer:
            self._partial.add(event.text, event.source, event.prob)
            self._changed()

    def checked(self, event: events.Checked) -> None:
        """The base has read more of the draft."""
        with self._buffer:
            self._partial.check(event)
            self._changed()

    def switched(self, event: events.Switched) -> None:
        """Drafting is over; the first time counts."""
        with self._buffer:
            if self._partial.switch is not None:
                return
            values = event.as_dict()
            del values["event"]
            self._partial.switch = values
            self._changed()

    # -- to the disk -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the text so far.

        Raises:
            StoreError: it cannot be written, or the chat is gone.
        """
        with self._write:
            with self._buffer:
                if self._done or not self._dirty:
                    return
                self._dirty = False
                text, spans, report = self._now()
            try:
                with self._file.changing() as db:
                    self._put(db, text, "writing", spans, report=report)
            except BaseException:
                with self._buffer:
                    self._dirty = True
                raise

    def finish(self, reply: Reply) -> None:
        """Record the reply, whole or stopped; its text follows the beginning that was supplied for it, if any.

        Raises:
            StoreError: it cannot be written, or the chat is gone.
        """
        given, spans, tokens = self._given(reply)
        report = reply.as_dict()
        del report["messages"], report["text"], report["draft"]["text"], report["base"]["text"]
        spans += [Span(source, len(text)) for source, text in reply.parts()]
        self._end(
            given + reply.text,
            "cancelled" if reply.finish_reason == "cancelled" else "finished",
            spans,
            {
                "finish_reason": reply.finish_reason,
                "report": rows.as_json(report | {"discarded": reply.discarded}),
                "tokens": rows.packed((*tokens, *reply.tokens)),
            },
        )

    def fail(self, message: str) -> None:
        """The reply ended with an error; its text stays. One that was continued without new text is as it was before.

        Raises:
            StoreError: it cannot be written, or the chat is gone.
        """
        self._end_early("failed", error=clean(message))

    def close(self) -> None:
        """End the reply. One that was not finished counts as cancelled.

        One that was continued without new text is as it was before.

        Raises:
            StoreError: it cannot be written, or the chat is gone.
        """
        self._end_early("cancelled", finish_reason="cancelled")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """Under `_buffer`: something must be written soon."""
        if not self._done:
            self._dirty = True
            self._wait()

    def _now(self) -> tuple[str, list[Span], str]:
        """Under `_buffer`: text, spans and report as far as they are known."""
        partial = self._partial
        spans = [Span(source, length) for length, source, _ in partial.pieces]
        return partial.text, spans, rows.as_json(partial.report(self._before.report))

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self._make_timer(self._flush_s, self._tick)
            self._timer.daemon = True
            self._timer.start()

    def _tick(self) -> None:
        with self._buffer:
            self._timer = None
        try:
            self.flush()
            self.trouble = None
        except WsdError as error:
            self.trouble = error
            with self._buffer:
                if self._dirty and not self._done:
                    self._wait()

    def _given(self, reply: Reply) -> tuple[str, list[Span], tuple[ReplyToken, ...]]:
        """The text before this reply's own, who wrote it, and its tokens as far as they are known."""
        from wsd_local.prompts.messages import supplied_prefix

        given = clean(supplied_prefix(reply.messages) or "" if reply.messages else "")
        before = self._before
        if not before.text.startswith(given):
            return given, [Span("given", len(given))], ()
        spans, left = [], len(given)
        for span in before.spans:
            spans.append(Span(span.source, min(span.length, left)))
            left -= spans[-1].length
        whole = "".join(token.text for token in before.tokens) == given
        return given, spans, before.tokens if whole else ()

    def _end_early(self, state: State, **columns: str | None) -> None:
        with self._buffer:
            text, spans, report = self._now()
        before = self._before.continued
        if before is None or before.reply is None or text != before.text:
            self._end(text, state, spans, {"report": report, **columns})
            return
        reply = before.reply
        kept = {
            "pair": reply.pair,
            "settings": rows.as_json(dict(reply.settings)),
            "report": rows.as_json(dict(reply.report)),
            "finish_reason": reply.finish_reason,
            "error": reply.error,
        }
        self._end(text, before.state, spans, kept, ended=reply.ended)

    def _end(
        self,
        text: str,
        state: State,
        spans: list[Span],
        columns: Mapping[str, str | bytes | None],
        ended: datetime | None = None,
    ) -> None:
        with self._write:
            if self._done:
                return
            now = rows.moment(self._clock())
            with self._file.changing() as db:
                self._put(db, text, state, spans, ended=now if ended is None else rows.moment(ended), **columns)
                db.execute("UPDATE chats SET updated = ? WHERE id = ?", (now, self._before.chat))
            with self._buffer:
                self._done = True
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
        self._closed(self)

    def _put(
        self, db: sqlite3.Connection, text: str, state: State, spans: list[Span], **columns: str | bytes | None
    ) -> None:
        text = clean(text)
        index = None if state == "writing" else words(text)
        found = db.execute(
            "UPDATE messages SET text = ?, words = ?, state = ? WHERE id = ?", (text, index, state, self.id)
        )
        if not found.rowcount:
            raise GoneError(f"message {self.id}: its chat was deleted while the reply was written")
        names = ", ".join(f"{name} = ?" for name in ("spans", *columns))
        values = (rows.spans_column(spans), *columns.values(), self.id)
        db.execute(f"UPDATE replies SET {names} WHERE message = ?", values)


# -- who writes -----------------------------------------------------------------------------------------------


def insert_reply(
    db: sqlite3.Connection, message: int, pair: str, settings: Mapping[str, Any], spans: tuple[Span, ...]
) -> None:
    """The row of a reply that this process begins or continues."""
    pid, started = _this_process()
    db.execute(
        "INSERT INTO replies (message, pair, settings, spans, report, writer_pid, writer_started) "
        "VALUES (?, ?, ?, ?, '{}', ?, ?) ON CONFLICT (message) DO UPDATE SET pair = excluded.pair, "
        "settings = excluded.settings, finish_reason = NULL, error = NULL, ended = NULL, "
        "writer_pid = excluded.writer_pid, writer_started = excluded.writer_started",
        (message, pair, rows.as_json(dict(settings)), rows.spans_column(spans), pid, started),
    )


def is_alive(pid: int | None, started: float | None) -> bool:
    """Whether the process that writes a reply is there."""
    if pid is None or started is None:
        return False
    import psutil

    try:
        # The start is computed from the clock, which may have been set since.
        return bool(abs(psutil.Process(pid).create_time() - started) < 2.0)
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError):
        return False


def _this_process() -> tuple[int, float]:
    import os

    return os.getpid(), _started(os.getpid())


@lru_cache(maxsize=1)
def _started(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).create_time())
