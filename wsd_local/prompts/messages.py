"""Conversations as values.

Contract: pure. A conversation is a list of messages with a role and text. `conversation` checks what callers give,
`merged` joins neighbours, `trimmed` makes a conversation fit into a context by leaving out its oldest turns: whole
turns, never the system message and never the newest turn.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict

from wsd_local.errors import UsageError, short

Role = Literal["system", "user", "assistant"]
"""Who speaks in a message."""
ROLES = ("system", "user", "assistant")
_CALLS = ("tool_calls", "function_call")
_TEXT_PARTS = ("text", "input_text", "output_text")


Prompt = str | Sequence[Mapping[str, Any]]
"""What callers give to be answered: the user's text, or messages with `role` and `content`."""


class Message(TypedDict):
    """One message of a conversation."""

    role: Role
    content: str


def conversation(prompt: Prompt, system: str | None = None, unused: Counter[str] | None = None) -> list[Message]:
    """The checked messages of a prompt.

    The role `developer` is another name for `system`. Content may be a list of parts `{"type": "text", "text": …}`,
    which are joined with line feeds. Fields of messages other than `role` and `content` are ignored.

    Args:
        prompt: the user's text, or messages.
        system: a system message to put first.
        unused: counts the fields that are ignored; if None, a warning names them instead.

    Raises:
        UsageError: a message is wrong; the error says which one and why.
    """
    if isinstance(prompt, bytes | Mapping) or not isinstance(prompt, str | Sequence):
        raise UsageError(f"the prompt is {short(prompt)}: it must be text, or a list of messages")
    given = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    found: Counter[str] = Counter()
    messages = [_message(i, message, found) for i, message in enumerate(given, 1)]
    if unused is not None:
        unused.update(found)
    elif found:
        warnings.warn(f"fields of messages are not used: {counted(found)}", stacklevel=2)
    if messages and messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    if system is not None and system.strip():
        if any(message["role"] == "system" for message in messages):
            raise UsageError("a system message is given twice: among the messages and apart; leave one out")
        messages.insert(0, {"role": "system", "content": _system(system)})
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise UsageError("the prompt is empty: there is no user message with text in it")
    return messages


def counted(unused: Mapping[str, int]) -> str:
    """Names of fields with their counts, for one line of output."""
    return ", ".join(f"`{name}` ({count})" for name, count in unused.items())


def _message(number: int, message: Mapping[str, Any], unused: Counter[str]) -> Message:
    if not isinstance(message, Mapping):
        raise UsageError(f"message {number} is not an object with `role` and `content`")
    role = message.get("role")
    if role == "developer":
        role = "system"
    if role in ("tool", "function") or (role == "assistant" and any(message.get(name) for name in _CALLS)):
        what = f"the role {role!r}" if role != "assistant" else "calls of tools"
        raise UsageError(f"message {number} has {what}: tools are not supported; leave such messages out")
    if role not in ROLES:
        has = "no role" if role is None else f"the role {role!r}"
        raise UsageError(f"message {number} has {has}; it must be one of {', '.join(ROLES)} or developer")
    where = f"message {number} ({role})"
    content = _unicode(_content(message.get("content"), where, unused), where)
    if role != "assistant":  # text that a model wrote must never make the next turn fail
        _refuse_nul(content, where)
    unused.update(
        str(name) for name, value in message.items() if name not in ("role", "content") and has_content(value)
    )
    return {"role": role, "content": content}


def has_content(value: object) -> bool:
    """Whether an ignored field holds anything; null and empty values do not."""
    return value is not None and value not in ("", [], {})


def _content(content: object, where: str, unused: Counter[str]) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple) or not content:
        raise UsageError(f"{where} has no text in `content`")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind not in _TEXT_PARTS:
            raise UsageError(f"{where} has a part of the type {kind!r} in `content`, and only text is read")
        text = part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            raise UsageError(f"{where} has no text in `content`")
        texts.append(text)
        unused.update(f"content.{name}" for name in part if name not in ("type", "text") and has_content(part[name]))
    return "\n".join(texts)


def _unicode(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{where} is not valid Unicode at character {error.start}") from error
    return text


def _system(text: str) -> str:
    where = "the system message"
    _refuse_nul(_unicode(text, where), where)
    return text


def _refuse_nul(text: str, where: str) -> None:
    if "\0" in text:
        raise UsageError(f"{where} holds a NUL character at {text.index(chr(0))}: it is no text; leave it out")


def _joined(before: str, after: str) -> str:
    return f"{before.rstrip()}\n\n{after.lstrip()}"


def merged(messages: Sequence[Message]) -> list[Message]:
    """Messages with neighbours of the same role joined into one, a blank line between their texts.

    A question that was never answered is followed by another question, and many templates refuse a conversation whose
    roles do not alternate.
    """
    found: list[Message] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {"role": message["role"], "content": _joined(found[-1]["content"], message["content"])}
        else:
            found.append(message)
    return found


def supplied_prefix(messages: Sequence[Message]) -> str | None:
    """The beginning of the reply, if the caller supplied one as a last message of the assistant."""
    return messages[-1]["content"] if messages[-1]["role"] == "assistant" else None


# -- making a conversation fit ---------------------------------------------------------------------------------


def turns(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages grouped into turns, without the system's: a turn begins with a user message after an answer."""
    groups: list[list[Message]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        begins = message["role"] == "user" and (not groups or groups[-1][-1]["role"] == "assistant")
        if begins or not groups:
            groups.append([])
        groups[-1].append(message)
    return groups


def trimmed(
    messages: Sequence[Message],
    fits: Callable[[list[Message]], bool],
    roomy: Callable[[list[Message]], bool] | None = None,
    left_out: int = 0,
) -> tuple[list[Message], int]:
    """The conversation without its oldest turns, as few as are needed for it to fit, and how many were left out.

    Args:
        messages: the whole conversation.
        fits: whether a shorter conversation fits.
        roomy: whether it also leaves room for later turns. Once a turn must go, as many go as this asks for: whenever
            the beginning of a prompt changes, all of it is evaluated again, so that should be rare.
        left_out: turns that an earlier call has left out already.

    If even the newest turn alone does not fit, it is returned all the same: the caller checks.
    """
    system = [message for message in messages if message["role"] == "system"]
    groups = turns(messages)
    last = max(0, len(groups) - 1)

    def without(dropped: int) -> list[Message]:
        return system + [message for group in groups[dropped:] for message in group] if dropped else list(messages)

    left_out = min(left_out, last)
    if fits(without(left_out)):
        return without(left_out), left_out
    for enough in (roomy, fits):
        for dropped in range(left_out + 1, last + 1):
            if enough is not None and enough(without(dropped)):
                return without(dropped), dropped
    return without(last), last
