"""How far one reply may go, and what happened on the way.

Contract: plain values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsd_local.errors import UsageError


def fixed_tokens(mode: str) -> int | None:
    """K of the mode `fixed:K`, None of the other modes.

    Raises:
        UsageError: there is no such mode.
    """
    if mode in ("wsd", "base", "draft", "urial"):
        return None
    kind, _, count = mode.partition(":")
    if kind != "fixed" or not count.isdecimal() or int(count) < 1:
        raise UsageError(f"mode is {mode!r}: it must be wsd, base, draft, urial or fixed:K with K of at least 1")
    return int(count)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one reply may go.

    `max_tokens` counts base tokens of the whole reply, `draft_max_tokens` draft tokens. `check_chunk` base tokens are
    checked together: it changes time, never the decision. `fixed` keeps that many draft tokens and checks none. With
    `loops`, a text that only repeats itself ends the draft's turn, or the reply (`core.loops`).
    """

    max_tokens: int
    draft_max_tokens: int
    check_chunk: int
    on_draft_end: Literal["continue", "stop"]
    fixed: int | None = None
    stops: tuple[str, ...] = ()
    loops: bool = False


@dataclass(slots=True)
class Counts:
    """What happened on the way, for reports."""

    drafted_tokens: int = 0
    checked_tokens: int = 0
    rollbacks: int = 0
    moved_switches: int = 0
