"""Tokens of one vocabulary as tokens of another.

Contract: pure. The translation writes exactly the same bytes, or it is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wsd_local.core.text import utf8_decoder


class ExactVocabulary(Protocol):
    """A tokenizer of plain text: pure functions."""

    def tokenize_text(self, text: str) -> list[int]:
        """Tokens of a text alone, without BOS."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for."""
        ...


class TextVocabulary(ExactVocabulary, Protocol):
    """The part of a tokenizer that translation uses."""

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        ...


def translated(tokens: Sequence[int], source: TextVocabulary, target: TextVocabulary) -> list[int]:
    """The target's tokens for the text of `tokens`: the same numbers where they mean the same in both vocabularies.

    Half a character at the end is left out. Empty where the target cannot write the text.
    """
    pieces, size = [source.piece(token) for token in tokens], target.n_vocab
    if all(
        token < size and piece and piece == target.piece(token) for token, piece in zip(tokens, pieces, strict=True)
    ):
        return list(tokens)
    return exact_tokens(utf8_decoder().decode(b"".join(pieces)).encode(), target)


def exact_tokens(data: bytes, vocabulary: ExactVocabulary) -> list[int]:
    """Tokens that write exactly these bytes, as the tokenizer would cut them; empty where it cannot."""
    for before in ("", "\n"):  # some vocabularies put a space before the beginning of a text
        found = vocabulary.tokenize_text(before + data.decode(errors="replace"))
        for start in range(min(len(found), 4)):
            if b"".join(map(vocabulary.piece, found[start:])) == data:
                return found[start:]
    return []
