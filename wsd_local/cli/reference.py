"""Every command with its options as plain values, for documentation and for tests.

Contract: `reference()` imports every command's module and nothing heavy, and prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from cyclopts import App, ArgumentCollection

from wsd_local.cli.app import command_line

if TYPE_CHECKING:
    from cyclopts import Argument


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or an argument without a name of its own (`names` is then the name in the usage line).

    `type` is the placeholder of its value in `--help`, None for a flag. `default` is None where there is none to show;
    some helps then end with `[default: …]` in words. `heading` is the group that it stands under in `--help`.
    """

    names: tuple[str, ...]
    type: str | None
    choices: tuple[str, ...]
    default: str | None
    help: str
    heading: str
    is_required: bool
    is_positional: bool


@dataclass(frozen=True, slots=True)
class Command:
    """A command by its whole name, such as `wsd-local models pull`; one that holds others has no options."""

    name: str
    help: str
    options: tuple[Option, ...]


def reference() -> list[Command]:
    """All commands, each after the one that holds it, in the order of `--help`."""
    return list(_commands(command_line(), "wsd-local"))


def _commands(app: App, name: str) -> Iterator[Command]:
    options = () if app.default_command is None else app.assemble_argument_collection(parse_docstring=True)
    yield Command(name, cleandoc(app.help), tuple(_option(app, one) for one in options if one.show and one.parse))
    children = [(child, app[child]) for child in app if not child.startswith("-")]
    for child, command in sorted(children, key=lambda one: (one[1].sort_key is None, one[1].sort_key or 0)):
        yield from _commands(command, f"{name} {child}")


def _option(app: App, argument: Argument) -> Option:
    from cyclopts.help import create_parameter_help_panel

    is_positional = argument.is_positional_only()
    own: Any = argument.parameter.group
    group: Any = own[0] if own else app.group_arguments if is_positional else app.group_parameters
    alone: Any = ArgumentCollection([argument])  # type: ignore[no-untyped-call]
    (entry,) = create_parameter_help_panel(group, alone, "plaintext").entries
    return Option(
        names=entry.display_labels,
        type=entry.metavar,
        choices=entry.choices or (),
        default=entry.default,
        help=argument.parameter.help or "",
        heading=group.name,
        is_required=entry.required,
        is_positional=is_positional,
    )
