"""The reply that a record itself holds: what people, or a stronger model, answered.

Contract: pure. A reply stands in `chosen` (a transcript as HH has it, messages, or text) or in `output` (AlpacaEval,
Alpaca), the first of them that says something. A record with further turns has none: a reference answers one prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsd_local.datasets.formats import ANSWER
from wsd_local.datasets.items import Item

FIELDS = ("chosen", "output")


def reference_of(item: Item) -> tuple[str, str] | None:
    """The field and the reply, stripped; None if the record has none."""
    if item.later or item.messages[-1]["role"] != "user":
        return None
    for field in FIELDS:
        if text := _text(item.record.get(field)).strip():
            return field, text
    return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.rpartition(ANSWER)[2]
    if isinstance(value, list) and value and isinstance(value[-1], Mapping):
        last = value[-1]
        return str(last["content"]) if last.get("role") == "assistant" and isinstance(last.get("content"), str) else ""
    return ""
