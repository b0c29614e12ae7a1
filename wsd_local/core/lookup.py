"""Prompt look-up: what followed the last tokens of a text where they stood before in it.

Contract: pure. The text only grows from call to call; each token is indexed once.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.core.alignment import common_prefix

GRAM, LONGEST, PLACES = 3, 16, 8
"""Tokens that must match, tokens that are compared at most, and places at which they are compared."""


class LookUp:
    """Index of the places of a growing text by the tokens before them."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], int] = {}
        self._before: list[int] = [0] * GRAM

    def find(self, tokens: Sequence[int], most: int) -> tuple[list[int], int]:
        """At most `most` tokens that may follow, and how many tokens before them match the end of the text."""
        for place in range(len(self._before), len(tokens)):
            gram = tuple(tokens[place - GRAM : place])
            self._before.append(self._last.get(gram, 0))
            self._last[gram] = place
        place = self._last.get(tuple(tokens[-GRAM:]), 0) if len(tokens) > GRAM else 0
        if not place or most < 1:
            return [], 0
        last, found = tokens[-LONGEST:][::-1], (0, 0)
        for _ in range(PLACES):
            found = max(found, (common_prefix(last, tokens[max(0, place - LONGEST) : place][::-1]), place))
            if not (place := self._before[place]):
                break
        length, place = found
        following = list(tokens[place : place + most])
        while len(following) < most:  # a text that repeats itself
            following.append(following[place - len(tokens)])
        return following, length
