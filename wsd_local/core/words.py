"""A reply that the draft leads, word by word: the rules `veto` and `bet` over two vocabularies.

Contract: as `core.relay`. The draft writes; the base's tokens of its text are scored, and the words that they form
stand one after the other until the rule refuses one. In its place the base writes tokens of its own up to the end of a
word, and the draft goes on after it. A word ends where the next token begins with white space, or follows it; a turn of
the draft begins one.

The reply ends where the draft ends, or where the base would write an end in place of a word of the draft. If the draft
has nothing to say at all, or cannot go on (its context is full, it repeats itself), the base writes the rest.

A word is shown once it stands. So turns alternate: a turn of the draft in which no word stands is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from wsd_local.core.alignment import TokenisedPrompt, Vocabulary
from wsd_local.core.decoding import Phase
from wsd_local.core.draft import PLAIN, DraftOptions
from wsd_local.core.limits import Limits
from wsd_local.core.relay import Relay, begins_word
from wsd_local.core.rules import Score
from wsd_local.core.rules_veto import Veto
from wsd_local.core.turns import Turn
from wsd_local.events import Returned, SwitchReason

FIRST_CHECK = 2
"""Tokens of the first check of a turn; each later one has twice as many, up to `check_chunk`."""


class Words(Relay):
    """The state machine of a reply that the draft leads. The arguments are those of `Relay`."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: TokenisedPrompt | str,
        rule: Veto,
        limits: Limits,
        *,
        plain: Callable[[str], list[int]],
        options: DraftOptions = PLAIN,
        top: int = 0,
    ) -> None:
        super().__init__(vocabulary, prompt, rule, limits, plain=plain, options=options, top=top)
        self._veto = rule
        self._leads = True
        self._cannot_go_on = False
        self._claims: list[float] = []
        self._checks = 0
        self._word = 0
        """Tokens of the reply before the word that the base writes."""

    # -- the draft -------------------------------------------------------------------------------------------

    @property
    def needs_claims(self) -> bool:
        """Whether `claimed` must be called before `drafted`."""
        return self._veto.needs_claims

    def claimed(self, top1: float) -> None:
        """The draft's largest probability in the place of its next token."""
        self._claims.append(top1)

    def draft_ended(self, reason: Literal["draft_end", "draft_limit"] = "draft_end") -> None:
        """As in `Decoding`."""
        self._cannot_go_on = reason == "draft_limit"
        super().draft_ended(reason)

    def hand_over(self) -> None:
        """Let the base write the rest."""
        super().hand_over()
        self._leads = False

    def scored(self, scores: Sequence[Score]) -> None:
        """As in `Decoding`."""
        first = len(self._scores)
        for index in range(first, first + len(scores)):
            begins = self._word_begins_at(index)
            self._veto.mark(begins=begins, claim=self._claim(index) if begins else 0.0)
        self._checks += 1
        super().scored(scores)

    @property
    def _chunk(self) -> int:
        return min(self.limits.check_chunk, FIRST_CHECK << min(self._checks, 30))

    def _word_begins_at(self, index: int) -> bool:
        data, ends = self._now.data, self._now.ends
        return index == 0 or begins_word(
            data[max(0, ends[index] - 4) : ends[index]], data[ends[index] : ends[index + 1]]
        )

    def _claim(self, index: int) -> float:
        """The draft's largest probability in the place where a base token of its text begins."""
        if not self.needs_claims:
            return 1.0
        place = len(self._now.data[: self._now.ends[index]].decode(errors="replace"))
        return self._claims[self._draft.token_at(place)]

    def _show_up_to(self, count: int) -> None:
        if count and self.called_back:
            self.called_back = False
            at, confidence = self._start - self.prompt_length, self._veto.first_word
            self.turns.append(Turn("base", self.turns[-1].end, at, "agreed", confidence))
            self._events.append(Returned(at, confidence, "agreed"))
        super()._show_up_to(count)

    def _take_over(self, kept: int) -> None:
        shown = self._tokens_shown()
        if shown > kept:  # a roll-back moved words that are shown
            kept, self.counts.moved_switches = shown, self.counts.moved_switches + 1
        self._switch("veto", kept, self.rule.confidence)

    def _switch(self, reason: SwitchReason, kept: int, confidence: float | None = None) -> None:
        self._leads = reason == "veto"
        super()._switch(reason, kept, confidence)
        self._word = self.reply_length
        self.beyond = []

    def _end_draft(self, reason: SwitchReason, index: int | None, confidence: float | None) -> None:
        if not self.called_back:
            super()._end_draft(reason, index, confidence)
        self.called_back = False

    @property
    def _ends_with_draft(self) -> bool:
        return not self._cannot_go_on and (self._settled > 0 or bool(self.turns))

    # -- the base --------------------------------------------------------------------------------------------

    @property
    def may_return(self) -> bool:
        """Whether the base has written something in place of a word of the draft."""
        return self.phase is Phase.CONTINUE and self._leads and self.reply_length > self._word

    def returns(self, token: int, top1: float, *, ends: bool = False) -> bool:
        """Whether the base's word is over."""
        if not (self.may_return and (ends or self._begins_word(token))):
            return False
        self._take_up()
        self._claims, self._checks, self.called_back = [], 0, True
        return True
