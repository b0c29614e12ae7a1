"""The tokens that wrote a reply, and which of them are out already.

Contract: pure. Tokens whose text was cut away whole (a stop string, stripped white space, invisible ones at the end)
are none of the reply's; a token of which a part is in the text is. `Written` finds the same tokens while the reply
grows, at a cost that does not grow with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from wsd_local.core.alignment import token_texts
from wsd_local.core.rules import Score, probability
from wsd_local.core.text import utf8_decoder
from wsd_local.events import FinishReason, Source, TokenDetails


@dataclass(frozen=True, slots=True)
class ReplyToken:
    """One base token: `text` is the part of the reply that it completed, `window` the rule's confidence at it."""

    id: int
    text: str
    source: Source
    prob: float | None
    window: float | None


@dataclass(frozen=True, slots=True)
class TokenWritten:
    """A token that is shown or written, before cuts: `data` is what it adds, `score` its score if that is known."""

    id: int
    data: bytes
    source: Source
    score: Score | None
    window: float | None = None


class Writing(Protocol):
    """A reply that grows."""

    @property
    def text(self) -> str:
        """What is out of it."""
        ...

    @property
    def shown_tokens(self) -> int:
        """Tokens that are shown or written."""
        ...

    @property
    def scored_tokens(self) -> int:
        """Tokens at the beginning of which no score is to come any more."""
        ...

    @property
    def finish_reason(self) -> FinishReason | None:
        """What ended it; None until it is complete."""
        ...

    @property
    def strips_beginning(self) -> bool:
        """Whether white space at its beginning is cut away."""
        ...

    def token(self, index: int) -> TokenWritten:
        """One of the tokens that are shown or written."""
        ...


def reply_tokens(reply: Writing) -> list[ReplyToken]:
    """The tokens that wrote the text that is out; their texts, joined, are that text."""
    written = [reply.token(index) for index in range(reply.shown_tokens)]
    texts = token_texts([token.data for token in written], reply.text, stripped=reply.strips_beginning)
    probs = [None if token.score is None else probability(token.score.logprob) for token in written]
    return [
        ReplyToken(token.id, part, token.source, prob, token.window)
        for token, part, prob in zip(written, texts, probs, strict=True)
        if part is not None
    ]


class Written:
    """Which tokens wrote the text that is out.

    Args:
        reply: the reply that grows.
        piece: the bytes that a token stands for.
    """

    def __init__(self, reply: Writing, piece: Callable[[int], bytes]) -> None:
        self._reply, self._piece = reply, piece
        self._decoder = utf8_decoder()
        self._read = self._length = 0
        self._waiting: deque[tuple[int, int, int]] = deque()

    def take(self) -> tuple[TokenDetails, ...]:
        """The tokens that wrote the text since the last call, as soon as their scores are known."""
        self._take_in()
        reply, found, invisible = self._reply, list[TokenDetails](), 0
        out, scored = len(reply.text), reply.scored_tokens
        for index, begin, end in self._waiting:
            if begin >= out or index >= scored:
                break
            invisible += 1
            if end > begin:
                found += [self._details(self._waiting[at][0]) for at in range(len(found), len(found) + invisible)]
                invisible = 0
        for _ in found:
            self._waiting.popleft()
        return tuple(found)

    def _take_in(self) -> None:
        """Read the tokens that are new: where each one's text begins and ends."""
        reply = self._reply
        while self._read < reply.shown_tokens:
            index, self._read = self._read, self._read + 1
            part = self._decoder.decode(reply.token(index).data)
            if reply.strips_beginning and not self._length and part:
                part = part.lstrip()
                if not part:
                    self._waiting.clear()
                    continue
            self._add(index, part)
        if reply.finish_reason is not None and self._waiting and (rest := self._decoder.decode(b"", final=True)):
            index, begin, end = self._waiting.pop()
            self._length += len(rest)
            self._waiting.append((index, begin, end + len(rest)))

    def _add(self, index: int, part: str) -> None:
        begin, self._length = self._length, self._length + len(part)
        self._waiting.append((index, begin, self._length))

    def _details(self, index: int) -> TokenDetails:
        token = self._reply.token(index)
        score = token.score
        others = () if score is None else tuple((id, self._piece(id), logprob) for id, logprob in score.top)
        return TokenDetails(
            token.id, self._piece(token.id), token.source, None if score is None else score.logprob, others
        )
