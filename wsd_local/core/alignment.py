"""Which token stands for which part of a text.

Contract: pure. A prompt and the text after it are tokenised as one string, so the border between them need not be a
border between tokens; positions are bytes of the text, because a token can end inside a character.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

from wsd_local.core.text import utf8_decoder

RUN = 32
"""Characters of a run from which it is seen whether a vocabulary joins them."""


class Vocabulary(Protocol):
    """The part of a tokenizer that alignment uses: pure functions."""

    def tokenize(self, text: str) -> list[int]:
        """Tokens of a prompt, with BOS if the vocabulary wants it; control tokens' spellings stay text."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for."""
        ...


class After:
    """A vocabulary for texts after given tokens, which need not be those that the vocabulary would write."""

    def __init__(self, tokens: Sequence[int], plain: Callable[[str], list[int]], piece: Callable[[int], bytes]) -> None:
        self._tokens, self._plain = list(tokens), plain
        self.piece = piece

    def tokenize(self, text: str) -> list[int]:
        """The tokens, and those of the text alone."""
        return [*self._tokens, *self._plain(text)]


@dataclass(frozen=True, slots=True)
class TokenisedPrompt:
    """A prompt as text and as tokens, so that it is tokenised once. The text is empty where nothing follows it."""

    text: str
    tokens: Sequence[int]


@dataclass(slots=True)
class Aligned:
    """A prompt and a text after it as tokens.

    `ends[j]` is where the first `j` tokens after the prompt's own end, in bytes of `data`, the text; `ends[0]` is
    not 0 where prompt and text share a token.
    """

    tokens: list[int]
    ends: list[int] = field(default_factory=lambda: [0])
    data: bytes = b""

    def pieces(self, count: int) -> list[bytes]:
        """The bytes of `data` that each of the first `count` tokens stands for; shared bytes are the first's."""
        return [self.data[start:end] for start, end in pairwise([0, *self.ends[1 : count + 1]])]


def align(vocabulary: Vocabulary, prompt: str, prompt_length: int, text: str) -> Aligned:
    """Tokenise `prompt + text` as one string; `prompt_length` is the number of tokens of the prompt alone."""
    tokens = vocabulary.tokenize(prompt + text)
    pieces = [vocabulary.piece(token) for token in tokens[prompt_length:]]
    data, joined = text.encode(), b"".join(pieces)
    if joined[-len(data) :] != data and not data.endswith(joined):
        data = joined  # a vocabulary that rewrites text: what the model reads is what counts
    end = len(data) - len(joined)
    ends = [max(0, end), *(max(0, end := end + len(piece)) for piece in pieces)]
    return Aligned(tokens, ends, data)


def joins_runs(vocabulary: Vocabulary, character: str) -> bool:
    """Whether a token can stand for parts of two neighbours in a run of one character.

    Where none does in a short run, none does in a longer one: vocabularies build tokens by joining neighbours, and the
    inside of a run is everywhere the same. So the tokens of such a run do not depend on its length.
    """
    run, size = character * RUN, len(character.encode())
    ends = set(align(vocabulary, "", len(vocabulary.tokenize("")), run).ends)
    return not ends.issuperset(range(size, RUN * size + 1, size))


def token_texts(pieces: Sequence[bytes], text: str, *, stripped: bool) -> list[str | None]:
    """Each piece's part of `text`, which is that of all pieces, possibly cut at its end and stripped at its beginning.

    A character belongs to the piece that completes it. None: what the piece stands for was cut away, with all before it
    or with all after it; such pieces wrote nothing of the text.
    """
    decoder, left, first = utf8_decoder(), len(text), 0
    texts: list[str | None] = []
    for i, piece in enumerate(pieces):
        part = decoder.decode(piece, final=i == len(pieces) - 1)
        if stripped and left == len(text) and part:
            part = part.lstrip()
            first = first if part else i + 1
        texts.append(part[:left])
        left -= len(part[:left])
    last = max((i for i, part in enumerate(texts) if part), default=-1)
    return [part if first <= i <= last else None for i, part in enumerate(texts)]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning of two lists of the same type."""
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    return next(i for i in range(length) if a[i] != b[i])
