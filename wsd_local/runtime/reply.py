"""A reply as a value: its text, which model wrote what, why the base took over, and timings.

Contract: plain frozen values. `Reply.as_dict` is the JSON object of `wsd-local run --json`; its names stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from wsd_local.core.decoding import Phase
from wsd_local.core.limits import Counts
from wsd_local.core.rounds import Speculated
from wsd_local.core.turns import Turn
from wsd_local.core.written import ReplyToken
from wsd_local.events import Event, FinishReason, Source, SwitchReason
from wsd_local.prompts.messages import Message


@dataclass(frozen=True, slots=True)
class Part:
    """One model's part of a reply. `tokens` counts base tokens that wrote `text`, `drafted_tokens` draft tokens.

    Tokens whose text was cut off (a stop string, stripped white space, an end marker) are not counted; a token with
    text on both sides of a cut is.
    """

    model: str | None
    text: str
    tokens: int
    drafted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Switch:
    """Where and why the base took over. `index` is null unless a window passed.

    `threshold` is what the confidence had to reach by the rule's own measure (`core.rules`).

    It is where the decision was made, beyond the kept tokens if a stop string that the base completed cut off the end
    of the opening.
    """

    index: int | None
    reason: SwitchReason
    confidence: float | None
    window: int
    threshold: float
    rule: str = "window"


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds since the reply was started, and the reply's own rates in tokens per second.

    Time that a consumer spends between events counts; loading models and waiting in the queue do not. A rate is the
    number of tokens that a model wrote, including those that were cut off, over the seconds in which this reply waited
    for them, without prompts. Many replies in progress at once share these seconds: the throughput of all of them
    together is larger.
    """

    first_text_s: float | None = None
    switch_s: float | None = None
    token_40_s: float | None = None
    longest_gap_s: float | None = None
    total_s: float = 0.0
    draft_tokens_per_s: float | None = None
    base_tokens_per_s: float | None = None
    draft_prompt_tokens: int = 0
    base_prompt_tokens: int = 0
    draft_evaluated_tokens: int = 0
    base_evaluated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ReplyProgress:
    """How far a reply has come. Cheap: reading it copies no text and no tokens.

    Args:
        phase: what the reply is doing.
        draft_tokens: tokens that the draft model has written, in its own vocabulary.
        base_tokens: tokens that the base has written after the switch.
        context_tokens: tokens of prompt and reply in the context of the model that continues.
        n_ctx: tokens which that context holds.
        timings: as in the `Reply`; `total_s` runs to the newest text.
    """

    phase: Phase
    draft_tokens: int
    base_tokens: int
    context_tokens: int
    n_ctx: int
    timings: Timings


@dataclass(frozen=True, slots=True)
class Constrained:
    """The constraint of a reply, and whether its text, after a supplied beginning, satisfies it to the end.

    `kind` is the setting's name. An incomplete reply was stopped, or cut by `max_tokens`, the context or a stop
    string.
    """

    kind: str
    complete: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, whole or cancelled.

    `prompt_ids` are the tokens of each model's prompt, `draft_ids` all tokens that the draft model wrote. `stop` is the
    stop string that ended the reply, None if something else did. `cached` tokens of each prompt were in the KV cache
    already. A reply to a `RawPrompt` has no messages.
    """

    messages: tuple[Message, ...]
    text: str
    finish_reason: FinishReason
    draft: Part
    base: Part
    switch: Switch
    timings: Timings
    tokens: tuple[ReplyToken, ...]
    discarded: str
    counts: Counts
    provenance: dict[str, Any] = field(default_factory=dict)
    prompt_ids: dict[Source, list[int]] = field(default_factory=dict)
    draft_ids: tuple[int, ...] = ()
    constraint: Constrained | None = None
    speculation: Speculated = field(default_factory=Speculated)
    stop: str | None = None
    cached: Mapping[Source, int] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()

    def parts(self) -> list[tuple[Source, str]]:
        """The text in order, and who wrote each part of it."""
        if len(self.turns) <= 2:
            return [("draft", self.draft.text), ("base", self.base.text)]
        texts = ("".join(token.text for token in self.tokens[turn.start : turn.end]) for turn in self.turns)
        return [(turn.who, text) for turn, text in zip(self.turns, texts, strict=True)]

    def as_dict(self, *, tokens: bool = False) -> dict[str, Any]:
        """Plain values for JSON; with `tokens` also each base token and the text that was not kept."""
        values: dict[str, Any] = {
            "messages": [dict(message) for message in self.messages],
            "text": self.text,
            "finish_reason": self.finish_reason,
            "stop": self.stop,
            "draft": {
                "model": self.draft.model,
                "text": self.draft.text,
                "kept_tokens": self.draft.tokens,
                "drafted_tokens": self.draft.drafted_tokens,
            },
            "base": {"model": self.base.model, "text": self.base.text, "tokens": self.base.tokens},
            "switch": asdict(self.switch),
            "turns": [turn.as_dict() for turn in self.turns],
            "constraint": None if self.constraint is None else asdict(self.constraint),
            "counts": asdict(self.counts),
            "provenance": self.provenance,
            "timings": asdict(self.timings),
            "speculation": asdict(self.speculation),
            "cached": dict(self.cached),
        }
        if tokens:
            values["tokens"] = [asdict(token) for token in self.tokens]
            values["discarded"] = self.discarded
            values["prompt_ids"] = {role: list(ids) for role, ids in self.prompt_ids.items()}
            values["draft_ids"] = list(self.draft_ids)
        return values


@dataclass(frozen=True, slots=True)
class Finished(Event):
    """The last event of a reply."""

    kind: ClassVar[str] = "finished"
    reply: Reply

    def as_dict(self) -> dict[str, Any]:
        """The reply's JSON object under `reply`."""
        return {"event": self.kind, "reply": self.reply.as_dict(tokens=True)}
