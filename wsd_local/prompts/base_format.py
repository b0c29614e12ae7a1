"""The prompt of a pretrained base model: sections of plain text.

Contract: pure, a conversation in and text out. Message text is never parsed for control tokens. The prompt ends where
the reply begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wsd_local.errors import UsageError, short
from wsd_local.prompts.messages import ROLES, Message, merged, supplied_prefix


def _sections() -> dict[str, str]:
    return {role: f"\n\n[{role.capitalize()}]\n" for role in ROLES}


@dataclass(frozen=True, slots=True)
class BaseFormat:
    """How a conversation is written for a pretrained model.

    Args:
        headings: the text before a message of each role.
        ending: the text after each message.
        stop: strings that end the reply; None: those that begin another message, which are each heading's name alone,
            after one newline and after two.
        prefix: text before everything else, such as examples.

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
            UsageError: a name is unknown or a value is invalid.
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
        """The prompt: all messages, then the assistant's heading and the beginning that the caller supplied, if any."""
        supplied = supplied_prefix(messages)
        before = merged(messages if supplied is None else messages[:-1])
        sections = [self.headings[message["role"]] + message["content"].strip() + self.ending for message in before]
        return self.prefix + "".join(sections) + self.headings["assistant"] + (supplied or "")


def urial_format(prompt: str) -> BaseFormat:
    """The format of URIAL (arXiv 2312.01552): its in-context prompt, then each message between fences."""
    return BaseFormat(
        headings={"system": "# Instruction\n```\n", "user": "# Query:\n```\n", "assistant": "# Answer:\n```\n"},
        ending="\n```\n\n",
        stop=("\n```\n\n# Query", "# Query:"),
        prefix=prompt.strip() + "\n\n",
    )
