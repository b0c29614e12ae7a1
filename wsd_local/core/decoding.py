"""One reply as a state machine: draft, check, continue.

Contract: no llama.cpp, no threads, no clock, no I/O. The machine names what it needs next and receives the result:

    while (request := machine.request()) is not None:
        NextDraftToken         -> machine.drafted(bytes of the token), or machine.draft_ended()
        ScoreTokens(tokens, a) -> machine.scored(the base's Score of tokens[i] after tokens[:i], for i = a, a+1, …)
        NextBaseToken          -> machine.continued(token, its Score or None), or machine.base_ended()
        machine.take_events() at any time: what became final

Requests name whole states ("the base holds exactly these tokens"), never steps, so an engine may cache,
batch, repeat or resume as it likes without changing the decision.

The phases, and why they are what they are:

    DRAFT ──── the rule decides, the draft is over, or the user hands over ────> CONTINUE ──> DONE
      └─────── the draft is over and nothing may follow (length, stop, on_draft_end) ──────────^

Drafting and checking are one phase, because the draft's text can still grow while its beginning is checked: the
base's tokens are those of the *text*, tokenised as a whole after the prompt, and a longer text may be tokenised
otherwise near its end. So only settled text is checked (`core.draft`), and where a later tokenisation
disagrees with checked tokens, the check is rolled back to the first difference. Text is shown as soon as the rule
keeps it whatever follows: with WSD's window, draft token `k` once tokens `0 … k-1` are checked, the first `w` at once.
Continuing is a phase of its own, because nothing after the switch is ever checked.

Who writes next is the rule's decision (`core.rules`); the machine knows no window.

Indices count base tokens after the prompt's own `n0` tokens. Where prompt and draft share a token, `n0` still
counts the tokens of the prompt alone, and the text of the shared token is shown with the first token after it.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from wsd_local.core.alignment import Aligned, TokenisedPrompt, Vocabulary, common_prefix
from wsd_local.core.draft import PLAIN, DraftOptions, DraftText
from wsd_local.core.limits import Counts, Limits
from wsd_local.core.requests import NextBaseToken, NextDraftToken, Request, ScoreTokens
from wsd_local.core.rules import Rule, Score, probability, require_threshold
from wsd_local.core.text import Outlet
from wsd_local.core.turns import Reason, Turn
from wsd_local.core.written import TokenWritten
from wsd_local.events import Checked, Event, FinishReason, Source, Switched, SwitchReason, Text


class Phase(enum.Enum):
    """Where a reply stands."""

    DRAFT = "draft"
    CONTINUE = "continue"
    DONE = "done"


class Decoding:
    """The state machine of one reply. See the module's docstring for the protocol.

    Args:
        vocabulary: the tokenizer of the model that continues.
        prompt: its prompt; one that is text alone is tokenised here. The text is not used if there is nothing to draft.
        rule: decides where the base takes over; it serves this reply alone.
        limits: lengths, stop strings, modes.
        writer: whose name the continuation carries; "draft" lets the draft model answer alone.
        drafting: False starts in the continuation.
        options: which parts of what the draft writes are text.
        top: alternatives that scores of draft tokens have.

    Attributes:
        prompt_length: `n0`, the number of tokens of the prompt alone.
        text: what was emitted so far; `draft_text` and `base_text` are the parts of each model.
        switch_index: the token at which the rule decided, counted after the prompt; None if it did not.
        continued_tokens: tokens of the model that continues.
        kept_tokens: base tokens of the draft that are kept; final once the draft phase is over.
        turns: those that are over; `switch_…` and `kept_tokens` are about the first one.
        finish_reason: what ended the reply; None until it is complete.
        stop: the stop string that ended the reply; None until then, and if something else did.
        writer: whose name the continuation carries.
        called_back: whether the draft writes again and no text of this turn stands, so that the turn before goes on.
        strips_beginning: whether white space at the beginning of the reply is cut away.
        beyond: base tokens of the draft after the kept ones, from which the continuation may be proposed.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: TokenisedPrompt | str,
        rule: Rule,
        limits: Limits,
        *,
        writer: Source = "base",
        drafting: bool = True,
        options: DraftOptions = PLAIN,
        top: int = 0,
    ) -> None:
        self.limits = limits
        self.counts = Counts()
        self.phase = Phase.DRAFT if drafting else Phase.CONTINUE
        self.switch_reason: SwitchReason = "none"
        self.switch_index: int | None = None
        self.switch_confidence: float | None = None
        self.finish_reason: FinishReason | None = None
        self.stop: str | None = None
        self.kept_tokens = self.continued_tokens = 0
        self.turns: list[Turn] = []
        self.beyond: list[int] = []
        self.rule = rule
        if isinstance(prompt, str):
            prompt = TokenisedPrompt(prompt, vocabulary.tokenize(prompt))
        self.prompt_length = len(prompt.tokens)
        self._vocabulary = vocabulary
        self._top = top
        self.writer: Source = writer
        self.called_back = False
        self._draft = DraftText(vocabulary, prompt, limits, options)
        self._begun_with, self._start = list(prompt.tokens), self.prompt_length
        self._earlier: list[TokenWritten] = []
        self._kept, self._drafted_before, self._discarded = 0, 0, ""
        self._scores: list[Score] = []
        self._confidences: list[float | None] = []
        self._closed: SwitchReason | None = None
        self._draft_ended_by: SwitchReason | None = None
        self._now = Aligned(list(prompt.tokens))
        self._settled = self._shown = 0
        strips = writer == "draft" and not options.exact
        self._outlet = Outlet(limits.stops, strip=strips, verbatim=options.verbatim, loops=limits.loops)
        self.strips_beginning = self._outlet.strips_beginning
        self._events: deque[Event] = deque()
        self._base_scores: list[Score | None] = []
        self.text = self.draft_text = self.base_text = ""

    # -- what is needed next ---------------------------------------------------------------------------------

    def request(self) -> Request | None:
        """What the machine needs next; None when the reply is done."""
        if self.phase is Phase.DRAFT and (step := self._pending_check()):
            start, tokens = self._start + len(self._scores), self._now.tokens
            end, needs = start + step, self.rule.needs_distribution
            return ScoreTokens(tokens[:end], start, needs, self._top, tokens[end:])
        if self.phase is Phase.DRAFT:
            return NextDraftToken()
        return NextBaseToken(self._now.tokens) if self.phase is Phase.CONTINUE else None

    def take_events(self) -> Iterator[Event]:
        """The events since the last call, oldest first."""
        while self._events:
            yield self._events.popleft()

    @property
    def reply_length(self) -> int:
        """Tokens after the prompt that are kept or written so far."""
        return max(0, len(self._now.tokens) - self.prompt_length)

    @property
    def opening(self) -> bytes:
        """What is shown of the draft's turn: after the switch, all of it that was kept."""
        return self._now.data[: self._shown]

    @property
    def shown_tokens(self) -> int:
        """Tokens of the reply that are shown."""
        return len(self._earlier) + self._tokens_shown() if self.phase is Phase.DRAFT else self.reply_length

    # -- the draft -------------------------------------------------------------------------------------------

    def drafted(self, piece: bytes, spelling: bytes = b"") -> None:
        """The draft model wrote a token that stands for these bytes.

        `spelling` is how a control token is written that opens or closes a block of thinking: text only there.
        """
        self.counts.drafted_tokens += 1
        self._draft.write(piece, spelling)
        if (ended := self._draft.ended) is not None:
            self._close(ended)
        elif self.counts.drafted_tokens - self._drafted_before >= self.limits.draft_max_tokens:
            self._close("draft_limit")
        else:
            self._retokenise()

    def draft_ended(self, reason: Literal["draft_end", "draft_limit"] = "draft_end") -> None:
        """The draft model wrote an end-of-generation token, or (`draft_limit`) it cannot write any more."""
        self._close(reason)

    def scored(self, scores: Sequence[Score]) -> None:
        """The base's scores of the tokens of the last `ScoreTokens`. What follows the rule's decision is not used."""
        start, kept = len(self._scores), None
        self.counts.checked_tokens += len(scores)
        for score in scores:
            kept = self.rule.push(score)
            self._scores.append(score)
            self._confidences.append(self.rule.confidence)
            if kept is not None:
                break
        probs = tuple(math.exp(score.logprob) for score in self._scores[start:])
        self._events.append(Checked(len(self._earlier) + start, probs, tuple(self._confidences[start:])))
        if kept is not None:
            self._take_over(kept)
        else:
            self._show()
            self._conclude()

    def hand_over(self) -> None:
        """Let the base continue from what has been shown, whatever the rule says."""
        if self.phase is Phase.DRAFT:
            if not self._shown:
                self._now = Aligned(self._begun_with[:])
            self._switch("user", self._tokens_shown())

    def steer(self, threshold: float) -> None:
        """Tokens that are checked from here on need another confidence; above 1 the draft goes on to its end.

        Raises:
            UsageError: it is negative or not a number.
        """
        require_threshold(threshold)
        self.rule.threshold = threshold

    def _close(self, reason: SwitchReason) -> None:
        """No more draft text comes: all of it is settled."""
        self._draft.close()
        self._closed = "draft_end" if reason == "draft_limit" and not self._draft.text else reason
        self._retokenise()

    def _retokenise(self) -> None:
        """Tokenise again if enough text is settled, and show what became final."""
        if not self._draft.settle(self._needed()):
            return
        self._roll_back(self._draft.aligned)
        self._now, self._settled = self._draft.aligned, self._draft.settled
        if self._settled >= (most := self.limits.max_tokens - len(self._earlier)):
            self._settled, self._closed = most, "length"
        if self.limits.fixed is not None and self._settled >= self.limits.fixed:
            self._settled, self._closed = self.limits.fixed, "draft_limit"
        self._show()
        self._conclude()

    def _needed(self) -> int:
        """Newly settled tokens below which there is nothing to show or check."""
        if self.limits.fixed is not None:
            return self.limits.fixed - self._settled
        if self._settled < self.rule.lookahead:
            return 1
        return self._chunk - (self._settled - len(self._scores))

    @property
    def _chunk(self) -> int:
        """Tokens that are checked together."""
        return self.limits.check_chunk

    def _roll_back(self, new: Aligned) -> None:
        checked = self._start + len(self._scores)
        if self._scores and new.tokens[:checked] != self._now.tokens[:checked]:
            length = max(0, common_prefix(new.tokens, self._now.tokens) - self._start)
            self.rule.truncate(length)
            del self._scores[length:], self._confidences[length:]
            self.counts.rollbacks += 1

    def _pending_check(self) -> int:
        """Number of tokens to check now: a whole chunk, or what is left of a draft that is over."""
        if self.limits.fixed is not None:
            return 0
        chunk = self._chunk if self._scores else max(self._chunk, self.rule.lookahead)
        pending = self._settled - len(self._scores)
        return min(chunk, pending) if self._closed or pending >= chunk else 0

    def _show(self) -> None:
        """Emit the draft tokens that are kept whatever follows."""
        fixed = self.limits.fixed is not None
        if final := self._settled if fixed else min(self._settled, self.rule.kept_at_least):
            self._show_up_to(final)

    def _show_up_to(self, count: int) -> None:
        if (end := self._now.ends[count]) > self._shown:
            data, self._shown = self._now.data[self._shown : end], end
            self._emit(self._outlet.push(data, "draft"))

    def _tokens_shown(self) -> int:
        """The least number of draft tokens that hold all that was shown."""
        return sum(1 for end in self._now.ends if end < self._shown) if self._shown else 0

    def _take_over(self, kept: int) -> None:
        shown = self._tokens_shown()
        if shown > kept:
            # A roll-back moved the switch before text that is shown already: it must stay.
            kept, self.counts.moved_switches = shown, self.counts.moved_switches + 1
        self._switch("threshold", kept, self.rule.confidence)

    def _conclude(self) -> None:
        """Leave the draft phase if the draft is over and all of it is checked."""
        if self.phase is not Phase.DRAFT:
            return
        if self._outlet.ended is not None:  # by text of several turns, or that the vocabulary rewrites
            self._switch(self._outlet.ended, self._tokens_shown())
            return
        if self._closed is None or self._pending_check():
            return
        ends = self._closed == "stop" or (self._closed == "draft_end" and self._ends_with_draft)
        self._switch(self._closed, self._settled)
        if self.finish_reason is None and ends:
            self._finish("stop")

    @property
    def _ends_with_draft(self) -> bool:
        """Whether the reply ends where the draft does."""
        return self.limits.on_draft_end == "stop" and self._settled > 0 and not self.turns

    def _switch(self, reason: SwitchReason, kept: int, confidence: float | None = None) -> None:
        self._show_up_to(kept)
        index = len(self._earlier) + kept - 1 if reason == "threshold" and kept else None
        if not self.turns:
            self.switch_reason, self.switch_index, self.switch_confidence = reason, index, confidence
            self.kept_tokens = kept
        self.phase, self._kept = Phase.CONTINUE, kept
        self.beyond = self._now.tokens[self._start + kept :]
        self._now.tokens = self._now.tokens[: self._start + kept]
        self._draft_ended_by = reason
        self._end_draft(reason, index, confidence)
        self._end_if_complete()

    def _end_draft(self, reason: SwitchReason, index: int | None, confidence: float | None) -> None:
        """End a turn of the draft, of which `_kept` tokens are kept."""
        self._end_turn("draft", reason, confidence)
        self._events.append(Switched(reason, index, self._kept, confidence))

    # -- the continuation ------------------------------------------------------------------------------------

    def continued(self, token: int, score: Score | None = None) -> None:
        """The model that continues wrote `token`."""
        self._now.tokens.append(token)
        self.continued_tokens += 1
        self._base_scores.append(score)
        prob = None if score is None else probability(score.logprob)
        self._emit(self._outlet.push(self._vocabulary.piece(token), self.writer), prob)
        self._end_if_complete()

    def _end_if_complete(self) -> None:
        if self._outlet.ended is not None:
            self._finish(self._outlet.ended)
        elif self.reply_length >= self.limits.max_tokens:
            self._finish("length")

    def base_ended(self, *, complete: bool = False) -> None:
        """The model that continues wrote an end-of-generation token, or (`complete`) nothing may follow its text."""
        if self.phase is not Phase.DONE:
            self._finish("stop")

    def _end_turn(self, who: Source, reason: Reason, confidence: float | None) -> None:
        start = self.turns[-1].end if self.turns else 0
        self.turns.append(Turn(who, start, self.reply_length, reason, confidence))

    def _finish(self, reason: FinishReason) -> None:
        self._emit(self._outlet.close(self.writer if self._base_scores else "draft"))
        if not self.turns or self.turns[-1].end < self.reply_length:
            self._end_turn(self.writer, reason, None)
        self.phase = Phase.DONE
        self.finish_reason = reason
        drafted = self._draft_ended_by == "stop" and self._outlet.stop is None
        self.stop = self._draft.stop if drafted else self._outlet.stop

    def _emit(self, parts: list[tuple[str, str]], prob: float | None = None) -> None:
        for text, source in parts:
            from_draft = source == "draft"
            self.text += text
            if from_draft:
                self.draft_text += text
            else:
                self.base_text += text
            self._events.append(Text(text, "draft" if from_draft else "base", prob))

    # -- what became of it -----------------------------------------------------------------------------------

    @property
    def discarded(self) -> str:
        """Draft text that was written but not kept."""
        return self._discarded + self._now.data[self._shown :].decode(errors="replace")

    def token(self, index: int) -> TokenWritten:
        """A token of the reply that is shown or written; bytes that are shared with the prompt are the first one's."""
        if index < len(self._earlier):
            return self._earlier[index]
        index -= len(self._earlier)
        token = self._now.tokens[self._start + index]
        if self.phase is Phase.DRAFT or index < self._kept:
            ends, scores = self._now.ends, self._scores
            data = self._now.data[ends[index] if index else 0 : ends[index + 1]]
            known = index < len(scores)
            confidence = self._confidences[index] if known else None
            return TokenWritten(token, data, "draft", scores[index] if known else None, confidence)
        before = self._now.data[: self._shown] if index == 0 else b""
        score = self._base_scores[index - self._kept]
        return TokenWritten(token, before + self._vocabulary.piece(token), self.writer, score)

    @property
    def scored_tokens(self) -> int:
        """Tokens at the beginning of the reply of which no score is to come any more."""
        return len(self._earlier) + len(self._scores) if self.phase is Phase.DRAFT else self.reply_length
