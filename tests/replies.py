"""Finished replies and chats to fill a store with, without a model."""

from __future__ import annotations

from wsd_local.core.limits import Counts
from wsd_local.core.written import ReplyToken
from wsd_local.events import FinishReason, Source
from wsd_local.prompts.messages import Message
from wsd_local.runtime.reply import Part, Reply, Switch, Timings
from wsd_local.store import Store


def reply(
    draft: str,
    base: str,
    *,
    reason: FinishReason = "stop",
    messages: tuple[Message, ...] = ({"role": "user", "content": "?"},),
) -> Reply:
    """A reply of one token per word."""
    parts: list[tuple[str, Source]] = [(draft, "draft"), (base, "base")]
    tokens = [
        ReplyToken(number, word, source, 0.1 + number / 1000, None)
        for text, source in parts
        for number, word in enumerate(text.splitlines(keepends=True) or [])
    ]
    return Reply(
        messages=messages,
        text=draft + base,
        finish_reason=reason,
        draft=Part("the small one", draft, len(draft.split()), 9),
        base=Part("the large one", base, len(base.split())),
        switch=Switch(6, "threshold", 0.91, 6, 0.8),
        timings=Timings(first_text_s=0.25, total_s=1.5),
        tokens=tuple(tokens),
        discarded=" not kept",
        counts=Counts(9, 8, 1, 0),
        provenance={"version": "0", "settings": {"seed": 7}},
    )


def asked(store: Store, text: str = "How do I boil an egg?") -> tuple[int, int]:
    """A chat with one question."""
    chat = store.chats.create()
    return chat, store.messages.add(chat, None, "user", text)
