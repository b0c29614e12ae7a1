"""A reply under the rule `nudging`: the draft writes in rounds, and the base is asked before each of their words.

Contract: as `core.relay`. A round is what the draft writes after it has read the reply so far: `ROUND` tokens of text,
or fewer if it ends before. The requests of a round:

    NextDraftToken … ──> ScoreTokens: the words that stand, and the next one; for each next word ──> NextBaseToken …
          ^  └── the draft's end: all stands, the reply is over                                        │
          └─────────────── no word is left in the round, or the base calls the draft back ──────────────┘

Words that stand are shown at once, the first one while its round is still being drafted: whatever follows, it stands.
Nothing that stands is ever taken back. Only words that may become the third round in a row with the same words wait
until they differ from those before.

The base's tokens of a round's text are those of that text as a whole (in the first round after the prompt) where they
continue the tokens of the words that stand, else those of the new words alone.

A turn of the draft may have several rounds. A turn of the base ends where the next text of the draft stands: if the
draft ends at once, the base had the last word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from wsd_local.core.alignment import After, Aligned, TokenisedPrompt, Vocabulary, align
from wsd_local.core.decoding import Phase
from wsd_local.core.draft import PLAIN, DraftOptions, DraftText
from wsd_local.core.limits import Limits
from wsd_local.core.relay import Relay
from wsd_local.core.requests import NextBaseToken, NextDraftToken, Request, ScoreTokens
from wsd_local.core.rules import Score
from wsd_local.core.rules_nudging import REPEATS, ROUND, Nudging, borders, whole_words, word_at
from wsd_local.core.text import possible_stop
from wsd_local.core.turns import Turn
from wsd_local.events import Checked, Returned, Switched, SwitchReason, TurnReason


class Nudge(Relay):
    """The state machine of a reply under the rule `nudging`.

    The arguments are those of `Relay`, and `is_end`: whether a token of the base ends a text. Of the limits,
    `draft_max_tokens`, `check_chunk` and `on_draft_end` are not used.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: TokenisedPrompt | str,
        rule: Nudging,
        limits: Limits,
        *,
        plain: Callable[[str], list[int]],
        is_end: Callable[[int], bool],
        options: DraftOptions = PLAIN,
        top: int = 0,
    ) -> None:
        if isinstance(prompt, str):
            prompt = TokenisedPrompt(prompt, vocabulary.tokenize(prompt))
        super().__init__(vocabulary, prompt, rule, limits, plain=plain, options=options, top=top)
        self._nudging, self._is_end = rule, is_end
        self._called: tuple[TurnReason, float] | None = None
        """Why the base has called the draft back; the turn ends there as soon as text of the draft stands."""
        self._for_good = False
        """Whether the base writes on to its end."""
        self._words, self._same = "", 0
        """The words of the last round, and how many rounds in a row had them."""
        self._begin_round(vocabulary, prompt, options)

    def _begin_round(self, vocabulary: Vocabulary, prompt: TokenisedPrompt, options: DraftOptions) -> None:
        self._text_vocabulary, self._text_prompt = vocabulary, prompt
        self._draft = DraftText(vocabulary, prompt, replace(self.limits, loops=False), options)
        self._round_tokens = 0
        self._text, self._stands = "", 0
        """The round's text as far as it has been looked at, and how much of it stands."""
        self._borders: list[int] | None = None
        """Where the base is still to be asked; None while the draft writes."""
        self._asked: Aligned | None = None
        """The tokens up to the end of the word that the base is asked about."""

    # -- what is needed next ---------------------------------------------------------------------------------

    def request(self) -> Request | None:
        """What the machine needs next; None when the reply is done."""
        if self.phase is Phase.DRAFT and self._asked is not None:
            start = self._start + len(self._scores)
            return ScoreTokens(self._asked.tokens, start, top=max(1, self._top))
        if self.phase is Phase.DRAFT:
            return NextDraftToken()
        return NextBaseToken(self._now.tokens) if self.phase is Phase.CONTINUE else None

    @property
    def opening(self) -> bytes:
        """The reply so far."""
        return self.written

    @property
    def discarded(self) -> str:
        """Draft text that was written but not kept; words that are written anew in the next round do not count."""
        return self._discarded + (self._draft.text[self._stands :] if self.phase is Phase.DRAFT else "")

    # -- a round of the draft --------------------------------------------------------------------------------

    def drafted(self, piece: bytes, spelling: bytes = b"") -> None:
        """The draft model wrote a token, as for `Decoding`."""
        self.counts.drafted_tokens += 1
        self._draft.write(piece, spelling)
        self._round_tokens += bool(self._draft.text)
        if self._draft.ended is not None:
            self._end_draft_with("stop")
        elif self._round_tokens >= ROUND:
            self._text = self._draft.text
            self._borders = borders(self._text)
            self._ask_next()
        elif not self._stands:
            self._show_first_word()

    def draft_ended(self, reason: Literal["draft_end", "draft_limit"] = "draft_end") -> None:
        """The draft model ended the reply, or (`draft_limit`) it cannot write any more, and the base goes on."""
        self._end_draft_with(reason)

    def _show_first_word(self) -> None:
        """The first word stands, whatever follows, as soon as it is whole and no stop string can cut it."""
        text = self._draft.text
        safe = len(text[: len(text) - possible_stop(text, self.limits.stops)].rstrip())
        if found := borders(text[:safe]):
            self._stand(text, found[0])

    def _end_draft_with(self, reason: Literal["draft_end", "draft_limit", "stop"]) -> None:
        """What the draft has written stands whole; the reply is over unless the draft merely cannot go on."""
        self._draft.close()
        text = self._draft.text
        self._for_good = reason == "draft_limit"
        if not self._stand(text, len(text), shows=False):
            return
        if self._stands or self._called is None:
            self._switch(reason, self._standing_tokens)
        elif self._for_good:
            self._base_goes_on()
        if self.finish_reason is None and not self._for_good:
            self._finish("stop")
            self.stop = self._draft.stop if reason == "stop" and self.stop is None else self.stop

    # -- the base is asked -----------------------------------------------------------------------------------

    def _ask_next(self) -> None:
        """Ask the base before the next word of the round; without one the next round begins."""
        assert self._borders is not None
        while self._borders:
            border = self._borders[0]
            if not self._stand(self._text, border):
                return
            asked = self._extended(self._text, border + len(word_at(self._text, border)))
            if len(asked.tokens) > len(self._now.tokens):
                self._asked = asked
                return
            del self._borders[0]  # a vocabulary that cannot write the word
        if self._stand(self._text, whole_words(self._text), shows=False):
            self._next_round()

    def _next_round(self) -> None:
        """What stands is kept, and the draft writes on from there."""
        if self._count_words() and self._goes_on_with(self._standing_tokens):
            self._take_up()

    def scored(self, scores: Sequence[Score]) -> None:
        """The base's scores of the tokens of the last `ScoreTokens`: what it would write in place of the word."""
        assert self._asked is not None and self._borders
        border = self._borders.pop(0)
        word, after = word_at(self._text, border), self._standing_tokens - len(self._scores)
        self.counts.checked_tokens += len(scores)
        token, logprob = scores[after].top[0]
        top1, ends = math.exp(logprob), self._is_end(token)
        reason = self._nudging.takes_over(word.encode(), b"" if ends else self._vocabulary.piece(token), top1)
        length = min(border + len(word), whole_words(self._text))
        stands = reason is None and length > border
        self._take_scores(scores if stands else scores[:after], top1)
        self._asked = None
        if reason is None:
            if self._stand(self._text, max(length, border)):
                self._ask_next()
        elif ends:
            self._next_round()
        elif self._count_words():
            rest = self._text[self._stands :]
            self._switch(reason, self._standing_tokens, top1)
            self.beyond = self._plain(rest)

    def _take_scores(self, scores: Sequence[Score], top1: float) -> None:
        """Enter the scores of tokens that stand; `top1` decided about the first of those that did not stand before."""
        start, border = len(self._scores), self._standing_tokens
        self._scores += [replace(score, top=score.top[: self._top]) for score in scores]
        self._confidences += [top1 if place == border else None for place in range(start, len(self._scores))]
        if scores:
            probs = tuple(math.exp(score.logprob) for score in self._scores[start:])
            self._events.append(Checked(len(self._earlier) + start, probs, tuple(self._confidences[start:])))

    def _count_words(self) -> bool:
        """Enter the words of a round; False if they end the reply because they only repeat themselves."""
        words = self._text[: self._stands]
        self._same = self._same + 1 if words == self._words else 1
        self._words = words
        if self._same < REPEATS:
            return True
        self._now = Aligned(self._begun_with[:])
        if self._called is None:
            self._switch("loop", 0)
        else:
            self._discard(0)
        if self.finish_reason is None:
            self._finish("loop")
        return False

    # -- what stands -----------------------------------------------------------------------------------------

    @property
    def _standing_tokens(self) -> int:
        """Tokens of the round that stand."""
        return len(self._now.tokens) - self._start

    def _stand(self, text: str, length: int, *, shows: bool = True) -> bool:
        """Let the first `length` characters of the round stand, and show them; False if the reply ends with them.

        What may turn out to be the same words for the last time is not shown yet.
        """
        self._text = text
        if length > self._stands:
            self._now, self._stands = self._extended(text, length), length
        if self._standing_tokens >= (most := self.limits.max_tokens - len(self._earlier)):
            self._switch("length", most)
            return False
        waits = self._same >= REPEATS - 1 and self._words.startswith(text[: self._stands])
        return not shows or waits or self._goes_on_with(self._standing_tokens)

    def _extended(self, text: str, length: int) -> Aligned:
        """The tokens of the round's first characters; those of what stands remain as they are."""
        now, prompt = self._now, self._text_prompt
        joint = align(self._text_vocabulary, prompt.text, len(prompt.tokens), text[:length])
        if not self._stands or joint.tokens[: len(now.tokens)] == now.tokens:
            return joint
        after, base = After(now.tokens, self._plain, self._vocabulary.piece), now.ends[-1]
        new = align(after, "", len(now.tokens), text[self._stands : length])
        return Aligned(new.tokens, now.ends + [base + end for end in new.ends[1:]], now.data + new.data)

    def _goes_on_with(self, count: int) -> bool:
        """Show the first `count` tokens of the round; whether the reply goes on with them, or their text ends it."""
        self._show_up_to(count)
        if self._outlet.ended is None:
            return True
        self._switch(self._outlet.ended, count)
        return False

    def _show_up_to(self, count: int) -> None:
        if self._now.ends[count] > self._shown:
            self._end_turn_of_base()
        super()._show_up_to(count)

    # -- changes of the writer -------------------------------------------------------------------------------

    @property
    def may_return(self) -> bool:
        """Whether the draft may be called back: always, once the base has written the token that it took over with."""
        return self.phase is Phase.CONTINUE and bool(self._base_scores) and not self._for_good

    def returns(self, token: int, top1: float, *, ends: bool) -> bool:
        """Whether the base calls the draft: it is not sure of its next token, or would end the reply."""
        if not self.may_return or (self._nudging.is_sure(top1) and not ends):
            return False
        self._call("base_end" if ends else "unsure", top1)
        return True

    def base_ended(self, *, complete: bool = False) -> None:
        """The base wrote an end-of-generation token: it calls the draft, unless it writes for good."""
        if complete or self._for_good or self.phase is not Phase.CONTINUE:
            super().base_ended()
        else:
            self._call("base_end", self._nudging.confidence or 0.0)

    def hand_over(self) -> None:
        """Let the base continue from what has been shown, to its end."""
        if self.phase is Phase.DONE:
            return
        self._for_good = True
        if self.phase is not Phase.DRAFT:
            return
        if not self._shown:
            self._now = Aligned(self._begun_with[:])
        if self._called is None:
            self._switch("user", self._tokens_shown())
        else:
            self._base_goes_on()

    def _discard(self, length: int) -> None:
        """What the round has after so many bytes is not kept."""
        self._discarded += self._draft.text.encode()[length:].decode(errors="replace")

    def _call(self, reason: TurnReason, top1: float) -> None:
        self._called, self.called_back = (reason, top1), True
        self._take_up()

    def _take_up(self) -> None:
        super()._take_up()
        tokens = self._begun_with
        after = After(tokens, self._plain, self._vocabulary.piece)
        self._begin_round(after, TokenisedPrompt("", tokens), self._later_options)

    def _base_goes_on(self) -> None:
        """Nothing that the draft has written since it was called stands: the base has not stopped writing."""
        self._discard(0)
        self._now, self._asked = Aligned(self._begun_with[:]), None
        self._called, self.called_back = None, False
        self.phase, self._kept = Phase.CONTINUE, 0

    def _end_turn_of_base(self) -> None:
        """The turn of the base that has called the draft is over."""
        if self._called is not None:
            (reason, top1), self._called, self.called_back = self._called, None, False
            length = len(self._earlier)
            self.turns.append(Turn("base", self._turn_begins, length, reason, top1))
            self._events.append(Returned(length, top1, reason))

    @property
    def _turn_begins(self) -> int:
        """The first token of the turn that is not over."""
        return self.turns[-1].end if self.turns else 0

    def _switch(self, reason: SwitchReason, kept: int, confidence: float | None = None) -> None:
        """End a turn of the draft, which may have had several rounds, with the first `kept` tokens of this one."""
        self._show_up_to(kept)
        self._end_turn_of_base()
        begins, length = self._turn_begins, len(self._earlier) + kept
        index = length - 1 if reason in ("threshold", "match") else None
        self._discard(self._now.ends[kept])
        self._now.tokens = self._now.tokens[: self._start + kept]
        del self._scores[kept:], self._confidences[kept:]
        self.phase, self._kept, self._asked, self.beyond = Phase.CONTINUE, kept, None, []
        if self.turns:
            data = b"".join(self.token(place).data for place in range(begins, length))
            self._unseen = self._now.tokens[self.prompt_length + begins :], data
        else:
            self.switch_reason, self.switch_index, self.switch_confidence = reason, index, confidence
            self.kept_tokens = length
        self._end_turn("draft", reason, confidence)
        self._events.append(Switched(reason, index, length - begins, confidence))
        self._end_if_complete()
