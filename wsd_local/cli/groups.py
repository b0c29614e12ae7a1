"""Commands that hold commands: their help lists each with its whole first sentence."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperGroup


class Group(TyperGroup):
    """A group whose summaries are wrapped, not cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list in `--help`."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        rows = [(name, summary(one.help or "")) for name, one in commands.items() if one is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def summary(text: str) -> str:
    """The first sentence of a help text."""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<=\.)\s", first)[0]


def group(text: str) -> typer.Typer:
    """A command that holds others."""
    return typer.Typer(help=text, cls=Group, rich_markup_mode=None, add_completion=False)
