"""Text from outside: one rule for every file, stream and value that is read.

Contract: text is UTF-8 with or without a byte order mark, or UTF-16 or UTF-32 with one. CRLF and a lone CR become LF,
and the byte order mark goes. A NUL character, and bytes that are not of the encoding, are refused with file, line and
place; so are texts beyond a limit of size. JSON and TOML that are nested too deeply are refused like those that
are broken. Nothing is known here of what the text means.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from wsd_local.errors import UsageError, reason, short

LARGEST = 1 << 26
"""Bytes of a text that are read at most, unless the caller sets another limit: 64 MiB."""

TOO_DEEP = "it is nested too deeply"

# UTF-32 comes first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """The bytes of a file, or of a pipe or device that ends.

    Raises:
        UsageError: it cannot be read, or there are more than `largest` bytes.
    """
    try:
        with path.open("rb") as file:
            return read_stream(file, str(path), largest)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {reason(error)}") from error
    except ValueError as error:  # a NUL in the path
        raise UsageError(f"{path}: cannot be read: {error}") from error


def read_stream(stream: BinaryIO, where: str, largest: int = LARGEST) -> bytes:
    """All bytes of a stream; `where` names it in messages.

    Raises:
        UsageError: it cannot be read, or there are more than `largest` bytes.
    """
    try:
        data = stream.read(largest + 1)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read: {reason(error)}") from error
    return limited(data, where, largest)


def limited(data: bytes, where: str, largest: int = LARGEST) -> bytes:
    """The bytes, if they are no more than `largest`, else `UsageError`."""
    if len(data) > largest:
        raise UsageError(f"{where}: has more than {largest >> 20} MiB, which is the most that is read: split it")
    return data


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    return decoded(read_bytes(path), str(path))


class NoText(ValueError):
    """Bytes that are no text: the reason, and the `line`, counted from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def decoded(data: bytes, where: str) -> str:
    """Bytes as text; `where` names them in messages.

    Raises:
        UsageError: they are no text; the message names the line and the place.
    """
    try:
        return text_of(data)
    except NoText as error:
        raise UsageError(f"{where}:{error.line}: {error}") from error


def text_of(data: bytes) -> str:
    """Bytes as text.

    Raises:
        NoText: they are none.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = len(mark) + error.start
        line = plain(data[len(mark) : at].decode(encoding, errors="replace")).count("\n") + 1
        name = encoding.removesuffix("-le").removesuffix("-be").upper()
        raise NoText(line, f"is not {name} at byte {at}: save it as UTF-8") from error
    text = plain(text)
    if (zero := text.find("\0")) >= 0:
        column = zero - text.rfind("\n", 0, zero)
        reason = f"holds a NUL character at column {column}: it is no text; save it as UTF-8"
        raise NoText(text.count("\n", 0, zero) + 1, reason)
    return text


def plain(text: str) -> str:
    """A text without a byte order mark, whose lines end at line feeds alone."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


# -- values --------------------------------------------------------------------------------------------------


def json_value(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON; the text is the reason.
    """
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(json_problem(error)) from error


class RepeatedError(ValueError):
    """An object of JSON has a name twice: one of the two values would be lost."""


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The names and values of a JSON object, as an `object_pairs_hook`.

    Raises:
        RepeatedError: a name is there twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise RepeatedError(f"the name {short(twice)} is there twice in it")
    return values


def json_problem(error: ValueError | RecursionError) -> str:
    """Why a text is not JSON, from what the parser raised."""
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[:1].lower()}{error.msg[1:]} at column {error.colno}"
    if isinstance(error, RepeatedError):
        return str(error)
    if isinstance(error, UnicodeError):
        return "it is not UTF-8"
    return "a number in it is too long"


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UsageError: it cannot be read, or is not JSON.
    """
    text = read_text(path)
    try:
        return json_value(text)
    except ValueError as error:
        line = error.__cause__.lineno if isinstance(error.__cause__, json.JSONDecodeError) else 1
        raise UsageError(f"{path}:{line}: is not JSON ({error})") from error


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        UsageError: it cannot be read, or is not TOML.
    """
    import tomllib

    text = read_text(path)
    try:
        tables: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise UsageError(f"{path}: is not TOML ({TOO_DEEP})") from error
    except ValueError as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
    return tables
