"""Anthropic's protocol: `POST /v1/messages` and `POST /v1/messages/count_tokens`.

Contract: answers, and the events of a stream with their order, have the shape that Anthropic documents; what this
program adds stands under `wsd`. Keys arrive as `x-api-key`; `anthropic-version` and `anthropic-beta` have no effect. A
conversation that ends with an assistant's message is continued, and the answer is what follows that message.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.responses import Response

from wsd_local.events import Event
from wsd_local.runtime.reply import Reply
from wsd_local.server.anthropic_bodies import CountBody, MessagesBody
from wsd_local.server.openai_answers import STREAM, Piece, Pieces, model_named, writer
from wsd_local.server.openai_messages import checked
from wsd_local.server.parameters import asked_of
from wsd_local.server.service import ReplyRequest, Service
from wsd_local.server.streaming import EventStream, sent, while_connected, with_errors
from wsd_local.server.wsd_fields import ReplyFields

COUNT_S = 1.0
"""Seconds for which the beginning of a stream waits for the number of the prompt's tokens."""


class ErrorValues(BaseModel):
    """What is wrong with a request."""

    type: str
    message: str


class ErrorAnswer(BaseModel):
    """The answer to a request that cannot be answered."""

    type: Literal["error"]
    error: ErrorValues


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request is wrong, or it must wait."},
    "5XX": {"model": ErrorAnswer, "description": "The server cannot answer."},
}
"""Answers for the description of the interface."""


class _Answering:
    """One request for a message, being answered."""

    def __init__(self, service: Service, body: MessagesBody, path: str) -> None:
        self._service, self._body, self._path = service, body, path
        prompt = checked(body.conversation())
        self._request = ReplyRequest(
            model_named(service, body.model),
            prompt,
            body.settings(),
            truncate=bool(body.truncate),
            names=body.spellings(),
        )
        settings = asked_of(service, self._request)
        self._pieces = Pieces(ReplyFields(settings, events=body.events), details=False)

    async def whole(self) -> dict[str, Any]:
        """The answer when it is complete."""
        async with self._service.replies(self._request) as events:
            async for _, event in events:
                for _ in self._pieces.of(event):
                    pass
        reply = self._pieces.finished()
        return self._message(reply.text, self._ending(reply), _usage(reply)) | {"wsd": self._pieces.end(whole=True)}

    async def stream(self) -> EventStream:
        """The answer as a stream. What can be checked at once is checked before it begins."""
        async with AsyncExitStack() as held:
            events = await held.enter_async_context(self._service.replies(self._request))
            return EventStream(
                held.pop_all(), with_errors(self._path, self._events(events), partial(sent, name="error"))
            )

    async def _events(self, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[bytes]:
        start = self._message(None, {"stop_reason": None, "stop_sequence": None}, await self._first_usage())
        yield _event("message_start", message=start)
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        yield _event("ping")
        async for _, event in events:
            for piece in self._pieces.of(event):
                yield _delta(piece)
        reply = self._pieces.finished()
        yield _event("content_block_stop", index=0)
        yield _event("message_delta", delta=self._ending(reply), usage=_usage(reply), wsd=self._pieces.end())
        yield _event("message_stop")

    async def _first_usage(self) -> dict[str, int]:
        """The usage at the beginning, when nothing is known of the cache yet; without tokens if counting takes long."""
        counting = self._service.texts.count_tokens(self._request.model, self._request.prompt)  # type: ignore[arg-type]
        try:
            counts = await asyncio.wait_for(counting, COUNT_S)
        except TimeoutError:
            counts = {}
        return _usage_of(counts.get("base", counts.get("draft", 0)), 0, 0)

    def _message(self, text: str | None, ending: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": self._request.model,
            "content": [] if text is None else [{"type": "text", "text": text, "citations": None}],
            **ending,
            "usage": usage,
        }

    def _ending(self, reply: Reply) -> dict[str, Any]:
        """Why a reply ended: `stop_reason`, and `stop_sequence` if one of the client's ended it."""
        stop = self._client_stop(reply)
        reason = "end_turn" if stop is None else "stop_sequence"
        if reply.finish_reason == "length":
            reason = "model_context_window_exceeded" if self._is_full(reply) else "max_tokens"
        return {"stop_reason": reason, "stop_sequence": stop}

    def _client_stop(self, reply: Reply) -> str | None:
        """The client's stop sequence that ended a reply; also where a longer one of the base's ended it as well."""
        given = [stop for stop in self._body.stop_sequences or () if reply.stop and reply.stop.endswith(stop)]
        return max(given, key=len, default=None)

    def _is_full(self, reply: Reply) -> bool:
        """Whether there was less room in the context than the client asked for."""
        served = next((model for model in self._service.models() if model.id == self._request.model), None)
        n_ctx = None if served is None else served.n_ctx
        return n_ctx is not None and n_ctx - len(reply.prompt_ids.get(writer(reply), ())) < self._body.max_tokens


def _event(name: str, **fields: Any) -> bytes:
    return sent({"type": name, **fields}, name)


def _delta(piece: Piece) -> bytes:
    return _event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece.text}, wsd=piece.wsd)


def _usage(reply: Reply) -> dict[str, int]:
    role = writer(reply)
    prompt, cached = len(reply.prompt_ids.get(role, ())), reply.cached.get(role, 0)
    return _usage_of(prompt, cached, reply.draft.tokens + reply.base.tokens)


def _usage_of(prompt: int, cached: int, written: int) -> dict[str, int]:
    """Tokens by the protocol's names: those of the prompt that were in the cache are counted apart."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": written,
    }


def router(service: Service) -> APIRouter:
    """The endpoints, over a service."""
    routes = APIRouter(tags=["Anthropic"], responses=ERRORS)

    @routes.post("/v1/messages", responses=STREAM)
    async def messages(body: MessagesBody, request: Request) -> Response:
        """Answer a conversation."""
        answering = _Answering(service, body, request.url.path)
        if not body.stream:
            return JSONResponse(await while_connected(request, answering.whole()))
        return await answering.stream()

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountBody, request: Request) -> Response:
        """Count the tokens of a conversation, as the model that continues reads it."""
        counting = service.texts.count_tokens(model_named(service, body.model), checked(body.conversation()))
        counts = await while_connected(request, counting)
        return JSONResponse({"input_tokens": counts.get("base", counts.get("draft", 0))})

    return routes
