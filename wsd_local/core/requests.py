"""What a reply's state machine needs next, see `core.decoding`.

Contract: frozen values. Each names a whole state, so it can be answered again, in batches, or after a pause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wsd_local.events import Source


@dataclass(frozen=True, slots=True)
class NextDraftToken:
    """Let the draft model write one more token."""


@dataclass(frozen=True, slots=True)
class ScoreTokens:
    """Let the base hold `tokens` and score `tokens[start:]`, with top-1 probability and entropy if `distribution`.

    `top` most probable tokens are wanted in each place. `following` are tokens after these, as far as they are known:
    what reads text, and no tokens, divides a longer text in the same way.
    """

    tokens: Sequence[int]
    start: int
    distribution: bool = False
    top: int = 0
    following: Sequence[int] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class NextBaseToken:
    """Let the base hold `tokens` and write the next one."""

    tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class Distributions:
    """Let a model hold `tokens`, and give its distributions of what follows `tokens[:i]`, for i from `start` on."""

    role: Source
    tokens: Sequence[int]
    start: int


Request = NextDraftToken | ScoreTokens | NextBaseToken | Distributions
