"""What a reply emits, in order, while it is written.

Contract: frozen dataclasses of plain values, made once and never changed. `Text` events joined are the reply;
nothing that was emitted is ever taken back. The same stream serves the command line, the terminal UI, JSON
output and scripts. `event.kind` names the type in JSON.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal, get_args

Source = Literal["draft", "base"]
SwitchReason = Literal[
    "threshold", "draft_end", "draft_limit", "length", "loop", "stop", "user", "cancelled", "match", "veto", "none"
]
TurnReason = Literal["unsure", "base_end", "agreed"]
RETURNS: Final[tuple[TurnReason, ...]] = get_args(TurnReason)
"""Why a turn of the base ended where the draft took the reply up again."""
FinishReason = Literal["stop", "length", "loop", "cancelled"]


@dataclass(frozen=True, slots=True)
class Event:
    """Common to all events."""

    kind: ClassVar[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the event's kind under `event`."""
        return {"event": self.kind, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Text(Event):
    """Final text of the reply and the model that wrote it.

    `prob` is the base's probability (temperature 1) of the token that completed the text, where it is known:
    draft text can be shown before the base has read it.
    """

    kind: ClassVar[str] = "text"
    text: str
    source: Source
    prob: float | None = None


@dataclass(frozen=True, slots=True)
class TokenDetails:
    """One token of a reply: the bytes that it stands for, and its log-probability (temperature 1), where it is known.

    `alternatives` are the most probable tokens in its place, best first: id, bytes, log-probability.
    """

    id: int
    piece: bytes
    source: Source
    logprob: float | None
    alternatives: tuple[tuple[int, bytes, float], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; bytes are a list of numbers, and as far as possible text."""
        others = [_token(id, piece) | {"logprob": logprob} for id, piece, logprob in self.alternatives]
        return _token(self.id, self.piece) | {"source": self.source, "logprob": self.logprob, "alternatives": others}


def _token(id: int, piece: bytes) -> dict[str, Any]:
    return {"id": id, "text": piece.decode(errors="replace"), "bytes": list(piece)}


@dataclass(frozen=True, slots=True)
class Wrote(Event):
    """The tokens that wrote the text since the last such event, where a reply is asked for them.

    The draft's tokens follow their text when the base has scored them, at the latest at the switch. A token whose text
    is cut away whole (a stop string, stripped white space) is in none of these events.
    """

    kind: ClassVar[str] = "wrote"
    tokens: tuple[TokenDetails, ...]

    def as_dict(self) -> dict[str, Any]:
        """The tokens under `tokens`."""
        return {"event": self.kind, "tokens": [token.as_dict() for token in self.tokens]}


@dataclass(frozen=True, slots=True)
class Checked(Event):
    """The base has scored draft tokens `start … start + len(probs) - 1` (indices of base tokens).

    `windows` is the rule's confidence at each of them: with WSD's rule that of the window that ends there, None before
    the first is full. A later event with a lower `start` replaces the values from there on.
    """

    kind: ClassVar[str] = "checked"
    start: int
    probs: tuple[float, ...]
    windows: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Switched(Event):
    """Drafting is over. `index` is the switch point where the rule decided, else None."""

    kind: ClassVar[str] = "switched"
    reason: SwitchReason
    index: int | None
    kept_tokens: int
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Returned(Event):
    """The draft takes the reply up again after `index` tokens.

    It does where the base is `unsure`, or would end the reply (`base_end`): its largest probability is `confidence`; or
    where the base, which had refused a word of the draft, `agreed` with one: `confidence` is the rule's.

    `Text`, `Checked` and `Switched` events of its next turn follow; their indices count tokens of the whole reply,
    `kept_tokens` those of the turn.
    """

    kind: ClassVar[str] = "returned"
    index: int
    confidence: float | None
    reason: TurnReason = "unsure"


@dataclass(frozen=True, slots=True)
class Reading(Event):
    """A model evaluates a text that is too long for one batch, a prompt as a rule: `done` of `total` tokens so far.

    Emitted after each batch; the last one has `done == total`. Tokens that are in the KV cache already are not counted.
    """

    kind: ClassVar[str] = "reading"
    model: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something a person should know once, such as older turns left out for lack of room."""

    kind: ClassVar[str] = "notice"
    message: str
