"""One reply as a state machine: draft, check, continue.

Contract: no llama.cpp, no threads, no clock, no I/O. The machine says what it needs next and is told the result:

    while (request := machine.request()) is not None:
        NextDraftToken     -> machine.drafted(bytes of the token), or machine.draft_ended()
        Score(tokens, a)   -> machine.scored(log P_base(tokens[i] | tokens[:i]) for i = a, a+1, …)
        NextBaseToken      -> machine.continued(token, log-probability or None), or machine.base_ended()
        machine.take_events() at any time: what became final

Requests name whole states ("the base shall hold exactly these tokens"), never steps, so an engine may cache,
batch, repeat or resume as it likes without changing the decision.

The phases, and why they are what they are:

    DRAFT ──── a window passes, the draft is over, or somebody hands over ────> CONTINUE ──> DONE
      └─────── the draft is over and nothing may follow (length, stop, on_draft_end) ──────────^

Drafting and checking are one phase, because the draft's text can still grow while its beginning is checked: the
base's tokens are those of the *text*, tokenised as a whole behind the prompt, and a longer text may be tokenised
otherwise near its end. So only settled text is checked (`text.settled_length`), and where a later tokenisation
disagrees with checked tokens, the check is rolled back to the first difference. Text is shown as soon as no window
that ends before it can pass: draft token `k` once tokens `0 … k-1` are checked, the first `w` at once.
Continuing is a phase of its own, because nothing behind the switch is ever checked.

A block of thinking at the draft's beginning is never part of it (`text.without_thinking`), unless the draft follows a
constraint: then all that it writes is the text.

Indices count base tokens behind the prompt's own `n0` tokens. Where prompt and draft share a token, `n0` still
counts the tokens of the prompt alone, and the text of the shared token is shown with the first token behind it.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from wsd_local.core.alignment import Aligned, Vocabulary, align, token_texts
from wsd_local.core.rules import SwitchDetector, SwitchPolicy
from wsd_local.core.text import Outlet, find_stop, possible_stop, settled_length, utf8_decoder, without_thinking
from wsd_local.core.tokens import common_prefix
from wsd_local.events import Checked, Event, FinishReason, Source, Switched, SwitchReason, Text


@dataclass(frozen=True, slots=True)
class NextDraftToken:
    """Let the draft model write one more token."""


@dataclass(frozen=True, slots=True)
class Score:
    """Let the base hold `tokens` and tell the log-probabilities of `tokens[start:]`."""

    tokens: Sequence[int]
    start: int


@dataclass(frozen=True, slots=True)
class NextBaseToken:
    """Let the base hold `tokens` and write the next one."""

    tokens: Sequence[int]


Request = NextDraftToken | Score | NextBaseToken


@dataclass(frozen=True, slots=True)
class Limits:
    """How far one reply may go.

    `max_tokens` counts base tokens of the whole reply, `draft_max_tokens` draft tokens. `check_chunk` is the
    number of base tokens of the draft checked together: it changes time, never the decision. `fixed` keeps exactly that
    many base tokens of the draft and checks none.
    """

    max_tokens: int = 2048
    draft_max_tokens: int = 512
    check_chunk: int = 8
    on_draft_end: Literal["continue", "stop"] = "continue"
    fixed: int | None = None
    stops: tuple[str, ...] = ()


class Phase(enum.Enum):
    """Where a reply stands."""

    DRAFT = "draft"
    CONTINUE = "continue"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class ReplyToken:
    """One base token of a reply. `text` is the part of the reply that it completed."""

    id: int
    text: str
    source: Source
    prob: float | None
    window: float | None


@dataclass(slots=True)
class Counts:
    """What happened on the way, for reports."""

    drafted_tokens: int = 0
    checked_tokens: int = 0
    rollbacks: int = 0
    moved_switches: int = 0


class Decoding:
    """The state machine of one reply. See the module's docstring for the protocol.

    Args:
        vocabulary: the tokenizer of the model that continues.
        prompt: its prompt as text, or as tokens if there is nothing to draft.
        policy: window and threshold.
        limits: lengths, stop strings, modes.
        writer: whose name the continuation carries; "draft" lets the draft model answer alone.
        drafting: False starts in the continuation.
        verbatim: the draft continues a text supplied by the caller, so its leading white space counts.
        exact: the draft follows a constraint, so all that it writes counts.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: str | Sequence[int],
        policy: SwitchPolicy,
        limits: Limits,
        *,
        writer: Source = "base",
        drafting: bool = True,
        verbatim: bool = False,
        exact: bool = False,
    ) -> None:
        self.limits = limits
        self.counts = Counts()
        self.phase = Phase.DRAFT if drafting else Phase.CONTINUE
        self.switch_reason: SwitchReason = "none"
        self.switch_index: int | None = None
        self.switch_confidence: float | None = None
        self.finish_reason: FinishReason | None = None
        self.kept_tokens = 0
        self.beyond: list[int] = []
        self._vocabulary = vocabulary
        self._prompt = prompt if isinstance(prompt, str) else ""
        self._prompt_tokens = vocabulary.tokenize(prompt) if isinstance(prompt, str) else list(prompt)
        self._writer: Source = writer
        self._verbatim = verbatim
        self._exact = exact
        self._detector = SwitchDetector(policy)
        self._decoder = utf8_decoder()
        self._raw = ""
        self._closed: SwitchReason | None = None
        self._now = Aligned(list(self._prompt_tokens))
        self._seen = 0
        self._settled = 0
        self._shown = 0
        self._outlet = Outlet(limits.stops, strip=writer == "draft" and not exact, verbatim=verbatim)
        self._events: deque[Event] = deque()
        self._base_logprobs: list[float | None] = []
        self.text = ""
        self.draft_text = ""

    # -- what is needed next ---------------------------------------------------------------------------------

    def request(self) -> Request | None:
        """What the machine needs next; None when the reply is done."""
        if self.phase is Phase.DRAFT and (step := self._pending_check()):
            start = self.prompt_length + self._checked
            return Score(self._now.tokens[: start + step], start)
        if self.phase is Phase.DRAFT:
            return NextDraftToken()
        return NextBaseToken(self._now.tokens) if self.phase is Phase.CONTINUE else None

    def take_events(self) -> Iterator[Event]:
        """The events that nobody has taken yet, oldest first."""
        while self._events:
            yield self._events.popleft()

    @property
    def prompt_length(self) -> int:
        """`n0`: number of tokens of the prompt alone."""
        return len(self._prompt_tokens)

    @property
    def prompt_tokens(self) -> list[int]:
        """The tokens of the prompt alone."""
        return self._prompt_tokens

    @property
    def reply_length(self) -> int:
        """Tokens behind the prompt that are kept or written so far."""
        return max(0, len(self._now.tokens) - self.prompt_length)

    @property
    def opening(self) -> bytes:
        """What is shown of the draft: after the switch, all of it that was kept."""
        return self._now.data[: self._shown]

    @property
    def room(self) -> int:
        """Tokens that the reply may still have."""
        return self.limits.max_tokens - self.reply_length

    @property
    def shown_tokens(self) -> int:
        """Tokens of the reply that are out."""
        return self._tokens_shown() if self.phase is Phase.DRAFT else self.reply_length

    # -- the draft -------------------------------------------------------------------------------------------

    def drafted(self, piece: bytes, spelling: bytes = b"") -> None:
        """The draft model wrote a token that stands for these bytes.

        `spelling` is how a control token is written that opens or closes a block of thinking: text only there.
        """
        self.counts.drafted_tokens += 1
        self._raw += self._decoder.decode(piece if self._draft_text() else spelling or piece)
        if find_stop(self._draft_text(), self.limits.stops) is not None:
            self._close("stop")
        elif self.counts.drafted_tokens >= self.limits.draft_max_tokens:
            self._close("draft_limit")
        else:
            self._look()

    def draft_ended(self) -> None:
        """The draft model wrote an end-of-generation token."""
        self._close("draft_end")

    def draft_exhausted(self) -> None:
        """The draft model's context is full."""
        self._close("draft_limit")

    def scored(self, logprobs: Sequence[float]) -> None:
        """The base's log-probabilities of the tokens of the last `Score`."""
        start = self._checked
        self.counts.checked_tokens += len(logprobs)
        index = self._detector.push(logprobs)
        self._events.append(
            Checked(
                start,
                tuple(math.exp(logprob) for logprob in self._detector.logprobs[start:]),
                tuple(self._detector.windows[start:]),
            )
        )
        if index is not None:
            self._pass(index)
        else:
            self._show()
            self._conclude()

    def hand_over(self) -> None:
        """Let the base continue from what has been shown, whatever the windows say."""
        if self.phase is Phase.DRAFT:
            if not self._shown:
                self._now = Aligned(self._prompt_tokens[:])
            self._switch("user", self._tokens_shown())

    @property
    def policy(self) -> SwitchPolicy:
        """The rule that holds now."""
        return self._detector.policy

    def steer(self, threshold: float) -> None:
        """Windows that are checked from here on must reach another threshold; above 1 the draft goes on to its end."""
        self._detector.policy = SwitchPolicy(self.policy.window, threshold)

    def _draft_text(self) -> str:
        if self._exact:
            return self._raw
        text = without_thinking(self._raw, over=self._closed is not None)
        return text if self._verbatim else text.lstrip()

    def _close(self, reason: SwitchReason) -> None:
        """No more draft text comes: all of it is settled."""
        self._raw += self._decoder.decode(b"", final=True)
        self._closed = reason
        text = self._draft_text()
        text = text[: find_stop(text, self.limits.stops)]
        self._raw = text if self._exact else text.rstrip()
        if reason == "draft_limit" and not self._raw:
            self._closed = "draft_end"
        self._look()

    def _look(self) -> None:
        """Tokenise again if more text is settled than before, and show what became final."""
        text = self._draft_text()
        settled = len(text)
        if self._closed is None:
            settled = settled_length(text)
            if held := possible_stop(text, self.limits.stops):  # a draft that ends there ends before its white space
                settled = min(settled, len(text[:-held].rstrip()))
            if settled <= self._seen or self._too_little(text[self._seen : settled]):
                return
        self._seen = settled
        new = align(self._vocabulary, self._prompt, self.prompt_length, text)
        self._roll_back(new)
        self._now = new
        border = len(text[:settled].encode())
        self._settled = sum(1 for end in new.ends[1:] if end <= border)
        if self._settled >= self.limits.max_tokens:
            self._settled = self.limits.max_tokens
            self._closed = "length"
        if self.limits.fixed is not None and self._settled >= self.limits.fixed:
            self._settled = self.limits.fixed
            self._closed = "draft_limit"
        self._show()
        self._conclude()

    def _too_little(self, new: str) -> bool:
        """Whether newly settled text is too short to show or check anything.

        The text alone is tokenised as an estimate: prompt and draft together can be long.
        """
        window, fixed = self._detector.policy.window, self.limits.fixed
        if fixed is not None:
            need = fixed - self._settled
        else:
            need = 1 if self._settled < window else self.limits.check_chunk - (self._settled - self._checked)
        return need > 1 and len(self._vocabulary.tokenize(new)) < need

    def _roll_back(self, new: Aligned) -> None:
        checked = self.prompt_length + self._checked
        if self._checked and new.tokens[:checked] != self._now.tokens[:checked]:
            same = common_prefix(new.tokens, self._now.tokens)
            self._detector.truncate(max(0, same - self.prompt_length))
            self.counts.rollbacks += 1

    @property
    def _checked(self) -> int:
        return len(self._detector.logprobs)

    def _pending_check(self) -> int:
        """Number of tokens to check now: a whole chunk, or what is left of a draft that is over."""
        if self.limits.fixed is not None:
            return 0
        chunk = self.limits.check_chunk
        if self._checked == 0:
            chunk = max(chunk, self._detector.policy.window)
        pending = self._settled - self._checked
        return min(chunk, pending) if self._closed or pending >= chunk else 0

    def _show(self) -> None:
        """Emit the draft tokens that no window can cut off any more."""
        final = self._settled
        if self.limits.fixed is None:
            final = min(final, max(self._detector.policy.window, self._checked + 1))
        if final:
            self._show_up_to(final)

    def _show_up_to(self, count: int) -> None:
        if (end := self._now.ends[count]) > self._shown:
            data, self._shown = self._now.data[self._shown : end], end
            self._emit(self._outlet.push(data, "draft"))

    def _tokens_shown(self) -> int:
        """The least number of draft tokens that hold all that was shown."""
        return sum(1 for end in self._now.ends if end < self._shown) if self._shown else 0

    def _pass(self, index: int) -> None:
        passed = self._detector.windows[index]
        shown = self._tokens_shown() - 1
        if shown > index:
            # A roll-back moved the switch behind text that is out already: it must stay.
            index = shown
            self.counts.moved_switches += 1
        self.switch_index, self.switch_confidence = index, passed
        self._switch("threshold", index + 1)

    def _conclude(self) -> None:
        """Leave the draft phase if the draft is over and all of it is checked."""
        if self.phase is not Phase.DRAFT or self._closed is None or self._pending_check():
            return
        self._switch(self._closed, self._settled)
        if self.finish_reason is None and (self._closed == "stop" or self._ends_with_draft()):
            self._finish("stop")

    def _ends_with_draft(self) -> bool:
        return self._closed == "draft_end" and self.limits.on_draft_end == "stop" and self._settled > 0

    def _switch(self, reason: SwitchReason, kept: int) -> None:
        self._show_up_to(kept)
        self.switch_reason, self.kept_tokens = reason, kept
        self.phase = Phase.CONTINUE
        self.beyond = self._now.tokens[self.prompt_length + kept :]
        self._now.tokens = self._now.tokens[: self.prompt_length + kept]
        self._events.append(Switched(reason, self.switch_index, kept, self.switch_confidence))
        if self.reply_length >= self.limits.max_tokens:
            self._finish("length")

    # -- the continuation ------------------------------------------------------------------------------------

    def continued(self, token: int, logprob: float | None = None) -> None:
        """The model that continues wrote `token`."""
        self._now.tokens.append(token)
        self._base_logprobs.append(logprob)
        prob = None if logprob is None else math.exp(logprob)
        self._emit(self._outlet.push(self._vocabulary.piece(token), self._writer), prob)
        if self._outlet.stopped:
            self._finish("stop")
        elif self.reply_length >= self.limits.max_tokens:
            self._finish("length")

    def base_ended(self) -> None:
        """The model that continues wrote an end-of-generation token, or nothing may follow what it wrote."""
        if self.phase is not Phase.DONE:
            self._finish("stop")

    def _finish(self, reason: FinishReason) -> None:
        self._emit(self._outlet.close(self._writer if self._base_logprobs else "draft"))
        self.phase = Phase.DONE
        self.finish_reason = reason

    def _emit(self, parts: list[tuple[str, str]], prob: float | None = None) -> None:
        for text, source in parts:
            from_draft = source == "draft"
            self.text += text
            self.draft_text += text if from_draft else ""
            self._events.append(Text(text, "draft" if from_draft else "base", prob))

    # -- what became of it -----------------------------------------------------------------------------------

    @property
    def discarded(self) -> str:
        """Draft text that was written but not kept."""
        return self._now.data[self._shown :].decode(errors="replace")

    def tokens(self) -> list[ReplyToken]:
        """The reply's tokens: those that wrote its text. Their texts, joined, are the reply's text.

        What was written and cut away is not among them: a stop string, white space that is stripped, what nobody sees
        at the end. A token of which a part is in the text is.
        """
        kept = self._tokens_shown() if self.phase is Phase.DRAFT else self.kept_tokens
        ids = self._now.tokens[self.prompt_length :][: self.shown_tokens]
        texts = token_texts(self._pieces(ids, kept), self.text, stripped=self._outlet.strips_beginning)
        probs = [math.exp(logprob) for logprob in self._detector.logprobs[:kept]]
        windows = self._detector.windows[:kept]
        unknown = [None] * (kept - len(probs))
        written = [None if logprob is None else math.exp(logprob) for logprob in self._base_logprobs]
        rows = zip(ids, texts, [*probs, *unknown, *written], strict=True)
        return [
            ReplyToken(
                token,
                text,
                "draft" if i < kept else self._writer,
                prob,
                windows[i] if i < len(windows) else None,
            )
            for i, (token, text, prob) in enumerate(rows)
            if text is not None
        ]

    def _pieces(self, ids: Sequence[int], kept: int) -> list[bytes]:
        """The bytes that each token stands for; those shared with the prompt go to the first one."""
        ends = [0, *self._now.ends[1 : kept + 1]]
        pieces = [self._now.data[a:b] for a, b in pairwise(ends)] + [self._vocabulary.piece(t) for t in ids[kept:]]
        if pieces and not kept:
            pieces[0] = self._now.data[: self._shown] + pieces[0]
        return pieces
