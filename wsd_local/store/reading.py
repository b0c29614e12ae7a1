"""What is read out of stored messages: the conversation that models read, and the tokens of a reply.

Contract: pure functions of what the store gives out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from wsd_local.core.written import ReplyToken
from wsd_local.prompts.messages import Message


class Said(Protocol):
    """A message as far as models read it."""

    @property
    def role(self) -> str:
        """Who wrote it."""

    @property
    def text(self) -> str:
        """What they wrote."""


def messages_of(branch: Iterable[Said], system: str | None) -> list[Message]:
    """What the models read. A reply that was stopped before its first word is left out."""
    found: list[Message] = [{"role": "system", "content": system}] if system else []
    for said in branch:
        if said.text and (said.role == "user" or said.role == "assistant"):
            found.append({"role": "user" if said.role == "user" else "assistant", "content": said.text})
    return found


def tokens_of(text: str, report: Mapping[str, Any], kept: tuple[ReplyToken, ...]) -> tuple[ReplyToken, ...]:
    """The tokens of a reply. Of one that ended early they are the texts as they came, with the scores known by then.

    Such tokens have the id -1.
    """
    if kept or "pieces" not in report:
        return kept
    checked = report.get("checked") or {}
    probs, windows = checked.get("probs") or [], checked.get("windows") or []
    found: list[ReplyToken] = []
    begin = drafted = 0
    for length, source, prob in report["pieces"]:
        window = None
        if source == "draft":
            if drafted < len(probs):
                prob, window = probs[drafted], windows[drafted] if drafted < len(windows) else None
            drafted += 1
        found.append(ReplyToken(-1, text[begin : begin + length], source, prob, window))
        begin += length
    return tuple(found)
