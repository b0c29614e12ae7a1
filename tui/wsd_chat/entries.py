"""Between the store's rows and the screen's entries.

Contract: `entries` reads the store; all else is a translation of its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from wsd_chat.markdown.source import source_of
from wsd_local.store import MessageRow, Store


@dataclass(slots=True)
class Entry:
    """One message as the screen needs it.

    `drafted` characters at its beginning are the draft's; `alone`: all of it is the base's. `report` is the reply's
    JSON object without its texts, as far as it is known. `place` is its number among its siblings, and their number.
    """

    id: int
    parent: int | None
    role: str
    text: str
    state: str = "finished"
    drafted: int = 0
    label: str = ""
    alone: bool = False
    place: tuple[int, int] = (1, 1)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Markdown with the mark where the base took over."""
        return source_of(self.text, self.drafted if self.role == "assistant" and self.label else None)


def entries(store: Store, head: int | None) -> list[Entry]:
    """The branch that ends in `head`, without system messages."""
    if head is None:
        return []
    rows = [row for row in store.messages.branch(head) if row.role != "system"]
    places = store.messages.places(rows[0].chat) if rows else {}
    return [entry_of(row, places.get(row.id, (1, 1))) for row in rows]


def entry_of(row: MessageRow, place: tuple[int, int] = (1, 1)) -> Entry:
    """One message; `place` is its number among its siblings, and their number."""
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
        place=place,
        report=report,
    )


def label_of(report: dict[str, Any]) -> str:
    """The label of the mark at the switch; empty where there was none."""
    switch = report.get("switch")
    if not switch or switch.get("reason") in (None, "none", "cancelled"):
        return ""
    return label(switch["reason"], switch.get("confidence"))


def label(reason: str, confidence: float | None) -> str:
    """The switch in a few characters."""
    if confidence is not None:
        return f"{confidence:.2f}"
    return {"draft_end": "end", "draft_limit": "limit", "user": "you"}.get(reason, reason)
