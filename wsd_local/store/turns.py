"""Questions and their replies on the way into a store: asking, answering again, continuing, giving up.

Contract: a question is kept together with its reply, or not at all; each function changes everything that it names, or
nothing as far as that can be known. Nothing here remembers which chat is open: callers name the message that they show.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wsd_local.store.file import StoreError
from wsd_local.store.store import Store
from wsd_local.store.writer import ReplyWriter


@dataclass(slots=True)
class Begun:
    """A reply that is in the store and can be written.

    `head` is the message that the models read last: the question, or the reply that is continued. `question` is the
    text that was typed for it and `before` the head until then: both are needed to take it back.
    """

    store: Store
    chat: int
    writer: ReplyWriter
    head: int
    before: int | None
    question: str | None = None
    continues: bool = False

    @property
    def key(self) -> str:
        """A name that no other reply has; each store counts its messages anew."""
        return f"{id(self.store)}:{self.writer.id}"


@dataclass(slots=True)
class FailedReply:
    """What is left of a reply that failed: `text` is a question to be typed again; None if the reply stays."""

    text: str | None
    head: int | None


def ask(
    store: Store,
    chat: int,
    parent: int | None,
    text: str,
    *,
    before: int | None,
    pair: str,
    settings: Mapping[str, Any],
) -> Begun:
    """Keep a question to follow `parent`, and begin its reply.

    Raises:
        UsageError: the chat, or the parent in it, is not there.
        StoreError: it cannot be written; then the question is not kept.
    """
    question = store.messages.add(chat, parent, "user", text)
    try:
        writer = store.replies.begin(chat, question, pair=pair, settings=settings)
    except Exception:
        with contextlib.suppress(StoreError):
            take_back(store, chat, question, before)
        raise
    return Begun(store, chat, writer, question, before, text)


def regenerate(store: Store, head: int, *, pair: str, settings: Mapping[str, Any]) -> Begun | None:
    """Begin another reply to the last question up to `head`; None if there is no question.

    Raises:
        UsageError: there is no such message.
    """
    last = store.messages.get(head)
    question = last.parent if last.role == "assistant" else last.id
    if question is None:
        return None
    writer = store.replies.begin(last.chat, question, pair=pair, settings=settings)
    return Begun(store, last.chat, writer, question, head)


def continue_(store: Store, head: int, *, pair: str, settings: Mapping[str, Any]) -> Begun | None:
    """Continue a reply; None if `head` is none, or if it is complete.

    A reply that was stopped or failed can be continued, and one that was cut at its length limit.

    Raises:
        UsageError: there is no such message.
        StoreError: it is being written just now.
    """
    row = store.messages.get(head)
    if row.role != "assistant" or row.reply is None:
        return None
    if row.state == "finished" and row.reply.finish_reason != "length":
        return None
    writer = store.replies.resume(row.id, pair=pair, settings=settings)
    return Begun(store, row.chat, writer, row.id, head, continues=True)


def fail(begun: Begun, message: str) -> FailedReply:
    """The reply failed. One of which nothing was written is taken back, with its question.

    Raises:
        StoreError: that cannot be written, or the chat is gone.
    """
    begun.writer.fail(message)
    row = begun.store.messages.get(begun.writer.id)
    if row.text or begun.continues:
        return FailedReply(None, row.id)
    first = row.id if begun.question is None or row.parent is None else row.parent
    take_back(begun.store, begun.chat, first, begun.before)
    return FailedReply(begun.question, begun.before)


def take_back(store: Store, chat: int, message: int, head: int | None) -> None:
    """Delete a message and all below it; `head` is shown again.

    Raises:
        UsageError: there is no such message.
    """
    store.messages.withdraw(message)
    store.messages.set_head(chat, head)
