"""What the fields of a record mean: from a JSON object, a row or a line to a conversation to answer.

Contract: no files. The formats are those that the published sets have, and plain ones for one's own prompts. What is
wrong with a record is a `ValueError` whose text is the reason, without file and line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsd_local.datasets.items import Item
from wsd_local.errors import UsageError
from wsd_local.prompts import Message, conversation

COLUMNS = ("prompt", "question", "instruction", "text")
"""Names by which a column of prompts is known, in any case; the first that is there."""

_IDS = ("question_id", "id", "task_id", "uid")
_ANSWER = "\n\nAssistant:"
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


class MissingField(ValueError):
    """A record has none of the fields that its format is known by."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a record asks: a prompt or messages, further turns, and a system message of its own."""

    prompt: str | list[Any]
    later: tuple[str, ...] = ()
    system: str | None = None


def record_of(format: str, index: int, line: int | None, value: Any, system: str | None) -> Item:
    """One record. `value` is a JSON object, a row by its columns, or a line of text if `format` is `text`.

    `id` is the record's own whether or not others have it too. `system` is put in front if the record has none.

    Raises:
        ValueError: the record cannot be answered; the text is the reason.
    """
    return item_of(format, index, line, value, system, None)


def item_of(format: str, index: int, line: int | None, value: Any, system: str | None, column: str | None) -> Item:
    """`record_of`, with the column that holds the prompt of a row."""
    record = {"prompt": value} if format == "text" and isinstance(value, str) else value
    if not isinstance(record, dict):
        raise ValueError("is not a JSON object")
    _require_json(record)
    asked = _text(record, column) if column is not None else _READERS[format](record)
    own = own_id(record)
    return Item(index, str(index) if own is None else own, line, _messages(asked, system), asked.later, record)


def detected(record: Mapping[str, Any]) -> str:
    """The format of a JSON object, by its fields.

    Raises:
        MissingField: no format has such fields.
    """
    for field, kind, format in _MARKS:
        if field in record and isinstance(record[field], kind):
            parts = field == "turns" and any(isinstance(turn, dict) for turn in record[field])
            return "arena_hard" if parts else format
    known = ", ".join(f"`{field}`" for field in dict.fromkeys(field for field, _, _ in _MARKS))
    raise MissingField(f"has none of the fields that prompts are known by: {known}")


def require_fields(format: str, record: dict[str, Any], column: str | None) -> None:
    """See that a record has what its format is known by, whatever else may be wrong with it.

    Raises:
        MissingField: it has not.
    """
    try:
        item_of(format, 0, None, record, None, column)
    except MissingField:
        raise
    except ValueError:
        return


def prompt_column(names: Sequence[str], column: str | None = None) -> str:
    """The column that holds the prompts: the one that is asked for, the only one, or one with a usual name.

    Raises:
        UsageError: there is no such column; the message lists those that are there.
    """
    by_name = {name.lower(): name for name in reversed(names)}
    if column is not None:
        found = column if column in names else by_name.get(column.lower())
    else:
        usual = (by_name[name] for name in COLUMNS if name in by_name)
        found = names[0] if len(names) == 1 else next(usual, None)
    if found is not None:
        return found
    there = ", ".join(repr(name) for name in names)
    if column is not None:
        raise UsageError(f"there is no column {column!r}; the columns are {there}")
    raise UsageError(f"it cannot be told which column holds the prompts: name one with --column, of {there}")


def own_id(record: Mapping[str, Any]) -> str | None:
    """The record's own name, from the first field for one that is filled."""
    lower = {key.lower(): value for key, value in record.items()}
    for name in _IDS:
        value = lower.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return str(value)
    return None


# -- conversations -------------------------------------------------------------------------------------------


def _messages(asked: _Asked, system: str | None) -> list[Message]:
    try:
        messages = conversation(asked.prompt, asked.system)
    except UsageError as error:
        raise ValueError(str(error)) from error
    last = messages[-1]
    if last["role"] == "system":
        raise ValueError("the conversation ends with a system message: there is nothing to answer")
    if last["role"] == "user" and not last["content"].strip():
        raise ValueError("the last user message is empty")
    if system is not None and system.strip() and all(message["role"] != "system" for message in messages):
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _require_json(record: dict[str, Any]) -> None:
    try:
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which is not valid Unicode") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("holds NaN, an infinite number or too deep a nesting, which JSON does not have") from error


# -- formats -------------------------------------------------------------------------------------------------


def _field(record: Mapping[str, Any], *names: str) -> tuple[str, Any]:
    for name in names:
        if name in record:
            return name, record[name]
    raise MissingField("has no " + " or ".join(f"`{name}`" for name in names))


def _text(record: Mapping[str, Any], *names: str) -> _Asked:
    name, value = _field(record, *names)
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is no text")
    return _Asked(value)


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    _, value = _field(record, name)
    if not isinstance(value, list):
        raise ValueError(f"`{name}` is no list of messages")
    return value


def _instruction(record: Mapping[str, Any]) -> _Asked:
    return _text(record, "instruction")


def _question(record: Mapping[str, Any]) -> _Asked:
    return _text(record, "question", "Question")


def _context(record: Mapping[str, Any]) -> _Asked:
    return _Asked(_list(record, "context"))


def _turns(record: Mapping[str, Any]) -> _Asked:
    _, turns = _field(record, "turns")
    if not isinstance(turns, list) or not turns:
        raise ValueError("`turns` is no list of turns")
    texts: list[str] = []
    for number, turn in enumerate(turns, 1):
        text = turn.get("content") if isinstance(turn, dict) else turn
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"turn {number} of `turns` has no text")
        texts.append(text)
    return _Asked(texts[0], tuple(texts[1:]))


def _hh(record: Mapping[str, Any]) -> _Asked:
    name, value = _field(record, "raw_context", "chosen")
    if name == "raw_context":
        return _Asked(_list(record, name))
    if not isinstance(value, str) or _ANSWER not in value:
        raise ValueError("`chosen` is no transcript: there is no 'Assistant:' in it")
    before, *spoken = _SPEAKER.split(value.rpartition(_ANSWER)[0])
    if before.strip() or not spoken:
        raise ValueError("`chosen` is no transcript: it does not begin with 'Human:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(spoken[::2], spoken[1::2], strict=True)
    return _Asked([{"role": roles[who], "content": said.strip()} for who, said in pairs])


def _jsonl(record: Mapping[str, Any]) -> _Asked:
    name, value = _field(record, "prompt", "messages", "question")
    if name == "prompt" and record.get("messages") is not None:
        raise ValueError("has both `prompt` and `messages`: leave one out")
    if not isinstance(value, str | list):
        raise ValueError(f"`{name}` is neither text nor a list of messages")
    system = record.get("system")
    if not isinstance(system, str | None):
        raise ValueError("`system` is no text")
    return _Asked(value, system=system)


def _csv(record: Mapping[str, Any]) -> _Asked:
    try:
        return _text(record, prompt_column(list(record)))
    except UsageError as error:
        raise MissingField(str(error)) from error


_READERS: dict[str, Callable[[Mapping[str, Any]], _Asked]] = {
    "alpaca_eval": _instruction,
    "arena_hard": _turns,
    "mt_bench": _turns,
    "truthfulqa": _question,
    "hh": _hh,
    "naive": _context,
    "text": lambda record: _text(record, "prompt"),
    "csv": _csv,
    "jsonl": _jsonl,
}
_MARKS: tuple[tuple[str, type, str], ...] = (
    ("turns", list, "mt_bench"),
    ("raw_context", list, "hh"),
    ("context", list, "naive"),
    ("instruction", object, "alpaca_eval"),
    ("best_answer", object, "truthfulqa"),
    ("Best Answer", object, "truthfulqa"),
    ("prompt", object, "jsonl"),
    ("messages", object, "jsonl"),
    ("chosen", str, "hh"),
    ("question", object, "jsonl"),
)
"""Fields that tell a format, and of what kind they are; the first that is there."""

FORMATS: tuple[str, ...] = tuple(_READERS)
