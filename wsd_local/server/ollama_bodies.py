"""The bodies of Ollama's requests: what a client may send to `/api/chat`, `/api/generate` and `/api/show`.

Contract: text alone is read. A null, and an empty text or list, count as not given where Ollama's clients send them.
What is set when the server is started cannot be changed by a request, and is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from wsd_local.errors import short
from wsd_local.prompts.messages import Prompt
from wsd_local.prompts.raw import RawPrompt
from wsd_local.server.body import Body, Empty, NoTools, NotSupported, unsupported
from wsd_local.server.errors import ApiError
from wsd_local.server.openai_messages import checked, refuse_media
from wsd_local.server.parameters import Stop, Wsd, events_wanted, reply_settings, spellings

MOST_ALTERNATIVES = 20
"""Alternatives for each token of an answer."""

_AT_START = unsupported("it is set when the server is started; leave it out")
_NO_SAMPLER = unsupported("this way of sampling is not supported; leave it out")
_NO_IMAGES = unsupported("images are not supported; leave it out")
_NO_THINKING = unsupported("the models do not think before they answer; leave it out, or give false")

AtStart = Annotated[None, _AT_START]
NoText = Annotated[Literal[""] | None, unsupported("this is not supported; leave it out")]

_UNITS: Mapping[str, float] = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def seconds_of(value: float | str) -> float | None:
    """The seconds of a duration: a number, or text such as `1h30m`; None if it is negative, which means for ever.

    Raises:
        ApiError: it is no duration.
    """
    if isinstance(value, str):
        sign, text = (-1.0, value[1:]) if value.startswith("-") else (1.0, value)
        found = _PART.findall(text)
        if found and "".join(number + unit for number, unit in found) == text:
            value = sign * sum(float(number) * _UNITS[unit] for number, unit in found)
        elif re.fullmatch(r"\d+(\.\d*)?", text):
            value = sign * float(text)
        else:
            raise ApiError(
                400, f'keep_alive is {short(value)}: give seconds, or a duration such as "5m"', param="keep_alive"
            )
    return None if value < 0 or math.isinf(value) else value


class Options(Body):
    """Parameters of a reply, by Ollama's names."""

    place: ClassVar[str] = "options"
    num_predict: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: Stop = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    num_ctx: Annotated[int, Field(ge=1)] | None = None
    wsd: Wsd = None

    typical_p: Annotated[Literal[1] | Annotated[float, Field(ge=1, le=1)] | None, _NO_SAMPLER] = None
    tfs_z: Annotated[Literal[1] | Annotated[float, Field(ge=1, le=1)] | None, _NO_SAMPLER] = None
    mirostat: Annotated[Literal[0] | None, _NO_SAMPLER] = None
    mirostat_tau: Annotated[None, _NO_SAMPLER] = None
    mirostat_eta: Annotated[None, _NO_SAMPLER] = None
    penalize_newline: Annotated[
        Literal[True] | None, unsupported("a line feed is a token like others; leave it out, or give true")
    ] = None
    num_keep: Annotated[None, unsupported("a context is never shifted; leave it out")] = None
    numa: AtStart = None
    num_batch: AtStart = None
    num_gpu: AtStart = None
    main_gpu: AtStart = None
    num_thread: AtStart = None
    low_vram: AtStart = None
    f16_kv: AtStart = None
    logits_all: AtStart = None
    vocab_only: AtStart = None
    use_mmap: AtStart = None
    use_mlock: AtStart = None
    embedding_only: AtStart = None


_PATHS: Mapping[str, str] = MappingProxyType({name: f"options.{name}" for name in Options.model_fields})


class AnswerBody(Body):
    """What requests for a reply have in common."""

    model: str = ""
    stream: bool | None = None
    options: Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    keep_alive: float | str | None = None
    think: Annotated[Literal[False] | None, _NO_THINKING] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    truncate: bool | None = None
    shift: Annotated[Literal[False] | None, unsupported("a context is never shifted; leave it out")] = None
    wsd: Wsd = None

    @property
    def own(self) -> dict[str, Any]:
        """The object `wsd`, which may stand among the options.

        Raises:
            ApiError: it is given twice.
        """
        inner = None if self.options is None else self.options.wsd
        if self.wsd and inner:
            raise ApiError(400, "wsd is given twice, among the options and beside them; leave one out", param="wsd")
        return self.wsd or inner or {}

    @property
    def events(self) -> bool:
        """Whether the client asks for every event; see `events_wanted`."""
        return events_wanted(self.own, streams=self.stream is not False)

    @property
    def seconds_kept(self) -> float | None:
        """See `seconds_of`; None also if nothing is given."""
        return None if self.keep_alive is None else seconds_of(self.keep_alive)

    @property
    def unloads(self) -> bool:
        """Whether the models are to be freed at once afterwards."""
        return self.keep_alive is not None and self.seconds_kept == 0

    @property
    def details(self) -> int | None:
        """Alternatives for each token, None without log-probabilities.

        Raises:
            ApiError: alternatives are asked for without log-probabilities.
        """
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs is given without logprobs: true", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def settings(self) -> dict[str, Any]:
        """Names and values of `ReplySettings` that the request asks for.

        Raises:
            ApiError: see `reply_settings`.
        """
        return reply_settings(self._given(), self.own, _PATHS)

    def spellings(self) -> dict[str, str]:
        """How the request spells these settings."""
        return spellings(self._given(), self.own, _PATHS)

    def _given(self) -> dict[str, Any]:
        given = {} if self.options is None else {name: getattr(self.options, name) for name in Options.model_fields}
        if given.get("num_predict") == -2:  # as many as fit
            given["num_predict"] = -1
        return {**given, "format": self.format or None}

    def prompt(self) -> Prompt | RawPrompt | None:
        """What is to be answered; None to load or free the models only."""
        raise NotImplementedError


class ChatMessage(Body):
    """A message of a conversation."""

    place: ClassVar[str] = "messages[]"
    role: Literal["system", "user", "assistant"]
    content: str | None = None
    thinking: NoText = None
    images: Annotated[Empty | None, _NO_IMAGES] = None
    tool_calls: NoTools = None
    tool_name: NoText = None
    tool_call_id: NoText = None


class ChatBody(AnswerBody):
    """The body of a request for a chat."""

    messages: Annotated[list[ChatMessage] | None, BeforeValidator(refuse_media)] = None
    tools: NoTools = None

    def prompt(self) -> list[dict[str, Any]] | None:
        """The conversation; None without messages.

        Raises:
            ApiError: it cannot be answered.
        """
        if not self.messages:
            return None
        return checked([{"role": one.role, "content": one.content or ""} for one in self.messages])


class GenerateBody(AnswerBody):
    """The body of a request for a text."""

    prompt_: str | None = Field(None, alias="prompt")
    system: str | None = None
    raw: bool | None = None
    suffix: NoText = None
    template: NoText = None
    context: Annotated[
        Empty | None, unsupported("it is not supported; leave it out, and send the conversation to /api/chat")
    ] = None
    images: Annotated[Empty | None, _NO_IMAGES] = None
    width: NotSupported = None
    height: NotSupported = None
    steps: NotSupported = None

    def prompt(self) -> list[dict[str, Any]] | RawPrompt | None:
        """The conversation, or the text to be continued as it is; None without a prompt.

        Raises:
            ApiError: it cannot be answered.
        """
        if not self.prompt_:
            return None
        if self.raw:
            if self.system:
                raise ApiError(400, "system and raw are given: a raw prompt has no system message", param="system")
            return RawPrompt(self.prompt_)
        system = [{"role": "system", "content": self.system}] if self.system else []
        return checked([*system, {"role": "user", "content": self.prompt_}], "prompt")


def _one_name(body: Any) -> Any:
    if isinstance(body, Mapping) and not body.get("model") and "name" in body:
        return {**body, "model": body["name"]}
    return body


class _ShowBody(Body):
    """The body of a request for what is known of a model; `name` is an older spelling of `model`."""

    model: str = ""
    name: str | None = None
    verbose: bool | None = None
    system: NoText = None
    template: NoText = None
    options: Annotated[Annotated[dict[str, Any], Field(max_length=0)] | None, _AT_START] = None


ShowBody = Annotated[_ShowBody, BeforeValidator(_one_name)]
