"""Our own server, `wsd-local serve`: `/v1/score`, and `/v1/completions` with `return_token_ids`.

Contract: see `protocol`. The model is a base alone (`<pair>:base`). No stop strings are sent: the server would leave
out the tokens that they consist of; the caller looks for them, and hangs up.
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

_OWN_NAMES: Mapping[str, str] = MappingProxyType(
    {name: name for name in ("top_k", "min_p", "repeat_penalty", "repeat_last_n", "ignore_eos")}
)


@dataclass(frozen=True, slots=True)
class OwnServer:
    """`wsd-local serve`."""

    url: str
    model: str
    kind: str = "wsd-local serve"
    penalises: bool = True
    at_once: bool = True

    def tokenize(self, text: str) -> Asked:
        """See `Server`."""
        body = {"model": self.model, "content": text, "parse_special": False}
        return Asked("/tokenize", body, room(len(text), 0))

    def divides(self, answer: Any, text: str, vocabulary: Pieces) -> bool:
        """See `Server`."""
        return tokens_of(answer, f"{self.url}/tokenize") == vocabulary.tokenize_text(text)

    def with_vocabulary(self, vocabulary: Pieces) -> OwnServer:
        """See `Server`."""
        return self

    def score(self, given: Given) -> Asked:
        """See `Server`."""
        request = {"tokens": list(given.tokens), "start": given.start, "top": given.top}
        return Asked("/v1/score", {"model": self.model, "requests": [request]}, room(len(given.wanted), given.top))

    def scored(self, answer: Any, given: Given) -> Scored:
        """See `Server`."""
        where = f"{self.url}/v1/score"
        result = list_of(field_of(answer, "results", where), 1, where)[0]
        rows = list_of(field_of(result, "tokens", where), len(given.wanted), where)
        if [field_of(row, "id", where) for row in rows] != list(given.wanted):
            raise AnswerError(f"{where}: the scores are those of other tokens")
        return Scored(tuple(_score(row, where) for row in rows), cached_of(result.get("cached_tokens"), given))

    def write(self, wish: Wish) -> Asked:
        """See `Server`."""
        body = {
            "model": self.model,
            "prompt": list(wish.tokens),
            "return_token_ids": True,
            "stop": [],
            "wsd": {"loop_guard": "off"},
            **({} if wish.top is None else {"logprobs": wish.top}),
        }
        return Asked("/v1/completions", body | openai_sampling(wish, _OWN_NAMES))

    def written(self, event: Any, wish: Wish, received: int) -> Part:
        """See `Server`."""
        where = f"{self.url}/v1/completions"
        choice = choice_of(event, where)
        if choice is None:
            return Part()
        rows = list_of(choice.get("tokens", []), None, where)
        written = [
            Written(token_of(field_of(row, "id", where), where), None if wish.top is None else _score(row, where))
            for row in rows
        ]
        return Part(tuple(written), end_of(choice.get("finish_reason")))


def _score(row: Any, where: str) -> Score:
    others = [
        (token_of(field_of(one, "id", where), where), logprob_of(field_of(one, "logprob", where), where))
        for one in list_of(row.get("top", []), None, where)
    ]
    return Score(logprob_of(field_of(row, "logprob", where), where), top=tuple(others))
