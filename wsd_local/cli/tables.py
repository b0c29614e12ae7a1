"""Tables and JSON on standard output."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from wsd_local.cli import terminal

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

_PIPE_WIDTH = 240
"""Columns where there is no terminal: nothing is cut."""


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON."""
    with terminal.reader_may_leave():
        terminal.json_line(value)


def print_tables(*tables: Table) -> None:
    """Tables below each other."""
    console = terminal.console()
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    with terminal.reader_may_leave():
        for index, table in enumerate(tables):
            if index:
                console.print()
            title, table.title = table.title, None
            console.print(title, style="bold", soft_wrap=True)
            console.print(table)


def plain_table(title: str, columns: Sequence[str], right: Collection[int] = ()) -> Table:
    """A table without lines; columns with an index in `right` are numbers. Only the last column wraps."""
    from rich.table import Table

    table = Table(title=title, box=None, pad_edge=False)
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if index in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=index + 1 < len(columns))
    return table
