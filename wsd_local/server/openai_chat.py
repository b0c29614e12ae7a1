"""OpenAI's chat completions: `POST /v1/chat/completions`.

Contract: answers have the shape that OpenAI documents; what this program adds stands under `wsd`. A conversation that
ends with an assistant's message is continued, and the answer is what follows that message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from wsd_local.events import Event
from wsd_local.runtime.reply import Reply
from wsd_local.server.body import Body, NoBias, NoToolChoice, NoTools, NotSupported, ServiceTier, unsupported
from wsd_local.server.errors import ApiError
from wsd_local.server.openai_answers import (
    ERRORS,
    STREAM,
    Piece,
    Pieces,
    chat_logprobs,
    finish_reason,
    head,
    model_named,
    usage,
)
from wsd_local.server.openai_messages import Messages, checked
from wsd_local.server.parameters import ReplyBody, ResponseFormat, asked_of
from wsd_local.server.service import ReplyRequest, Service
from wsd_local.server.streaming import EventStream, sent, while_connected, with_errors
from wsd_local.server.wsd_fields import ReplyFields

MOST_ALTERNATIVES = 20
"""Alternatives for each token of an answer."""

MOST_CHOICES = 128
"""Answers to one request."""


class StreamOptions(Body):
    """What a stream has beside the answer."""

    place: ClassVar[str] = "stream_options"
    include_usage: bool | None = None
    include_obfuscation: Annotated[
        Literal[False] | None, unsupported("padding against eavesdroppers is not supported; leave it out")
    ] = None


class TemplateOptions(Body):
    """Options of a chat template: clients send the one that turns off what the models do not do."""

    place: ClassVar[str] = "chat_template_kwargs"
    enable_thinking: Annotated[
        Literal[False] | None, unsupported("the models do not think before they answer; leave it out, or give false")
    ] = None


class ChatBody(ReplyBody):
    """The body of a request for a chat completion."""

    messages: Messages
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = None

    tools: NoTools = None
    tool_choice: NoToolChoice = None
    functions: NoTools = None
    function_call: NoToolChoice = None
    logit_bias: NoBias = None
    modalities: Annotated[
        list[Literal["text"]] | None, unsupported('answers are text alone; leave it out, or give ["text"]')
    ] = None
    audio: NotSupported = None
    prediction: NotSupported = None
    web_search_options: NotSupported = None
    reasoning_effort: Annotated[
        Literal["none"] | None, unsupported("the models do not reason before they answer; leave it out, or give none")
    ] = None
    chat_template_kwargs: TemplateOptions | None = None
    verbosity: NotSupported = None
    store: Annotated[Literal[False] | None, unsupported("answers are not kept; leave it out, or give false")] = None

    service_tier: ServiceTier = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    cache_prompt: Annotated[Literal[True] | None, unsupported("prompts are always cached; leave it out")] = None

    def request(self, model: str) -> ReplyRequest:
        """The request for replies.

        Raises:
            ApiError: parameters contradict each other, or the conversation cannot be answered.
        """
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs is given without logprobs: true", param="top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options is given without stream: true", param="stream_options")
        prompt = checked([message.plain() for message in self.messages])
        details = (self.top_logprobs or 0) if self.logprobs else None
        return ReplyRequest(model, prompt, self.settings(), details, bool(self.truncate), self.spellings())


class _Chat:
    """One request for chat completions, being answered."""

    def __init__(self, service: Service, body: ChatBody, path: str) -> None:
        self._service, self._body, self._path = service, body, path
        self.request = body.request(model_named(service, body.model))
        settings = asked_of(service, self.request)
        self._pieces = [
            Pieces(ReplyFields(settings, events=body.events), self.request.details is not None)
            for _ in range(body.n or 1)
        ]

    async def whole(self) -> dict[str, Any]:
        """The answer when it is complete."""
        written: list[list[Piece]] = [[] for _ in self._pieces]
        async with self._service.replies(self.request, len(self._pieces)) as events:
            async for number, event in events:
                written[number] += self._pieces[number].of(event)
        choices = [
            self._choice(number, written[number], pieces.finished()) for number, pieces in enumerate(self._pieces)
        ]
        answer = head("chat.completion", "chatcmpl", self.request.model)
        ends = [pieces.end(whole=True) for pieces in self._pieces]
        if len(choices) > 1:
            choices = [choice | {"wsd": wsd} for choice, wsd in zip(choices, ends, strict=True)]
        return answer | {"choices": choices, "usage": usage(self._replies()), "wsd": ends[0]}

    def _replies(self) -> list[Reply]:
        return [pieces.finished() for pieces in self._pieces]

    def _choice(self, number: int, written: list[Piece], reply: Reply) -> dict[str, Any]:
        tokens = [token for piece in written for token in piece.tokens or ()]
        return {
            "index": number,
            "message": {"role": "assistant", "content": reply.text, "refusal": None},
            "logprobs": chat_logprobs(tokens, self._body.top_logprobs or 0) if self._body.logprobs else None,
            "finish_reason": finish_reason(reply),
        }

    async def stream(self) -> EventStream:
        """The answer as a stream. What can be checked at once is checked before it begins."""
        async with AsyncExitStack() as held:
            events = await held.enter_async_context(self._service.replies(self.request, len(self._pieces)))
            return EventStream(held.pop_all(), with_errors(self._path, self._chunks(events)))

    async def _chunks(self, events: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[bytes]:
        options = self._body.stream_options
        with_usage = bool(options and options.include_usage)
        top = head("chat.completion.chunk", "chatcmpl", self.request.model) | ({"usage": None} if with_usage else {})
        for number in range(len(self._pieces)):
            yield sent(top | {"choices": [_delta(number, {"role": "assistant", "content": ""})]})
        async for number, event in events:
            pieces = self._pieces[number]
            for piece in pieces.of(event):
                yield sent(top | {"choices": [self._part(number, piece)], "wsd": piece.wsd})
            if pieces.reply is not None:
                end = _delta(number, {}, finish_reason(pieces.reply))
                yield sent(top | {"choices": [end], "wsd": pieces.end()})
        used = usage(self._replies())
        if with_usage:
            yield sent(top | {"choices": [], "usage": used})
        yield b"data: [DONE]\n\n"

    def _part(self, number: int, piece: Piece) -> dict[str, Any]:
        logprobs = None if piece.tokens is None else chat_logprobs(piece.tokens, self._body.top_logprobs or 0)
        return _delta(number, {"content": piece.text} if piece.text else {}, logprobs=logprobs)


def _delta(
    number: int, delta: dict[str, Any], finish: str | None = None, logprobs: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def router(service: Service) -> APIRouter:
    """The endpoint, over a service."""
    routes = APIRouter(tags=["OpenAI"], responses=ERRORS)

    @routes.post("/v1/chat/completions", responses=STREAM)
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        """Answer a conversation."""
        chat = _Chat(service, body, request.url.path)
        if not body.stream:
            return JSONResponse(await while_connected(request, chat.whole()))
        return await chat.stream()

    return routes
