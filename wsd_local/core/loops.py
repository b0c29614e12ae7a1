"""Text that repeats itself without end, found while it grows.

Contract: pure; characters in, positions out. What is found depends on the text alone, never on the pieces in which it
arrives.

A text ends in a loop if its last characters are at least `PERIODS` periods of one string of at most `LONGEST`
characters, and at least `CHARACTERS` characters long; of scripts that write a syllable or a word with one character,
`WIDE` of these are enough. Repeated white space, punctuation, digits and lines drawn of characters (rules, tables,
lists of numbers) are no loop: the string must hold a letter or a symbol such as an emoji.

For each of the last `LONGEST` distances, the length of the copy that the text ends in is kept: the number of last
characters that equal those so far before them. So a repetition is known from its first character on, long before it is
a loop, and a writer can hold back what may have to be taken out.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict, deque
from dataclasses import dataclass

LONGEST = 200
"""Longest string whose repetition is found, in characters."""
PERIODS = 3.5
"""Periods of it from which on a repetition is a loop."""
CHARACTERS, WIDE = 60, 24
"""Characters from which on it is one, of most scripts and of those with wide characters."""
WORD = 64
"""Longest word, in characters, that a cut is moved out of."""

_FIRST_WIDE = "\u2e80"
_DRAWN = range(0x2500, 0x2600)
"""Box drawing, blocks and geometric shapes."""


@dataclass(frozen=True, slots=True)
class Loop:
    """The first `end` characters of a text end in a loop that begins at `start`; `period` is the string's length."""

    start: int
    period: int
    end: int


class LoopFinder:
    """The loop in a growing text, None as long as there is none; what follows it is not looked at.

    Attributes:
        loop: the loop.
    """

    def __init__(self) -> None:
        self.loop: Loop | None = None
        self._text = ""
        self._places: defaultdict[str, deque[int]] = defaultdict(deque)
        self._copied: dict[int, int] = {}
        self._last_telling = -1

    def feed(self, text: str) -> None:
        """Append to the text."""
        for position, char in enumerate(text, start=len(self._text)):
            if self.loop is not None:
                return
            self._text += char
            self._append(position, char)

    def repeated(self, periods: int) -> int:
        """Where period `periods` (2 or more) of a repetition that the text ends in begins; its length without one.

        Of several the first.
        """
        distance = len(self._text) - self._last_telling
        copied = (length - (periods - 2) * period for period, length in self._copied.items() if period >= distance)
        return len(self._text) - max(0, max(copied, default=0))

    @property
    def second_period(self) -> int:
        """Where the second period of the loop begins, moved to the nearest border of a word if that is not far."""
        assert self.loop is not None
        at = self.loop.start + self.loop.period
        near = range(max(self.loop.start, at - WORD) + 1, min(self.loop.end, at + WORD))
        return min((cut for cut in near if self._is_border(cut)), key=lambda cut: (abs(cut - at), cut), default=at)

    @property
    def third_period(self) -> int:
        """Where the third period of the loop begins, at the end of a word if that is not far after."""
        assert self.loop is not None
        at = self.loop.start + 2 * self.loop.period
        last = min(self.loop.end, at + WORD)
        return next((cut for cut in range(at, last) if self._is_border(cut)), at)

    def _append(self, position: int, char: str) -> None:
        places, before = self._places[char], self._copied
        while places and places[0] < position - LONGEST:
            places.popleft()
        self._copied = {position - place: before.get(position - place, 0) + 1 for place in places}
        places.append(position)
        if _tells(char):
            self._last_telling = position
        for period in sorted(p for p, length in self._copied.items() if length + p >= PERIODS * p):
            start = position + 1 - period - self._copied[period]
            if period > position - self._last_telling and _is_long(self._text[start:]):
                self.loop = Loop(start, period, position + 1)
                return

    def _is_border(self, cut: int) -> bool:
        """Whether a cut there goes through no word."""
        return self._text[cut - 1].isspace() or self._text[cut : cut + 1].isspace()


def _is_long(text: str) -> bool:
    wide = sum(char >= _FIRST_WIDE for char in text)
    return wide * CHARACTERS + (len(text) - wide) * WIDE >= CHARACTERS * WIDE


def _tells(char: str) -> bool:
    """Whether a character is a letter or a symbol, and no punctuation, digit, white space or part of a drawing."""
    return unicodedata.category(char)[0] in "LM" or (unicodedata.category(char) == "So" and ord(char) not in _DRAWN)
