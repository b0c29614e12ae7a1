"""`wsd-local doctor`: what is installed here and whether it works, as text for a bug report."""

from __future__ import annotations

import typer

from wsd_local.cli import terminal
from wsd_local.cli.options import AsJson, Debug
from wsd_local.cli.tables import print_json


def doctor(as_json: AsJson = False, debug: Debug = False) -> None:
    """Tell what is installed and whether it works.

    Text for a bug report: versions, back ends, devices, folders, models, and a reply of the embedded pair.
    """
    from wsd_local.reports.doctor import diagnose

    found = diagnose()
    if as_json:
        print_json(found.as_dict())
    else:
        with terminal.reader_may_leave():
            terminal.write(found.text())
    if found.problems:
        raise typer.Exit(1)
