"""Preference pairs: what a record of a preference set means, whichever of the known shapes it has.

Contract: pure. A pair is one conversation and two replies to it. What is wrong with a record is a `Defect`, one of a
few named reasons (`REASONS`), in the order in which they are looked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wsd_local.datasets.formats import transcript
from wsd_local.errors import UsageError, short
from wsd_local.prompts.messages import Message, conversation
from wsd_local.training.columns import TRANSCRIPT, Columns

Reason = Literal[
    "record", "column", "role", "message", "empty", "ending", "turns", "prompts", "same", "long", "twice", "reversed"
]
REASONS: dict[Reason, str] = {
    "record": "not a JSON object",
    "column": "a column is missing, empty or of another kind",
    "role": "a message without a role, or with one that is not system, user or assistant",
    "message": "a message that is no plain text",
    "empty": "an empty prompt, message or reply",
    "ending": "does not end with the assistant's reply",
    "turns": "user and assistant do not take turns",
    "prompts": "the two replies do not follow the same conversation",
    "same": "the chosen reply is the rejected one",
    "long": "longer than the cutoff",
    "twice": "the same pair is there already",
    "reversed": "an earlier pair prefers the other reply",
}
"""Why a record is left out, in words."""

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}


class Defect(ValueError):
    """What is wrong with a record: a reason of `REASONS`, and what it is about."""

    def __init__(self, reason: Reason, about: str = "") -> None:
        super().__init__(about or REASONS[reason])
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two replies to one conversation, which ends with a user message, and may begin with a system message."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    @property
    def conversation(self) -> str:
        """The conversation as one text, to compare."""
        return json.dumps([[message["role"], message["content"].strip()] for message in self.prompt])

    @property
    def opening(self) -> str:
        """How the conversation begins, to keep together those that begin alike: its first user message."""
        first = next(message["content"] for message in self.prompt if message["role"] == "user")
        return " ".join(first.casefold().split())


def pair_of(value: object, columns: Columns) -> PreferencePair:
    """The pair in a record.

    Raises:
        Defect: it holds none that can be trained on.
    """
    if not isinstance(value, Mapping):
        raise Defect("record")
    before = _before(value, columns)
    chosen = _whole(before, _side(value, columns.chosen, columns), columns.chosen)
    rejected = _whole(before, _side(value, columns.rejected, columns), columns.rejected)
    if chosen[:-1] != rejected[:-1]:
        raise Defect("prompts")
    if chosen[-1]["content"].strip() == rejected[-1]["content"].strip():
        raise Defect("same")
    return PreferencePair(tuple(chosen[:-1]), chosen[-1]["content"], rejected[-1]["content"])


def _before(record: Mapping[str, Any], columns: Columns) -> list[Mapping[str, Any]]:
    """The messages that a record holds apart from its two sides."""
    messages = [] if columns.prompt is None else _messages(record, columns.prompt, "user")
    if columns.input is not None and messages and isinstance(about := record.get(columns.input), str) and about.strip():
        messages = [{"role": "user", "content": f"{messages[-1]['content'].rstrip()}\n\n{about}"}]
    system = record.get(columns.system) if columns.system is not None else None
    if system is not None and not isinstance(system, str):
        raise Defect("column", f"`{columns.system}` is no text")
    if system is not None and system.strip():
        if any(_role(message) == "system" for message in messages):
            raise Defect("turns", f"a system message in `{columns.system}`, and another in `{columns.prompt}`")
        messages = [{"role": "system", "content": system}, *messages]
    return messages


def _side(record: Mapping[str, Any], name: str, columns: Columns) -> list[Mapping[str, Any]]:
    if columns.shape == "transcripts":
        value = record.get(name)
        if not isinstance(value, str) or not TRANSCRIPT.match(value):
            raise Defect("column", f"`{name}` is no transcript")
        return _transcript(value, name)
    return _messages(record, name, "assistant")


def _messages(record: Mapping[str, Any], name: str, role: str) -> list[Mapping[str, Any]]:
    """What a field holds: a text of the role, a transcript up to the reply, a message, or messages."""
    value = record.get(name)
    if isinstance(value, str):
        if role == "user" and TRANSCRIPT.match(value) and value.rstrip().endswith("Assistant:"):
            return _transcript(value, name)[:-1]
        return [{"role": role, "content": value}]
    messages = [value] if isinstance(value, Mapping) else value
    if not isinstance(messages, list) or not messages:
        raise Defect("column", f"`{name}` is {'missing' if value is None else short(value)}")
    return messages


def _transcript(text: str, name: str) -> list[Mapping[str, Any]]:
    try:
        return [*transcript(text, name)]
    except ValueError as error:
        raise Defect("column", str(error)) from error


def _whole(before: Sequence[Mapping[str, Any]], side: Sequence[Mapping[str, Any]], name: str) -> list[Message]:
    """The whole conversation of one side, checked."""
    given, reply = [_plain(one) for one in before], [_plain(one) for one in side]
    if reply[0]["role"] == "assistant":
        messages = [*given, *reply]
    else:  # the side is a whole conversation; what stands apart from it must be how it begins
        asked = [one for one in given if one["role"] != "system"]
        messages = reply if any(one["role"] == "system" for one in reply) else [*given[: -len(asked) or None], *reply]
        if [one for one in messages if one["role"] != "system"][: len(asked)] != asked:
            raise Defect("prompts", f"`{name}` does not begin with the prompt")
    _check(messages)
    return _as_text(messages)


def _plain(message: object) -> dict[str, Any]:
    """A message with the usual names of its two fields and of its role."""
    if not isinstance(message, Mapping):
        raise Defect("message", f"{short(message)} is no message")
    if message.get("tool_calls") or message.get("function_call"):
        raise Defect("message", "a call of a tool")
    return {"role": _role(message), "content": message.get("content", message.get("value"))}


def _role(message: object) -> str:
    name = message.get("role", message.get("from")) if isinstance(message, Mapping) else None
    if not isinstance(name, str) or name.lower() not in _ROLES:
        raise Defect("role", "no role" if name is None else f"the role {short(name)}")
    return _ROLES[name.lower()]


def _check(messages: Sequence[Mapping[str, Any]]) -> None:
    if any(isinstance(one["content"], str) and not one["content"].strip() for one in messages):
        raise Defect("empty")
    if messages[-1]["role"] != "assistant":
        raise Defect("ending")
    roles = [one["role"] for one in messages]
    spoken = roles[1:] if roles[0] == "system" else roles
    if len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2) or not spoken:
        raise Defect("turns")


def _as_text(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    try:
        found = conversation(messages, unused=Counter())
    except UsageError as error:
        raise Defect("message", str(error)) from error
    if len(found) < len(messages) or any(not one["content"].strip() for one in found):
        raise Defect("empty")
    return found
