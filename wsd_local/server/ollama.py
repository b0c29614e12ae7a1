"""Ollama's protocol: `/api/chat` and `/api/generate`.

Contract: answers have the shape that Ollama documents, as lines of JSON unless `stream` is false; what this program
adds stands under `wsd`. A request without messages or prompt loads the models, or frees them with a `keep_alive` of 0.
Durations are measured. Models are known with `:latest` and without.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.responses import Response

from wsd_local.events import Event
from wsd_local.prompts.messages import Prompt
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.reply import Reply, Timings
from wsd_local.server.errors import ApiError
from wsd_local.server.ollama_bodies import AnswerBody, ChatBody, GenerateBody
from wsd_local.server.ollama_models import add_models, resolved
from wsd_local.server.openai_answers import Piece, Pieces, chat_logprobs, finish_reason, writer
from wsd_local.server.parameters import asked_of
from wsd_local.server.service import ReplyRequest, Service
from wsd_local.server.streaming import LineStream, line, while_connected, with_errors
from wsd_local.server.wsd_fields import ReplyFields


class ErrorAnswer(BaseModel):
    """The answer to a request that cannot be answered."""

    error: str


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request is wrong, or it must wait."},
    "5XX": {"model": ErrorAnswer, "description": "The server cannot answer."},
}
LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/x-ndjson": {}}, "description": "The answer, whole or as lines of JSON."}
}
"""Answers for the description of the interface."""


class _Answering:
    """One request, being answered. `chat` tells the two endpoints apart."""

    def __init__(self, service: Service, body: AnswerBody, path: str) -> None:
        self._service, self._body, self._path = service, body, path
        self._chat = isinstance(body, ChatBody)
        self._model = resolved(service, body.model)
        self._name = body.model or self._model
        self._came = time.perf_counter()
        self._settings, self._prompt, self._details = body.settings(), body.prompt(), body.details
        self._names = body.spellings()
        settings = asked_of(service, self._request(()))
        fields = ReplyFields(settings, events=body.events)
        self._pieces = Pieces(fields, details=self._details is not None)
        self._kept = body.seconds_kept

    def _keep(self) -> None:
        """Set how long the models stay, once this request keeps them from being freed."""
        if self._body.keep_alive is not None:
            self._service.keep(self._model, self._kept)

    async def only_loaded(self) -> dict[str, Any] | None:
        """The answer to a request that has nothing to be answered: the models are loaded or freed. None otherwise."""
        if self._prompt is not None:
            await self._check_context()
            return None
        if self._body.unloads:
            self._keep()
            return self._part("", done=True, done_reason="unload")
        await self._service.load(self._model)
        await self._check_context()
        self._keep()
        return self._part("", done=True, done_reason="load", **self._durations(Timings(), 0, 0))

    async def _check_context(self) -> None:
        """Raise `ApiError` if the client wants a longer context than there is."""
        wanted = None if self._body.options is None else self._body.options.num_ctx
        if wanted is None:
            return
        await self._service.load(self._model)
        n_ctx = next((model.n_ctx for model in self._service.models() if model.id == self._model), None)
        if n_ctx is not None and wanted > n_ctx:
            raise ApiError(
                400,
                f"options.num_ctx is {wanted}: the context holds {n_ctx} tokens; leave it out, or start the server "
                f"with --ctx {wanted}",
                param="options.num_ctx",
            )

    def _request(self, prompt: Prompt | RawPrompt) -> ReplyRequest:
        truncate = bool(self._body.truncate)
        return ReplyRequest(self._model, prompt, self._settings, self._details, truncate, self._names)

    async def whole(self) -> dict[str, Any]:
        """The answer when it is complete."""
        if (loaded := await self.only_loaded()) is not None:
            return loaded
        assert self._prompt is not None
        said: list[Piece] = []
        async with self._service.replies(self._request(self._prompt)) as events:
            self._keep()
            async for _, event in events:
                said += self._pieces.of(event)
        reply = self._pieces.finished()
        logprobs = [entry for piece in said for entry in self._logprobs(piece).get("logprobs", [])]
        more = {} if self._details is None else {"logprobs": logprobs}
        return self._end(reply.text, whole=True) | more

    async def stream(self) -> LineStream:
        """The answer as lines. What can be checked at once is checked before it begins."""
        assert self._prompt is not None
        async with AsyncExitStack() as held:
            events = await held.enter_async_context(self._service.replies(self._request(self._prompt)))
            self._keep()
            return LineStream(held.pop_all(), with_errors(self._path, self._lines(events), line), self._ping)

    async def _lines(self, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[bytes]:
        async for _, event in events:
            for piece in self._pieces.of(event):
                yield line(self._part(piece.text, done=False, wsd=piece.wsd, **self._logprobs(piece)))
        yield line(self._end(""))

    def _ping(self) -> bytes:
        """A part without text, which keeps the connection alive: lines of JSON have no comments."""
        return line(self._part("", done=False))

    def _logprobs(self, piece: Piece) -> dict[str, Any]:
        if self._details is None or piece.tokens is None:
            return {}
        return {"logprobs": chat_logprobs(piece.tokens, self._details)["content"]}

    def _part(self, text: str, **fields: Any) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": text}} if self._chat else {"response": text}
        return {"model": self._name, "created_at": now(), **content, **fields}

    def _end(self, text: str, *, whole: bool = False) -> dict[str, Any]:
        reply = self._pieces.finished()
        ending = {"done": True, "done_reason": finish_reason(reply)}
        return self._part(text, **ending, **self._figures(reply), wsd=self._pieces.end(whole=whole))

    def _figures(self, reply: Reply) -> dict[str, int]:
        prompt = len(reply.prompt_ids.get(writer(reply), ()))
        return self._durations(reply.timings, prompt, reply.draft.tokens + reply.base.tokens, reply)

    def _durations(self, timings: Timings, prompt: int, written: int, reply: Reply | None = None) -> dict[str, int]:
        """Nanoseconds: waiting and loading; the seconds in which tokens were written; and what else the reply took."""
        total = time.perf_counter() - self._came
        writing = 0.0 if reply is None else min(_writing_s(reply), timings.total_s)
        return {
            "total_duration": _ns(total),
            "load_duration": _ns(total - timings.total_s),
            "prompt_eval_count": prompt,
            "prompt_eval_duration": _ns(timings.total_s - writing),
            "eval_count": written,
            "eval_duration": _ns(writing),
        }


def _writing_s(reply: Reply) -> float:
    """Seconds in which the models wrote, from the reply's rates."""
    timings = reply.timings
    parts = (
        (reply.draft.drafted_tokens, timings.draft_tokens_per_s),
        (reply.base.tokens, timings.base_tokens_per_s),
    )
    return sum(tokens / rate for tokens, rate in parts if rate)


def _ns(seconds: float) -> int:
    return max(0, round(seconds * 1e9))


def now() -> str:
    """The time as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def router(service: Service) -> APIRouter:
    """The endpoints, over a service."""
    routes = APIRouter(tags=["Ollama"], responses=ERRORS)

    async def answered(body: AnswerBody, request: Request) -> Response:
        answering = _Answering(service, body, request.url.path)
        if body.stream is False:
            return JSONResponse(await while_connected(request, answering.whole()))
        loaded = await while_connected(request, answering.only_loaded())
        if loaded is not None:
            return Response(line(loaded), media_type="application/x-ndjson")
        return await answering.stream()

    @routes.post("/api/chat", responses=LINES)
    async def chat(body: ChatBody, request: Request) -> Response:
        """Answer a conversation; without messages, load or free the models."""
        return await answered(body, request)

    @routes.post("/api/generate", responses=LINES)
    async def generate(body: GenerateBody, request: Request) -> Response:
        """Answer a prompt, or continue it as it is with `raw`; without a prompt, load or free the models."""
        return await answered(body, request)

    add_models(routes, service)
    return routes
