"""Speculative continuation: tokens that the base may write next, so that it verifies several in one evaluation.

Contract: pure; tokens and seconds are told. A proposal changes time and never a token: the base's sampler chooses each
token from the base's own logits, and a proposed one stands only where it is the one chosen. For proposals of which
nothing is drawn, that is the rejection rule of speculative sampling (Leviathan et al. 2023, arXiv 2211.17192): x is
taken with probability p(x), and what comes instead is distributed as the rest of p.

Proposals come from the draft model, from what it had written after the switch already, from the text itself
(prompt look-up: what followed the last words where they stood before), and from a constraint that leaves no
choice. How many are made, if any, is decided each time by what evaluations cost and how many proposals were
taken lately: those for which expected tokens per second are most. What rounds that went wrong and thinking
about them may cost, by the measured price of a token, is bounded (`SHARE`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from wsd_local.core.alignment import common_prefix
from wsd_local.core.costs import Experience, break_even, expected
from wsd_local.core.text import utf8_decoder
from wsd_local.events import Source

Speculation = Literal["auto", "draft", "lookup", "off"]

MOST = 15
"""Tokens proposed at most at once."""
MARGIN = 1.02
"""Expected gain below which nothing is proposed: estimates are not better than that."""
SHARE, GRACE = 0.0125, 128
"""Time that may be lost: a share of a continuation's so far, and once, until it is won back, of so many tokens more."""
FRESH, AGAIN = 2, 64
"""Rounds without proposals at a text's beginning, and one more after so many, to measure what a token costs."""
PATIENCE = 8
"""Tokens until the draft is thought of again, after its proposals would not have paid."""
GRAM, LONGEST, PLACES = 3, 16, 8
"""Look-up: tokens that must be the same, that are compared, and places at which that is tried."""


class LookUp:
    """Where the last tokens of a growing text stood before, and what followed them."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], int] = {}
        self._before: list[int] = [0] * GRAM

    def find(self, tokens: Sequence[int], most: int) -> tuple[list[int], int]:
        """At most `most` tokens that may follow, and the number of tokens that are the same before them."""
        for place in range(len(self._before), len(tokens)):
            gram = tuple(tokens[place - GRAM : place])
            self._before.append(self._last.get(gram, 0))
            self._last[gram] = place
        place = self._last.get(tuple(tokens[-GRAM:]), 0) if len(tokens) > GRAM else 0
        if not place or most < 1:
            return [], 0
        last, found = tokens[-LONGEST:][::-1], (0, 0)
        for _ in range(PLACES):
            found = max(found, (common_prefix(last, tokens[max(0, place - LONGEST) : place][::-1]), place))
            if not (place := self._before[place]):
                break
        length, place = found
        following = list(tokens[place : place + most])
        while len(following) < most:  # a text that repeats itself
            following.append(following[place - len(tokens)])
        return following, length


Held = Callable[[Sequence[int]], int]


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    def tokenize_text(self, text: str) -> list[int]:
        """Tokens of a text alone."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for."""
        ...


def translated(tokens: Sequence[int], source: Vocabulary, target: Vocabulary, size: int) -> list[int]:
    """What tokens of one vocabulary are in another, of `size` tokens: themselves where they mean the same there.

    Half a character at the end is left out; nothing is returned where the other vocabulary cannot write the text.
    """
    pieces = [source.piece(token) for token in tokens]
    if all(
        token < size and piece and piece == target.piece(token) for token, piece in zip(tokens, pieces, strict=True)
    ):
        return list(tokens)
    text = utf8_decoder().decode(b"".join(pieces))
    for before in ("", "\n"):  # some put a space before all that begins
        found = target.tokenize_text(before + text)
        for start in range(min(len(found), 4)):
            if b"".join(map(target.piece, found[start:])) == text.encode():
                return found[start:]
    return []


@dataclass(slots=True)
class Round:
    """One evaluation of the base behind `length` tokens, and the draft's before it.

    `wanted` tokens are still to come from the draft; `proposed` are the base's tokens, at most `most`, `drafted` the
    draft's own. `made` tokens came out, `taken` of them proposed. `seconds` is what that took, `thought` what thinking
    about it took, which is in it. A round that `reads` a prompt tells nothing of what tokens cost.
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
    thought: float = 0.0


@dataclass(frozen=True, slots=True)
class Speculated:
    """What proposals did in one reply. `rounds` had some; `acceptance` is accepted / proposed tokens.

    A round ends with the first token that is not the proposed one, so proposals after it are never looked at:
    `examined_tokens` were, and accepted / examined is the chance that a proposal stands. `break_even` is that chance
    from which on the draft model's proposals pay, None if they never do or too little was measured. `saved_s` are
    seconds against writing token by token, by the measured price of a token.
    """

    rounds: int = 0
    proposed_tokens: int = 0
    accepted_tokens: int = 0
    acceptance: float | None = None
    break_even: float | None = None
    saved_s: float = 0.0
    examined_tokens: int = 0


class Speculator:
    """Proposals for the continuation of one reply.

    Args:
        experience: what is known of the pair; it learns.
        writes: the model that continues.
        base, draft: their vocabularies; no draft, no proposals of it.
        draft_prompt: what the draft model reads before the reply.
        prompt_length: tokens of the base's prompt.
        sizes: tokens in the base's and in the draft's vocabulary.
        lookup: whether the text itself is looked at.
        greedy: whether the base always chooses its favourite.
    """

    def __init__(
        self,
        experience: Experience,
        writes: Source,
        base: Vocabulary,
        draft: Vocabulary | None,
        draft_prompt: Sequence[int],
        prompt_length: int,
        sizes: tuple[int, int],
        *,
        lookup: bool = True,
        greedy: bool = True,
    ) -> None:
        self.greedy = greedy
        self._experience = experience
        self._costs = experience.costs[writes]
        self._base, self._draft = base, draft
        self._sizes = sizes
        self._lookup = LookUp() if lookup else None
        self._followed = prompt_length
        self._draft_tokens = list(draft_prompt)
        self._round: Round | None = None
        self._beyond: tuple[int, Sequence[int]] | None = None
        self._again = 0
        self._awake = 0
        self._lacking, self._thought = math.inf, 0.0
        self._fresh, self._since = FRESH, 0
        self._spent = self._saved = 0.0
        self._lost_before = experience.lost
        self._rounds = self._proposed = self._looked_at = self._accepted = 0
        for acceptance in experience.acceptance.values():
            acceptance.renew()
        for costs in experience.costs.values():
            costs.age()

    def checked(self, taken: float, refused: float) -> None:
        """The base would have taken, or refused, so many of the draft's tokens that it checked."""
        self._experience.acceptance["draft"].saw(taken, refused)

    def begin(self, tokens: Sequence[int], beyond: Sequence[int]) -> None:
        """The continuation begins behind `tokens`, where the draft had written `beyond`. Only the first call counts."""
        if self._beyond is None:
            self._beyond = (len(tokens), beyond)
            if self._costs.known:
                self._awake = len(tokens) + self._pause(0.0)

    # -- rounds ----------------------------------------------------------------------------------------------

    def rests(self, tokens: Sequence[int]) -> bool:
        """Whether nothing is to be thought of behind `tokens`, because that alone would cost more than may be lost."""
        if len(tokens) >= self._awake:
            return False
        self.settle()
        self._spend(self._costs.of(1))
        return True

    def in_progress(self, tokens: Sequence[int]) -> Round | None:
        """The round that was begun behind `tokens` and gave nothing yet."""
        now = self._round
        return now if now is not None and now.length == len(tokens) and not now.made else None

    def round(
        self, tokens: Sequence[int], most: int, live: int, draft_room: int, held: Held, forced: Sequence[int] = ()
    ) -> Round:
        """A new round behind `tokens` with at most `most` proposals.

        The logits behind `live` tokens of what remains of the draft's text are known. The draft model's context has
        room for `draft_room` tokens and holds the first `held(tokens)` of some. `forced` tokens are what a constraint
        leaves no choice about.
        """
        self.settle()
        self._round = self._planned(tokens, min(most, MOST), live, draft_room, held, forced)
        return self._round

    def read(self, tokens: Sequence[int]) -> Round:
        """A new round behind `tokens`, of which the base must first read more than the last."""
        self.settle()
        self._round = Round(len(tokens), reads=True)
        return self._round

    def remaining(self, tokens: Sequence[int]) -> list[int]:
        """What the draft had written behind `tokens` before the switch, if the base has followed it so far."""
        length, beyond = self._beyond or (0, ())
        if beyond and list(tokens[length:]) != list(beyond[: len(tokens) - length]):
            self._beyond = length, beyond = 0, ()
        return list(beyond[len(tokens) - length :])

    @property
    def draft_tokens(self) -> list[int]:
        """What the draft model is to read in this round: its prompt, the reply, and its own proposals."""
        return self._draft_tokens + (self._round.drafted if self._round is not None else [])

    def _follow(self, tokens: Sequence[int]) -> bool:
        """Add what is new to what the draft model reads; False if that is half a character."""
        assert self._draft is not None
        new, decoder = tokens[self._followed :], utf8_decoder()
        decoder.decode(b"".join(map(self._base.piece, new)))
        if decoder.getstate()[0]:
            return False
        self._draft_tokens += translated(new, self._base, self._draft, self._sizes[1])
        self._followed = len(tokens)
        return True

    def drafted(self, token: int | None) -> None:
        """The draft model proposes a token, or the end."""
        now = self._round
        if now is None or self._draft is None:
            return
        now.wanted -= 1
        if token is None:
            now.wanted = 0
        else:
            now.drafted.append(token)
        if not now.wanted:
            now.proposed = translated(now.drafted, self._draft, self._base, self._sizes[0])[: now.most]
            if not now.proposed:
                self._experience.acceptance["draft"].saw(0, 1)

    def without_draft(self) -> None:
        """The draft model has nothing to say any more; what its last round took was in vain."""
        self._saved -= self.seconds
        self._spend(self.seconds)
        self._draft = self._round = None

    @property
    def seconds(self) -> float:
        """Seconds that the round in progress took so far."""
        return 0.0 if self._round is None else self._round.seconds

    def took(self, seconds: float, *, thinking: bool = False) -> None:
        """An evaluation for the round in progress took so long, or thinking about it did."""
        if self._round is not None:
            self._round.seconds += seconds
            self._round.thought += seconds if thinking else 0.0

    def made(self, *, taken: bool) -> None:
        """A token came out of the round in progress, `taken` if it is the one that was proposed."""
        if self._round is not None:
            self._round.made += 1
            self._round.taken += taken

    def settle(self) -> None:
        """Learn from the round that is over."""
        now, self._round = self._round, None
        if now is None or not now.made or now.reads:
            return
        self._thought = now.thought
        if not now.source:
            self._saved -= now.thought
        elif self._costs.known:
            self._saved += now.made * self._costs.of(1) - now.seconds
        self._spend(now.seconds)
        if now.proposed:
            looked_at = min(now.made, len(now.proposed))
            self._rounds += 1
            self._proposed += len(now.proposed)
            self._accepted += now.taken
            self._looked_at += looked_at
            self._experience.acceptance[now.source].saw(now.taken, looked_at - now.taken)

    def _spend(self, seconds: float) -> None:
        self._spent += seconds
        self._experience.lost = max(0.0, self._lost_before - self._saved - SHARE * self._spent)

    # -- which proposals, and how many --------------------------------------------------------------------------

    def _planned(
        self, tokens: Sequence[int], most: int, live: int, draft_room: int, held: Held, forced: Sequence[int]
    ) -> Round:
        plain = Round(len(tokens))
        if most < 1:
            return plain
        remaining = self.remaining(tokens)[:most]
        if remaining and live > 0:
            return Round(len(tokens), "draft", remaining[:live])
        if self._fresh or not self._costs.known:
            self._fresh = max(0, self._fresh - 1)
            return plain
        if self._losable() < 0:
            self._awake = len(tokens) + 1 + self._pause(self._thought)
            return plain
        self._lacking = math.inf
        best, gain = plain, MARGIN
        if remaining:
            length, better = self._best("draft", self._costs_of_check, len(remaining))
            if better > gain:
                best, gain = Round(len(tokens), "draft", remaining[:length]), better
        elif self._draft is not None and len(tokens) >= self._again and self._experience.costs["draft"].known:
            length, better = self._best_of_draft(tokens, most, draft_room, held, gain)
            if better > gain:
                best, gain = Round(len(tokens), "draft", wanted=length, most=most), better
        if forced:
            length, better = self._best("constraint", self._costs_of_check, min(most, len(forced)))
            if better > gain:
                best, gain = Round(len(tokens), "constraint", list(forced[:length])), better
        if self._lookup is not None:
            found, same = self._lookup.find(tokens, most)
            if found:
                source = f"look-up {9 if same >= 9 else 5 if same >= 5 else 3}"
                length, better = self._best(source, self._costs_of_check, len(found))
                if better > gain:
                    best = Round(len(tokens), source, found[:length])
        if best is not plain:
            self._since = (self._since + 1) % AGAIN
            self._fresh = int(self._since == 0)
        elif self._lacking < math.inf:
            self._awake = len(tokens) + 1 + self._pause(self._lacking + self._thought)
        return best

    def _best_of_draft(
        self, tokens: Sequence[int], most: int, draft_room: int, held: Held, gain: float
    ) -> tuple[int, float]:
        """As `_best`; what the draft model has still to read is looked at only where it may be worth it."""
        found = self._best("draft", lambda k: self._cost_of_drafting(k, 1), most)
        if found[1] > gain:
            if not self._follow(tokens):
                return 0, 0.0
            behind = max(1, len(self._draft_tokens) - held(self._draft_tokens))
            room = min(most, draft_room - len(self._draft_tokens))
            found = self._best("draft", lambda k: self._cost_of_drafting(k, behind), room)
        if found[1] <= gain:
            self._again = len(tokens) + PATIENCE
        return found

    def _costs_of_check(self, length: int) -> float:
        return self._costs.of(length + 1)

    def _cost_of_drafting(self, length: int, behind: int) -> float:
        draft = self._experience.costs["draft"]
        return draft.of(behind) + (length - 1) * draft.of(1) + self._costs.of(length + 1)

    def _best(self, source: str, cost: Callable[[int], float], most: int) -> tuple[int, float]:
        """The length with the most expected tokens per second, and how many times those of plain decoding they are.

        Lengths that could lose more than may be lost are left out; what the first one lacks that would pay is noted.
        """
        plain, rate, losable = self._costs.of(1), self._experience.acceptance[source].rate, self._losable()
        best = (0.0, 0)
        for length in range(1, most + 1):
            price = cost(length)
            gain = expected(rate, length) * plain / price
            if price - plain <= losable:
                best = max(best, (gain, length))
            elif best[0] > MARGIN:
                break
            elif gain > MARGIN:
                self._lacking = min(self._lacking, price - plain)
                break
        gain, length = best
        return length, gain

    def _losable(self) -> float:
        """Seconds that may still be lost."""
        grace = SHARE * GRACE * self._costs.of(1)
        return self._saved + SHARE * self._spent + max(-grace, grace - self._lost_before)

    def _pause(self, wanted: float) -> int:
        """Tokens until so many seconds may be lost."""
        return math.ceil(max(0.0, wanted - self._losable()) / (SHARE * self._costs.of(1)))

    def report(self) -> Speculated:
        """What it came to so far."""
        if self._round is not None and self._round.made:
            self.settle()
        least = None
        if self._draft is not None and self._costs.known and self._experience.costs["draft"].known:
            least = break_even([self._cost_of_drafting(length, 1) for length in range(1, MOST + 1)], self._costs.of(1))
        return Speculated(
            self._rounds,
            self._proposed,
            self._accepted,
            self._accepted / self._proposed if self._proposed else None,
            least,
            self._saved,
            self._looked_at,
        )
