"""Rounds of proposals, and the account of what they cost and gained in one reply.

Contract: pure; seconds and the price of a plainly written token are given. What may be lost is bounded: rounds that
went wrong, and the planning itself, may cost a small share of a continuation's time, and once a credit, which must be
won back before it is available again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SHARE = 0.0125
"""Share of a continuation's time so far that may be lost."""
CREDIT = 128
"""The credit: that share of the time of so many plainly written tokens."""


@dataclass(slots=True)
class Round:
    """One evaluation of the base after `length` tokens, and the draft evaluations before it.

    `source` names where the proposals come from; empty: there are none. `wanted` tokens are still to come from the
    draft model, `drafted` are those it wrote. `proposed` are the base's tokens, at most `most`. `made` tokens came out,
    `taken` of them as proposed. `seconds` is the time of the round, `planning` the part of it that choosing took. A
    round that `reads` a prompt says nothing about the price of a token.
    """

    length: int
    source: str = ""
    proposed: list[int] = field(default_factory=list)
    wanted: int = 0
    most: int = 0
    reads: bool = False
    drafted: list[int] = field(default_factory=list)
    made: int = 0
    taken: int = 0
    seconds: float = 0.0
    planning: float = 0.0

    @property
    def examined(self) -> int:
        """Proposed tokens that were compared with what the base wrote: none after the first refused one."""
        return min(self.made, len(self.proposed))


@dataclass(frozen=True, slots=True)
class Speculated:
    """What proposals did in one reply. `rounds` had some; `acceptance` is accepted / proposed tokens.

    A round ends with the first token that is not the proposed one, so proposals after it are never examined;
    accepted / examined is the chance that a proposal stands. `break_even` is the lowest chance at which the draft
    model's proposals pay, None if they never do or too little was measured. `saved_s` are seconds against writing token
    by token, by the measured price of a token.
    """

    rounds: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    acceptance: float | None = None
    break_even: float | None = None
    saved_s: float = 0.0
    examined_tokens: int = 0


@dataclass(slots=True)
class Account:
    """Seconds spent on one continuation and saved in it, and counts of proposals.

    `lost_before` are seconds that earlier replies lost and did not win back.
    """

    lost_before: float = 0.0
    spent: float = 0.0
    saved: float = 0.0
    rounds: int = 0
    proposed: int = 0
    examined: int = 0
    accepted: int = 0

    def settle(self, ended: Round, price: float | None) -> None:
        """Enter a round; `price` is what a plainly written token costs, if that is known."""
        if ended.reads or not ended.made:
            return
        if not ended.source:
            self.saved -= ended.planning
        elif price is not None:
            self.saved += ended.made * price - ended.seconds
        self.spent += ended.seconds
        if ended.proposed:
            self.rounds += 1
            self.proposed += len(ended.proposed)
            self.examined += ended.examined
            self.accepted += ended.taken

    @property
    def lost(self) -> float:
        """Seconds lost beyond the share, those of earlier replies included."""
        return max(0.0, self.lost_before - self.saved - SHARE * self.spent)

    def losable(self, price: float) -> float:
        """Seconds that may still be lost."""
        credit = SHARE * CREDIT * price
        return self.saved + SHARE * self.spent + max(-credit, credit - self.lost_before)

    def pause(self, wanted: float, price: float) -> int:
        """Plainly written tokens after which `wanted` seconds may be lost."""
        return math.ceil(max(0.0, wanted - self.losable(price)) / (SHARE * price))
