"""What the chat store gives out, and how values are written into columns.

Contract: frozen plain values; `as_dict` is for JSON. Times are aware datetimes in UTC.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from wsd_local.core.written import ReplyToken
from wsd_local.prompts.messages import Role
from wsd_local.store.checking import COUNT, NOTHING, NUMBER, TEXT, checked_report, of_kind, readable
from wsd_local.store.finding import clean, snippet

State = Literal["writing", "finished", "cancelled", "failed"]
Writer = Literal["draft", "base", "given"]
"""Who wrote a part of a reply; `given` is a beginning of the answer that the user wrote."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What rows that become JSON have in common."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: _plain(value) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class ChatRow(_Row):
    """A chat. `messages` counts all branches, `head` is the message shown last, `deleted` when it went to the bin."""

    id: int
    title: str
    pair: str
    system: str | None
    preset: str | None
    created: datetime
    updated: datetime
    messages: int
    head: int | None
    deleted: datetime | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """The next `length` characters of a reply, and who wrote them."""

    source: Writer
    length: int


@dataclass(frozen=True, slots=True)
class ReplyRow:
    """How a reply was made. `report` is `Reply.as_dict` without texts: switch, timings, counts, provenance …

    While a reply is written, and if that ended early, `report` has instead `switch` (reason, index, kept_tokens,
    confidence), `checked` (probs and windows by base token) and `pieces` (length, source, prob of each text), each as
    far as it was known; if it was continued, over the report of the stopped run.
    """

    pair: str
    settings: Mapping[str, Any]
    spans: tuple[Span, ...]
    finish_reason: str | None
    error: str | None
    report: Mapping[str, Any]
    ended: datetime | None


@dataclass(frozen=True, slots=True)
class MessageRow(_Row):
    """A message. `parent` is what it answers; `reply` is how it was made, if models wrote it."""

    id: int
    chat: int
    parent: int | None
    role: Role
    text: str
    state: State
    created: datetime
    reply: ReplyRow | None = None

    @property
    def parts(self) -> list[tuple[Writer, str]]:
        """The text by who wrote it; empty if models did not."""
        found, start = [], 0
        for span in () if self.reply is None else self.reply.spans:
            found.append((span.source, self.text[start : start + span.length]))
            start += span.length
        return found


@dataclass(frozen=True, slots=True)
class Hit(_Row):
    """A message that was found. `marks` are the places found, as (start, end) in `snippet`."""

    chat: int
    message: int
    title: str
    role: Role
    created: datetime
    snippet: str
    marks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Preset:
    """A pair, a system prompt and settings under a name."""

    name: str
    pair: str = "demo"
    system: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def chat_row(row: sqlite3.Row) -> ChatRow:
    """A chat from its columns and `messages`.

    Raises:
        StoreError: a column is damaged.
    """
    kinds = {"title": TEXT, "pair": TEXT, "system": TEXT + NOTHING, "preset": TEXT + NOTHING, "head": COUNT + NOTHING}
    with readable(f"chat {row['id']}"):
        return ChatRow(
            id=row["id"],
            messages=row["messages"],
            **{name: of_kind(name, row[name], kind) for name, kind in kinds.items()},
            created=datetime.fromisoformat(row["created"]),
            updated=datetime.fromisoformat(row["updated"]),
            deleted=_time(row["deleted"]),
        )


def message_row(row: sqlite3.Row, state: State) -> MessageRow:
    """A message from its columns and those of its reply.

    Raises:
        StoreError: a column is damaged.
    """
    with readable(f"message {row['id']} of chat {row['chat']}"):
        reply = None
        if row["spans"] is not None:
            reply = ReplyRow(
                pair=of_kind("pair", row["pair"], TEXT),
                settings=of_kind("its settings", json.loads(row["settings"]), (dict,)),
                spans=spans_of(row["spans"]),
                finish_reason=of_kind("finish_reason", row["finish_reason"], TEXT + NOTHING),
                error=of_kind("error", row["error"], TEXT + NOTHING),
                report=checked_report(json.loads(row["report"])),
                ended=_time(row["ended"]),
            )
        kinds = {"parent": COUNT + NOTHING, "role": TEXT, "text": TEXT}
        values = {name: of_kind(name, row[name], kind) for name, kind in kinds.items()}
        return MessageRow(
            row["id"], row["chat"], **values, state=state, created=datetime.fromisoformat(row["created"]), reply=reply
        )


def preset_row(row: sqlite3.Row) -> Preset:
    """A preset from its columns.

    Raises:
        StoreError: a column is damaged.
    """
    with readable(f"preset {row['name']!r}"):
        settings = of_kind("its settings", json.loads(row["settings"]), (dict,))
        system = of_kind("system", row["system"], TEXT + NOTHING)
        return Preset(of_kind("name", row["name"], TEXT), of_kind("pair", row["pair"], TEXT), system, settings)


def hit(row: sqlite3.Row, query: str) -> Hit:
    """A message that a query found.

    Raises:
        StoreError: a column is damaged.
    """
    with readable(f"message {row['id']} of chat {row['chat']}"):
        title, text = of_kind("title", row["title"], TEXT), of_kind("its text", row["text"], TEXT)
        return Hit(
            row["chat"], row["id"], title, row["role"], datetime.fromisoformat(row["created"]), *snippet(text, query)
        )


# -- columns --------------------------------------------------------------------------------------------------


def as_json(value: Any) -> str:
    """A JSON column."""
    return clean(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def spans_of(column: str) -> tuple[Span, ...]:
    """The spans of a column."""
    found = json.loads(column)
    return tuple(
        Span(of_kind("a writer", source, TEXT), of_kind("a length", length, COUNT)) for source, length in found
    )


def spans_column(spans: Iterable[Span]) -> str:
    """Spans as a column, neighbours of the same writer as one."""
    merged: list[tuple[Writer, int]] = []
    for span in spans:
        if merged and merged[-1][0] == span.source:
            merged[-1] = (span.source, merged[-1][1] + span.length)
        elif span.length:
            merged.append((span.source, span.length))
    return as_json(merged)


_TOKEN = ("id", "text", "source", "prob", "window")


def packed(tokens: Sequence[ReplyToken]) -> bytes:
    """Tokens as a column: compressed JSON with one list per field."""
    return zlib.compress(as_json({name: [getattr(token, name) for token in tokens] for name in _TOKEN}).encode())


def unpacked(column: bytes | None) -> tuple[ReplyToken, ...]:
    """The tokens of a column.

    Raises:
        StoreError: it is damaged.
    """
    if column is None:
        return ()
    with readable("the tokens of a reply"):
        lists = json.loads(zlib.decompress(column))
        return tuple(_token(*values) for values in zip(*(lists[name] for name in _TOKEN), strict=True))


def _token(id_: Any, text: Any, source: Any, prob: Any, window: Any) -> ReplyToken:
    of_kind("a token's id", id_, COUNT)
    _ = of_kind("a token's text", text, TEXT), of_kind("a token's writer", source, TEXT)
    _ = of_kind("a probability", prob, NUMBER + NOTHING), of_kind("a probability", window, NUMBER + NOTHING)
    return ReplyToken(id_, text, source, prob, window)


def moment(time: datetime) -> str:
    """A time as a column: of equal length, so that it sorts."""
    return time.isoformat(timespec="microseconds")


def _time(column: str | None) -> datetime | None:
    return None if column is None else datetime.fromisoformat(column)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return moment(value) if isinstance(value, datetime) else value
