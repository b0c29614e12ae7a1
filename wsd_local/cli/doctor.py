"""`wsd-local doctor`: what is installed here and whether it works, as text for a bug report."""

from __future__ import annotations

from wsd_local.cli import terminal
from wsd_local.cli.options import Debug, Json
from wsd_local.cli.tables import print_json


def doctor(*, as_json: Json = False, debug: Debug = False) -> int:
    """Print what is installed and whether it works; 1 if something does not."""
    from wsd_local.reports.doctor import diagnose

    found = diagnose()
    if as_json:
        print_json(found.as_dict())
    else:
        with terminal.reader_may_leave():
            terminal.write(found.text())
    return 1 if found.problems else 0
