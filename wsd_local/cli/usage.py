"""Wrong usage in one line: which option or argument, and what to do."""

from __future__ import annotations

from cyclopts import Argument, CoercionError, CycloptsError, MissingArgumentError, UnknownCommandError
from cyclopts.exceptions import UnusedCliTokensError

from wsd_local.errors import nearest, short


def explain(error: CycloptsError, program: str) -> str:
    """What is wrong with a command line, and the command whose help explains it."""
    command = " ".join((program, *(error.command_chain or ())))
    text = _text(error)
    return f"{text}{'' if text.endswith(('?', '.')) else '.'} See {command} --help."


def _text(error: CycloptsError) -> str:
    argument = error.argument
    if isinstance(error, UnknownCommandError) and error.unused_tokens and error.app is not None:
        commands = [name for name in error.app if not name.startswith("-")]
        return f"there is no command {short(error.unused_tokens[0])}{nearest(error.unused_tokens[0], commands)}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"there is an argument too many: {short(error.unused_tokens[0])}; put a text with spaces in quotes"
    if isinstance(error, MissingArgumentError) and argument is not None:
        name = _label(argument) if argument.is_positional_only() else error.keyword or argument.name
        given = error.keyword is not None or any(token.keyword for token in argument.tokens)
        return f"{name} needs a value" if given else f"{name} is missing"
    if isinstance(error, CoercionError) and error.token is not None and argument is not None:
        name = error.token.keyword or _label(argument)
        reason = error.msg if isinstance(error.msg, str) else "it takes no value" if argument.hint is bool else None
        if reason is not None:
            return f"{name} is {short(error.token.value)}: {reason}"
    return " ".join(str(error).split()).rstrip(".")


def _label(argument: Argument) -> str:
    """An argument's name, in capitals unless it is spelled otherwise."""
    name = argument.name.lstrip("-")
    return name.upper() if name.islower() else name
