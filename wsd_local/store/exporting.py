"""A chat as a file to keep or to give away.

Contract: JSON has every field of the store. Markdown is for reading: a line in brackets under each reply's heading
states in words who opened it, up to where, and who continued, so that copying loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from wsd_local.store.rows import ChatRow, MessageRow

if TYPE_CHECKING:
    from wsd_local.core.written import ReplyToken

_LAST = 40
"""Characters of the opening that are repeated to show where it ends."""


def as_json(chat: ChatRow, messages: Sequence[MessageRow], tokens: Mapping[int, Sequence[ReplyToken]]) -> str:
    """A chat as one JSON object."""
    rows = [message.as_dict() | {"tokens": [asdict(token) for token in tokens[message.id]]} for message in messages]
    text = json.dumps({"format": "wsd-local chat 1", "chat": chat.as_dict(), "messages": rows}, ensure_ascii=False)
    return text + "\n"


def markdown(chat: ChatRow, messages: Sequence[MessageRow], *, numbered: bool = False) -> str:
    """A chat as text. `numbered` states which message answers which: there may be several branches."""
    parts = [
        f"# {chat.title or 'Untitled chat'}",
        f"(chat {chat.id}, pair {chat.pair}, {chat.created:%Y-%m-%d %H:%M} UTC)",
    ]
    if chat.system is not None:
        parts += ["## System", chat.system]
    for message in messages:
        number = ""
        if numbered:
            number = f" (message {message.id}" + (f", after {message.parent})" if message.parent is not None else ")")
        parts.append(f"## {message.role.capitalize()}{number}")
        if note := authors(message):
            parts.append(f"({note})")
        parts.append(message.text)
    return "\n\n".join(parts) + "\n"


def authors(message: MessageRow) -> str:
    """Who wrote a reply, in words; empty for what models did not write."""
    reply = message.reply
    if reply is None:
        return ""
    texts: dict[str, str] = {}
    for source, text in message.parts:
        texts[source] = texts.get(source, "") + text
    names = {source: (reply.report.get(source) or {}).get("model") or f"the {source} model" for source in texts}
    switch = reply.report.get("switch") or {}
    notes = []
    if texts.get("given"):
        notes.append("begun by hand" + _up_to(texts["given"]))
    if texts.get("draft"):
        alone = not texts.get("base")
        notes.append(
            f"{'written' if alone else 'opened'} by {names['draft']}" + ("" if alone else _up_to(texts["draft"]))
        )
    if texts.get("base"):
        at = "" if not texts.get("draft") or switch.get("index") is None else f" at token {switch['index']}"
        notes.append(f"{'continued' if texts.get('draft') else 'written'} by {names['base']}{at}")
    if message.state in ("writing", "cancelled"):
        notes.append("still being written" if message.state == "writing" else "stopped")
    if message.state == "failed":
        notes.append(f"failed: {reply.error}")
    return ", ".join(notes)


def _up_to(text: str) -> str:
    line = " ".join(text.split())
    if len(line) > _LAST:
        cut = line[-_LAST:]
        line = "…" + cut[cut.find(" ") + 1 :]
    return f" up to “{line}”"
