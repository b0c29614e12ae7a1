"""Chats and messages as the page shows them: plain values for JSON.

Contract: each function reads the store, and waits for it.
"""

from __future__ import annotations

from typing import Any

from wsd_local.errors import WsdError
from wsd_local.settings import ReplySettings
from wsd_local.store import MessageRow, Store
from wsd_local.store.reading import tokens_of

_SHOWN = ("draft", "base", "switch", "turns", "timings", "finish_reason")
"""Parts of a reply's report that the page shows."""


def chats_and_hits(store: Store, query: str = "", *, deleted: bool = False) -> dict[str, Any]:
    """Chats, newest first; with a query those that have it, and the places found in their messages."""
    found = store.chats.find(query, deleted=deleted)
    hits = store.search(query) if query.strip() and not deleted else []
    return {"chats": [chat.as_dict() for chat in found], "hits": [hit.as_dict() for hit in hits]}


def chat_and_entries(store: Store, chat_id: int) -> dict[str, Any]:
    """A chat, and the messages of the branch that is shown.

    Raises:
        UsageError: there is none with this id.
    """
    chat = store.chats.get(chat_id)
    rows = [] if chat.head is None else store.messages.branch(chat.head)
    places = store.messages.places(chat_id)
    shown = [entry_of(row, places.get(row.id, (1, 1))) for row in rows if row.role != "system"]
    return {"chat": chat.as_dict(), "entries": shown}


def entry_of(row: MessageRow, place: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    """One message; `place` is its number among its siblings, and their number. `spans` is who wrote it, in order."""
    entry: dict[str, Any] = {
        "id": row.id,
        "chat": row.chat,
        "parent": row.parent,
        "role": row.role,
        "text": row.text,
        "state": row.state,
        "created": row.created.isoformat(),
        "place": list(place),
    }
    if row.reply is not None:
        report = {name: row.reply.report[name] for name in _SHOWN if name in row.reply.report}
        entry |= {
            "pair": row.reply.pair,
            "spans": [[source, text] for source, text in row.parts],
            "error": row.reply.error,
            "finish_reason": row.reply.finish_reason,
            "report": report,
        }
    return entry


def entry_in(store: Store, message_id: int) -> dict[str, Any]:
    """One message of the store.

    Raises:
        UsageError: there is none with this id.
    """
    row = store.messages.get(message_id)
    return entry_of(row, store.messages.places(row.chat).get(row.id, (1, 1)))


def scores_of(store: Store, message_id: int) -> dict[str, Any]:
    """The tokens of a reply with the base's probabilities and the rule's confidence, and the threshold that held.

    Raises:
        UsageError: there is none with this id.
    """
    row = store.messages.get(message_id)
    report = {} if row.reply is None else row.reply.report
    settings = {} if row.reply is None else row.reply.settings
    found = tokens_of(row.text, report, store.messages.tokens(message_id))
    tokens = [
        {"text": token.text, "source": token.source, "prob": token.prob, "window": token.window} for token in found
    ]
    switch = report.get("switch") or {}
    threshold = switch.get("threshold", settings.get("threshold", ReplySettings().threshold))
    return {"tokens": tokens, "switch": switch, "threshold": threshold, "discarded": report.get("discarded", "")}


def without_path(store: Store, error: WsdError) -> str:
    """An error's message without the name of the store's file."""
    return str(error).replace(str(store.path), "the chats' file")
