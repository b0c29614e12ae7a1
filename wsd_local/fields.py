"""What is read off a declaration: a frozen dataclass whose fields have a type, a default and a docstring each.

Contract: command-line options, `config.toml`, environment variables, keyword arguments and reports take names, types,
defaults and help from here. Types are `bool`, `int`, `float`, `str`, `Path`, `Literal`, tuples of texts, and unions of
them. A type may be annotated with the `Heading` that its option stands under, and with `FromFile`.
"""

from __future__ import annotations

import contextlib
import enum
import keyword
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

from wsd_local.errors import UsageError, short

_KIND_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


@dataclass(frozen=True, slots=True)
class Heading:
    """The heading of a group of options in `--help`."""

    title: str


class FromFile(enum.Enum):
    """An option that names a file, for a field that holds text."""

    TEXT = enum.auto()
    """The field holds what is in the file."""
    PATH = enum.auto()
    """The field holds the file's path."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A field as it was declared. `default` is `dataclasses.MISSING` where there is none."""

    name: str
    kind: Any
    default: Any
    help: str
    heading: Heading | None = None
    file: FromFile | None = None

    @property
    def spelling(self) -> str:
        """The name in an option or in a message."""
        return spelled(self.name)


def spelled(name: str) -> str:
    """A field's name as options and messages spell it; the underscore after a word of Python's is not part of it."""
    return name.rstrip("_").replace("_", "-")


def field_name(spelling: str) -> str:
    """The name of a field that is spelled so."""
    return spelling.replace("-", "_") + ("_" if keyword.iskeyword(spelling) else "")


def declared(declaration: type) -> dict[str, Declared]:
    """The fields of a dataclass by name, with the help in their docstrings."""
    from docstring_parser import parse_from_object

    helps = {param.arg_name: param.description or "" for param in parse_from_object(declaration).params}
    hints = get_type_hints(declaration, include_extras=True)
    found = {}
    for field in fields(declaration):
        kind, *marks = (
            get_args(hints[field.name]) if get_origin(hints[field.name]) is Annotated else [hints[field.name]]
        )
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        found[field.name] = Declared(
            field.name,
            kind,
            default,
            " ".join(helps.get(field.name, "").split()),
            next((mark for mark in marks if isinstance(mark, Heading)), None),
            next((mark for mark in marks if isinstance(mark, FromFile)), None),
        )
    return found


def require_kinds(values: Any) -> None:
    """Raise `UsageError` for a field of a dataclass whose value is not of its type. An int is a float, True no int."""
    for name, kind in _kinds(cast("Hashable", type(values))).items():
        value = getattr(values, name)
        if not is_of(value, kind):
            raise UsageError(f"{spelled(name)} is {short(value)}: it must be {kind_name(kind)}")


@cache
def _kinds(declaration: Hashable) -> dict[str, Any]:
    return get_type_hints(declaration)


def kind_name(kind: Any) -> str:
    """A type as a message names it."""
    if get_origin(kind) is tuple:
        return "text, or a list of texts"
    parts = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Literal:
        return f"one of {', '.join(parts)}" if len(parts) > 1 else str(parts[0])
    if parts:
        return " or ".join(map(kind_name, parts))
    return _KIND_NAMES.get(kind, getattr(kind, "__name__", str(kind)))


def is_of(value: object, kind: Any) -> bool:
    """Whether a value is of a type."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    if get_args(kind):
        return any(is_of(value, part) for part in get_args(kind))
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def read(kind: Any, text: str) -> Any:
    """The value of a type that is written as `text`, as in an option or an environment variable.

    Raises:
        ValueError: the text is not of this type; the message says what it must be.
    """
    if get_origin(kind) is tuple:
        return (text,)
    readings: list[Any] = []
    for number in (int, float):
        if number not in (get_args(kind) or (kind,)):
            continue
        with contextlib.suppress(ValueError):
            readings.append(number(text))
    for value in [{"true": True, "false": False}.get(text.lower(), text), *readings, text]:
        if is_of(value, kind):
            return value
    raise ValueError(f"it must be {kind_name(kind)}")


def given(declaration: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that are fields of a dataclass."""
    names = {field.name for field in fields(declaration)}
    return {name: value for name, value in values.items() if name in names}
