"""The bodies of Anthropic's requests: what a client may send to `/v1/messages` and `/v1/messages/count_tokens`.

Contract: text alone is read. Images, documents, tools and thinking are refused with the place where they stand. The
marks of a cache (`cache_control`) have no effect: prompts are always cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from wsd_local.errors import short
from wsd_local.server.body import Body, Empty, NoTools, NotSupported, unsupported
from wsd_local.server.errors import ApiError
from wsd_local.server.openai_messages import refuse_media
from wsd_local.server.parameters import Wsd, events_wanted, reply_settings, spellings


class TextBlock(Body):
    """A block of text."""

    place: ClassVar[str] = "content[]"
    type: Literal["text"]
    text: str
    cache_control: dict[str, Any] | None = None
    citations: Annotated[Empty | None, unsupported("citations are not supported; leave it out")] = None


Content = str | list[TextBlock]

_PATHS: Mapping[str, str] = MappingProxyType({"format": "output_config.format"})


def _refuse_media(system: Any) -> Any:
    """Raise `ApiError` for blocks of a system prompt that hold no text, with their place."""
    for index, block in enumerate(system if isinstance(system, list) else []):
        kind = block.get("type") if isinstance(block, Mapping) else None
        if isinstance(kind, str) and kind != "text":
            place = f"system[{index}]"
            raise ApiError(400, f"{place} has the type {short(kind)}, and only text is read", param=place)
    return system


def _plain(content: Content) -> str | list[dict[str, str]]:
    return content if isinstance(content, str) else [{"type": "text", "text": block.text} for block in content]


class InputMessage(Body):
    """A message of a conversation."""

    place: ClassVar[str] = "messages[]"
    role: Literal["user", "assistant", "system"]
    content: Content


class NoThinking(Body):
    """The absence of thinking."""

    place: ClassVar[str] = "thinking"
    type: Annotated[
        Literal["disabled"],
        unsupported("the models do not think before they answer; leave thinking out, or disable it"),
    ]
    budget_tokens: NotSupported = None
    display: NotSupported = None


class NoChoice(Body):
    """A choice of tools that chooses none."""

    place: ClassVar[str] = "tool_choice"
    type: Annotated[Literal["none", "auto"], unsupported("tools are not supported; leave tool_choice out")]
    disable_parallel_tool_use: bool | None = None


class OutputFormat(Body):
    """JSON by a schema."""

    place: ClassVar[str] = "output_config.format"
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(Body):
    """The form of an answer."""

    place: ClassVar[str] = "output_config"
    format: OutputFormat | None = None
    effort: NotSupported = None


Conversation = Annotated[list[InputMessage], BeforeValidator(refuse_media), Field(min_length=1)]


class CountBody(Body):
    """The body of a request that counts tokens, and what both requests have in common."""

    model: str = ""
    messages: Conversation
    system: Annotated[Content | None, BeforeValidator(_refuse_media)] = None
    output_config: OutputConfig | None = None
    thinking: NoThinking | None = None
    tools: NoTools = None
    tool_choice: NoChoice | None = None
    mcp_servers: NoTools = None
    container: NotSupported = None
    context_management: NotSupported = None
    speed: Annotated[Literal["standard"] | None, unsupported("there is one speed; leave it out, or give standard")] = (
        None
    )

    cache_control: dict[str, Any] | None = None
    user_profile_id: str | None = None

    def conversation(self) -> list[dict[str, Any]]:
        """The messages, the system's first."""
        system = [] if not self.system else [{"role": "system", "content": _plain(self.system)}]
        return system + [{"role": one.role, "content": _plain(one.content)} for one in self.messages]


class MessagesBody(CountBody):
    """The body of a request for a message."""

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    diagnostics: NotSupported = None
    truncate: bool | None = None
    wsd: Wsd = None

    metadata: dict[str, Any] | None = None
    service_tier: Annotated[
        Literal["auto", "standard_only"] | None,
        unsupported("there are no tiers here; leave it out, or give auto or standard_only"),
    ] = None
    inference_geo: str | None = None

    @property
    def events(self) -> bool:
        """Whether the client asks for every event; see `events_wanted`."""
        return events_wanted(self.wsd, streams=bool(self.stream))

    def settings(self) -> dict[str, Any]:
        """Names and values of `ReplySettings` that the request asks for.

        Raises:
            ApiError: see `reply_settings`.
        """
        return reply_settings(self._given(), self.wsd, _PATHS)

    def spellings(self) -> dict[str, str]:
        """How the request spells these settings."""
        return spellings(self._given(), self.wsd, _PATHS)

    def _given(self) -> dict[str, Any]:
        names = ("max_tokens", "stop_sequences", "temperature", "top_p", "top_k")
        form = None if self.output_config is None else self.output_config.format
        return {name: getattr(self, name) for name in names} | {"format": None if form is None else form.schema_}
