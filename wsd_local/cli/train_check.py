"""`wsd-local train check`: whether a GGUF file is the model that was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.options import Debug, Json, Verbose, number, option, show_native_log

if TYPE_CHECKING:
    from wsd_local.library.checkpoint import Checkpoint
    from wsd_local.reports.draft_check.judging import Judgement


def check(
    checkpoint: Annotated[
        str,
        Parameter(name="CHECKPOINT", help="What was trained: a folder with weights and tokenizer, or a repository."),
    ],
    file: Annotated[
        str, Parameter(name="GGUF", help="What was made of it, by name or as a file.", completer=names.models)
    ],
    /,
    *,
    unquantised: Annotated[
        str | None,
        option(
            "The file before it was quantised: its logits are held to a narrower tolerance.",
            metavar="GGUF",
            completer=names.models,
        ),
    ] = None,
    threads: Annotated[int | None, number("CPU threads.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Check a converted draft against the checkpoint that it was made of; 1 if a fault was found."""
    from wsd_local.cli.convert import fetched_checkpoint
    from wsd_local.cli.tables import print_json
    from wsd_local.core.resources import require_threads
    from wsd_local.library.checkpoint import local_checkpoint
    from wsd_local.library.repo_files import names_repository
    from wsd_local.library.resolve import model_path
    from wsd_local.paths import expanded
    from wsd_local.reports.draft_check.reference import require_extra

    terminal.require_output()
    show_native_log(verbose)
    require_threads(threads)
    require_extra()
    paths = [model_path(name) for name in (file, *([] if unquantised is None else [unquantised]))]
    fetched = not expanded(checkpoint).exists() and names_repository(checkpoint)
    trained = fetched_checkpoint(checkpoint) if fetched else local_checkpoint(checkpoint)
    judged = checked(trained, *paths, threads=threads)
    if as_json:
        print_json(judged.as_dict())
    else:
        show(judged)
    return 0 if judged.is_sound else 1


def checked(checkpoint: Checkpoint, file: Path, unquantised: Path | None = None, *, threads: int | None) -> Judgement:
    """The findings about a file, with the progress on standard error."""
    from wsd_local.cli.convert import steps_shown
    from wsd_local.reports.draft_check.judging import judge
    from wsd_local.reports.draft_check.measuring import measure
    from wsd_local.system.child import Observer
    from wsd_local.system.interrupt import interruptible

    with interruptible() as stop, steps_shown("checking") as progress:
        observer = Observer(progress, stop.on_request)
        return judge(measure(checkpoint, file, unquantised, observer=observer, threads=threads))


def show(judged: Judgement) -> None:
    """A line for each finding, and the verdict."""
    for finding in judged.findings:
        terminal.line(finding.line())
    terminal.line(judged.summary())
