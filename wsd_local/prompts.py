"""What the two models are given to read.

Contract: conversations in, prompts out, nothing else. The base reads sections of plain text, the draft reads
the chat template of its own file, rendered in a sandbox. Message text is never parsed for control tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NoReturn, Protocol, TypedDict

from wsd_local.errors import ModelError, UsageError

Role = Literal["system", "user", "assistant"]
ROLES = ("system", "user", "assistant")


class Message(TypedDict):
    """One message of a conversation."""

    role: Role
    content: str


def conversation(prompt: str | Sequence[Mapping[str, Any]], system: str | None = None) -> list[Message]:
    """A checked list of messages from a prompt or from messages.

    Raises:
        UsageError: it says which message is wrong and why.
    """
    given = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    messages = [_message(i, message) for i, message in enumerate(given, 1)]
    if messages and messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    if system is not None and system.strip():
        if any(message["role"] == "system" for message in messages):
            raise UsageError("a system message is given twice: among the messages and apart; leave one out")
        messages.insert(0, {"role": "system", "content": system})
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise UsageError("the prompt is empty: there is no user message with text in it")
    return messages


def _message(number: int, message: Mapping[str, Any]) -> Message:
    if not isinstance(message, Mapping):
        raise UsageError(f"message {number} is not an object with `role` and `content`")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise UsageError(f"message {number} has the role {role!r}; it must be one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise UsageError(f"message {number} ({role}) has no text in `content`")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"message {number} ({role}) is not valid Unicode at character {error.start}") from error
    return {"role": role, "content": content}


def supplied_prefix(messages: Sequence[Message]) -> str | None:
    """The text of a reply that the caller has begun: a last message of the assistant."""
    return messages[-1]["content"] if messages[-1]["role"] == "assistant" else None


# -- the base ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BaseFormat:
    """How a pretrained model is shown a conversation: a heading before each message, and where its turn ends."""

    headings: Mapping[str, str] = field(
        default_factory=lambda: {
            "system": "\n\n[System]\n",
            "user": "\n\n[User]\n",
            "assistant": "\n\n[Assistant]\n",
        }
    )

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that begin another message: each heading's name bare, behind one and behind two newlines."""
        names = [heading.strip() for heading in self.headings.values()]
        return tuple(before + name for name in names for before in ("", "\n", "\n\n"))

    def prompt(self, messages: Sequence[Message]) -> str:
        """The prompt; it ends with the assistant's heading and the text that the caller supplied, if any."""
        prefix = supplied_prefix(messages)
        before = messages if prefix is None else messages[:-1]
        sections = [self.headings[message["role"]] + message["content"].strip() for message in before]
        return "".join(sections) + self.headings["assistant"] + (prefix or "")


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

    Args:
        vocabulary: the draft model.
        fallback: what a draft without a template reads.
        clock: tells the date that templates ask for.

    Raises:
        ModelError: the template cannot be parsed; the message names its line.
    """

    def __init__(
        self,
        vocabulary: TemplateVocabulary,
        fallback: BaseFormat | None = None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.inserted_date: str | None = None
        self._fallback = fallback or BaseFormat()
        self._vocabulary = vocabulary
        self._clock = clock
        self._template = self._compile(vocabulary.chat_template)

    def tokens(self, messages: Sequence[Message]) -> list[int]:
        """The draft's prompt; it ends where the reply begins, behind the text that the caller supplied, if any."""
        prefix = supplied_prefix(messages)
        mask = _unused_character(messages)
        shown = [
            Message(role=message["role"], content=self._vocabulary.mask_controls(message["content"], mask))
            for message in (messages if prefix is None else messages[:-1])
        ]
        text = self._render(shown) + self._vocabulary.mask_controls(prefix or "", mask)
        return self._vocabulary.tokenize_template(text, mask)

    def _compile(self, source: str | None) -> Any:
        if source is None:
            return None
        import jinja2
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals.update(raise_exception=_raise, strftime_now=self._strftime)
        try:
            return environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ModelError(f"the draft's chat template is broken in line {error.lineno}: {error.message}") from error

    def _render(self, messages: list[Message]) -> str:
        if self._template is None:
            return self._fallback.prompt(messages)
        try:
            return str(
                self._template.render(
                    messages=messages,
                    add_generation_prompt=True,
                    enable_thinking=False,
                    bos_token=self._vocabulary.special_spelling("bos"),
                    eos_token=self._vocabulary.special_spelling("eos"),
                )
            )
        except Exception as error:  # a template is a program: it can fail in any way
            raise ModelError(f"the draft's chat template refuses this conversation: {error}") from error

    def _strftime(self, form: str) -> str:
        self.inserted_date = self._clock().strftime(form)
        return self.inserted_date


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _unused_character(messages: Sequence[Message]) -> str:
    """A Unicode noncharacter that stands in no message."""
    used = {character for message in messages for character in message["content"]}
    return next(chr(code) for code in range(0xFDD0, 0x10FFFF) if chr(code) not in used)
