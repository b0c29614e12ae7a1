"""What the fields of a record mean: from a JSON object, a row or a line to a conversation to answer.

Contract: no files. The formats are those that the published sets have, and plain ones for one's own prompts. What is
wrong with a record is a `ValueError` whose text is the reason, without file and line.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wsd_local.datasets.items import Item
from wsd_local.errors import UsageError
from wsd_local.prompts.messages import Message, conversation, has_content

COLUMNS = ("prompt", "question", "instruction", "text")
"""Usual names of a column of prompts, in any case; the first that the table has counts."""

_IDS = ("question_id", "id", "task_id", "uid")
ANSWER = "\n\nAssistant:"
"""What precedes each reply in a transcript of HH."""
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


class MissingField(ValueError):
    """A record has none of the fields that identify its format."""


@dataclass(frozen=True, slots=True)
class _Request:
    """The request in a record: a prompt or messages, further turns, a system message; `used` are its fields."""

    prompt: str | list[Any]
    used: tuple[str, ...]
    later: tuple[dict[str, Any], ...] = ()
    system: str | None = None


def record_of(
    format: str, index: int, line: int | None, value: Any, system: str | None, column: str | None = None
) -> Item:
    """One record. `value` is a JSON object, a row by its columns, or a line of text if `format` is `text`.

    `id` is the record's own whether or not others have it too. `system` is put in front if the record has none.
    `column` is the one that holds the prompt, of a row that is read by it.

    Raises:
        ValueError: the record cannot be answered; the text is the reason.
    """
    record = {"prompt": value} if format == "text" and isinstance(value, str) else value
    if not isinstance(record, dict):
        raise ValueError("is not a JSON object")
    _require_json(record)
    request = _row(record, column) if column is not None else _READERS[format](record)
    own, unused = _own_id(record), Counter[str]()
    messages = _messages(request, system, unused)
    later = tuple(_read([turn], None, unused)[0]["content"] for turn in request.later)
    used = (*request.used, *own[:1])
    beside = [str(name) for name, value in record.items() if name not in used and has_content(value)]
    names = (*beside, *(f"{name} of messages" for name in unused))
    return Item(index, own[1] if own else str(index), line, messages, later, record, names)


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
    """Check that a record has the fields that identify its format.

    Raises:
        MissingField: it has not.
    """
    try:
        record_of(format, 0, None, record, None, column)
    except MissingField:
        raise
    except ValueError:
        return


def prompt_column(names: Sequence[str], column: str | None = None) -> str:
    """The column that holds the prompts: the one that is named, the only one, or one with a usual name.

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
    raise UsageError(f"it is not clear which column holds the prompts: name one with --column, of {there}")


def own_id(record: Mapping[str, Any]) -> str | None:
    """The record's own name, from the first field for one that is filled."""
    return (_own_id(record) or (None, None))[1]


def transcript(text: str, name: str) -> list[dict[str, str]]:
    """The messages of a transcript as in HH; `name` is its field's.

    Raises:
        ValueError: it does not begin with a speaker.
    """
    before, *spoken = _SPEAKER.split(text)
    if before.strip() or not spoken:
        raise ValueError(f"`{name}` is no transcript: it does not begin with 'Human:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(spoken[::2], spoken[1::2], strict=True)
    return [{"role": roles[who], "content": said.strip()} for who, said in pairs]


def _own_id(record: Mapping[str, Any]) -> tuple[str, str] | tuple[()]:
    """The field with the record's own name, and the name."""
    lower = {key.lower(): key for key in record}
    for name in _IDS:
        value = record[lower[name]] if name in lower else None
        if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
            return lower[name], str(value)
    return ()


# -- conversations -------------------------------------------------------------------------------------------


def _messages(request: _Request, system: str | None, unused: Counter[str]) -> list[Message]:
    messages = _read(request.prompt, request.system, unused)
    last = messages[-1]
    if last["role"] == "system":
        raise ValueError("the conversation ends with a system message: there is nothing to answer")
    if last["role"] == "user" and not last["content"].strip():
        raise ValueError("the last user message is empty")
    if system is not None and system.strip() and all(message["role"] != "system" for message in messages):
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _read(prompt: str | list[Any], system: str | None, unused: Counter[str]) -> list[Message]:
    try:
        return conversation(prompt, system, unused)
    except UsageError as error:
        raise ValueError(str(error)) from error


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


def _text(record: Mapping[str, Any], *names: str) -> _Request:
    name, value = _field(record, *names)
    return _Request(_required_text(name, value), (name,))


def _required_text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"`{name}` is no text")
    return value


def _optional_text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return "" if value is None else _required_text(name, value)


def _list(record: Mapping[str, Any], name: str) -> list[Any]:
    _, value = _field(record, name)
    if not isinstance(value, list):
        raise ValueError(f"`{name}` is no list of messages")
    return value


def _instruction(record: Mapping[str, Any]) -> _Request:
    """Alpaca's fields: what the instruction is about, a system message, and earlier turns as pairs of texts."""
    instruction = _required_text(*_field(record, "instruction"))
    about = _optional_text(record, "input")
    request = f"{instruction.rstrip()}\n\n{about}" if about.strip() else instruction
    system = _optional_text(record, "system")
    earlier = _history(record.get("history") or [])
    messages = [*earlier, {"role": "user", "content": request}] if earlier else request
    return _Request(messages, ("instruction", "input", "system", "history"), system=system or None)


def _history(turns: object) -> list[Any]:
    if not isinstance(turns, list):
        raise ValueError("`history` is no list of turns")
    if all(isinstance(turn, dict) for turn in turns):
        return turns
    messages: list[Any] = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise ValueError(f"turn {number} of `history` is no pair of texts")
        messages += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), turn, strict=True)]
    return messages


def _question(record: Mapping[str, Any]) -> _Request:
    return _text(record, "question", "Question")


def _context(record: Mapping[str, Any]) -> _Request:
    return _Request(_list(record, "context"), ("context",))


def _turns(record: Mapping[str, Any]) -> _Request:
    """Successive questions, or a conversation to continue, if it has messages of the assistant."""
    _, turns = _field(record, "turns")
    if not isinstance(turns, list) or not turns:
        raise ValueError("`turns` is no list of turns")
    messages = [_turn(number, turn) for number, turn in enumerate(turns, 1)]
    roles = [message["role"] for message in messages]
    first = next((place for place, role in enumerate(roles) if role == "user"), len(roles))
    if not all(role == "user" for role in roles[first:]):
        return _Request(messages, ("turns",))
    return _Request(messages[: first + 1], ("turns",), tuple(messages[first + 1 :]))


def _turn(number: int, turn: object) -> dict[str, Any]:
    """A turn as a message; one without a role is the user's."""
    message = {"role": "user", **turn} if isinstance(turn, dict) else {"role": "user", "content": turn}
    content = message.get("content")
    if not isinstance(content, str | list) or not content or (isinstance(content, str) and not content.strip()):
        raise ValueError(f"turn {number} of `turns` has no text")
    return message


def _hh(record: Mapping[str, Any]) -> _Request:
    name, value = _field(record, "raw_context", "chosen")
    if name == "raw_context":
        return _Request(_list(record, name), (name,))
    if not isinstance(value, str) or ANSWER not in value:
        raise ValueError("`chosen` is no transcript: there is no 'Assistant:' in it")
    return _Request([*transcript(value.rpartition(ANSWER)[0], name)], (name,))


def _jsonl(record: Mapping[str, Any]) -> _Request:
    name, value = _field(record, "prompt", "messages", "question")
    if name == "prompt" and record.get("messages") is not None:
        raise ValueError("has both `prompt` and `messages`: leave one out")
    if not isinstance(value, str | list):
        raise ValueError(f"`{name}` is neither text nor a list of messages")
    return _Request(value, (name, "system"), system=_optional_text(record, "system") or None)


def _csv(record: Mapping[str, Any]) -> _Request:
    try:
        return _row(record, prompt_column(list(record)))
    except UsageError as error:
        raise MissingField(str(error)) from error


def _row(record: Mapping[str, Any], column: str) -> _Request:
    """A row: the column of prompts, a column `system` if there is one, and Alpaca's `input` beside `instruction`."""
    _, prompt = _field(record, column)
    beside = ("system", "input") if column.lower() == "instruction" else ("system",)
    own = {name.lower(): name for name in reversed(list(record)) if name.lower() in beside and name != column}
    row = {"instruction": _required_text(column, prompt), **{name: record[field] for name, field in own.items()}}
    return replace(_instruction(row), used=(column, *own.values()))


_READERS: dict[str, Callable[[Mapping[str, Any]], _Request]] = {
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
"""Fields that identify a format, and their kinds; the first format that fits counts."""

FORMATS: tuple[str, ...] = tuple(_READERS)
