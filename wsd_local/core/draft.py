"""The draft's text as it grows, and the base's tokens of the part that is settled.

Contract: pure. Bytes of draft tokens come in; `settle` tokenises the text anew, together with the base's prompt, when
enough of it is settled. A tokenisation replaces the one before it, and may differ from it anywhere.

A block of thinking at the beginning is never part of the text (`text.without_thinking`), unless the draft follows a
constraint: then all that it writes is the text.

Where loops are looked for (`core.loops`), text that repeats what stands shortly before it is not settled as long as it
does: if it becomes a loop, the draft ends where the second period begins, and nothing after that was ever tokenised for
the base.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Literal

from wsd_local.core.alignment import Aligned, TokenisedPrompt, Vocabulary, align, joins_runs
from wsd_local.core.limits import Limits
from wsd_local.core.loops import LoopFinder
from wsd_local.core.text import find_stop, possible_stop, settled_length, utf8_decoder, without_thinking


@dataclass(frozen=True, slots=True)
class DraftOptions:
    """Which parts of what the draft writes are text.

    With `verbatim` it continues a text supplied by the caller, so its leading white space counts. With `exact` it
    follows a constraint, so all that it writes counts.
    """

    verbatim: bool = False
    exact: bool = False


PLAIN = DraftOptions()
"""A draft that begins an answer in free text."""


class DraftText:
    """The text of one draft after the base's prompt.

    Args:
        vocabulary: the base's tokenizer.
        prompt: the base's prompt, as text and tokens.
        limits: the draft ends at the first of their stop strings, or in a loop.
        options: which parts of what the draft writes are text.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prompt: TokenisedPrompt,
        limits: Limits,
        options: DraftOptions,
    ) -> None:
        self.aligned = Aligned(list(prompt.tokens))
        self.settled = 0
        self._vocabulary = vocabulary
        self._prompt, self._prompt_length = prompt.text, len(prompt.tokens)
        self._stops = limits.stops
        self._verbatim, self._exact = options.verbatim, options.exact
        self._decoder = utf8_decoder()
        self._raw = ""
        self._begins: list[int] = []
        self._before = 0
        self._over = False
        self._stop: str | None = None
        self._seen = 0
        self._loops = LoopFinder() if limits.loops else None
        self._watched = 0
        self._joined: dict[str, bool] = {}

    @property
    def text(self) -> str:
        """The draft's text so far, without thinking and without leading white space where that does not count."""
        if self._exact:
            return self._raw
        text = without_thinking(self._raw, over=self._over)
        return text if self._verbatim else text.lstrip()

    @property
    def stop(self) -> str | None:
        """The stop string that the text contains, or that it was cut before; None without one."""
        found = find_stop(self.text, self._stops)
        return self._stop if found is None else found[1]

    @property
    def ended(self) -> Literal["stop", "loop"] | None:
        """What the text has come to that ends the draft: of a stop string and a loop, the one completed first."""
        text = self.text
        found = find_stop(text, self._stops)
        loop = None if self._loops is None else self._loops.loop
        if loop is None:
            return None if found is None else "stop"
        return "loop" if found is None or loop.end < found[0] + len(found[1]) else "stop"

    def write(self, piece: bytes, spelling: bytes) -> None:
        """Append a token's bytes; `spelling` replaces them as long as no text has begun, see `Decoding.drafted`."""
        self._begins.append(len(self._raw))
        self._raw += self._decoder.decode(piece if self.text else spelling or piece)
        self._before = len(self._raw) - len(self.text)
        if self._loops is not None:
            text = self.text
            self._loops.feed(text[self._watched :])
            self._watched = len(text)

    def token_at(self, place: int) -> int:
        """The number of the draft's token, from 0, in which character `place` of the text begins."""
        begins = self._begins
        return bisect_left(begins, begins[bisect_right(begins, place + self._before) - 1])

    def close(self) -> None:
        """Nothing is written any more: cut the text before a stop string or a loop, and settle all of it."""
        if self._loops is not None and self.ended == "loop":
            self._raw = self.text[: self._loops.second_period]
        else:
            self._raw += self._decoder.decode(b"", final=True)
        self._over = True
        text = self.text
        if (found := find_stop(text, self._stops)) is not None:
            text, self._stop = text[: found[0]], found[1]
        self._raw = text if self._exact else text.rstrip()

    def settle(self, need: int) -> bool:
        """Tokenise anew if at least `need` more tokens of text are settled, or the draft is over; whether it was done.

        `settled` is the number of settled tokens after the prompt.
        """
        text = self.text
        length = len(text)
        if not self._over:
            unrepeated = len(text) if self._loops is None else self._loops.repeated(2)
            length = settled_length(text[:unrepeated], runs=self._joins_run(text[:unrepeated]))
            if held := possible_stop(text, self._stops):  # a draft that ends there ends before its white space
                length = min(length, len(text[:-held].rstrip()))
            if length <= self._seen or not self._holds(text[self._seen : length], need):
                return False
        self._seen = length
        self.aligned = align(self._vocabulary, self._prompt, self._prompt_length, text)
        border = len(text[:length].encode())
        self.settled = sum(1 for end in self.aligned.ends[1:] if end <= border)
        return True

    def _joins_run(self, text: str) -> bool:
        """Whether the tokens of the run of one character that a text ends in depend on its length."""
        if len(text) < 2 or text[-1] != text[-2]:
            return True
        if text[-1] not in self._joined:
            self._joined[text[-1]] = joins_runs(self._vocabulary, text[-1])
        return self._joined[text[-1]]

    def _holds(self, new: str, need: int) -> bool:
        """Whether a text has so many tokens; alone, as an estimate: prompt and draft together can be long."""
        return need <= 1 or len(self._vocabulary.tokenize(new)) >= need
