"""OpenAI's completions: `POST /v1/completions`.

Contract: a prompt is continued as it is, without a chat template; the pair itself decodes weak to strong over raw text.
With `echo` the answer begins with the prompt, and with `logprobs` that has its log-probabilities too; with no tokens to
be written (`max_tokens: 0`) a prompt is only scored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.responses import Response

from wsd_local.errors import WsdError
from wsd_local.events import Event, TokenDetails
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.reply import Reply
from wsd_local.server.body import NoBias, unsupported
from wsd_local.server.errors import ApiError, api_error
from wsd_local.server.openai_answers import (
    ERRORS,
    STREAM,
    Piece,
    Pieces,
    counted,
    finish_reason,
    head,
    logprob,
    model_named,
    usage,
)
from wsd_local.server.openai_chat import MOST_ALTERNATIVES, MOST_CHOICES, StreamOptions
from wsd_local.server.openai_logprobs import CompletionLogprobs
from wsd_local.server.parameters import ReplyBody, ResponseFormat, asked_of
from wsd_local.server.service import ReplyRequest, ScoreRequest, Service
from wsd_local.server.streaming import EventStream, sent, while_connected, with_errors
from wsd_local.server.wsd_fields import ReplyFields

AT_ONCE = 8
"""Prompts of one request that are worked on at once."""

MOST_PROMPTS = 2048
"""Prompts of one request."""

T = TypeVar("T")

Token = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Token], Field(min_length=1)]


class CompletionBody(ReplyBody):
    """The body of a request for completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
    )
    max_tokens: int | None = None
    echo: bool | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: Annotated[
        bool | None, Field(description="Name the tokens too: token_ids of each choice, and tokens with their scores.")
    ] = None

    truncate: Annotated[
        Literal[False] | None, unsupported("a raw prompt has no turns that could be left out; shorten it")
    ] = None
    best_of: Annotated[Literal[1] | None, unsupported("only the first answer is written; leave it out, or give n")] = (
        None
    )
    suffix: Annotated[Literal[""] | None, unsupported("text is not filled in before a suffix; leave it out")] = None
    logit_bias: NoBias = None
    cache_prompt: Annotated[Literal[True] | None, unsupported("prompts are always cached; leave it out")] = None

    def prompts(self) -> list[str | list[int]]:
        """The prompts, each as text or as tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [prompt for prompt in self.prompt if not isinstance(prompt, int)]

    def requests(self, model: str) -> list[ReplyRequest]:
        """The request for replies to each prompt.

        Raises:
            ApiError: parameters contradict each other.
        """
        if self.stream_options is not None and not self.stream:
            raise ApiError(400, "stream_options is given without stream: true", param="stream_options")
        if self.max_tokens == 0 and not self.echo:
            raise ApiError(400, "max_tokens is 0 without echo: true, so the answer would be empty", param="max_tokens")
        prompts = self.prompts()
        if self.stream and len(prompts) > AT_ONCE:
            raise ApiError(400, f"prompt: a stream has at most {AT_ONCE} prompts; leave out stream", param="prompt")
        body = self.model_copy(update={"max_tokens": None}) if self.max_tokens == 0 else self
        settings, names = body.settings(), body.spellings()
        raw = [RawPrompt(text=one) if isinstance(one, str) else RawPrompt(tokens=one) for one in prompts]
        details = 0 if self.logprobs is None and self.return_token_ids else self.logprobs
        return [ReplyRequest(model, one, settings, details, names=names) for one in raw]


@dataclass(slots=True)
class _Echo:
    """A prompt as the beginning of its answers; `tokens` of it were scored, `cached` without an evaluation."""

    text: str = ""
    logprobs: CompletionLogprobs | None = None
    tokens: int = 0
    cached: int = 0


class _Completions:
    """One request for completions, being answered."""

    def __init__(self, service: Service, body: CompletionBody, path: str) -> None:
        self._service, self._body, self._path = service, body, path
        self._model = model_named(service, body.model)
        self._requests = body.requests(self._model)
        self._settings = asked_of(service, self._requests[0])
        self._count = body.n or 1

    def _pieces(self) -> list[Pieces]:
        details = self._body.logprobs is not None or bool(self._body.return_token_ids)
        return [Pieces(ReplyFields(self._settings, events=self._body.events), details) for _ in range(self._count)]

    # -- the prompt as part of the answer -------------------------------------------------------------------------

    async def _echo(self, request: ReplyRequest) -> _Echo:
        try:
            return await self._echoed(request)
        except WsdError as error:
            if error.about != "tokens":
                raise
            known = api_error(error)
            raise ApiError(known.status, f"prompt: {known.message}", param="prompt", code=known.code) from None

    async def _echoed(self, request: ReplyRequest) -> _Echo:
        prompt, top = request.prompt, self._body.logprobs
        assert isinstance(prompt, RawPrompt)
        if not self._body.echo:
            return _Echo(logprobs=None if top is None else CompletionLogprobs(top))
        text = await self._text(prompt)
        if top is None and self._body.max_tokens != 0:
            return _Echo(text)
        tokens = await self._tokens(prompt)
        if top is None:
            return _Echo(text, tokens=len(tokens))
        added, entries = await self._added(prompt, tokens), CompletionLogprobs(top)
        if added < len(tokens):
            entries.add(b"".join(await self._service.texts.pieces(self._model, [tokens[added]])), None)
        if len(tokens) < 2:
            return _Echo(text, entries, len(tokens))
        scores = await self._service.score(ScoreRequest(self._model, tokens, 1, top))
        for one in scores.tokens[added:]:
            entries.add(one.text, one.logprob, [(piece, value) for _, piece, value in one.top])
        return _Echo(text, entries, len(tokens), scores.cached)

    async def _text(self, prompt: RawPrompt) -> str:
        if prompt.text is not None:
            return prompt.text
        pieces = await self._service.texts.pieces(self._model, prompt.tokens or ())
        return b"".join(pieces).decode(errors="replace")

    async def _tokens(self, prompt: RawPrompt) -> Sequence[int]:
        if prompt.tokens is not None:
            return prompt.tokens
        return await self._service.texts.tokenize(self._model, prompt.text or "", bos=True)

    async def _added(self, prompt: RawPrompt, tokens: Sequence[int]) -> int:
        """Tokens before a text that are not part of it: the vocabulary's first token, where it wants one."""
        if prompt.tokens is not None:
            return 0
        return len(tokens) - len(await self._service.texts.tokenize(self._model, prompt.text or ""))

    # -- whole answers --------------------------------------------------------------------------------------------

    async def whole(self) -> dict[str, Any]:
        """The answer when it is complete."""
        limit = asyncio.Semaphore(AT_ONCE)
        answered = await gathered([self._answered(number, limit) for number in range(len(self._requests))])
        choices = [choice for one, _, _ in answered for choice in one]
        used = summed([one for _, one, _ in answered])
        ends = [end for _, _, some in answered for end in some]
        if len(ends) > 1:
            choices = [choice | {"wsd": end} for choice, end in zip(choices, ends, strict=True)]
        answer = head("text_completion", "cmpl", self._model) | {"choices": choices, "usage": used}
        return answer | {"wsd": ends[0]} if ends else answer

    async def _answered(
        self, number: int, limit: asyncio.Semaphore
    ) -> tuple[list[dict[str, Any]], dict[str, Any], list[dict[str, Any]]]:
        """Choices of one prompt, its usage, and the objects `wsd` at the end of each reply."""
        async with limit:
            request, all_pieces = self._requests[number], self._pieces()
            echo = await self._echo(request)
            first = number * self._count
            if self._body.max_tokens == 0:
                found = None if echo.logprobs is None else echo.logprobs.take()
                choices = [_choice(first + i, echo.text, "length", found) for i in range(self._count)]
                return choices, counted(echo.tokens, 0, echo.cached), []
            written: list[list[Piece]] = [[] for _ in all_pieces]
            async with self._service.replies(request, self._count) as events:
                async for index, event in events:
                    written[index] += all_pieces[index].of(event)
        choices = [
            self._choice(first + index, echo, written[index], pieces.finished())
            for index, pieces in enumerate(all_pieces)
        ]
        replies = [pieces.finished() for pieces in all_pieces]
        return choices, usage(replies), [pieces.end(whole=True) for pieces in all_pieces]

    def _choice(self, number: int, echo: _Echo, written: Sequence[Piece], reply: Reply) -> dict[str, Any]:
        entries = None if echo.logprobs is None else echo.logprobs.copy()
        tokens = [token for piece in written for token in piece.tokens or ()]
        if entries is not None:
            entries.add_all(tokens)
            if echo.tokens and not tokens:
                entries.add_end()
        logprobs = None if entries is None else entries.take()
        return _choice(number, echo.text + reply.text, finish_reason(reply), logprobs) | self._named(tokens)

    def _named(self, tokens: Sequence[TokenDetails] | None) -> dict[str, Any]:
        """The numbers and scores of tokens, if they are asked for."""
        if not self._body.return_token_ids:
            return {}
        return {"token_ids": [token.id for token in tokens or ()], "tokens": [_scored(token) for token in tokens or ()]}

    # -- streams --------------------------------------------------------------------------------------------------

    async def stream(self) -> EventStream:
        """The answer as a stream. What can be checked at once is checked before it begins."""
        async with AsyncExitStack() as held:
            sources: list[AsyncIterator[tuple[int, Event]] | None] = []
            for request in self._requests:
                wanted = self._body.max_tokens != 0
                context = self._service.replies(request, self._count) if wanted else None
                sources.append(None if context is None else await held.enter_async_context(context))
            return EventStream(held.pop_all(), with_errors(self._path, self._chunks(sources)))

    async def _chunks(self, sources: Sequence[AsyncIterator[tuple[int, Event]] | None]) -> AsyncIterator[bytes]:
        options = self._body.stream_options
        with_usage = bool(options and options.include_usage)
        top = head("text_completion", "cmpl", self._model) | ({"usage": None} if with_usage else {})
        used: list[dict[str, Any]] = []
        parts = [self._parts(number, source, used) for number, source in enumerate(sources)]
        async for part in merged(parts) if len(parts) > 1 else parts[0]:
            yield sent(top | part)
        if with_usage:
            yield sent(top | {"choices": [], "usage": summed(used)})
        yield b"data: [DONE]\n\n"

    async def _parts(
        self, number: int, source: AsyncIterator[tuple[int, Event]] | None, used: list[dict[str, Any]]
    ) -> AsyncIterator[dict[str, Any]]:
        """What the chunks of one prompt hold."""
        echo, all_pieces = await self._echo(self._requests[number]), self._pieces()
        first = number * self._count
        entries = [None if echo.logprobs is None else echo.logprobs.copy() for _ in all_pieces]
        finish = None if source is not None else "length"
        if self._body.echo:
            for index, own in enumerate(entries):
                found = None if own is None else own.take()
                yield {"choices": [_choice(first + index, echo.text, finish, found)]}
        if source is None:
            used.append(counted(echo.tokens, 0, echo.cached))
            return
        wordless = set(range(self._count)) if echo.tokens else set()
        async for index, event in source:
            pieces, own = all_pieces[index], entries[index]
            for piece in pieces.of(event):
                if piece.tokens:
                    wordless.discard(index)
                if own is not None:
                    own.add_all(piece.tokens or ())
                found = None if own is None else own.take()
                choice = _choice(first + index, piece.text, None, found) | self._named(piece.tokens)
                yield {"choices": [choice], "wsd": piece.wsd}
            if pieces.reply is not None:
                if own is not None and index in wordless:
                    own.add_end()
                found = None if own is None or index not in wordless else own.take()
                end = _choice(first + index, "", finish_reason(pieces.reply), found)
                yield {"choices": [end], "wsd": pieces.end()}
        replies: list[Reply] = [pieces.finished() for pieces in all_pieces]
        used.append(usage(replies))


def _choice(index: int, text: str, finish: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}


def _scored(token: TokenDetails) -> dict[str, Any]:
    others = [{"id": other, "logprob": logprob(value)} for other, _, value in token.alternatives]
    return {"id": token.id, "logprob": logprob(token.logprob), "top": others}


def summed(used: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Usages of several prompts together."""
    return {
        name: summed([one[name] for one in used]) if isinstance(value, dict) else sum(one[name] for one in used)
        for name, value in used[0].items()
    }


async def gathered(jobs: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all jobs; the first failure ends the others."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _ended(tasks)


async def merged(sources: Sequence[AsyncIterator[T]]) -> AsyncIterator[T]:
    """The items of all sources as they come; the first failure ends the others."""
    queue: asyncio.Queue[T | asyncio.Task[None]] = asyncio.Queue(1)

    async def drain(source: AsyncIterator[T]) -> None:
        async for item in source:
            await queue.put(item)

    tasks = [asyncio.create_task(drain(source)) for source in sources]
    ends = [asyncio.create_task(_put_when_done(task, queue)) for task in tasks]
    left = len(tasks)
    try:
        while left:
            item = await queue.get()
            if not isinstance(item, asyncio.Task):
                yield item
                continue
            item.result()
            left -= 1
    finally:
        await _ended([*ends, *tasks])


async def _put_when_done(task: asyncio.Task[None], queue: asyncio.Queue[Any]) -> None:
    await asyncio.wait([task])
    await queue.put(task)


async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError, Exception):
            await task


def router(service: Service) -> APIRouter:
    """The endpoint, over a service."""
    routes = APIRouter(tags=["OpenAI"], responses=ERRORS)

    @routes.post("/v1/completions", responses=STREAM)
    async def completions(body: CompletionBody, request: Request) -> Response:
        """Continue prompts."""
        answer = _Completions(service, body, request.url.path)
        if not body.stream:
            return JSONResponse(await while_connected(request, answer.whole()))
        return await answer.stream()

    return routes
