"""Which fields of a preference set hold what, recognised by one of its records.

Contract: pure. Four shapes are known: texts (`prompt`, `chosen`, `rejected`), messages as in TRL, ShareGPT's
`conversations`, and two whole transcripts as in HH. A field that is named by the caller is taken, whatever its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from wsd_local.errors import UsageError

Shape = Literal["texts", "messages", "sharegpt", "transcripts"]
"""How the fields of a preference set are read."""

SHAPES: dict[Shape, str] = {
    "texts": "a prompt and two replies, as texts",
    "messages": "lists of messages with `role` and `content`",
    "sharegpt": "lists of messages with `from` and `value`",
    "transcripts": "two transcripts with Human: and Assistant:",
}

TRANSCRIPT = re.compile(r"\s*(?:Human|Assistant):")
"""How a transcript begins."""

_CHOSEN = ("chosen", "chosen_response", "response_chosen", "preferred", "accepted")
_REJECTED = ("rejected", "rejected_response", "response_rejected", "dispreferred", "declined")
_PROMPTS = ("prompt", "conversations", "question", "instruction", "query", "context", "messages")
"""Usual names of the field with the prompt, in any case; the first that the record has counts."""
_SYSTEMS = ("system", "system_prompt")
_LOOKED_AT = 100
"""Records among which one with all columns is looked for."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields of a preference set by what they hold; `input` is what Alpaca's `instruction` is about."""

    shape: Shape
    chosen: str
    rejected: str
    prompt: str | None = None
    system: str | None = None
    input: str | None = None

    @property
    def used(self) -> dict[str, str]:
        """Names of the fields by what they hold, without those that there are none for."""
        names = {"prompt": self.prompt, "input": self.input, "system": self.system}
        found = {role: name for role, name in names.items() if name is not None}
        return {**found, "chosen": self.chosen, "rejected": self.rejected}


def detected_columns(records: Iterable[object], given: Mapping[str, str] | None = None) -> Columns:
    """The columns of a preference set, by the first of its records in which they are all there.

    Args:
        records: its records; a few are looked at.
        given: fields by what they hold (`prompt`, `chosen`, `rejected`, `system`), where the caller names them.

    Raises:
        UsageError: a field that is needed is not there; the message lists those of the first record.
    """
    first: UsageError | None = None
    for record in islice((one for one in records if isinstance(one, Mapping)), _LOOKED_AT):
        try:
            return _columns(record, given or {})
        except UsageError as error:
            first = first or error
    raise first or UsageError("no record is a JSON object with columns")


def _columns(record: Mapping[str, Any], given: Mapping[str, str]) -> Columns:
    for role, name in given.items():
        if name not in record:
            raise UsageError(f"there is no column {name!r} for --{role}; the columns are {_listed(record)}")
    chosen = given.get("chosen") or _required(record, "chosen", _CHOSEN)
    rejected = given.get("rejected") or _required(record, "rejected", _REJECTED)
    taken = (chosen, rejected)
    prompt = given.get("prompt") or next((name for name in _usual(record, _PROMPTS) if name not in taken), None)
    system = given.get("system") or next(
        (name for name in _usual(record, _SYSTEMS) if isinstance(record[name], str) and name not in taken), None
    )
    shape = _shape(record[chosen], record.get(prompt) if prompt is not None else None)
    if shape == "texts" and prompt is None:
        raise UsageError(
            f"{chosen!r} is a text, and no column holds its prompt: name one with --prompt, of {_listed(record)}"
        )
    about = next(_usual(record, ("input",)), None) if (prompt or "").lower() == "instruction" else None
    return Columns(shape, chosen, rejected, prompt, system, about)


def _required(record: Mapping[str, Any], role: str, usual: tuple[str, ...]) -> str:
    found = next(_usual(record, usual), None)
    if found is None:
        raise UsageError(
            f"no column holds the {role} replies: name it with --{role}; the columns are {_listed(record)}"
        )
    return found


def _usual(record: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """Fields of the record that have one of these names, in any case, and hold something."""
    by_name = {str(name).lower(): str(name) for name in reversed(list(record))}
    return (by_name[name] for name in names if name in by_name and record[by_name[name]] is not None)


def _shape(chosen: object, prompt: object) -> Shape:
    for value in (prompt, chosen):
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, Mapping):
            return "sharegpt" if "from" in first else "messages"
    return "transcripts" if prompt is None and isinstance(chosen, str) and TRANSCRIPT.match(chosen) else "texts"


def _listed(record: Mapping[str, Any]) -> str:
    return ", ".join(repr(str(name)) for name in record) or "none"
