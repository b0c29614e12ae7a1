"""`wsd-local eval`: measurements."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wsd_local.cli.options import Debug, Threads

if TYPE_CHECKING:
    from rich.table import Table

    from wsd_local.evaluation import Row

app = typer.Typer(help="Measure.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    """Measure."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    limit: Annotated[int | None, typer.Option(help="Ask only the first questions.")] = None,
    file: Annotated[
        Path | None, typer.Option("--questions", help="Another questions file (models/training/questions.py).")
    ] = None,
    threads: Threads = None,
    debug: Debug = False,
) -> None:
    """Ask the embedded pair its held-out questions in several ways, and judge the answers."""
    from rich.console import Console
    from rich.progress import Progress

    from wsd_local.cli.output import reader_may_leave
    from wsd_local.evaluation import WAYS, measure, questions
    from wsd_local.pairs import load

    asked = questions(file, limit)
    with load("demo", threads=threads) as pair, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("asking", total=len(WAYS) * len(asked))
        rows = list(measure(pair, asked, lambda: progress.advance(task)))
    with reader_may_leave():
        if as_json:
            sys.stdout.write(json.dumps([row.as_dict() for row in rows]) + "\n")
        else:
            Console().print(table(rows))


def table(rows: list[Row]) -> Table:
    """The rows as people read them."""
    from rich.table import Table

    shown = Table(
        title=f"{rows[0].questions} held-out questions, window 6",
        caption="well: the whole text is a friendly, complete answer · right: it states the truth · "
        "switch: median index · kept: draft tokens, mean · none: replies without a switch",
    )
    shown.add_column("", no_wrap=True)
    for heading in ("well", "right", "right of well", "switch", "kept", "none"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        shown.add_row(
            row.way,
            f"{row.well:.1%}",
            f"{row.right:.1%}",
            "" if row.right_of_well is None else f"{row.right_of_well:.1%}",
            "" if row.median_switch is None else f"{row.median_switch:g}",
            f"{row.mean_kept:.1f}",
            str(row.without_switch) if row.way.startswith("WSD") else "",
        )
    return shown
