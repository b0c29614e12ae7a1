"""The prompt of the draft model: its own chat template, or sections of plain text if its file has none.

Contract: a conversation in, tokens out. The template is rendered in a process of its own (see
`wsd_local.prompts.templates`). Control tokens are parsed only in the template's text, never in that of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.messages import Message, merged, supplied_prefix
from wsd_local.prompts.templates import Template, never
from wsd_local.prompts.thinking import NO_THINKING, without_open_thinking

SPECIAL_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""Tokens whose text templates can insert, as `bos_token`."""


class TemplateVocabulary(Protocol):
    """What rendering needs of the draft model."""

    @property
    def chat_template(self) -> str | None: ...

    def tokenize_template(self, text: str, mask: str) -> list[int]: ...

    def mask_controls(self, text: str, mask: str) -> str: ...

    def special_spelling(self, name: str) -> str: ...


@dataclass(frozen=True, slots=True)
class DraftPrompt:
    """A rendered conversation: its tokens, and the date that the template wrote into it, if it did."""

    tokens: list[int]
    date: str | None


class DraftFormat:
    """How a conversation is written for the draft model.

    Templates are rendered as in Hugging Face transformers, without tools and with thinking turned off. If a template
    refuses system messages, their text goes before that of the first user message.

    Args:
        vocabulary: the draft model.
        fallback: the format of a draft model without a template.
        clock: the date for templates that insert one.
        template: compiles and renders the template; the caller closes it.
        path: the draft's file, for errors.
        cancelled: whether to stop; called while the template is compiled.

    Raises:
        ModelError: the template cannot be parsed (the message names the line), or it exceeds a limit.
        CancelledError: `cancelled` returned True.
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
        self._fallback = fallback or BaseFormat()
        self._vocabulary = vocabulary
        self._clock = clock
        self._template = template or Template()
        self._has_template = vocabulary.chat_template is not None
        if vocabulary.chat_template is not None:
            name = "the draft's chat template"
            self._template.compile(vocabulary.chat_template, name if path is None else f"{path}: {name}", cancelled)

    def prompt(self, messages: Sequence[Message], cancelled: Callable[[], bool] = never) -> DraftPrompt:
        """The prompt; it ends where the reply begins, after the text that the caller supplied, if any.

        Raises:
            RefusedError: the template refuses the conversation.
            ModelError: it exceeds a limit.
            FitError: the conversation is too long for any model.
            CancelledError: `cancelled` returned True.
        """
        prefix = supplied_prefix(messages)
        mask = _unused_character(messages)
        masked = [
            Message(role=message["role"], content=self._vocabulary.mask_controls(message["content"], mask))
            for message in merged(messages if prefix is None else messages[:-1])
        ]
        rendered, date = self._render(masked, cancelled)
        text = without_open_thinking(rendered) + self._vocabulary.mask_controls(prefix or "", mask)
        return DraftPrompt(self._vocabulary.tokenize_template(text, mask), date)

    def _render(self, messages: list[Message], cancelled: Callable[[], bool]) -> tuple[str, str | None]:
        if not self._has_template:
            return self._fallback.prompt(messages), None
        without = merged(_without_system(messages))
        conversations = [messages] if without == messages else [messages, without]
        return self._template.render(conversations, template_values(self._vocabulary), self._clock(), cancelled)


def template_values(vocabulary: TemplateVocabulary) -> dict[str, Any]:
    """A template's variables beside the messages. As in transformers, tokens that do not exist are undefined."""
    spelled = {f"{name}_token": vocabulary.special_spelling(name) for name in SPECIAL_TOKENS}
    known = {name: text for name, text in spelled.items() if text or name in ("bos_token", "eos_token")}
    return {**NO_THINKING, **known}


def _without_system(messages: list[Message]) -> list[Message]:
    """The conversation with the system's text before that of the first user message."""
    system = [message["content"].strip() for message in messages if message["role"] == "system"]
    others = [Message(role=m["role"], content=m["content"]) for m in messages if m["role"] != "system"]
    first = next((message for message in others if message["role"] == "user"), None)
    if system and first is not None:
        first["content"] = "\n\n".join([*system, first["content"]])
    return others


def _unused_character(messages: Sequence[Message]) -> str:
    """A Unicode noncharacter that occurs in no message."""
    used = {character for message in messages for character in message["content"]}
    return next(chr(code) for code in range(0xFDD0, 0x10FFFF) if chr(code) not in used)
