"""OpenAI's responses: `POST /v1/responses`, text in and text out.

Contract: nothing is kept. A request that asks for keeping (`store`, as clients do by default) is answered,
and the answer says `store: false`; one that refers to an earlier response is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from wsd_local.events import Event
from wsd_local.server.openai_answers import ERRORS, STREAM, Piece, Pieces, chat_logprobs, head, model_named, usage
from wsd_local.server.openai_response_body import ResponseBody
from wsd_local.server.parameters import asked_of
from wsd_local.server.service import Service
from wsd_local.server.streaming import EventStream, reported, sent, while_connected
from wsd_local.server.wsd_fields import ReplyFields


class _Answer:
    """One request for a response, being answered."""

    def __init__(self, service: Service, body: ResponseBody) -> None:
        self._service, self._body = service, body
        self._request = body.request(model_named(service, body.model))
        self._settings = asked_of(service, self._request)
        fields = ReplyFields(self._settings, events=body.events)
        self._pieces = Pieces(fields, self._request.details is not None)
        self._head = head("response", "resp", self._request.model)
        self._item = f"msg_{secrets.token_hex(12)}"
        self._logprobs: list[dict[str, Any]] = []
        self._sent = 0

    async def whole(self) -> dict[str, Any]:
        """The answer when it is complete."""
        async with self._service.replies(self._request) as events:
            async for _, event in events:
                for piece in self._pieces.of(event):
                    self._scored(piece)
        return self._ended(whole=True)

    async def stream(self) -> EventStream:
        """The answer as a stream. What can be checked at once is checked before it begins."""
        async with AsyncExitStack() as held:
            events = await held.enter_async_context(self._service.replies(self._request))
            return EventStream(held.pop_all(), self._with_errors(events))

    # -- the object ------------------------------------------------------------------------------------------------

    def _response(self, status: str, **more: Any) -> dict[str, Any]:
        """The response at some time, with the request's own parameters as they hold."""
        body, settings, named = self._body, self._settings, self._head
        form = {"type": "text"} if body.text is None else body.text.as_sent()
        values: dict[str, Any] = {
            "id": named["id"],
            "object": "response",
            "created_at": named["created"],
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "max_tool_calls": None,
            "metadata": body.metadata or {},
            "model": self._request.model,
            "output": [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "service_tier": "default",
            "store": False,
            "temperature": settings.temperature,
            "text": {"format": form},
            "tool_choice": body.tool_choice or "auto",
            "tools": [],
            "top_logprobs": body.top_logprobs or 0,
            "top_p": settings.top_p,
            "truncation": "auto" if self._request.truncate else "disabled",
            "usage": None,
            "user": body.user,
        }
        return values | more

    def _ended(self, *, whole: bool) -> dict[str, Any]:
        """The response at its end."""
        reply = self._pieces.finished()
        status, details = "completed", None
        if reply.finish_reason == "length":
            status, details = "incomplete", {"reason": "max_output_tokens"}
        used = usage([reply])
        counts = {
            "input_tokens": used["prompt_tokens"],
            "input_tokens_details": used["prompt_tokens_details"],
            "output_tokens": used["completion_tokens"],
            "output_tokens_details": used["completion_tokens_details"],
            "total_tokens": used["total_tokens"],
        }
        output = [self._message(status, reply.text)]
        wsd = self._pieces.end(whole=whole)
        return self._response(status, incomplete_details=details, output=output, usage=counts, wsd=wsd)

    def _message(self, status: str, text: str | None = None) -> dict[str, Any]:
        content = [] if text is None else [self._part(text)]
        return {"id": self._item, "type": "message", "status": status, "role": "assistant", "content": content}

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self._logprobs if text else []}

    def _scored(self, piece: Piece) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = chat_logprobs(piece.tokens or (), self._body.top_logprobs or 0)["content"]
        self._logprobs += found
        return found

    # -- the stream ------------------------------------------------------------------------------------------------

    def _event(self, kind: str, **values: Any) -> bytes:
        data = {"type": kind, **values, "sequence_number": self._sent}
        self._sent += 1
        return sent(data, kind)

    async def _with_errors(self, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[bytes]:
        try:
            async for event in self._events(events):
                yield event
        except Exception as error:
            known = reported(error)
            yield self._event("error", code=known.code, message=known.message, param=known.param)
            failure = {"code": known.code or "server_error", "message": known.message}
            yield self._event("response.failed", response=self._response("failed", error=failure))

    async def _events(self, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[bytes]:
        place = {"item_id": self._item, "output_index": 0, "content_index": 0}
        begun = self._response("in_progress")
        yield self._event("response.created", response=begun)
        yield self._event("response.in_progress", response=begun)
        yield self._event("response.output_item.added", output_index=0, item=self._message("in_progress"))
        yield self._event("response.content_part.added", **place, part=self._part(""))
        async for _, event in events:
            for piece in self._pieces.of(event):
                scored = self._scored(piece)
                yield self._event(
                    "response.output_text.delta", **place, delta=piece.text, logprobs=scored, wsd=piece.wsd
                )
        ended = self._ended(whole=False)
        message = ended["output"][0]
        part = message["content"][0]
        yield self._event("response.output_text.done", **place, text=part["text"], logprobs=self._logprobs)
        yield self._event("response.content_part.done", **place, part=part)
        yield self._event("response.output_item.done", output_index=0, item=message)
        yield self._event(f"response.{ended['status']}", response=ended)


def router(service: Service) -> APIRouter:
    """The endpoint, over a service."""
    routes = APIRouter(tags=["OpenAI"], responses=ERRORS)

    @routes.post("/v1/responses", responses=STREAM)
    async def responses(body: ResponseBody, request: Request) -> Response:
        """Answer text or messages."""
        answer = _Answer(service, body)
        if not body.stream:
            return JSONResponse(await while_connected(request, answer.whole()))
        return await answer.stream()

    return routes
