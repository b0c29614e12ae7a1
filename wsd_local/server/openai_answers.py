"""What OpenAI's answers have in common: names, usage, log-probabilities, and text in step with its tokens.

Contract: plain JSON objects. A text is never divided inside a character.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pydantic import BaseModel

from wsd_local.errors import WsdError
from wsd_local.events import Event, Source, Text, TokenDetails, Wrote
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.server.errors import ApiError
from wsd_local.server.service import Service
from wsd_local.server.wsd_fields import ReplyFields
from wsd_local.version import __version__

LATEST = ":latest"
"""What Ollama's clients write after a name without a tag, in requests of other protocols too."""

UNKNOWN_LOGPROB = -9999.0
"""Stands for a log-probability that is not known, or of a token that is impossible."""


class ErrorValues(BaseModel):
    """What is wrong with a request. `param` names the parameter, `code` is a short name."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """The answer to a request that cannot be answered."""

    error: ErrorValues


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request is wrong, or it must wait."},
    "5XX": {"model": ErrorAnswer, "description": "The server cannot answer."},
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "The answer, whole or as a stream."}
}
"""Answers for the description of the interface."""


def head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    """The fields with which every object of one answer begins."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": f"wsd-local-{__version__}",
    }


def model_named(service: Service, name: str) -> str:
    """The model that a request names, with or without `:latest`; without a name the pair, if only one is served.

    Raises:
        ApiError: it names none, and there are several.
    """
    if name.removesuffix(LATEST):
        return name.removesuffix(LATEST)
    pairs = list(dict.fromkeys(model.pair for model in service.models()))
    if len(pairs) == 1:
        return pairs[0]
    known = ", ".join(model.id for model in service.models())
    raise ApiError(400, f"model is missing: name one of {known}", param="model")


def usage(*groups: Sequence[Reply]) -> dict[str, Any]:
    """Tokens of the replies to each prompt; a prompt counts once."""
    replies = [reply for group in groups for reply in group]
    prompt = sum(len(group[0].prompt_ids.get(writer(group[0]), ())) for group in groups)
    cached = sum(max(_cached(reply) for reply in group) for group in groups)
    kept = sum(reply.draft.tokens for reply in replies)
    drafted = sum(reply.draft.drafted_tokens for reply in replies)
    return counted(prompt, kept + sum(reply.base.tokens for reply in replies), cached, drafted, kept)


def counted(prompt: int, written: int, cached: int, drafted: int = 0, kept: int = 0) -> dict[str, Any]:
    """The object `usage`: tokens of prompts, those of them that were cached, tokens of replies, and of drafts."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {
            "draft_tokens": drafted,
            "kept_tokens": kept,
            "reasoning_tokens": 0,
        },
    }


def _cached(reply: Reply) -> int:
    return reply.cached.get(writer(reply), 0)


def writer(reply: Reply) -> Source:
    """The model that continues."""
    return "base" if "base" in reply.prompt_ids else "draft"


def finish_reason(reply: Reply) -> str:
    """Why a reply ended, in the protocol's words; `wsd.cancelled` says that it was stopped."""
    return "length" if reply.finish_reason == "length" else "stop"


def logprob(value: float | None) -> float:
    """A log-probability as JSON can hold it."""
    return value if value is not None and math.isfinite(value) else UNKNOWN_LOGPROB


def chat_logprobs(tokens: Sequence[TokenDetails], top: int) -> dict[str, Any]:
    """The log-probabilities of tokens, with `top` alternatives each, as chat answers have them."""
    content = [
        _entry(token.piece, token.logprob)
        | {"top_logprobs": [_entry(piece, value) for _, piece, value in token.alternatives[:top]]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(piece: bytes, value: float | None) -> dict[str, Any]:
    return {"token": piece.decode(errors="replace"), "logprob": logprob(value), "bytes": list(piece)}


@dataclass(frozen=True, slots=True)
class Piece:
    """A text of a reply with its tokens, if these are asked for, and its object `wsd`; without text an event alone."""

    text: str
    wsd: Mapping[str, Any]
    tokens: tuple[TokenDetails, ...] | None = None


@dataclass(slots=True)
class Pieces:
    """The pieces of one reply, event by event. With `details` a text waits for its tokens, which follow at once."""

    fields: ReplyFields
    details: bool
    reply: Reply | None = None
    _texts: list[tuple[Source, Piece]] = field(default_factory=list)

    def of(self, event: Event) -> Iterator[Piece]:
        """What is to be sent after an event."""
        match event:
            case Text():
                piece = Piece(event.text, self.fields.of_text(event))
                if not self.details:
                    yield piece
                else:
                    self._texts.append((event.source, piece))
            case Wrote() if self.details:
                yield from self._in_step(event.tokens)
            case Finished():
                yield from self._in_step(())
                self.reply = event.reply
            case _:
                other = self.fields.of_other(event)
                if other is not None:
                    yield Piece("", other)

    def finished(self) -> Reply:
        """The whole reply, once it is complete.

        Raises:
            WsdError: it ended without one.
        """
        if self.reply is None:
            raise WsdError("the reply ended before it was complete")
        return self.reply

    def end(self, *, whole: bool = False) -> dict[str, Any]:
        """The object `wsd` at the end; with the draft's text if the answer is sent as a whole."""
        return self.fields.of_end(self.finished(), whole=whole)

    def _in_step(self, tokens: Sequence[TokenDetails]) -> Iterator[Piece]:
        """The texts that waited, joined for each model, with the tokens that wrote them."""
        written: dict[Source, list[TokenDetails]] = {}
        for token in tokens:
            written.setdefault(token.source, []).append(token)
        for source, group in groupby(self._texts, key=lambda one: one[0]):
            pieces = [piece for _, piece in group]
            wsd = {name: value for piece in pieces for name, value in piece.wsd.items()}
            yield Piece("".join(piece.text for piece in pieces), wsd, tuple(written.pop(source, ())))
        for rest in written.values():
            yield Piece("", {}, tuple(rest))
        self._texts.clear()
