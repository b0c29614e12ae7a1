"""A reply whose draft comes back: any number of turns of both models.

Contract: as `core.decoding`, whose protocol `Relay` adds to: where `may_return` holds, an engine gives the base's view
to `returns` before a token is written, and if that is True it writes none; the next request is then for the draft.
Where `take_rereading` is True, the draft first reads the reply's text `written` as the beginning of its answer. After a
later turn of the draft, `take_unseen` gives what the sampler of the base has not seen yet. `Returning` is the reply
under the rule `return`.

A later turn is the same state machine over another prompt: all tokens so far, exactly as they were written, and the
tokens of the draft's new text alone after them. Its windows, its loops and its thinking are its own; stop strings, the
loop guard of the reply, and the text that is held back belong to the whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from wsd_local.core.alignment import After, Aligned, TokenisedPrompt, Vocabulary
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.draft import PLAIN, DraftOptions, DraftText
from wsd_local.core.limits import Limits
from wsd_local.core.rules import Rule
from wsd_local.core.rules_return import Return
from wsd_local.events import Returned, SwitchReason


class Relay(Decoding, ABC):
    """The state machine of a reply in which the draft may come back.

    Args:
        vocabulary: the tokenizer of the base.
        prompt: its prompt.
        rule: decides where the base takes over.
        limits: lengths and stop strings; `draft_max_tokens` holds for each turn of the draft.
        plain: the base's tokens of a text alone.
        options: as for `Decoding`.
        top: as for `Decoding`.

    Attributes:
        readings: how often the draft has read the reply anew.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: TokenisedPrompt | str,
        rule: Rule,
        limits: Limits,
        *,
        plain: Callable[[str], list[int]],
        options: DraftOptions = PLAIN,
        top: int = 0,
    ) -> None:
        super().__init__(vocabulary, prompt, rule, limits, options=options, top=top)
        self._plain = plain
        self._later_options = replace(options, verbatim=True)
        self._unseen: tuple[list[int], bytes] | None = None
        self.readings, self._rereads = 0, False

    @property
    @abstractmethod
    def may_return(self) -> bool:
        """Whether the draft may come back before the next token of the base."""

    @abstractmethod
    def returns(self, token: int, top1: float, *, ends: bool) -> bool:
        """Whether the draft takes the reply up here: `token` is the base's most probable one, `top1` its probability.

        `ends`: it ends the text.
        """

    def take_rereading(self) -> bool:
        """Whether the draft must read the reply anew before it writes, once."""
        rereads, self._rereads = self._rereads, False
        return rereads

    def take_unseen(self) -> tuple[list[int], bytes] | None:
        """Tokens and text of the draft's last turn, once; None for the first turn."""
        unseen, self._unseen = self._unseen, None
        return unseen

    @property
    def written(self) -> bytes:
        """The reply so far, with what is held back of it."""
        return b"".join(self.token(index).data for index in range(self.reply_length))

    def _begins_word(self, token: int) -> bool:
        """Whether a word begins at the end of the reply, if it goes on with `token`."""
        last = b"".join(self.token(index).data for index in range(max(0, self.reply_length - 4), self.reply_length))
        return begins_word(last, self._vocabulary.piece(token))

    def _switch(self, reason: SwitchReason, kept: int, confidence: float | None = None) -> None:
        is_first = not self.turns
        super()._switch(reason, kept, confidence)
        if not is_first:
            self._unseen = self._now.tokens[self._start :], self.opening

    def _take_up(self) -> None:
        tokens = list(self._now.tokens)
        self._earlier += [self.token(index) for index in range(len(self._earlier), self.reply_length)]
        self._discarded += self._now.data[self._shown :].decode(errors="replace")
        self._drafted_before = self.counts.drafted_tokens
        self._begun_with, self._start = tokens, len(tokens)
        after = After(tokens, self._plain, self._vocabulary.piece)
        self._draft = DraftText(after, TokenisedPrompt("", tokens), self.limits, self._later_options)
        self._scores, self._confidences, self._base_scores = [], [], []
        self._closed, self._now, self._settled, self._shown = None, Aligned(tokens), 0, 0
        self.rule.truncate(0)
        self.beyond = []
        self.readings, self._rereads = self.readings + 1, True
        self.phase = Phase.DRAFT


class Returning(Relay):
    """The state machine of a reply under the rule `return`. The arguments are those of `Relay`."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: TokenisedPrompt | str,
        rule: Return,
        limits: Limits,
        *,
        plain: Callable[[str], list[int]],
        options: DraftOptions = PLAIN,
        top: int = 0,
    ) -> None:
        super().__init__(vocabulary, prompt, rule, limits, plain=plain, options=options, top=top)
        self._returning = rule

    @property
    def may_return(self) -> bool:
        """As the rule says."""
        written = self.reply_length - self.turns[-1].end if self.turns else 0
        return self.phase is Phase.CONTINUE and self._returning.may_return(written, len(self.turns))

    def returns(self, token: int, top1: float, *, ends: bool = False) -> bool:
        """Whether the base is unsure where a word begins."""
        if ends or not (self.may_return and self._begins_word(token) and self._returning.is_unsure(top1)):
            return False
        self._end_turn("base", "unsure", top1)
        self._events.append(Returned(self.reply_length, top1))
        self._take_up()
        return True


def begins_word(before: bytes, piece: bytes) -> bool:
    """Whether a word begins between a text that ends in `before` and `piece`; half a character is no white space."""
    return piece[:1].isspace() or before.decode(errors="replace")[-1:].isspace()
