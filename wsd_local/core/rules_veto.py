"""The rules `veto` and `bet`: the draft leads, and the base replaces what it finds too improbable.

Contract: as `core.rules`, for one turn of the draft. A word of the draft is refused where one of its base tokens has a
probability `p` below a bound: with `veto` the bound is `λ` everywhere (the dual rule of KAD, arXiv 2510.27017), with
`bet` it is `max q - λ`, where `q` is the draft's distribution in the place where the word begins (arXiv 2604.16146).
Who sees the text marks where words begin, before it gives the scores of their tokens.

Both are measured by how far the probability is below the draft's claim, which is 1 with `veto` and `max q` with `bet`:
that is the rule's confidence, and its threshold is `1 - λ` or `λ`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from wsd_local.core.rules import Score
from wsd_local.errors import UsageError, short


@dataclass(frozen=True, slots=True)
class _Place:
    """A token's place: where its word begins, and what the draft claims there."""

    word: int
    claim: float


class Veto:
    """Refuses words of the draft.

    Args:
        kind: the name of the rule.
        bound: `λ`.

    Raises:
        UsageError: the bound is no probability.
    """

    needs_distribution = False
    lookahead = 1

    def __init__(self, kind: Literal["veto", "bet"], bound: float) -> None:
        if math.isnan(bound) or not 0 <= bound <= 1:
            raise UsageError(f"{kind} is {short(bound)}: it is a probability and must lie between 0 and 1")
        self.kind = kind
        self.threshold = 1 - bound if kind == "veto" else bound
        self._places: list[_Place] = []
        self._distances: list[float] = []

    @property
    def needs_claims(self) -> bool:
        """Whether the draft's largest probability matters."""
        return self.kind == "bet"

    @property
    def kept_at_least(self) -> int:
        """The words before the one that is being scored stand."""
        return self._places[len(self._distances) - 1].word if self._distances else 0

    @property
    def confidence(self) -> float | None:
        """How far the probability of the last scored token is below the draft's claim."""
        return self._distances[-1] if self._distances else None

    @property
    def first_word(self) -> float | None:
        """The largest such distance in the first word."""
        places = self._places
        return max((far for far, place in zip(self._distances, places, strict=False) if not place.word), default=None)

    def mark(self, *, begins: bool, claim: float) -> None:
        """The next token to be scored begins a word, or belongs to the one before; `claim` counts where one begins."""
        place = len(self._places)
        self._places.append(_Place(place, claim) if begins or not place else self._places[-1])

    def push(self, score: Score) -> int | None:
        """The index of the first token of the word, if it is refused."""
        place = self._places[len(self._distances)]
        self._distances.append(place.claim - math.exp(score.logprob))
        return place.word if self._distances[-1] > self.threshold else None

    def truncate(self, length: int) -> None:
        """Forget the tokens from index `length` on."""
        del self._places[length:], self._distances[length:]
