"""Between the store's rows and the screen's entries.

Contract: pure translation; nothing is read but what is given.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from wsd_chat.transcript import Entry
from wsd_local.prompts import Message
from wsd_local.store import MessageRow, Store


def entries(store: Store, head: int | None) -> list[Entry]:
    """The branch that ends in `head`, without system messages."""
    if head is None:
        return []
    return [entry_of(store, row) for row in store.branch(head) if row.role != "system"]


def entry_of(store: Store, row: MessageRow) -> Entry:
    """One message."""
    family = store.siblings(row.id)
    report: dict[str, Any] = {} if row.reply is None else dict(row.reply.report)
    spans = () if row.reply is None else row.reply.spans
    drafted = sum(span.length for span in takewhile(lambda span: span.source != "base", spans))
    return Entry(
        id=row.id,
        parent=row.parent,
        role=row.role,
        text=row.text,
        state=row.state,
        drafted=drafted,
        label=label_of(report),
        alone=any(span.source == "base" for span in spans) and not drafted,
        place=(family.index(row.id) + 1, len(family)) if row.id in family else (1, 1),
        report=report,
    )


def label_of(report: dict[str, Any]) -> str:
    """What the mark at the switch says; nothing where there was none."""
    switch = report.get("switch")
    if not switch or switch.get("reason") in (None, "none", "cancelled"):
        return ""
    return label(switch["reason"], switch.get("confidence"))


def label(reason: str, confidence: float | None) -> str:
    """The switch in a few characters."""
    if confidence is not None:
        return f"{confidence:.2f}"
    return {"draft_end": "end", "draft_limit": "limit", "user": "you"}.get(reason, reason)


def messages_of(branch: list[Entry], system: str | None) -> list[Message]:
    """What the models read."""
    found: list[Message] = [{"role": "system", "content": system}] if system else []
    for entry in branch:
        if entry.text and (entry.role == "user" or entry.role == "assistant"):
            found.append({"role": "user" if entry.role == "user" else "assistant", "content": entry.text})
    return found
