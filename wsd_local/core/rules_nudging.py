"""The rule `nudging`: the base writes where it is sure, and the draft lends it words where it is not.

Contract: pure arithmetic and text, as `core.rules`; `core.nudge` is the machine that asks it. The rule is that of Fei,
Razeghi and Singh (2024, arXiv 2410.09300). Let `p1` be the largest probability of the base's next token. The draft
writes `ROUND` tokens at a time, and their text is split into words at single spaces. The first word stands. Before each
next word the base takes over if its most probable token begins that word, or if `p1 >= γ`; else the word stands. The
base writes as long as `p1 >= γ`. A draft that ends within `ROUND` tokens ends the reply.

`Nudging` fulfils `Rule` for the machine's sake, but it decides before words (`takes_over`), not after tokens (`push`).
"""

from __future__ import annotations

import math
from typing import Literal

from wsd_local.core.rules import Score
from wsd_local.errors import UsageError, short

ROUND = 16
"""Tokens that the draft writes before the base is asked; with fewer left, the draft's end is the reply's."""
REPEATS = 3
"""Rounds with the same words in a row that end the reply."""


class Nudging:
    """Where the base takes over from the draft, and where it calls the draft back.

    Args:
        threshold: `γ`, from 0 (the base takes over at once and never calls the draft) to 1.

    Attributes:
        threshold: `γ`. It may be raised above 1 while a reply is written: then the draft writes to its end.
        confidence: the `p1` that decided last.

    Raises:
        UsageError: the threshold is outside its range.
    """

    needs_distribution = False
    lookahead = 1
    kept_at_least = 0

    def __init__(self, threshold: float) -> None:
        if math.isnan(threshold) or not 0 <= threshold <= 1:
            raise UsageError(f"nudging is {short(threshold)}: it is a probability and must lie between 0 and 1")
        self.threshold = threshold
        self.confidence: float | None = None

    def takes_over(self, word: bytes, token: bytes, top1: float) -> Literal["threshold", "match"] | None:
        """Why the base takes over before `word`, which begins with its space; None if the word stands.

        `token` is what the base's most probable token stands for, `top1` that token's probability.
        """
        if self.is_sure(top1):
            return "threshold"
        return "match" if token and word.startswith(token) and self.threshold <= 1 else None

    def is_sure(self, top1: float) -> bool:
        """Whether the base knows how to go on."""
        self.confidence = top1
        return top1 >= self.threshold

    def push(self, score: Score) -> int | None:
        """Tokens that the draft has written decide nothing."""
        return None

    def truncate(self, length: int) -> None:
        """There is nothing to forget."""


def borders(text: str) -> list[int]:
    """Where the words of a text end after which another one follows: positions of the spaces before those words.

    Words are what single spaces separate, so that several spaces in a row enclose empty words, which are no words to
    ask the base about; spaces at the beginning belong to the first word.
    """
    begin = len(text) - len(text.lstrip(" "))
    return [i for i in range(begin, len(text) - 1) if text[i] == " " and text[i + 1] != " "]


def word_at(text: str, border: int) -> str:
    """The word that follows a border, with its space."""
    end = text.find(" ", border + 1)
    return text[border:] if end < 0 else text[border:end]


def whole_words(text: str) -> int:
    """Length of a round's text without its last word, which the round may have cut; of a single word the whole."""
    begin = len(text) - len(text.lstrip(" "))
    return text.rfind(" ") if " " in text[begin:] else len(text)
