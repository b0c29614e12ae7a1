"""Text that arrives in pieces: what of it is final, and what must wait.

Contract: pure functions and one small class over strings and bytes. Nothing here knows a model. What waits,
waits because a later piece can still change it: half a UTF-8 character, a possible beginning of a stop string,
or the end of a growing text whose tokens are not settled yet.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Literal

from wsd_local.core.loops import LoopFinder

HOLD_BACK_CAP = 64
"""Longest unfinished word, in characters, that holds back the text before it."""

RUN_CAP = 256
"""The same for a run of one repeated character, such as a ruler: long runs are tokenised as a whole."""

THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
)
"""How models open and close a block of thinking."""

THINKING_MARKS = frozenset(mark for pair in THINKING for mark in pair) | {"<|channel>"}
"""Spellings that the way out of a thinking block is found by, also where they are control tokens."""

_LAST_WORD = re.compile(r"\s*\S*\s*\Z")


def settled_length(text: str, *, runs: bool = True) -> int:
    """Number of leading characters whose tokens a longer text is not expected to change.

    Held back are the last word with the white space around it (at most `HOLD_BACK_CAP` characters, for text
    without spaces) and, with `runs`, a run of one repeated character at the end (at most `RUN_CAP`).
    """
    if not text:
        return 0
    # A word longer than the cap is cut anyway, so only the tail needs to be looked at.
    tail = len(text.rstrip()) - HOLD_BACK_CAP
    match = _LAST_WORD.search(text, max(0, tail))
    word = match.start() if match else len(text)
    run = max(len(text.rstrip(text[-1])), len(text) - RUN_CAP) if runs else len(text)
    return min(word, run)


def find_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """The stop string that is completed first, and where `text` must be cut for it, or None.

    Of several that are completed by the same character the longest counts.
    """
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1:] if found else None


def possible_stop(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that is a proper beginning of a stop string."""
    longest = min(len(text), max((len(stop) for stop in stops), default=1) - 1)
    for length in range(longest, 0, -1):
        end = text[-length:]
        if any(len(stop) > length and stop.startswith(end) for stop in stops):
            return length
    return 0


def without_thinking(text: str, *, over: bool) -> str:
    """A growing text without the thinking blocks at its beginning: nothing as long as one is open or may be opened.

    `over`: the text does not grow any more, so that half a mark is text.
    """
    while begun := text.lstrip():
        marks = next(((left, right) for left, right in THINKING if begun.startswith(left)), None)
        if marks is None:
            undecided = not over and any(left.startswith(begun) for left, _ in THINKING)
            return "" if undecided else text
        _, closed, text = begun.partition(marks[1])
        text = text.lstrip() if closed else ""
    return text


def utf8_decoder() -> codecs.IncrementalDecoder:
    """A decoder that waits for the rest of a character; broken bytes become U+FFFD."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


class Outlet:
    """The way out of a reply: bytes with their source go in, text that is final comes out.

    Joined, everything that `push` and `close` return equals the text of all bytes (UTF-8, broken bytes as
    U+FFFD), cut at the stop string that is completed first or, with `loops`, after the second period of a loop that
    is found before it (`core.loops`); with `strip` without surrounding white space (with `verbatim` only at its end).

    Attributes:
        stop: that stop string, None as long as there is none.
        ended: whether a stop string or a loop has ended the text.
    """

    def __init__(
        self, stops: Sequence[str], *, strip: bool = False, verbatim: bool = False, loops: bool = False
    ) -> None:
        self.stop: str | None = None
        self.ended: Literal["stop", "loop"] | None = None
        self._loops = LoopFinder() if loops else None
        self._out = 0
        self._stops = tuple(stops)
        self.strips = strip
        self.strips_beginning = strip and not verbatim
        self._begun = False
        self._decoder = utf8_decoder()
        self._held: list[tuple[str, str]] = []

    def push(self, data: bytes, source: str) -> list[tuple[str, str]]:
        """Take the bytes of `source`; return what is final now, as (text, source)."""
        return self._release(self._decoder.decode(data), source, last=False)

    def close(self, source: str) -> list[tuple[str, str]]:
        """Nothing follows: return what was held back. Half a character counts as of `source`."""
        return self._release(self._decoder.decode(b"", final=True), source, last=True)

    def _release(self, text: str, source: str, *, last: bool) -> list[tuple[str, str]]:
        if self.ended is not None:
            return []
        if self.strips_beginning and not self._begun:
            text = text.lstrip()
            self._begun = bool(text)
        self._held.append((text, source))
        whole = "".join(held for held, _ in self._held)
        cut = len(whole) if last else len(whole) - possible_stop(whole, self._stops)
        found = find_stop(whole, self._stops)
        if self._loops is not None:
            self._loops.feed(text)
            cut = self._before_repetition(cut, last, None if found is None else found[0] + len(found[1]))
        if self.ended is None and found is not None:
            cut, self.stop = found
            self.ended = "stop"
        if self.strips:
            cut = len(whole[:cut].rstrip())
        return self._take(cut)

    def _before_repetition(self, cut: int, last: bool, stopped: int | None) -> int:
        """Where the held text must be cut for a loop, or may have to be; `stopped` is where a stop string is complete.

        A repetition is held back from its third period on.
        """
        assert self._loops is not None
        loop = self._loops.loop
        if loop is not None and (stopped is None or loop.end - self._out < stopped):
            self.ended = "loop"
            return max(0, self._loops.third_period - self._out)
        return cut if last else min(cut, max(0, self._loops.repeated(3) - self._out))

    def _take(self, length: int) -> list[tuple[str, str]]:
        out: list[tuple[str, str]] = []
        while self._held and length > 0:
            text, source = self._held.pop(0)
            if len(text) > length:
                self._held.insert(0, (text[length:], source))
                text = text[:length]
            length -= len(text)
            self._out += len(text)
            if text:
                out.append((text, source))
        return out
