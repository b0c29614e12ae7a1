"""Which tokens may follow a text that is constrained by a grammar, over one vocabulary: llguidance.

Contract: a `Matching` is one vocabulary as llguidance reads it, built once; a `Matcher` is the place of one text in a
grammar. A text is bytes: it can be fed as bytes that no token stands for alone, and tokens count for what they write,
so control tokens are never part of it. Nothing that was not allowed is accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from wsd_local.constraints.compiling import LIMITS, on_large_stack
from wsd_local.core.translation import ExactVocabulary, exact_tokens
from wsd_local.errors import DeadEndError, UsageError, WsdError

Check = Callable[[], None]
_BYTES = 256
_ENOUGH = 256
"""Bytes of a forced text that are tokenised at once."""
_KEPT = 16
"""Compiled grammars that are kept."""


class ModelVocabulary(ExactVocabulary, Protocol):
    """The part of a model that constraints use."""

    @property
    def path(self) -> Path:
        """The model's file, for messages."""
        ...

    @property
    def n_vocab(self) -> int:
        """Number of tokens."""
        ...

    @property
    def eog_tokens(self) -> Sequence[int]:
        """The tokens that end a text."""
        ...

    def is_eog(self, token: int) -> bool:
        """Whether a token ends a text."""
        ...


class _Vocabulary:
    """A model's vocabulary in llguidance's form. All single bytes follow the tokens, as tokens of their own."""

    bos_token_id = None
    special_token_ids = ()

    def __init__(self, model: ModelVocabulary, check: Check) -> None:
        self._model = model
        self.eos_token_id = model.eog_tokens[0]
        self.tokens: list[bytes] = []
        for token in range(model.n_vocab):
            if token % 1024 == 0:
                check()
            self.tokens.append(b"" if model.is_eog(token) else model.piece(token))
        self.tokens += [bytes([byte]) for byte in range(_BYTES)]
        self._places = {piece: token for token, piece in reversed(list(enumerate(self.tokens))) if piece}
        self._longest = max(map(len, self._places))

    def __call__(self, text: str | bytes) -> list[int]:
        """Tokens that write exactly this text: what is forced is what must be written, byte by byte.

        The beginning of a long text is enough: this is called again for each token.
        """
        data = text.encode() if isinstance(text, str) else text
        if len(data) > _ENOUGH:
            ends = (end for end in range(_ENOUGH, 0, -1) if data[end] & 0xC0 != 0x80)
            data = data[: next(ends, _ENOUGH)]
        return exact_tokens(data, self._model) or self._greedy(data)

    def _greedy(self, data: bytes) -> list[int]:
        tokens: list[int] = []
        while data:
            ends = range(min(len(data), self._longest), 0, -1)
            tokens.append(next(self._places[data[:end]] for end in ends if data[:end] in self._places))
            data = data[len(self.tokens[tokens[-1]]) :]
        return tokens


class Matching:
    """The vocabulary of `model`. Building it takes a second or more for 250,000 tokens; `check` is called meanwhile and
    may stop it.

    Raises:
        ModelError, CancelledError: what `check` raises.
    """

    def __init__(self, model: ModelVocabulary, check: Check = lambda: None) -> None:
        if not model.eog_tokens:
            raise WsdError(f"{model.path}: has no token that ends a text, so no constraint can be followed")
        self.n_vocab = model.n_vocab
        self.ends = frozenset(model.eog_tokens)
        vocabulary = TokenizerWrapper(_Vocabulary(model, check))
        check()
        self._tokenizer = LLTokenizer(vocabulary, eos_token=list(model.eog_tokens))
        self._limits = LLParserLimits(**LIMITS)
        self._begun: dict[str, Any] = {}

    def matcher(self, grammar: str) -> Matcher:
        """The beginning of a text that follows `grammar`, llguidance's description of one; compiled once.

        Raises:
            UsageError: llguidance refuses it.
        """
        if grammar not in self._begun:
            native = on_large_stack(lambda: LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits))
            if native.is_error():
                raise UsageError(f"cannot be used: {_line(native)}")
            while len(self._begun) >= _KEPT:
                del self._begun[next(iter(self._begun))]
            self._begun[grammar] = native
        return Matcher(self, self._begun[grammar].deep_copy())

    def allowed(self, native: Any) -> npt.NDArray[np.bool_]:
        """Whether each token may come next."""
        bits = allocate_token_bitmask(1, self._tokenizer.vocab_size)
        fill_next_token_bitmask(native, bits)
        return np.unpackbits(bits.view(np.uint8)[0], bitorder="little")[: self.n_vocab].view(np.bool_)


class Matcher:
    """The place of one text in a grammar. Made by `Matching.matcher`."""

    def __init__(self, matching: Matching, native: Any) -> None:
        self._matching = matching
        self._native = native
        self._allowed: npt.NDArray[np.intp] | None = None

    def copy(self) -> Matcher:
        """Another text at the same place."""
        return Matcher(self._matching, self._native.deep_copy())

    def feed(self, data: bytes) -> bool:
        """Whether the text may go on with `data`; if so it does, else nothing changes."""
        trial = self._native.deep_copy()
        if trial.try_consume_tokens([self._matching.n_vocab + byte for byte in data]) != len(data):
            return False
        self._native, self._allowed = trial, None
        return True

    @property
    def allowed(self) -> npt.NDArray[np.intp]:
        """The tokens that may come next, ascending; those that end a text among them where it may end.

        Raises:
            DeadEndError: there is none.
            WsdError: the text has become too complex for llguidance's limits.
        """
        if self._allowed is None:
            found = np.flatnonzero(self._matching.allowed(self._native))
            if self._native.is_error() and "NoExtension" not in self._native.get_error():
                raise WsdError(f"the constraint is too complex to be followed here: {_line(self._native)}")
            if self._native.is_error() or not len(found):
                raise DeadEndError("the constraint demands what the model's vocabulary cannot write here")
            self._allowed = found
        return self._allowed

    @property
    def may_end(self) -> bool:
        """Whether the text is complete as it stands."""
        return bool(self._native.is_accepting())

    @property
    def over(self) -> bool:
        """Whether the text is complete and cannot go on."""
        if not self._native.is_accepting():
            return False
        return bool(self._native.is_stopped()) or self._matching.ends.issuperset(self.allowed[:65].tolist())

    def accept(self, token: int) -> None:
        """The text goes on with `token`.

        Raises:
            WsdError: it must not.
        """
        if not self._native.consume_token(token):
            raise WsdError(f"token {token} does not follow the constraint: {_line(self._native)}")
        self._allowed = None

    def valid(self, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that may follow the text."""
        return int(self._native.validate_tokens(list(tokens))) if tokens else 0

    def forced(self) -> list[int]:
        """Tokens that the text probably goes on with, because it must go on with their bytes."""
        found: list[int] = []
        for token in self._native.compute_ff_tokens():
            if token >= self._matching.n_vocab or token in self._matching.ends:
                break
            found.append(token)
        return found


def _line(native: Any) -> str:
    return " ".join(native.get_error().replace("<non-verbose/>", "").split())[:300]
