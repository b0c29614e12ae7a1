"""Speculative continuation: tokens that the base may write next, so that it verifies several in one evaluation.

Contract: pure; tokens, seconds and counts are given. A proposal changes time and never a token: the base's sampler
chooses each token from the base's own logits, and a proposed one stands only where it is the one chosen. For proposals
that are not drawn themselves, that is the rejection rule of speculative sampling (Leviathan et al. 2023, arXiv
2211.17192): x is accepted with probability p(x), and what replaces it is distributed as the rest of p.

Proposals come from the draft model, from what it had already written after the switch, from the text itself
(`core.lookup`), and from a constraint that leaves no choice. How many are made, if any, is decided before each
evaluation by what evaluations cost and how many proposals were accepted lately: the number with the most expected
tokens per second. What may be lost is bounded (`core.rounds`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from wsd_local.core.costs import Experience, break_even, expected
from wsd_local.core.lookup import LookUp
from wsd_local.core.rounds import Account, Round, Speculated
from wsd_local.core.text import utf8_decoder
from wsd_local.core.translation import TextVocabulary, translated
from wsd_local.events import Source

Speculation = Literal["auto", "draft", "lookup", "off"]

MOST = 15
"""Largest number of tokens proposed at once."""
MARGIN = 1.02
"""Expected gain below which nothing is proposed: estimates are not better than that."""
FRESH, AGAIN = 2, 64
"""Rounds without proposals at the beginning of a continuation, and the number of rounds with proposals after which
another one without measures anew what a token costs."""
PATIENCE = 8
"""Tokens for which the draft model is not considered again after its proposals would not have paid."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation for one reply cost, and what came of it.

    `role` evaluated `tokens` tokens in `seconds`. `written` tokens of the continuation came out, the first `accepted`
    of them as proposed. `agreed` has, for each draft token that was scored, the probability that the base would have
    written it.
    """

    role: Source
    tokens: int = 0
    seconds: float = 0.0
    written: int = 0
    accepted: int = 0
    agreed: Sequence[float] = ()


class Surroundings(Protocol):
    """What the engine has at hand for one reply, as far as proposals depend on it."""

    @property
    def draft_room(self) -> int:
        """Tokens that the draft model's context can hold; 0 without a draft model."""
        ...

    def clock(self) -> float:
        """Seconds, from any origin."""
        ...

    def unread(self, tokens: Sequence[int]) -> bool:
        """Whether the model that continues must first read more than the last of `tokens`."""
        ...

    def live(self, tokens: Sequence[int], following: Sequence[int]) -> int:
        """Number of leading tokens of `following` that the available logits can check; -1: not even the next one."""
        ...

    def held_by_draft(self, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that the draft model's context holds."""
        ...

    def forced(self) -> Sequence[int]:
        """Tokens that a constraint leaves no choice about."""
        ...

    def allowed(self, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that a constraint allows next."""
        ...

    def draft(self, tokens: Sequence[int]) -> int | None:
        """The token that the draft model writes after `tokens`, None if it ends there. It is observed as any other.

        Raises:
            CancelledError: the work was stopped; `propose` can be called again.
            WsdError: the draft model failed.
        """
        ...


class Speculator:
    """Proposals for the continuation of one reply.

    Making one and looking at its report changes nothing that is shared; `propose` and `observe` do.

    Args:
        experience: what is known about the pair, shared by all replies.
        writes: the model that continues.
        base, draft: the vocabularies of the model that continues and of the draft model; without the latter it
            proposes nothing.
        draft_prompt: what the draft model reads before the reply.
        prompt_length: number of tokens of the base's prompt.
        lookup: whether the text itself is searched.
    """

    def __init__(
        self,
        experience: Experience,
        writes: Source,
        base: TextVocabulary,
        draft: TextVocabulary | None,
        draft_prompt: Sequence[int],
        prompt_length: int,
        *,
        lookup: bool = True,
    ) -> None:
        self._experience = experience
        self._costs = experience.costs[writes]
        self._base, self._draft = base, draft
        self._lookup = LookUp() if lookup else None
        self._draft_tokens = list(draft_prompt)
        """What the draft model reads: its prompt and the first `_followed` base tokens, translated."""
        self._followed = prompt_length
        self._account: Account | None = None
        self._round: Round | None = None
        self._beyond: tuple[int, Sequence[int]] | None = None
        """Tokens that the draft had written after the switch, and the length of the text before them."""
        self._again = self._awake = 0
        """Lengths of the text before which the draft model is not considered, and nothing is planned."""
        self._lacking, self._planning = math.inf, 0.0
        """Seconds: by how much the cheapest round that would pay exceeds what may be lost; the last planning's time."""
        self._fresh, self._since = FRESH, 0
        """Rounds without proposals that are still to come, and rounds with proposals since the last of them."""

    # -- the seam --------------------------------------------------------------------------------------------

    def propose(self, tokens: Sequence[int], most: int, beyond: Sequence[int], around: Surroundings) -> Sequence[int]:
        """At most `most` tokens that may follow `tokens`; none where they would not pay.

        `beyond` is what the draft had written after the switch; only the first call's counts.

        Raises:
            CancelledError, WsdError: what `around.draft` raises.
        """
        account = self._opened()
        if self._beyond is None:
            self._beyond = (len(tokens), beyond)
            if self._costs.known:
                self._awake = len(tokens) + account.pause(0.0, self._price)
        if len(tokens) < self._awake:  # planning alone would cost more than may be lost
            self._settle()
            account.spent += self._price
            self._experience.lost = account.lost
            return ()
        now = self._round
        if now is None or now.length != len(tokens) or now.made:  # else it was interrupted, and goes on
            self._settle()
            now = self._round = self._next_round(tokens, min(most, MOST), around)
        while now.wanted:
            self._drafted(now, around.draft(self._draft_tokens + now.drafted))
        del now.proposed[around.allowed(now.proposed) :]
        return now.proposed

    def observe(self, seen: Evaluation) -> None:
        """Learn from an evaluation for this reply."""
        self._opened()
        if seen.tokens:
            self._experience.costs[seen.role].saw(seen.tokens, seen.seconds)
        for agreed in seen.agreed:
            self._experience.acceptance["draft"].saw(agreed, 1 - agreed)
        if (now := self._round) is not None:
            now.seconds += seen.seconds
            now.made += seen.written
            now.taken += seen.accepted
            if seen.written > seen.accepted:
                self._settle()

    def abandon(self) -> None:
        """The draft model can propose nothing any more; what its last round took was in vain."""
        if self._round is not None:
            account, seconds = self._opened(), self._round.seconds
            account.saved -= seconds
            account.spent += seconds
            self._experience.lost = account.lost
        self._draft = self._round = None

    def report(self) -> Speculated:
        """What it came to so far."""
        account = copy.copy(self._account or Account())
        if self._round is not None:
            account.settle(self._round, self._price if self._costs.known else None)
        least = None
        if self._draft is not None and self._costs.known and self._experience.costs["draft"].known:
            least = break_even([self._cost_of_drafting(length, 1) for length in range(1, MOST + 1)], self._price)
        return Speculated(
            account.rounds,
            account.proposed,
            account.accepted,
            account.accepted / account.proposed if account.proposed else None,
            least,
            account.saved,
            account.examined,
        )

    # -- one round -------------------------------------------------------------------------------------------

    def _opened(self) -> Account:
        """The account, opened with the first work for this reply: older measurements count less from then on."""
        if self._account is None:
            self._account = Account(self._experience.lost)
            self._experience.begin_text()
        return self._account

    @property
    def _price(self) -> float:
        """Seconds that a plainly written token costs; it must be known."""
        return self._costs.of(1)

    def _next_round(self, tokens: Sequence[int], most: int, around: Surroundings) -> Round:
        begun = around.clock()
        remaining = self._remaining(tokens)
        live = around.live(tokens, remaining)
        if live < 0 and around.unread(tokens):
            return Round(len(tokens), reads=True)
        now = self._planned(tokens, most, remaining[:live] if live > 0 else [], remaining, around)
        now.planning = now.seconds = around.clock() - begun
        return now

    def _settle(self) -> None:
        """Enter the round that is over into the account, and learn how many of its proposals were accepted."""
        ended, self._round = self._round, None
        if ended is None or not ended.made or ended.reads:
            return
        account = self._opened()
        self._planning = ended.planning
        account.settle(ended, self._price if self._costs.known else None)
        self._experience.lost = account.lost
        if ended.proposed:
            self._experience.acceptance[ended.source].saw(ended.taken, ended.examined - ended.taken)

    def _remaining(self, tokens: Sequence[int]) -> list[int]:
        """What the draft had written after `tokens` before the switch, if the base has followed it so far."""
        length, beyond = self._beyond or (0, ())
        if beyond and list(tokens[length:]) != list(beyond[: len(tokens) - length]):
            self._beyond = length, beyond = 0, ()
        return list(beyond[len(tokens) - length :])

    def _follow(self, tokens: Sequence[int]) -> bool:
        """Add what is new to what the draft model reads; False if that ends with half a character."""
        assert self._draft is not None
        new, decoder = tokens[self._followed :], utf8_decoder()
        decoder.decode(b"".join(map(self._base.piece, new)))
        if decoder.getstate()[0]:
            return False
        self._draft_tokens += translated(new, self._base, self._draft)
        self._followed = len(tokens)
        return True

    def _drafted(self, now: Round, token: int | None) -> None:
        """The draft model's next token for a round, None for the end of its text."""
        assert self._draft is not None
        now.wanted -= 1
        if token is None:
            now.wanted = 0
        else:
            now.drafted.append(token)
        if not now.wanted:
            now.proposed = translated(now.drafted, self._draft, self._base)[: now.most]
            if not now.proposed:
                self._experience.acceptance["draft"].saw(0, 1)

    # -- which proposals, and how many -----------------------------------------------------------------------

    def _planned(
        self, tokens: Sequence[int], most: int, judged: Sequence[int], remaining: Sequence[int], around: Surroundings
    ) -> Round:
        """The round after `tokens`; `judged` tokens of `remaining` cost no evaluation."""
        length, account = len(tokens), self._opened()
        plain = Round(length)
        if most < 1:
            return plain
        if judged:
            return Round(length, "draft", list(judged[:most]))
        if self._fresh or not self._costs.known:
            self._fresh = max(0, self._fresh - 1)
            return plain
        if account.losable(self._price) < 0:
            self._awake = length + 1 + account.pause(self._planning, self._price)
            return plain
        self._lacking = math.inf
        best = self._best_round(tokens, most, remaining, around)
        if best is not None:
            self._since = (self._since + 1) % AGAIN
            self._fresh = int(self._since == 0)
        elif self._lacking < math.inf:
            self._awake = length + 1 + account.pause(self._lacking + self._planning, self._price)
        return best or plain

    def _best_round(
        self, tokens: Sequence[int], most: int, remaining: Sequence[int], around: Surroundings
    ) -> Round | None:
        """The round that is expected to gain most over plain decoding, if any gains enough."""
        best, gain = None, MARGIN
        if remaining:
            length, better = self._best_length("draft", self._cost_of_check, min(most, len(remaining)))
            if better > gain:
                best, gain = Round(len(tokens), "draft", list(remaining[:length])), better
        elif self._draft is not None and len(tokens) >= self._again and self._experience.costs["draft"].known:
            length, better = self._best_of_draft(tokens, most, around, gain)
            if better > gain:
                best, gain = Round(len(tokens), "draft", wanted=length, most=most), better
        if forced := around.forced():
            length, better = self._best_length("constraint", self._cost_of_check, min(most, len(forced)))
            if better > gain:
                best, gain = Round(len(tokens), "constraint", list(forced[:length])), better
        if self._lookup is not None:
            found, same = self._lookup.find(tokens, most)
            if found:
                source = f"look-up {9 if same >= 9 else 5 if same >= 5 else 3}"
                length, better = self._best_length(source, self._cost_of_check, len(found))
                if better > gain:
                    best = Round(len(tokens), source, found[:length])
        return best

    def _best_of_draft(self, tokens: Sequence[int], most: int, around: Surroundings, gain: float) -> tuple[int, float]:
        """As `_best_length`; what the draft model must read first is computed only where its proposals may pay."""
        found = self._best_length("draft", lambda k: self._cost_of_drafting(k, 1), most)
        if found[1] > gain:
            if not self._follow(tokens):
                return 0, 0.0
            unread = max(1, len(self._draft_tokens) - around.held_by_draft(self._draft_tokens))
            room = min(most, around.draft_room - len(self._draft_tokens))
            found = self._best_length("draft", lambda k: self._cost_of_drafting(k, unread), room)
        if found[1] <= gain:
            self._again = len(tokens) + PATIENCE
        return found

    def _cost_of_check(self, length: int) -> float:
        return self._costs.of(length + 1)

    def _cost_of_drafting(self, length: int, unread: int) -> float:
        draft = self._experience.costs["draft"]
        return draft.of(unread) + (length - 1) * draft.of(1) + self._costs.of(length + 1)

    def _best_length(self, source: str, cost: Callable[[int], float], most: int) -> tuple[int, float]:
        """The length with the most expected tokens per second, and its gain: their ratio to plain decoding's.

        Lengths that could lose more than may be lost are left out; what the first one lacks that would pay is noted.
        """
        price, rate = self._price, self._experience.acceptance[source].rate
        losable = self._opened().losable(price)
        best = (0.0, 0)
        for length in range(1, most + 1):
            seconds = cost(length)
            gain = expected(rate, length) * price / seconds
            if seconds - price <= losable:
                best = max(best, (gain, length))
            elif best[0] > MARGIN:
                break
            elif gain > MARGIN:
                self._lacking = min(self._lacking, seconds - price)
                break
        gain, length = best
        return length, gain
