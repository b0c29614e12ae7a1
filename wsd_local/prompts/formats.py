"""What the two models are given to read.

Contract: conversations in, prompts out, nothing else. The base reads sections of plain text, the draft reads what the
chat template of its own file makes, in a process of its own (see `wsd_local.prompts.templates`). Message text is never
parsed for control tokens. Neighbouring messages of one role are one message in both prompts.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict

from wsd_local.core.text import THINKING
from wsd_local.errors import UsageError, short
from wsd_local.prompts.templates import Template, never

SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Tokens whose spelling templates may ask for, as `bos_token`."""
NO_THINKING = {"enable_thinking": False, "thinking": False, "thinking_budget": 0}
"""How templates of thinking models are asked for none."""

Role = Literal["system", "user", "assistant"]
ROLES = ("system", "user", "assistant")
_CALLS = ("tool_calls", "function_call")
_TEXT_PARTS = ("text", "input_text", "output_text")


class Message(TypedDict):
    """One message of a conversation."""

    role: Role
    content: str


def conversation(
    prompt: str | Sequence[Mapping[str, Any]], system: str | None = None, unused: Counter[str] | None = None
) -> list[Message]:
    """A checked list of messages from a prompt or from messages.

    The role `developer` is another name for `system`. Content may be a list of parts `{"type": "text", "text": …}`,
    which are joined with line feeds. Fields of messages beside `role` and `content` are not used.

    Args:
        prompt: the user's text, or messages.
        system: a system message to put in front.
        unused: counts the fields that were not used; where it is None, a warning names them.

    Raises:
        UsageError: it says which message is wrong and why.
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
    """Names of fields with how often each was there, for a line."""
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
    if role != "assistant":  # what a model wrote must never end a conversation
        _refuse_nul(content, where)
    unused.update(
        str(name) for name, value in message.items() if name not in ("role", "content") and has_content(value)
    )
    return {"role": role, "content": content}


def has_content(value: object) -> bool:
    """Whether a field that is not used would say something: null and what is empty do not."""
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
    """Messages with neighbours of one role as one, their texts parted by a blank line.

    A question whose answer never came is followed by another question, and many templates refuse what does not take
    turns.
    """
    found: list[Message] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {"role": message["role"], "content": _joined(found[-1]["content"], message["content"])}
        else:
            found.append(message)
    return found


def supplied_prefix(messages: Sequence[Message]) -> str | None:
    """The text of a reply that the caller has begun: a last message of the assistant."""
    return messages[-1]["content"] if messages[-1]["role"] == "assistant" else None


# -- the base ------------------------------------------------------------------------------------------------


def _sections() -> dict[str, str]:
    return {role: f"\n\n[{role.capitalize()}]\n" for role in ROLES}


@dataclass(frozen=True, slots=True)
class BaseFormat:
    """How a pretrained model is shown a conversation.

    Args:
        headings: what stands before a message of each role.
        ending: what stands behind each message.
        stop: strings that end the reply; None: what begins another message, which is each heading's name bare, behind
            one and behind two newlines.
        prefix: text in front of everything, such as examples.

    Raises:
        UsageError: a role has no heading, or a stop string is empty.
    """

    headings: Mapping[str, str] = field(default_factory=_sections)
    ending: str = ""
    stop: tuple[str, ...] | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.headings, Mapping):
            raise UsageError(f"the base format has the headings {short(self.headings)}: give one for each role")
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        elif not isinstance(self.stop, list | tuple | None):
            raise UsageError(f"the base format has the stop strings {short(self.stop)}: give a list of texts")
        for role in ROLES:
            if not isinstance(self.headings.get(role), str):
                raise UsageError(f"the base format has no heading for the role {role}")
        if unknown := set(self.headings) - set(ROLES):
            raise UsageError(f"the base format has a heading for {min(unknown)!r}; roles are {', '.join(ROLES)}")
        if self.stop is not None and not all(isinstance(stop, str) and stop for stop in self.stop):
            raise UsageError("the base format has a stop string that is empty or no text")
        for name in ("ending", "prefix"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"the base format has {name!r} that is no text")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> BaseFormat:
        """A format from plain values: `headings`, `stop` and `prefix`, each of which may be left out.

        Raises:
            UsageError: a name is unknown or a value cannot be meant.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"the base format is {short(values)}: it must be a table")
        if unknown := set(values) - {"headings", "ending", "stop", "prefix"}:
            raise UsageError(f"the base format has no {min(unknown)!r}; known are headings, ending, stop and prefix")
        headings, stop = values.get("headings", {}), values.get("stop")
        if not isinstance(headings, Mapping) or not isinstance(stop, list | tuple | None):
            raise UsageError("the base format must hold a table `headings` and a list `stop`")
        return cls(
            {**_sections(), **headings},
            values.get("ending", ""),
            None if stop is None else tuple(stop),
            values.get("prefix", ""),
        )

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end the reply."""
        if self.stop is not None:
            return self.stop
        names = [name for heading in self.headings.values() if (name := heading.strip())]
        return tuple(before + name for name in names for before in ("", "\n", "\n\n"))

    def prompt(self, messages: Sequence[Message]) -> str:
        """The prompt; it ends with the assistant's heading and the text that the caller supplied, if any."""
        supplied = supplied_prefix(messages)
        before = merged(messages if supplied is None else messages[:-1])
        sections = [self.headings[message["role"]] + message["content"].strip() + self.ending for message in before]
        return self.prefix + "".join(sections) + self.headings["assistant"] + (supplied or "")


def urial_format(prompt: str) -> BaseFormat:
    """How URIAL (arXiv 2312.01552) shows a conversation: behind its in-context prompt, each text between fences."""
    return BaseFormat(
        headings={"system": "# Instruction\n```\n", "user": "# Query:\n```\n", "assistant": "# Answer:\n```\n"},
        ending="\n```\n\n",
        stop=("\n```\n\n# Query", "# Query:"),
        prefix=prompt.strip() + "\n\n",
    )


# -- the draft -----------------------------------------------------------------------------------------------


class TemplateVocabulary(Protocol):
    """What rendering needs of the draft model."""

    @property
    def chat_template(self) -> str | None: ...

    def tokenize_template(self, text: str, mask: str) -> list[int]: ...

    def mask_controls(self, text: str, mask: str) -> str: ...

    def special_spelling(self, name: str) -> str: ...


class DraftFormat:
    """The draft's prompt: the file's own chat template, or sections of plain text if it has none.

    Templates are rendered as Hugging Face transformers renders them, without tools, and asked for no thinking; where
    they open a block of thinking all the same, it is closed. A template that refuses system messages finds their text
    in front of the first user message.

    Args:
        vocabulary: the draft model.
        fallback: what a draft without a template reads.
        clock: tells the date that templates ask for.
        template: what compiles and renders the template; the caller closes it.
        path: the draft's file, for errors.
        cancelled: whether a stop was asked for; asked while the template is compiled.

    Raises:
        ModelError: the template cannot be parsed, and the message names its line; or it breaks a limit.
        CancelledError: a stop was asked for.
    """

    def __init__(
        self,
        vocabulary: TemplateVocabulary,
        fallback: BaseFormat | None = None,
        clock: Callable[[], datetime] = datetime.now,
        *,
        template: Template | None = None,
        path: Path | None = None,
        cancelled: Callable[[], bool] = never,
    ) -> None:
        self.inserted_date: str | None = None
        self._fallback = fallback or BaseFormat()
        self._vocabulary = vocabulary
        self._clock = clock
        self._template = template or Template()
        self._has_template = vocabulary.chat_template is not None
        if vocabulary.chat_template is not None:
            name = "the draft's chat template"
            self._template.compile(vocabulary.chat_template, name if path is None else f"{path}: {name}", cancelled)

    def tokens(self, messages: Sequence[Message], cancelled: Callable[[], bool] = never) -> list[int]:
        """The draft's prompt; it ends where the reply begins, after the text that the caller supplied, if any.

        Raises:
            ModelError: the template refuses the conversation, or breaks a limit.
            FitError: the conversation is too long for any model.
            CancelledError: `cancelled` says so.
        """
        prefix = supplied_prefix(messages)
        mask = _unused_character(messages)
        shown = [
            Message(role=message["role"], content=self._vocabulary.mask_controls(message["content"], mask))
            for message in merged(messages if prefix is None else messages[:-1])
        ]
        text = _closed(self._render(shown, cancelled)) + self._vocabulary.mask_controls(prefix or "", mask)
        return self._vocabulary.tokenize_template(text, mask)

    def _render(self, messages: list[Message], cancelled: Callable[[], bool]) -> str:
        if not self._has_template:
            return self._fallback.prompt(messages)
        without = merged(_without_system(messages))
        conversations = [messages] if without == messages else [messages, without]
        text, date = self._template.render(conversations, self._values(), self._clock(), cancelled)
        self.inserted_date = date or self.inserted_date
        return text

    def _values(self) -> dict[str, Any]:
        """What templates find beside the messages. As in transformers, tokens that there are not are undefined."""
        spelled = {f"{name}_token": self._vocabulary.special_spelling(name) for name in SPECIAL_TOKENS}
        known = {name: text for name, text in spelled.items() if text or name in ("bos_token", "eos_token")}
        return {**NO_THINKING, **known}


def _without_system(messages: list[Message]) -> list[Message]:
    """The conversation with the system's text in front of the first user message."""
    said = [message["content"].strip() for message in messages if message["role"] == "system"]
    others = [Message(role=m["role"], content=m["content"]) for m in messages if m["role"] != "system"]
    first = next((message for message in others if message["role"] == "user"), None)
    if said and first is not None:
        first["content"] = "\n\n".join([*said, first["content"]])
    return others


def _closed(prompt: str) -> str:
    """A prompt with the block of thinking closed that it opens at its end, if it does."""
    opened = prompt.rstrip()
    for left, right in THINKING:
        if opened.endswith(left):
            return f"{opened}\n\n{right}\n\n"
    return prompt


def _unused_character(messages: Sequence[Message]) -> str:
    """A Unicode noncharacter that stands in no message."""
    used = {character for message in messages for character in message["content"]}
    return next(chr(code) for code in range(0xFDD0, 0x10FFFF) if chr(code) not in used)
