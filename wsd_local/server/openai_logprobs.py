"""Log-probabilities as OpenAI's completions have them: four lists of equal length.

Contract: `text_offset` counts characters from the beginning of the answer's text. A token that ends inside a character
is written as its bytes, `bytes:\\xe2\\x98`, as OpenAI does.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

from wsd_local.events import TokenDetails
from wsd_local.server.openai_answers import UNKNOWN_LOGPROB, logprob


class CompletionLogprobs:
    """The log-probabilities of one text, token by token.

    Args:
        top: alternatives for each token; the token itself stands beside them.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rows: list[tuple[str, float | None, dict[str, float] | None, int]] = []

    def add(self, piece: bytes, value: float | None, top: Sequence[tuple[bytes, float]] = ()) -> None:
        """Add a token: its bytes, its log-probability (None for the first of a text), and the best in its place."""
        token = spelled(piece)
        best = {} if value is None else {spelled(other): logprob(one) for other, one in reversed(top[: self._top])}
        if value is not None:
            best[token] = logprob(value)
        ranked = dict(sorted(best.items(), key=lambda one: -one[1]))
        self._rows.append((token, None if value is None else logprob(value), ranked or None, self._offset))
        self._offset += len(self._decoder.decode(piece))

    def add_all(self, tokens: Iterable[TokenDetails]) -> None:
        """Add tokens of a reply."""
        for token in tokens:
            self.add(token.piece, logprob(token.logprob), [(piece, one) for _, piece, one in token.alternatives])

    def add_end(self) -> None:
        """Add an entry without text, for the token that ended a reply in which no other was written.

        Clients that ask for one token after an echoed prompt leave out the last entry, whatever it is.
        """
        self.add(b"", UNKNOWN_LOGPROB)

    def copy(self) -> CompletionLogprobs:
        """The same so far, to be continued separately."""
        other = CompletionLogprobs(self._top)
        other._offset, other._rows = self._offset, list(self._rows)
        other._decoder.setstate(self._decoder.getstate())
        return other

    def take(self) -> dict[str, Any]:
        """What was added since the last call."""
        rows, self._rows = self._rows, []
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def spelled(piece: bytes) -> str:
    """A token as text, or as its bytes where it is none."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
