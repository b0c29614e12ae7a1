"""Tables and JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

_PIPE_WIDTH = 240
"""Columns where there is no terminal: nothing is cut."""


def print_json(value: dict[str, Any]) -> None:
    """One line of JSON."""
    from wsd_local.cli.output import reader_may_leave

    with reader_may_leave():
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def print_tables(*tables: Table) -> None:
    """Tables below each other."""
    from rich.console import Console

    from wsd_local.cli.output import reader_may_leave

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    with reader_may_leave():
        for index, table in enumerate(tables):
            if index:
                console.print()
            title, table.title = table.title, None
            console.print(title, style="bold", soft_wrap=True, markup=False)
            console.print(table)


def plain_table(title: str, columns: Sequence[str], right: Collection[int] = ()) -> Table:
    """A table without lines; columns with an index in `right` are numbers. Only the last column wraps."""
    from rich.table import Table

    table = Table(title=title, box=None, pad_edge=False)
    for index, column in enumerate(columns):
        justify: JustifyMethod = "right" if index in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=index + 1 < len(columns))
    return table
