"""The messages of OpenAI's requests: what a client may send as a conversation.

Contract: text alone is read. Images, audio, files and tools are refused with the place where they stand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from wsd_local.errors import UsageError, short
from wsd_local.prompts.messages import conversation
from wsd_local.server.body import Body, Empty, NotSupported, unsupported
from wsd_local.server.errors import ApiError

TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of parts that hold text."""

_NO_CALLS = unsupported("calls of tools are not supported; leave such messages out")


class TextPart(Body):
    """A part of a message's content."""

    place: ClassVar[str] = "messages[].content[]"
    type: Literal["text", "input_text", "output_text"]
    text: str


class ChatMessage(Body):
    """A message of a conversation. `name` does not reach the models."""

    place: ClassVar[str] = "messages[]"
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: NotSupported = None
    audio: NotSupported = None
    function_call: Annotated[None, _NO_CALLS] = None
    tool_calls: Annotated[Empty | None, _NO_CALLS] = None

    def plain(self) -> dict[str, Any]:
        """Role and content."""
        return self.model_dump(include={"role", "content"})


def refuse_media(messages: Any) -> Any:
    """Raise `ApiError` for parts that hold no text, and for messages of tools, with their place."""
    for number, message in enumerate(messages if isinstance(messages, list) else []):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role in ("tool", "function"):
            place = f"messages[{number}].role"
            raise ApiError(400, f"{place} is {role!r}: tools are not supported; leave such messages out", param=place)
        content = message.get("content") if isinstance(message, Mapping) else None
        for index, part in enumerate(content if isinstance(content, list) else []):
            kind = part.get("type") if isinstance(part, Mapping) else None
            if isinstance(kind, str) and kind not in TEXT_PARTS:
                place = f"messages[{number}].content[{index}]"
                raise ApiError(400, f"{place} has the type {short(kind)}, and only text is read", param=place)
    return messages


Messages = Annotated[list[ChatMessage], BeforeValidator(refuse_media), Field(min_length=1)]
"""A conversation to answer."""


def checked(messages: Sequence[Mapping[str, Any]], param: str = "messages") -> list[dict[str, Any]]:
    """A conversation that can be answered.

    Args:
        messages: with `role` and `content`.
        param: the parameter that they come from.

    Raises:
        ApiError: it cannot; the message says which message is wrong and why.
    """
    try:
        return [dict(message) for message in conversation(messages, unused=Counter())]
    except UsageError as error:
        raise ApiError(400, str(error), param=param) from None
