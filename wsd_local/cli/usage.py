"""Wrong usage in one line: which option or argument, and what to do."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal, get_origin

from cyclopts import (
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    UnknownCommandError,
    UnknownOptionError,
)
from cyclopts.exceptions import UnusedCliTokensError

from wsd_local.errors import nearest, short
from wsd_local.fields import kind_name


def explain(error: CycloptsError, program: str) -> str:
    """What is wrong with a command line, and the command whose help explains it."""
    command = " ".join((program, *(error.command_chain or ())))
    text = _text(error)
    return f"{text}{'' if text.endswith(('?', '.')) else '.'} See {command} --help."


def _text(error: CycloptsError) -> str:
    argument = error.argument
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app is not None:
        name = error.unused_tokens[0]
        if name.startswith("-"):
            return _unknown_option(name, [one for one in error.app if one.startswith("-")], " before a command")
        commands = [one for one in error.app if not one.startswith("-")]
        return f"there is no command {short(name)}{nearest(name, commands)}"
    if isinstance(error, UnknownOptionError):
        known = [name for option in error.argument_collection if option.parse for name in option.names]
        return _unknown_option(error.token.keyword or error.token.value, known)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        advice = "a pair is named with --pair" if "--pair" in _options(error) else "put a text with spaces in quotes"
        return f"there is an argument too many: {short(error.unused_tokens[0])}; {advice}"
    if isinstance(error, MissingArgumentError) and argument is not None:
        name = _label(argument) if argument.is_positional_only() else error.keyword or argument.name
        given = error.keyword is not None or any(token.keyword for token in argument.tokens)
        return f"{name} needs a value" if given else f"{name} is missing"
    if isinstance(error, CoercionError) and error.token is not None and argument is not None:
        name = error.token.keyword or _label(argument)
        if reason := _reason(error, argument):
            return f"{name} is {short(error.token.value)}: {reason}"
    return " ".join(str(error).split()).rstrip(".")


def _options(error: CycloptsError) -> list[str]:
    """The options of the command that was given; none if it takes texts of its own."""
    if error.app is None:
        return []
    arguments = error.app.assemble_argument_collection()
    if any(one.is_positional_only() and one.show for one in arguments):
        return []
    return [name for one in arguments for name in one.names]


def _unknown_option(option: str, known: list[str], place: str = "") -> str:
    name = option.split("=")[0]
    if name in known:
        return f"there is an argument too many: {short(option)}; options stand before --"
    return f"there is no option {short(name)}{place}{nearest(name, get_close_matches(name, known, 1))}"


def _reason(error: CoercionError, argument: Argument) -> str | None:
    """What is wrong with a value, where it can be said better than by cyclopts."""
    if isinstance(error.msg, str):
        return error.msg
    if get_origin(error.target_type) is Literal:
        return f"it must be {kind_name(error.target_type)}"
    return "it takes no value" if argument.hint is bool else None


def _label(argument: Argument) -> str:
    """An argument's name, in capitals unless it is spelled otherwise."""
    name = argument.name.lstrip("-")
    return name.upper() if name.islower() else name
