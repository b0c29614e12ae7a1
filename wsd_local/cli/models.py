"""`wsd-local models`: what is here and what can be had; get, import, convert, quantise, inspect, remove."""

from __future__ import annotations

from wsd_local.cli import convert, local, pull
from wsd_local.cli.app import COMMANDS, group, in_order

app = group("models", COMMANDS["models"][1])
app.command(local.list_models, name="list")
app.command(local.show, name="show")
app.command(pull.pull, name="pull")
app.command(local.import_, name="import")
app.command(convert.convert, name="convert")
app.command(convert.quantize, name="quantize")
app.command(local.rm, name="rm")
in_order(app)
