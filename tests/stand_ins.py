"""Servers written from the documented answers of vLLM and SGLang, over the real base, and what can go wrong with them.

`Base` evaluates; `vllm`, `sglang` and `llama_server` are applications with the paths, fields, refusals and limits that
their documentation states. `Trouble` stands before any of them: latency, refusals, streams that break off.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exactness import EXACT
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from wsd_local.core.contexts import Question
from wsd_local.core.rules import Score
from wsd_local.llama import Cancellation, Context, ContextOptions, Model

MAX_LOGPROBS = 20
MAX_MODEL_LEN = 2048


class Base:
    """The base of the exact pair, one evaluation at a time."""

    def __init__(self, path: Path) -> None:
        self.model = Model(path, n_gpu_layers=0)
        options = ContextOptions(
            n_ctx=MAX_MODEL_LEN,
            threads=1,
            n_rows=64,
            cache_type_k=EXACT.cache_type_k,
            cache_type_v=EXACT.cache_type_v,
            flash_attn=EXACT.flash_attn,
        )
        self._context = Context(self.model, options, Cancellation())
        self._lock = threading.Lock()

    def scores(self, tokens: list[int], start: int, top: int) -> list[Score]:
        """The scores of `tokens[start:]`."""
        found: list[Score] = []

        def answer(position: int, row: int) -> None:
            if position + 1 < len(tokens):
                found.append(self._context.score(row, tokens[position + 1], top=top))

        with self._lock:
            self._context.ask(Question(0, tokens, start - 1, answer))
        return found

    def next(self, tokens: list[int], top: int) -> tuple[int, Score]:
        """The most probable next token, and its score."""
        found: list[tuple[int, Score]] = []

        def answer(_: int, row: int) -> None:
            best = self._context.best(row)
            found.append((best, self._context.score(row, best, top=top)))

        with self._lock:
            self._context.ask(Question(0, tokens, len(tokens) - 1, answer))
        return found[0]

    def written(
        self, tokens: list[int], most: int, stops: list[str], top: int
    ) -> Iterator[tuple[int, Score, str | None]]:
        """Tokens of a greedy continuation, each with its score and, the last one, why it ends."""
        text, written = b"", 0
        while True:
            token, score = self.next(tokens, top)
            tokens, written = [*tokens, token], written + 1
            text += self.model.piece(token)
            ends = self.model.is_eog(token) or any(stop.encode() in text for stop in stops)
            reason = "stop" if ends else "length" if written >= most else None
            yield token, score, reason
            if reason is not None:
                return

    def close(self) -> None:
        self._context.close()
        self.model.close()


def _event(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def _refusal(message: str, parameter: str | None = None) -> JSONResponse:
    error = {"message": message, "type": "BadRequestError", "param": parameter, "code": 400}
    return JSONResponse({"error": error}, 400)


async def _streamed(made: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (part := await asyncio.to_thread(next, made, None)) is not None:
        yield part


def _tokenizing(base: Base) -> Callable[[Request], Awaitable[Response]]:
    async def tokenize(request: Request) -> Response:
        body = await request.json()
        assert body["add_special_tokens"] is False
        tokens = base.model.tokenize_text(body["prompt"])
        return JSONResponse({"count": len(tokens), "max_model_len": MAX_MODEL_LEN, "tokens": tokens})

    return tokenize


# -- vLLM ------------------------------------------------------------------------------------------------------------


def vllm(base: Base) -> Starlette:
    """vLLM's OpenAI-compatible server."""

    def named(score: Score, token: int) -> dict[str, Any]:
        rows = {token: score.logprob, **dict(score.top)}
        ordered = sorted(rows.items(), key=lambda row: -row[1])
        return {
            str(number): {"logprob": value, "rank": rank + 1, "decoded_token": base.model.spelling(number)}
            for rank, (number, value) in enumerate(ordered)
        }

    async def completions(request: Request) -> Response:
        body = await request.json()
        tokens, top = body["prompt"], body.get("prompt_logprobs")
        for name in ("prompt_logprobs", "logprobs"):
            if (body.get(name) or 0) > MAX_LOGPROBS:
                kind = "prompt" if name == "prompt_logprobs" else "sample"
                return _refusal(
                    f"Requested {kind} logprobs of {body[name]}, which is greater than max allowed: {MAX_LOGPROBS}",
                    name,
                )
        if body.get("stream") and (top or 0) > 0:
            return _refusal("`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs")
        if len(tokens) + body["max_tokens"] > MAX_MODEL_LEN:
            return _refusal(f"This model's maximum context length is {MAX_MODEL_LEN} tokens.")
        if body.get("stream"):
            return StreamingResponse(_streamed(parts(body)), media_type="text/event-stream")
        scores = await asyncio.to_thread(base.scores, tokens, 1, top)
        rows = [None, *(named(score, token) for score, token in zip(scores, tokens[1:], strict=True))]
        choice = {"index": 0, "text": "x", "logprobs": None, "finish_reason": "length", "prompt_logprobs": rows}
        usage = {"prompt_tokens": len(tokens), "completion_tokens": 1, "total_tokens": len(tokens) + 1}
        return JSONResponse({"id": "cmpl-1", "object": "text_completion", "choices": [choice], "usage": usage})

    def parts(body: Mapping[str, Any]) -> Iterator[bytes]:
        assert body["return_token_ids"]
        assert not body.get("stop") or body["include_stop_str_in_output"]
        top = body.get("logprobs")
        for token, score, reason in base.written(body["prompt"], body["max_tokens"], body.get("stop", []), top or 0):
            choice: dict[str, Any] = {"index": 0, "text": base.model.spelling(token), "token_ids": [token]}
            if top is not None:
                rows = {f"token_id:{number}": value for number, value in (*score.top, (token, score.logprob))}
                choice["logprobs"] = {
                    "tokens": [f"token_id:{token}"],
                    "token_logprobs": [score.logprob],
                    "top_logprobs": [rows],
                    "text_offset": [0],
                }
            yield _event({"choices": [choice | {"finish_reason": reason, "stop_reason": None}]})
        yield b"data: [DONE]\n\n"

    async def models(_: Request) -> Response:
        one = {"id": "big", "object": "model", "owned_by": "vllm", "root": "big", "max_model_len": MAX_MODEL_LEN}
        return JSONResponse({"object": "list", "data": [one]})

    async def version(_: Request) -> Response:
        return JSONResponse({"version": "0.33.0"})

    return Starlette(
        routes=[
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/tokenize", _tokenizing(base), methods=["POST"]),
            Route("/v1/models", models),
            Route("/version", version),
        ]
    )


# -- SGLang ----------------------------------------------------------------------------------------------------------


def sglang(base: Base, *, incremental: bool = False) -> Starlette:
    """SGLang's own server; `incremental` as with `--incremental-streaming-output`."""

    async def generate(request: Request) -> Response:
        body = await request.json()
        tokens, sampling = body["input_ids"], body["sampling_params"]
        if len(tokens) + sampling["max_new_tokens"] > MAX_MODEL_LEN + 1:
            message = f"The input ({len(tokens)} tokens) is longer than the model's context length"
            return JSONResponse({"error": {"message": message}}, 400)
        if body.get("stream"):
            return StreamingResponse(_streamed(parts(body)), media_type="text/event-stream")
        assert sampling["temperature"] == 1.0
        start, top = body["logprob_start_len"], body["top_logprobs_num"]
        scores = await asyncio.to_thread(base.scores, tokens, start + 1, top)
        after = tokens[start + 1 :]
        rows = [[None, tokens[start], None]]
        rows += [[score.logprob, token, None] for score, token in zip(scores, after, strict=True)]
        meta = {
            "id": "1",
            "finish_reason": {"type": "length", "length": 1},
            "prompt_tokens": len(tokens),
            "completion_tokens": 1,
            "cached_tokens": start,
            "input_token_logprobs": rows,
        }
        if top:
            meta["input_top_logprobs"] = [None, *([[value, token, None] for token, value in one.top] for one in scores)]
        return JSONResponse({"text": "x", "output_ids": [1], "meta_info": meta})

    def parts(body: Mapping[str, Any]) -> Iterator[bytes]:
        sampling, top = body["sampling_params"], body.get("top_logprobs_num", 0)
        stops = sampling.get("stop", [])
        assert not stops or sampling["no_stop_trim"]
        ids: list[int] = []
        pairs: list[Any] = []
        tops: list[Any] = []
        for token, score, reason in base.written(body["input_ids"], sampling["max_new_tokens"], stops, top):
            ids.append(token)
            pairs.append([score.logprob, token, None])
            end = None if reason is None else {"type": reason}
            meta: dict[str, Any] = {"id": "1", "finish_reason": end, "completion_tokens": len(ids)}
            if body.get("return_logprob"):
                meta["output_token_logprobs"] = pairs[-1:] if incremental else pairs
                if top:
                    tops.append([[value, other, None] for other, value in score.top])
                    meta["output_top_logprobs"] = tops[-1:] if incremental else tops
            yield _event({"text": None, "output_ids": ids[-1:] if incremental else ids, "meta_info": meta})
        yield b"data: [DONE]\n\n"

    async def models(_: Request) -> Response:
        one = {"id": "big", "object": "model", "owned_by": "sglang", "root": "big", "max_model_len": MAX_MODEL_LEN}
        return JSONResponse({"object": "list", "data": [one]})

    return Starlette(
        routes=[
            Route("/generate", generate, methods=["POST"]),
            Route("/tokenize", _tokenizing(base), methods=["POST"]),
            Route("/v1/models", models),
        ]
    )


def llama_server() -> Starlette:
    """llama.cpp's own server, as far as it is recognised."""

    async def props(_: Request) -> Response:
        return JSONResponse({"build_info": "b9999-abcdef", "total_slots": 1, "default_generation_settings": {}})

    return Starlette(routes=[Route("/props", props)])


# -- trouble ---------------------------------------------------------------------------------------------------------


@dataclass
class Trouble:
    """What stands between a client and a server.

    `latency` is in seconds, for each request. `statuses` are answered to the next requests of `path` in turn, None lets
    one through; "reset" closes the connection. `breaks` are numbers of events after which the next streams break off.
    `answers` replaces whole answers of paths. `asked` counts the requests of each path.
    """

    app: ASGIApp
    latency: float = 0.0
    path: str = ""
    statuses: list[int | str | None] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)
    answers: dict[str, Callable[[], Response]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        self.asked[path] = self.asked.get(path, 0) + 1
        if self.latency:
            await asyncio.sleep(self.latency)
        if path == self.path and self.statuses and (status := self.statuses.pop(0)) is not None:
            if status == "reset":
                _abort(receive)
                return
            error = {"error": {"message": "busy", "type": "overloaded"}}
            await JSONResponse(error, int(status), headers={"Retry-After": "0"})(scope, receive, send)
        elif path in self.answers:
            await self.answers[path]()(scope, receive, send)
        else:
            await self.app(scope, receive, self._breaking(receive, send))

    def _breaking(self, receive: Receive, send: Send) -> Send:
        """Sends until a stream is to break off; whole answers pass."""
        events, left = 0, None

        async def sent(message: Any) -> None:
            nonlocal events, left
            if message["type"] == "http.response.start":
                streams = any(b"event-stream" in value for _, value in message["headers"])
                left = self.breaks.pop(0) if streams and self.breaks else None
            elif left is not None and (events := events + 1) > left:
                _abort(receive)
                return
            await send(message)

        return sent


def _abort(receive: Receive) -> None:
    """Close the connection of a request, without an end of its answer."""
    cycle: Any = receive.__self__  # type: ignore[attr-defined]
    cycle.transport.abort()
