"""Endpoints of our own, by llama-server's names where it has them: health, properties, tokens, templates, slots,
figures, and scores of given tokens.

Contract: shapes of llama-server are kept where they exist, so that its clients work; what this program has beside them
is added. `/v1/score` evaluates what the cache does not hold: many requests share evaluations, and a text that continues
one that was scored before costs its end only.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field, model_validator

from wsd_local.errors import WsdError
from wsd_local.server.body import Body
from wsd_local.server.errors import ApiError, api_error
from wsd_local.server.metrics import Metrics
from wsd_local.server.openai_answers import ERRORS, UNKNOWN_LOGPROB, model_named
from wsd_local.server.service import ScoredToken, ScoreRequest, Scores, Service
from wsd_local.server.streaming import listed, while_connected
from wsd_local.version import __version__

MOST_SCORED = 1024
"""Requests in one call of `/v1/score`."""
TOP = 100
"""Alternatives for a token in `/v1/score`."""
MOST_VALUES = 1 << 21
"""Log-probabilities in one answer of `/v1/score`, which take some hundred megabytes of memory."""

TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]


class ModelBody(Body):
    """The body of a request to a model."""

    model: str = Field("", description="Model; may be left out where one pair is served.")


class TokenizeBody(ModelBody):
    """A text to be divided into tokens."""

    content: str | None = None
    prompt: str | None = Field(None, description="vLLM's name of `content`.")
    add_special: bool = Field(False, description="Put the model's first token before it, if it has one.")
    add_special_tokens: bool | None = Field(None, description="vLLM's name of `add_special`.")
    parse_special: bool = Field(True, description="What is spelled like a control token becomes one.")
    with_pieces: bool = Field(False, description="Also give the text of each token.")

    @model_validator(mode="after")
    def _one_text(self) -> TokenizeBody:
        if (self.content is None) == (self.prompt is None):
            raise ValueError("give content, or prompt")
        return self

    @property
    def text(self) -> str:
        """The text, by either name."""
        return self.content or self.prompt or ""

    @property
    def bos(self) -> bool:
        """Whether the model's first token precedes it."""
        return self.add_special if self.add_special_tokens is None else self.add_special_tokens


class DetokenizeBody(ModelBody):
    """Tokens to be joined into a text."""

    tokens: list[TokenId] = Field(max_length=1 << 20)


class TemplateBody(ModelBody):
    """A conversation to be written as the models would read it."""

    messages: list[dict[str, Any]]


class ScoredText(Body):
    """Tokens to be scored from `start` on, or a text to be scored as the continuation of another."""

    tokens: list[TokenId] | None = Field(None, min_length=1)
    start: int | None = Field(
        None, ge=1, strict=True, description="Index of the first token that is scored; the first of all cannot be."
    )
    prompt: str | None = Field(None, description="Text before what is scored.")
    continuation: str | None = Field(None, min_length=1, description="Text that is scored.")
    top: int = Field(0, ge=0, le=TOP, strict=True, description="Most probable tokens to give for each place.")

    @model_validator(mode="after")
    def _one_of_both(self) -> ScoredText:
        by_tokens, by_text = self.tokens is not None, self.continuation is not None
        if by_tokens == by_text:
            raise ValueError("give tokens and start, or prompt and continuation")
        if by_tokens and (self.start is None or self.prompt is not None):
            raise ValueError("tokens go with start, and without prompt")
        if by_text and self.start is not None:
            raise ValueError("start goes with tokens; a continuation is scored from its beginning on")
        return self


class ScoreBody(ModelBody):
    """One text to be scored, or many that share evaluations."""

    requests: Annotated[list[ScoredText], Field(min_length=1, max_length=MOST_SCORED)]


def router(service: Service, metrics: Metrics) -> APIRouter:
    """The endpoints."""
    made = APIRouter(tags=["wsd-local"], responses=ERRORS)
    _add_state(made, service, metrics)
    _add_tokens(made, service)

    @made.post("/v1/score")
    async def score(request: Request, body: ScoreBody) -> Response:
        """Natural log-probabilities (temperature 1) of given tokens, with the most probable ones in their places."""
        model = model_named(service, body.model)
        return await while_connected(request, _scores(service, model, body.requests))

    return made


def _add_state(made: APIRouter, service: Service, metrics: Metrics) -> None:
    @made.get("/v1/health", include_in_schema=False)
    @made.get("/health", responses={503: {"description": "Models are being loaded, or the server ends."}})
    async def health() -> JSONResponse:
        """Whether requests are answered: 200, or 503 while models are loaded or the server ends."""
        if service.status.state == "ready":
            return JSONResponse({"status": "ok"})
        messages = {"loading": "the models are being loaded", "ending": "the server is about to end"}
        message = messages.get(service.status.state, "the models could not be loaded; the server's log says why")
        error = {"message": message, "type": "unavailable_error", "code": 503}
        answer = {"status": service.status.state, "progress": dict(service.status.progress), "error": error}
        return JSONResponse(answer, 503, headers={"Retry-After": "1"})

    @made.get("/props")
    async def props() -> dict[str, Any]:
        """What is served, and the defaults of replies."""
        models = service.models()
        settings = service.defaults
        n_ctx = next((model.n_ctx for model in models if model.loaded), None)
        return {
            "default_generation_settings": {"n_ctx": n_ctx, "params": asdict(settings)},
            "total_slots": len(service.status.slots()),
            "model_alias": models[0].id,
            "models": [_described(model) for model in models],
            "modalities": {"vision": False, "audio": False},
            "build_info": f"wsd-local {__version__}",
        }

    @made.get("/slots")
    async def slots(fail_on_no_slot: Literal["0", "1", ""] = "") -> list[dict[str, Any]]:
        """What each place for a request in progress does; with `fail_on_no_slot=1` 503 where none is free."""
        found = service.status.slots()
        if fail_on_no_slot == "1" and all(slot.phase != "idle" for slot in found):
            raise ApiError(503, "no slot is free", code="unavailable")
        return [{**asdict(slot), "is_processing": slot.phase != "idle"} for slot in found]

    @made.get("/metrics", response_class=Response)
    async def figures(request: Request) -> Response:
        """Figures of the server for Prometheus."""
        text, kind = metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": kind})


def _described(model: Any) -> dict[str, Any]:
    known = asdict(model)
    return {name: known[name] for name in ("id", "pair", "mode", "names", "n_ctx", "loaded")}


def _add_tokens(made: APIRouter, service: Service) -> None:
    @made.post("/tokenize")
    async def tokenize(body: TokenizeBody) -> Response:
        """The tokens of a text."""
        model = model_named(service, body.model)
        tokens = await service.texts.tokenize(model, body.text, special=body.parse_special, bos=body.bos)
        if not body.with_pieces:
            return listed({"count": len(tokens), "max_model_len": _n_ctx(service, model)}, "tokens", tokens)
        pieces = await service.texts.pieces(model, tokens)
        return listed(
            {}, "tokens", zip(tokens, pieces, strict=True), lambda one: {"id": one[0], "piece": _piece(one[1])}
        )

    @made.post("/detokenize")
    async def detokenize(body: DetokenizeBody) -> dict[str, str]:
        """The text of tokens; bytes that are no characters become U+FFFD."""
        pieces = await service.texts.pieces(model_named(service, body.model), body.tokens)
        content = b"".join(pieces).decode("utf-8", "replace")
        return {"content": content, "prompt": content}

    @made.get("/tokenizer_info")
    async def tokenizer_info(model: str = "") -> dict[str, Any]:
        """What vLLM's clients ask about a tokenizer: its first and last token, null where there is none."""
        name = model_named(service, model)
        spelled = await service.texts.special_tokens(name)
        return {
            "tokenizer_class": "GGUF",
            "bos_token": spelled.get("bos"),
            "eos_token": spelled.get("eos"),
            "chat_template": None,
            "model_max_length": _n_ctx(service, name),
        }

    @made.get("/v1/vocabulary", response_class=Response)
    async def vocabulary(model: str = "") -> Response:
        """A model's vocabulary as a GGUF file without weights, which tokenises as the model does."""
        data = await service.texts.vocabulary(model_named(service, model))
        return Response(data, media_type="application/octet-stream")

    @made.post("/apply-template")
    async def template(body: TemplateBody) -> dict[str, Any]:
        """What the models would read of a conversation; `prompt` is what the model that continues reads."""
        prompts = await service.texts.prompts(model_named(service, body.model), body.messages)
        return {"prompt": prompts.get("base", prompts.get("draft", "")), "prompts": dict(prompts)}


def _n_ctx(service: Service, name: str) -> int | None:
    return next((model.n_ctx for model in service.models() if model.id == name), None)


def _piece(piece: bytes) -> str | list[int]:
    """A token's text; its bytes where they are no whole characters."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)


# -- scores ----------------------------------------------------------------------------------------------------------


async def _scores(service: Service, model: str, texts: list[ScoredText]) -> Response:
    """The answer of `/v1/score`: no more at once than there are slots, so that they do not fill the queue."""
    asked = sum(_most(text) * (1 + text.top) for text in texts)
    if asked > MOST_VALUES:
        what = f"requests: up to {asked} log-probabilities are asked for, and a call has at most {MOST_VALUES}"
        raise ApiError(400, f"{what}; send fewer requests, or a smaller top", param="requests")
    places = asyncio.Semaphore(max(1, len(service.status.slots())))

    async def one(number: int) -> tuple[int, Scores]:
        request = await _score_request(service, model, texts[number], number)
        async with places:
            try:
                return request.start, await service.score(request)
            except WsdError as error:
                raise _in_request(error, number) from None

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(len(texts))]
    except* Exception as failed:
        raise failed.exceptions[0] from None
    found = [task.result() for task in tasks]
    scored = sum(len(scores.tokens) for _, scores in found)
    given = sum(start + len(scores.tokens) for start, scores in found)
    cached = sum(scores.cached for _, scores in found)
    used = {
        "prompt_tokens": given,
        "scored_tokens": scored,
        "total_tokens": given,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    fields = {"object": "list", "model": model, "usage": used}
    return listed(fields, "results", found, lambda one: _result(*one), at_once=1)


def _most(text: ScoredText) -> int:
    """Tokens of a text that are scored, at most."""
    return len(text.continuation or "") if text.tokens is None else len(text.tokens) - (text.start or 0)


async def _score_request(service: Service, model: str, text: ScoredText, number: int) -> ScoreRequest:
    if text.tokens is not None and text.start is not None:
        if text.start >= len(text.tokens):
            where = f"requests[{number}].start"
            raise ApiError(
                400, f"{where} is {text.start}: there are {len(text.tokens)} tokens, none would be scored", param=where
            )
        return ScoreRequest(model, text.tokens, text.start, text.top)
    before = await service.texts.tokenize(model, text.prompt or "", bos=True)
    after = await service.texts.tokenize(model, text.continuation or "")
    return ScoreRequest(model, [*before, *after], len(before), text.top)


def _in_request(error: WsdError, number: int) -> ApiError:
    """An error about one of several requests, with its place."""
    known = api_error(error)
    if error.about is not None:
        place = f"requests[{number}]"
        known.message, known.param = f"{place}: {known.message}", f"{place}.{error.about}"
    return known


def _result(start: int, scores: Scores) -> dict[str, Any]:
    return {
        "start": start,
        "logprob": _logprob(sum(token.logprob for token in scores.tokens)),
        "tokens": [_token(token) for token in scores.tokens],
        "cached_tokens": scores.cached,
    }


def _token(token: ScoredToken) -> dict[str, Any]:
    return {
        **_named(token.id, token.text, token.logprob),
        "top": [_named(*alternative) for alternative in token.top],
    }


def _named(id: int, text: bytes, logprob: float) -> dict[str, Any]:
    return {"id": id, "text": text.decode("utf-8", "replace"), "bytes": list(text), "logprob": _logprob(logprob)}


def _logprob(value: float) -> float:
    return value if math.isfinite(value) else UNKNOWN_LOGPROB
