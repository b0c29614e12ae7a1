"""The body of a request to `POST /v1/responses`.

Contract: see `openai_responses`; what stands here is what a client may send.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from wsd_local.errors import short
from wsd_local.server.body import Body, NoToolChoice, NoTools, NotSupported, ServiceTier, unsupported
from wsd_local.server.errors import ApiError
from wsd_local.server.openai_chat import MOST_ALTERNATIVES
from wsd_local.server.openai_messages import TEXT_PARTS, checked
from wsd_local.server.parameters import ReplyBody, schema_of
from wsd_local.server.service import ReplyRequest

_NOT_KEPT = unsupported("responses are not kept; send the whole conversation as input")
_LOGPROBS = "message.output_text.logprobs"


class InputPart(Body):
    """A part of an item's content; `annotations` and `logprobs` are those of an earlier answer, without effect."""

    place: ClassVar[str] = "input[].content[]"
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputMessage(Body):
    """A message; `id`, `status` and `phase` are those of an earlier answer, without effect."""

    place: ClassVar[str] = "input[]"
    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]
    id: str | None = None
    status: str | None = None
    phase: str | None = None

    def plain(self) -> dict[str, Any]:
        """Role and content."""
        if isinstance(self.content, str):
            return {"role": self.role, "content": self.content}
        return {"role": self.role, "content": [{"type": part.type, "text": part.text} for part in self.content]}


def _refuse_others(items: Any) -> Any:
    """Raise `ApiError` for items and parts that are no text, with their place."""
    for number, item in enumerate(items if isinstance(items, list) else []):
        if not isinstance(item, Mapping):
            continue
        kind = item.get("type", "message")
        if isinstance(kind, str) and kind != "message":
            place = f"input[{number}]"
            raise ApiError(400, f"{place} has the type {short(kind)}, and only messages are read", param=place)
        content = item.get("content")
        for index, part in enumerate(content if isinstance(content, list) else []):
            kind = part.get("type") if isinstance(part, Mapping) else None
            if isinstance(kind, str) and kind not in TEXT_PARTS:
                place = f"input[{number}].content[{index}]"
                raise ApiError(400, f"{place} has the type {short(kind)}, and only text is read", param=place)
    return items


class TextFormat(Body):
    """The form of the answer: text, any JSON object, or JSON by a schema."""

    place: ClassVar[str] = "text.format"
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextOptions(Body):
    """How the answer is written."""

    place: ClassVar[str] = "text"
    format: TextFormat | None = None
    verbosity: NotSupported = None

    def as_sent(self) -> dict[str, Any]:
        """The form as the answer repeats it."""
        if self.format is None:
            return {"type": "text"}
        return self.format.model_dump(by_alias=True, exclude_none=True)

    def schema_wanted(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must follow; None for text.

        Raises:
            ApiError: see `schema_of`.
        """
        if self.format is None:
            return None
        return schema_of(self.format.type, self.format.schema_, "text.format", "text.format.schema")


class ResponseStreamOptions(Body):
    """What a stream has beside the answer."""

    place: ClassVar[str] = "stream_options"
    include_obfuscation: Annotated[
        Literal[False] | None, unsupported("padding against eavesdroppers is not supported; leave it out")
    ] = None


class ResponseBody(ReplyBody):
    """The body of a request for a response."""

    paths: ClassVar[Mapping[str, str]] = MappingProxyType({"response_format": "text.format"})
    input: Annotated[str | list[InputMessage], BeforeValidator(_refuse_others)]
    instructions: str | None = None
    max_output_tokens: int | None = None
    text: TextOptions | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    stream_options: ResponseStreamOptions | None = None
    include: Annotated[
        list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None,
        unsupported("only message.output_text.logprobs can be included"),
    ] = None

    previous_response_id: Annotated[None, _NOT_KEPT] = None
    conversation: Annotated[None, _NOT_KEPT] = None
    prompt: Annotated[None, unsupported("prompts are not kept; send the text as input")] = None
    background: Annotated[
        Literal[False] | None,
        unsupported("responses are not kept, so nothing is written in the background; leave it out"),
    ] = None
    tools: NoTools = None
    tool_choice: NoToolChoice = None
    max_tool_calls: NotSupported = None
    reasoning: Annotated[
        dict[str, None] | None, unsupported("the models do not reason before they answer; leave it out")
    ] = None

    store: bool | None = None
    service_tier: ServiceTier = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    def request(self, model: str) -> ReplyRequest:
        """The request for a reply.

        Raises:
            ApiError: parameters contradict each other, or the input cannot be answered.
        """
        with_logprobs = _LOGPROBS in (self.include or ())
        if self.top_logprobs and not with_logprobs:
            raise ApiError(400, f"top_logprobs is given without {_LOGPROBS} in include", param="top_logprobs")
        if self.truncate and self.truncation == "disabled":
            raise ApiError(400, "truncate and truncation: disabled contradict each other", param="truncation")
        details = (self.top_logprobs or 0) if with_logprobs else None
        truncate = bool(self.truncate) or self.truncation == "auto"
        return ReplyRequest(model, self._messages(), self.settings(), details, truncate, self.spellings())

    def _given(self) -> dict[str, Any]:
        schema = None if self.text is None else self.text.schema_wanted()
        return {**super()._given(), "response_format": schema}

    def _messages(self) -> list[dict[str, Any]]:
        given = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else []
        given = given or [item.plain() for item in self.input if isinstance(item, InputMessage)]
        if self.instructions:
            given.insert(0, {"role": "system", "content": self.instructions})
        return checked(given, "input")
