"""llama-cpp-python's server (`python -m llama_cpp.server`): `/v1/completions` with `echo` and `logprobs`.

Contract: see `protocol`. It takes text and no tokens, so what is sent must be divided there as it is here, spellings of
control tokens included: a check sends the tokens that follow too, as far as they are known. It writes one token at
least, and it works on one text at a time. It must have been started with `--logits_all true`. Its tokens are recognised
by their text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from wsd_local.core.rules import Score
from wsd_local.errors import WsdError
from wsd_local.remote.link import AnswerError, Asked
from wsd_local.remote.servers.protocol import (
    Given,
    Part,
    Pieces,
    Scored,
    Wish,
    Written,
    choice_of,
    end_of,
    field_of,
    list_of,
    logprob_of,
    openai_sampling,
    room,
    tokens_of,
)

_NAMES: Mapping[str, str] = MappingProxyType({"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repeat_penalty"})


@dataclass(frozen=True, slots=True)
class LlamaCppPythonServer:
    """llama-cpp-python's server."""

    url: str
    model: str
    kind: str = "llama-cpp-python"
    penalises: bool = False
    at_once: bool = False
    _vocabulary: Pieces | None = field(default=None, compare=False)
    _numbers: Mapping[bytes, int] = field(default_factory=dict, compare=False)

    def tokenize(self, text: str) -> Asked:
        """See `Server`."""
        return Asked("/extras/tokenize", {"model": self.model, "input": text}, room(len(text), 0))

    def divides(self, answer: Any, text: str, vocabulary: Pieces) -> bool:
        """See `Server`."""
        own = [] if vocabulary.bos is None else [vocabulary.bos]
        found = tokens_of(answer, f"{self.url}/extras/tokenize")
        return found == [*own, *vocabulary.tokenize_text(text, special=True)]

    def with_vocabulary(self, vocabulary: Pieces) -> LlamaCppPythonServer:
        """See `Server`."""
        numbers: dict[bytes, int] = {}
        for token in range(vocabulary.n_vocab):
            numbers.setdefault(vocabulary.piece(token), token)
        return replace(self, _vocabulary=vocabulary, _numbers=numbers)

    @property
    def vocabulary(self) -> Pieces:
        """The vocabulary that it has."""
        assert self._vocabulary is not None
        return self._vocabulary

    def score(self, given: Given) -> Asked:
        """See `Server`."""
        tokens = [*given.tokens, *given.following]
        text = self._text(tokens)
        if text is None and given.following:
            text = self._text(given.tokens)
        if text is None:
            raise WsdError(
                f"{self.url} takes text and no tokens, and would divide this one otherwise: use another server"
            )
        body = {
            "model": self.model,
            "prompt": text,
            "echo": True,
            "logprobs": max(1, given.top),
            "max_tokens": 1,
            "temperature": 0,
        }
        return Asked("/v1/completions", body, room(len(tokens) + 1, max(1, given.top)))

    def scored(self, answer: Any, given: Given) -> Scored:
        """See `Server`."""
        where = f"{self.url}/v1/completions"
        logprobs = field_of(choice_of(answer, where), "logprobs", where)
        texts = list_of(field_of(logprobs, "tokens", where), None, where)
        values = list_of(field_of(logprobs, "token_logprobs", where), len(texts), where)
        bos = self.vocabulary.bos
        begin = given.start - sum(1 for token in given.tokens[: given.start] if token == bos)
        wanted = [token for token in given.wanted if token != bos]
        expected = [self.vocabulary.piece(token).decode(errors="ignore") for token in wanted]
        if len(wanted) < len(given.wanted) or texts[begin : begin + len(wanted)] != expected:
            raise AnswerError(f"{where}: the scores are those of other tokens")
        found = values[begin : begin + len(wanted)]
        return Scored(tuple(Score(logprob_of(value, where)) for value in found))

    def write(self, wish: Wish) -> Asked:
        """See `Server`."""
        if wish.ignore_eos:
            raise WsdError(f"{self.url} cannot write on where a text ends: leave --ignore-eos out")
        text = self._text(wish.tokens) or self._joined(wish.tokens)
        body = {"model": self.model, "prompt": text, **openai_sampling(wish, _NAMES)}
        if wish.top is not None:
            body["logprobs"] = max(1, wish.top)
        return Asked("/v1/completions", body)

    def written(self, event: Any, wish: Wish, received: int) -> Part:
        """See `Server`."""
        where = f"{self.url}/v1/completions"
        choice = choice_of(event, where)
        if choice is None:
            return Part()
        text = field_of(choice, "text", where)
        if not isinstance(text, str):
            raise AnswerError(f"{where}: a text is no text")
        tokens = self._tokens(text.encode())
        scores: list[Score | None] = [None] * len(tokens)
        if wish.top is not None and tokens:
            values = list_of(field_of(field_of(choice, "logprobs", where), "token_logprobs", where), None, where)
            value = sum(logprob_of(one, where) for one in values)
            scores = [Score(value), *[Score(0.0)] * (len(tokens) - 1)]
        return Part(tuple(map(Written, tokens, scores)), end_of(choice.get("finish_reason")))

    # -- text and tokens -------------------------------------------------------------------------------------------

    def _text(self, tokens: Any) -> str | None:
        """The text that the server divides into these tokens; None if there is none."""
        text = self._joined(tokens)
        bos = self.vocabulary.bos
        own = [] if bos is None else [bos]
        for candidate in (text, text.removeprefix(" ")):  # some vocabularies put a space before a text
            if [*own, *self.vocabulary.tokenize_text(candidate, special=True)] == list(tokens):
                return candidate
        return None

    def _joined(self, tokens: Any) -> str:
        return b"".join(map(self.vocabulary.piece, tokens)).decode(errors="replace")

    def _tokens(self, data: bytes) -> list[int]:
        """Tokens that stand for these bytes: the one that does, or several."""
        if not data:
            return []
        token = self._numbers.get(data)
        return [token] if token is not None else self.vocabulary.tokenize_text(data.decode())
