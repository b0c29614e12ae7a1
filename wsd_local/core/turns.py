"""Who wrote which part of a reply, and why the turn ended.

Contract: frozen values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsd_local.events import FinishReason, Source, SwitchReason, TurnReason

Reason = SwitchReason | FinishReason | TurnReason
"""Why a turn ended."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The tokens `start … end - 1` of a reply, written by `who`.

    `reason` is why the turn ended: a switch reason, `unsure` or `base_end` where the draft was called back, `agreed`
    where the base agreed with the draft again, and for the last turn why the reply ended. `confidence` is the rule's at
    that point, or the base's top-1 probability where it called the draft back.
    """

    who: Source
    start: int
    end: int
    reason: Reason
    confidence: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {"who": self.who, "from": self.start, "to": self.end, "reason": self.reason}
        return values | {"confidence": self.confidence}


def with_open_one(turns: Sequence[Turn], who: Source, length: int) -> tuple[Turn, ...]:
    """The turns of a reply that was stopped after `length` tokens, while `who` was writing."""
    start = turns[-1].end if turns else 0
    return (*turns, Turn(who, start, max(start, length), "cancelled"))


def within(turns: Iterable[Turn], length: int) -> tuple[Turn, ...]:
    """The turns of a reply whose text was cut to `length` tokens; the first one stays, also without a token."""
    cut = [replace(turn, end=min(turn.end, length)) for turn in turns]
    return tuple(turn for number, turn in enumerate(cut) if number == 0 or turn.start < length)
