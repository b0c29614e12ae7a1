"""The vocabulary of one model: text to tokens and back.

Contract: exact: bytes in, bytes out, and control tokens only where a template has them.
"""

from __future__ import annotations

import ctypes
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import llama_cpp
import numpy as np

_CONTROL = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
_HEADER_NAMES = {"unk": "unknown", "cls": "cls"}
"""Special tokens that llama.cpp does not name, by their names in the header."""
UNUSED = 1024
"""Unused tokens that a vocabulary may be padded with, so that matrices have a convenient size."""
_LSTRIP, _RSTRIP = llama_cpp.LLAMA_TOKEN_ATTR_LSTRIP, llama_cpp.LLAMA_TOKEN_ATTR_RSTRIP


class Vocabulary(ABC):
    """What is in a GGUF file about tokens, over llama.cpp's native vocabulary."""

    @property
    @abstractmethod
    def vocab(self) -> Any:
        """The native vocabulary."""

    @abstractmethod
    def metadata(self, key: str) -> str | None:
        """A value of the GGUF header as text, None if the key is not there."""

    @cached_property
    def _pieces(self) -> dict[int, bytes]:
        return {}

    @property
    def n_vocab(self) -> int:
        """Number of tokens: length of a row of logits."""
        return int(llama_cpp.llama_vocab_n_tokens(self.vocab))

    @property
    def bos(self) -> int | None:
        """The BOS token, None if the vocabulary wants none."""
        return int(llama_cpp.llama_vocab_bos(self.vocab)) if llama_cpp.llama_vocab_get_add_bos(self.vocab) else None

    def tokenize(self, text: str) -> list[int]:
        """Tokens of `text` after BOS, if the vocabulary wants it. Control tokens' spellings stay text."""
        tokens = self.tokenize_text(text)
        return tokens if self.bos is None else [self.bos, *tokens]

    def tokenize_text(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of `text` alone: all of it plain text, or with `special` control tokens where they are spelled."""
        if not text:
            return []
        data = text.encode()
        count = -len(data) - 2
        while count < 0:  # a negative count is the room that it needs
            buffer = np.empty(-count, dtype=np.int32)
            pointer = buffer.ctypes.data_as(llama_cpp.llama_token_p)
            count = llama_cpp.llama_tokenize(self.vocab, data, len(data), pointer, len(buffer), False, special)
        tokens: list[int] = buffer[:count].tolist()
        return tokens

    def tokenize_template(self, text: str, mask: str) -> list[int]:
        """Tokens of a rendered chat template: intact spellings of control tokens become those tokens.

        `mask` is a character that message text carries inside such spellings; it is taken out of the text.
        """
        parts = self._control_pattern.split(text)
        tokens: list[int] = []
        for i, part in enumerate(parts):
            if i % 2:
                tokens.append(self._control_tokens[part])
                continue
            if i and self._attributes(parts[i - 1]) & _RSTRIP:
                part = part.lstrip()
            if i + 1 < len(parts) and self._attributes(parts[i + 1]) & _LSTRIP:
                part = part.rstrip()
            tokens += self.tokenize_text(part.replace(mask, ""))
        return tokens if self.bos is None or tokens[:1] == [self.bos] else [self.bos, *tokens]

    def mask_controls(self, text: str, mask: str) -> str:
        """`text` with `mask` inside every spelling of a control token."""
        return self._control_pattern.sub(lambda match: match[0][0] + mask + match[0][1:], text)

    def _attributes(self, spelling: str) -> int:
        return int(llama_cpp.llama_vocab_get_attr(self.vocab, self._control_tokens[spelling]))

    @cached_property
    def _control_tokens(self) -> dict[str, int]:
        attribute = llama_cpp.llama_vocab_get_attr
        text = llama_cpp.llama_vocab_get_text
        found = (token for token in range(self.n_vocab) if attribute(self.vocab, token) & _CONTROL)
        return {spelling.decode(errors="replace"): token for token in found if (spelling := text(self.vocab, token))}

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        spellings = sorted(self._control_tokens, key=len, reverse=True)
        return re.compile("(" + ("|".join(map(re.escape, spellings)) or r"(?!)") + ")")

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; nothing for control tokens."""
        if token not in self._pieces:
            self._pieces[token] = self._piece(token, special=False)
        return self._pieces[token]

    def spelled(self, spellings: Collection[str]) -> dict[int, bytes]:
        """The control tokens that have one of these spellings, with their spellings."""
        return {token: text.encode() for text, token in self._control_tokens.items() if text in spellings}

    def spelling(self, token: int) -> str:
        """How a token is written, control tokens too."""
        return self._piece(token, special=True).decode(errors="replace")

    def spelled_out(self, tokens: Sequence[int]) -> str:
        """How tokens are written, control tokens too."""
        return b"".join(self._piece(token, special=True) for token in tokens).decode(errors="replace")

    def _piece(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = llama_cpp.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[:size]

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a text."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    @cached_property
    def eog_tokens(self) -> tuple[int, ...]:
        """All tokens that end a text."""
        return tuple(token for token in range(self.n_vocab) if self.is_eog(token))

    def special_spelling(self, name: str) -> str:
        """Spelling of the bos, eos, unk, sep, pad, cls or mask token as templates use it; empty if there is none."""
        if name in _HEADER_NAMES:
            number = self.metadata(f"tokenizer.ggml.{_HEADER_NAMES[name]}_token_id")
            token = int(number) if number is not None and number.isdecimal() else -1
            if name == "unk" and token < 0:
                token = self._unknown
        else:
            token = getattr(llama_cpp, f"llama_vocab_{name}")(self.vocab)
        return self.spelling(token) if 0 <= token < self.n_vocab else ""

    @cached_property
    def _unknown(self) -> int:
        """The token that the vocabulary marks as the one for unknown text, -1 if there is none."""
        attribute, unknown = llama_cpp.llama_vocab_get_attr, llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        return next((token for token in self._control_tokens.values() if attribute(self.vocab, token) & unknown), -1)


def share_tokens(one: Vocabulary, other: Vocabulary) -> bool:
    """Whether equal numbers are equal tokens in both; one may have more at its end, which models do not use."""
    shared = min(one.n_vocab, other.n_vocab)
    if max(one.n_vocab, other.n_vocab) - shared > UNUSED:
        return False
    text = llama_cpp.llama_vocab_get_text
    return all(text(one.vocab, token) == text(other.vocab, token) for token in range(shared))
