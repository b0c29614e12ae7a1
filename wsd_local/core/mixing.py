"""A reply that two models with one vocabulary write together: the rules `veto` and `bet`, token by token.

Contract: as `core.decoding`, with requests of its own:

    Distributions(role, …) -> machine.distribution(row) for each of them in order, until it returns False
    NextBaseToken          -> as there, once the base writes alone

The draft proposes some tokens, and the base reads them together. Each place of the reply then has the distributions of
both models, and the mixture of these gives its token (`core.mixture`). A token that is the proposed one is the draft's,
another one is the base's, and new tokens are proposed after it. The reply ends with the first token that ends a text.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from wsd_local.core.alignment import TokenisedPrompt, Vocabulary
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.limits import Limits
from wsd_local.core.mixture import Draws, Row, best, distances, mixture
from wsd_local.core.requests import Distributions, NextBaseToken, Request
from wsd_local.core.rules import Score
from wsd_local.core.rules_veto import Veto
from wsd_local.core.sampling import Sampling
from wsd_local.core.written import TokenWritten
from wsd_local.events import Checked, FinishReason, Returned, Source, Switched, SwitchReason


class Mixing(Decoding):
    """The state machine of a reply from a mixture.

    Args:
        vocabulary: the tokenizer of both models.
        prompt: the base's prompt.
        rule: which tokens are deferred to the draft.
        limits: lengths and stop strings; as many tokens are proposed together as a check has.
        draft_prompt: the draft's prompt.
        sampling: how a token is chosen from the mixture.
        ends: whether a token ends a text.
        top: alternatives that scores have.

    Attributes:
        proposals: all tokens that the draft proposed.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: TokenisedPrompt | str,
        rule: Veto,
        limits: Limits,
        *,
        draft_prompt: Sequence[int],
        sampling: Sampling,
        ends: Callable[[int], bool],
        top: int = 0,
    ) -> None:
        super().__init__(vocabulary, prompt, rule, limits, top=top)
        self.proposals: list[int] = []
        self._veto, self._sampling, self._ends = rule, sampling, ends
        self._draft_prompt = list(draft_prompt)
        self._reply: list[int] = []
        self._tokens: list[TokenWritten] = []
        self._proposed: deque[tuple[int, Row]] = deque()
        self._asked: Source = "draft"
        self._full = self._alone = False

    # -- what is needed next ---------------------------------------------------------------------------------

    def request(self) -> Request | None:
        """As in `Decoding`."""
        if self.phase is Phase.DONE:
            return None
        if self._full and not self._proposed:
            self._leave("draft_limit")
        if self._alone:
            return NextBaseToken(self._now.tokens)
        ids = [token for token, _ in self._proposed]
        if self._proposes:
            self._asked = "draft"
            tokens = [*self._draft_prompt, *self._reply, *ids]
            return Distributions("draft", tokens, len(tokens))
        self._asked = "base"
        return Distributions("base", [*self._now.tokens, *ids[:-1]], len(self._now.tokens))

    @property
    def _proposes(self) -> bool:
        """Whether the draft proposes one more token before the base reads them."""
        most = min(self.limits.check_chunk, self.limits.max_tokens - len(self._reply))
        ended = bool(self._proposed) and self._ends(self._proposed[-1][0])
        return not self._full and not ended and len(self._proposed) < most

    def distribution(self, row: Row) -> bool:
        """One model's probabilities, at temperature 1, in the next place; whether those of the place after are used."""
        if self._asked == "draft":
            token = Draws(self._sampling, len(self._reply) + len(self._proposed)).propose(row)
            self._proposed.append((token, row))
            self.proposals.append(token)
            self.counts.drafted_tokens += 1
            return False
        self.counts.checked_tokens += 1
        self._judge(row)
        return bool(self._proposed) and self.phase is not Phase.DONE

    def draft_ended(self, reason: Literal["draft_end", "draft_limit"] = "draft_end") -> None:
        """The draft can propose no more tokens; the base writes the rest."""
        self._full = True

    def hand_over(self) -> None:
        """Let the base write the rest."""
        if self.phase is not Phase.DONE and not self._alone:
            self._leave("user")

    # -- the reply -------------------------------------------------------------------------------------------

    def _judge(self, p: Row) -> None:
        """Choose the token of the next place, for which the draft has proposed one."""
        proposed, q = self._proposed.popleft()
        size = min(len(p), len(q))  # one of the vocabularies may have unused numbers at its end
        p, q = p[:size], q[:size]
        token = Draws(self._sampling, len(self._reply)).choose(mixture(self._veto, p, q), q, proposed)
        far = distances(self._veto, p, q)
        stands, ends = token == proposed, self._ends(token)
        if not stands:
            self._proposed.clear()
            self._turn("base", float(far[proposed]))
        elif not ends:
            self._turn("draft", float(far[token]))
        elif self.phase is Phase.DRAFT:
            self._end_draft_turn("draft_end", None)
        if ends:
            self._finish("stop")
            return
        score = Score(math.log(max(p[token], np.finfo(float).tiny)), top=best(p, self._top))
        self._write(token, score, float(far[token]))

    def _turn(self, who: Source, confidence: float) -> None:
        """The next token is one of `who`: a turn of the other one ends here."""
        if who == "base" and self.phase is Phase.DRAFT:
            self._end_draft_turn("veto", confidence)
            self.phase = Phase.CONTINUE
        elif who == "draft" and self.phase is Phase.CONTINUE:
            self._end_turn("base", "agreed", confidence)
            self._events.append(Returned(len(self._reply), confidence, "agreed"))
            self.phase = Phase.DRAFT

    def _end_draft_turn(self, reason: SwitchReason, confidence: float | None) -> None:
        kept = len(self._reply) - (self.turns[-1].end if self.turns else 0)
        if not self.turns:
            self.switch_reason, self.switch_confidence, self.kept_tokens = reason, confidence, kept
        self._end_turn("draft", reason, confidence)
        self._events.append(Switched(reason, None, kept, confidence))

    def _leave(self, reason: SwitchReason) -> None:
        """The base writes the rest."""
        self._proposed.clear()
        self._alone = True
        if self.phase is Phase.DRAFT:
            self._end_draft_turn(reason, None)
            self.phase = Phase.CONTINUE

    def continued(self, token: int, score: Score | None = None) -> None:
        """The base wrote a token alone."""
        self._write(token, score, None)

    def _write(self, token: int, score: Score | None, window: float | None) -> None:
        who: Source = "draft" if self.phase is Phase.DRAFT else "base"
        data = self._vocabulary.piece(token)
        self._tokens.append(TokenWritten(token, data, who, score, window))
        self._reply.append(token)
        self._now.tokens.append(token)
        prob = None if score is None else math.exp(score.logprob)
        if who == "draft" and prob is not None:
            self._events.append(Checked(len(self._reply) - 1, (prob,), (window,)))
        self._emit(self._outlet.push(data, who), prob)
        self._end_if_complete()

    def _finish(self, reason: FinishReason) -> None:
        drafts = self.phase is Phase.DRAFT
        self._emit(self._outlet.close("draft" if drafts else "base"))
        if not self.turns or self.turns[-1].end < len(self._reply):
            if drafts:
                self._end_draft_turn(reason, None)
            else:
                self._end_turn("base", reason, None)
        self._proposed.clear()
        self.phase, self.finish_reason, self.stop = Phase.DONE, reason, self._outlet.stop

    # -- what became of it -----------------------------------------------------------------------------------

    @property
    def discarded(self) -> str:
        """Proposed tokens that do not stand are no text."""
        return ""

    @property
    def shown_tokens(self) -> int:
        """Tokens of the reply that are written."""
        return len(self._reply)

    @property
    def scored_tokens(self) -> int:
        """All of them have their scores."""
        return len(self._reply)

    def token(self, index: int) -> TokenWritten:
        """A token of the reply."""
        return self._tokens[index]
