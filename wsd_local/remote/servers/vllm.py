"""vLLM: `/v1/completions` with `prompt_logprobs`, which it refuses in a stream, and with `return_token_ids`.

Contract: see `protocol`. The first position of `prompt_logprobs` is null. Stop strings are sent, and their tokens are
received with the others (`include_stop_str_in_output`). Its penalties count other tokens than llama.cpp's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from wsd_local.core.rules import Score
from wsd_local.remote.link import AnswerError, Asked
from wsd_local.remote.servers.protocol import (
    Given,
    Part,
    Pieces,
    Scored,
    Wish,
    Written,
    cached_of,
    choice_of,
    end_of,
    field_of,
    list_of,
    logprob_of,
    openai_sampling,
    room,
    token_of,
    tokens_of,
)

_OFF = -1
_NAMES: Mapping[str, str] = MappingProxyType({"top_k": "top_k", "min_p": "min_p", "ignore_eos": "ignore_eos"})
_BY_ID = "token_id:"


@dataclass(frozen=True, slots=True)
class VllmServer:
    """vLLM."""

    url: str
    model: str
    kind: str = "vLLM"
    penalises: bool = False
    at_once: bool = True

    def tokenize(self, text: str) -> Asked:
        """See `Server`."""
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return Asked("/tokenize", body, room(len(text), 0))

    def divides(self, answer: Any, text: str, vocabulary: Pieces) -> bool:
        """See `Server`."""
        return tokens_of(answer, f"{self.url}/tokenize") == vocabulary.tokenize_text(text)

    def with_vocabulary(self, vocabulary: Pieces) -> VllmServer:
        """See `Server`."""
        return self

    def score(self, given: Given) -> Asked:
        """See `Server`."""
        body = {
            "model": self.model,
            "prompt": list(given.tokens),
            "prompt_logprobs": max(1, given.top),
            "max_tokens": 1,
            "temperature": 0,
        }
        return Asked("/v1/completions", body, room(len(given.tokens), max(1, given.top)))

    def scored(self, answer: Any, given: Given) -> Scored:
        """See `Server`."""
        where = f"{self.url}/v1/completions"
        rows = field_of(choice_of(answer, where), "prompt_logprobs", where)
        rows = list_of(rows, len(given.tokens), where)[given.start :]
        usage = answer.get("usage") or {}
        details = usage.get("prompt_tokens_details") if isinstance(usage, Mapping) else None
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
        scores = [_score(row, token, given.top, where) for row, token in zip(rows, given.wanted, strict=True)]
        return Scored(tuple(scores), cached_of(cached, given))

    def write(self, wish: Wish) -> Asked:
        """See `Server`."""
        body = {"model": self.model, "prompt": list(wish.tokens), "return_token_ids": True, "repetition_penalty": 1.0}
        body |= openai_sampling(wish, _NAMES)
        body["top_k"] = wish.sampling.top_k or _OFF
        if wish.stops:
            body |= {"stop": list(wish.stops), "include_stop_str_in_output": True}
        if wish.top is not None:
            body |= {"logprobs": wish.top, "return_tokens_as_token_ids": True}
        return Asked("/v1/completions", body)

    def written(self, event: Any, wish: Wish, received: int) -> Part:
        """See `Server`."""
        where = f"{self.url}/v1/completions"
        choice = choice_of(event, where)
        if choice is None:
            return Part()
        tokens = [token_of(value, where) for value in list_of(field_of(choice, "token_ids", where), None, where)]
        scores: list[Score | None] = [None] * len(tokens)
        if wish.top is not None and tokens:
            scores = [*_scores(field_of(choice, "logprobs", where), len(tokens), wish.top, where)]
        return Part(tuple(map(Written, tokens, scores)), end_of(choice.get("finish_reason")))


def _score(row: Any, token: int, top: int, where: str) -> Score:
    """The score of a token from its row of `prompt_logprobs`."""
    if not isinstance(row, Mapping):
        raise AnswerError(f"{where}: there is no log-probability of a token in the middle of the prompt")
    found = {_number(name, where): logprob_of(field_of(value, "logprob", where), where) for name, value in row.items()}
    if token not in found:
        raise AnswerError(f"{where}: the scores are those of other tokens")
    return Score(found[token], top=_best(found, top))


def _scores(logprobs: Any, count: int, top: int, where: str) -> list[Score]:
    values = list_of(field_of(logprobs, "token_logprobs", where), count, where)
    others = list_of(field_of(logprobs, "top_logprobs", where), count, where)
    found = []
    for value, row in zip(values, others, strict=True):
        listed = row if isinstance(row, Mapping) else {}
        best = {_number(name, where): logprob_of(one, where) for name, one in listed.items()}
        found.append(Score(logprob_of(value, where), top=_best(best, top)))
    return found


def _best(found: Mapping[int, float], top: int) -> tuple[tuple[int, float], ...]:
    return tuple(sorted(found.items(), key=lambda one: -one[1])[:top])


def _number(name: Any, where: str) -> int:
    text = str(name).removeprefix(_BY_ID)
    if not text.isdecimal():
        raise AnswerError(f"{where}: {text[:40]!r} is no number of a token")
    return token_of(int(text), where)
