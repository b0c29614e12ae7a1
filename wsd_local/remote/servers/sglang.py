"""SGLang: `/generate` with `input_ids`, for scores with `return_logprob` and `logprob_start_len`.

Contract: see `protocol`. The log-probability of the first position that is asked for is null, so scores are asked for
from the position before the first wanted one; asking from the beginning would defeat its cache. Its streams repeat what
was sent before, unless it was started with `--incremental-streaming-output`; both are understood by the number of
tokens that it counts. Stop strings are sent, and kept in the output (`no_stop_trim`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsd_local.core.rules import Score
from wsd_local.remote.link import MIB, AnswerError, Asked
from wsd_local.remote.servers.protocol import (
    Given,
    Part,
    Pieces,
    Scored,
    Wish,
    Written,
    cached_of,
    end_of,
    field_of,
    list_of,
    logprob_of,
    room,
    token_of,
    tokens_of,
)

_OFF = -1
_LARGEST_EVENT = 16 * MIB


@dataclass(frozen=True, slots=True)
class SglangServer:
    """SGLang."""

    url: str
    model: str
    kind: str = "SGLang"
    penalises: bool = False
    at_once: bool = True

    def tokenize(self, text: str) -> Asked:
        """See `Server`."""
        body = {"model": self.model, "prompt": text, "add_special_tokens": False}
        return Asked("/tokenize", body, room(len(text), 0))

    def divides(self, answer: Any, text: str, vocabulary: Pieces) -> bool:
        """See `Server`."""
        return tokens_of(answer, f"{self.url}/tokenize") == vocabulary.tokenize_text(text)

    def with_vocabulary(self, vocabulary: Pieces) -> SglangServer:
        """See `Server`."""
        return self

    def score(self, given: Given) -> Asked:
        """See `Server`."""
        body = {
            "input_ids": list(given.tokens),
            "sampling_params": {"max_new_tokens": 1, "temperature": 1.0},
            "return_logprob": True,
            "logprob_start_len": given.start - 1,
            "top_logprobs_num": given.top,
        }
        return Asked("/generate", body, room(len(given.wanted) + 1, given.top))

    def scored(self, answer: Any, given: Given) -> Scored:
        """See `Server`."""
        where = f"{self.url}/generate"
        meta, wanted = field_of(answer, "meta_info", where), list(given.wanted)
        rows = list_of(field_of(meta, "input_token_logprobs", where), None, where)
        if len(rows) < len(wanted):
            raise AnswerError(f"{where}: there are {len(rows)} values where {len(wanted)} were asked for")
        pairs = [_pair(row, where) for row in rows[len(rows) - len(wanted) :]]
        if [token for token, _ in pairs] != wanted:
            raise AnswerError(f"{where}: the scores are those of other tokens")
        tops = _tops(meta, "input_top_logprobs", len(wanted), given.top, where)
        scores = [Score(value, top=top) for (_, value), top in zip(pairs, tops, strict=True)]
        return Scored(tuple(scores), cached_of(meta.get("cached_tokens"), given))

    def write(self, wish: Wish) -> Asked:
        """See `Server`."""
        sampling = wish.sampling
        values: dict[str, Any] = {
            "max_new_tokens": wish.most,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p or 1e-6,
            "top_k": sampling.top_k or _OFF,
            "min_p": sampling.min_p,
            "ignore_eos": wish.ignore_eos,
        }
        if sampling.seed is not None:
            values["sampling_seed"] = sampling.seed
        if wish.stops:
            values |= {"stop": list(wish.stops), "no_stop_trim": True}
        body = {"input_ids": list(wish.tokens), "sampling_params": values, "stream": True}
        if wish.top is not None:
            body |= {"return_logprob": True, "logprob_start_len": _OFF, "top_logprobs_num": wish.top}
        return Asked("/generate", body, _LARGEST_EVENT)

    def written(self, event: Any, wish: Wish, received: int) -> Part:
        """See `Server`."""
        where = f"{self.url}/generate"
        meta = field_of(event, "meta_info", where)
        total = token_of(field_of(meta, "completion_tokens", where), where)
        ids = list_of(field_of(event, "output_ids", where), None, where)
        new = total - received
        if not 0 <= new <= len(ids):
            raise AnswerError(f"{where}: {len(ids)} tokens came where {total} were written and {received} are here")
        tokens = [token_of(value, where) for value in ids[len(ids) - new :]]
        scores: list[Score | None] = [None] * new
        if wish.top is not None and new:
            rows = list_of(field_of(meta, "output_token_logprobs", where), None, where)
            values = [_pair(row, where)[1] for row in rows[len(rows) - new :]]
            list_of(values, new, where)
            tops = _tops(meta, "output_top_logprobs", new, wish.top, where)
            scores = [Score(value, top=top) for value, top in zip(values, tops, strict=True)]
        reason = meta.get("finish_reason")
        kind = reason.get("type") if isinstance(reason, Mapping) else reason
        if kind == "abort":
            raise AnswerError(f"{where}: the server ended the text: {str(field_of(reason, 'message', where))[:200]}")
        return Part(tuple(map(Written, tokens, scores)), end_of(kind))


def _pair(row: Any, where: str) -> tuple[int, float]:
    """Token and log-probability of a row: `[log-probability, token, text]`."""
    values = list_of(list(row) if isinstance(row, Sequence) and not isinstance(row, str) else row, None, where)
    if len(values) < 2:
        raise AnswerError(f"{where}: a log-probability has no token")
    return token_of(values[1], where), logprob_of(values[0], where)


def _tops(meta: Any, name: str, count: int, top: int, where: str) -> list[tuple[tuple[int, float], ...]]:
    if not top:
        return [()] * count
    rows = list_of(field_of(meta, name, where), None, where)
    rows = list_of(rows[max(0, len(rows) - count) :], count, where)
    return [tuple(_pair(one, where) for one in row or ()) for row in rows]
