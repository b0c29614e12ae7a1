"""`wsd-local models`: what is here and what can be had; get, import, convert, quantise, inspect, remove."""

from __future__ import annotations

import typer

from wsd_local.cli import convert, local, pull
from wsd_local.cli.groups import group

app = group("Models: list, show, pull, import, convert, quantize, rm.")
app.command("list")(local.list_models)
app.command("show")(local.show)
app.command("pull")(pull.pull)
app.command("import")(local.import_)
app.command("convert")(convert.convert)
app.command("quantize")(convert.quantize)
app.command("rm")(local.rm)


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    """Models on this machine: find, fetch, convert, inspect, remove."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
