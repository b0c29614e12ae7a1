"""`wsd-local eval time`: how long whole replies take in several ways, on the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli import terminal
from wsd_local.cli.columns import mode_of, shared_settings, task_of
from wsd_local.cli.options import (
    NOTHING,
    Debug,
    Given,
    Json,
    PairName,
    Verbose,
    models_named,
    settings_named,
    show_native_log,
    takes,
)
from wsd_local.cli.progress import Reporter
from wsd_local.cli.recordings import chosen_file, chosen_prompts
from wsd_local.cli.task import SOME_FAILED, DataSetTask, load_pair
from wsd_local.errors import CancelledError, UsageError
from wsd_local.fields import declared
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.datasets import DataSet
    from wsd_local.reports.columns import Column
    from wsd_local.reports.time_rounds import Rounds
    from wsd_local.reports.times import TimeResults

MAX_TOKENS = 256
"""Longest reply, where none is given."""
_MOST_ROUNDS = 1000


@dataclass(frozen=True, slots=True)
class TimeOptions:
    """What is timed, and where the rounds go.

    Raises:
        UsageError: the number of rounds is outside its range.
    """

    prompts: str | None = None
    """Prompts: a data set in any form that run --input reads. [default: 30 of the program's own]"""
    limit: int | None = None
    """Only the first prompts."""
    columns: str = "base,urial,wsd,draft"
    """Ways of answering, by commas: base (it must be there), urial, wsd, draft, fixed:K, or another rule; with @ its
    number: wsd@0.7."""
    urial: Path | None = None
    """Text of the in-context prompt of the column urial, in place of the program's own."""
    repeat: int = 1
    """Rounds of each prompt; their median counts."""
    out: Path | None = None
    """File of the rounds; the same command continues it. [default: in the data folder]"""
    html: Path | None = None
    """Also write a page with charts."""
    quiet: bool = False
    """Show no progress."""

    def __post_init__(self) -> None:
        if not 1 <= self.repeat <= _MOST_ROUNDS:
            raise UsageError(f"repeat is {self.repeat}: it must lie between 1 and {_MOST_ROUNDS}")


@takes(
    how=declared(TimeOptions).values(),
    models=models_named("draft", "base", "base_format"),
    settings=[*shared_settings(), *settings_named("speculation", "check_chunk")],
)
def times(
    pair: PairName = None,
    /,
    *,
    how: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Measure how long whole replies take: base alone, after examples (URIAL), WSD, draft alone, other rules.

    The ways take turns on each prompt, in an order that rotates.
    """
    from wsd_local.cli.evaluate import page_writer
    from wsd_local.reports.times import timed
    from wsd_local.reports.times_page import time_page

    wanted = TimeOptions(**how)
    columns = _columns(wanted)
    show_native_log(verbose)
    write_page = page_writer(wanted.html)
    with ExitStack() as stack:
        reporter = Reporter(wanted.quiet)
        stack.callback(reporter.close)
        task = task_of(pair, models, settings, NOTHING)
        task = replace(task, settings={"max_tokens": MAX_TOKENS, **task.settings})
        if task.settings.get("resident") == "one":
            raise UsageError("resident is one: models would be loaded within what is measured; measure with both")
        data = chosen_prompts(wanted.prompts, reporter, limit=wanted.limit)
        out = chosen_file(wanted.out, task.pair, models, data.path, wanted.prompts, folder="times")
        rounds, failed = rounds_of(task, data, columns, out, wanted.repeat, reporter, stack)
        found = rounds.rounds()
    if not found:
        terminal.message(f"{data.path}: no prompt could be answered in every way")
        return SOME_FAILED
    results = timed(found, [column.name for column in columns])
    write_page(lambda: time_page(results, [_about(data, task), *results.sentences()]))
    _show(results, as_json, {"pair": task.pair or "demo", "rounds_file": str(out)})
    return SOME_FAILED if failed + len(data.bad) else 0


def _columns(wanted: TimeOptions) -> list[Column]:
    from wsd_local.reports.columns import columns_of
    from wsd_local.reports.times import BASE
    from wsd_local.system.inputs import read_text

    found = columns_of(wanted.columns, None if wanted.urial is None else read_text(wanted.urial))
    names = [column.name for column in found]
    if BASE not in names:
        raise UsageError(f"columns are {', '.join(names)}: times are compared with the base alone; add base")
    if wanted.urial is not None and "urial" not in names:
        raise UsageError("--urial is given, and there is no column urial; add it to --columns, or leave the file out")
    return found


def rounds_of(
    task: DataSetTask,
    data: DataSet,
    columns: Sequence[Column],
    out: Path,
    repeat: int,
    reporter: Reporter,
    stack: ExitStack,
) -> tuple[Rounds, int]:
    """Measure what the file lacks; the rounds and the number of prompts that failed. The pair is closed with `stack`.

    Raises:
        CancelledError: a signal came; what is measured stays.
        WsdError: the work cannot begin, or a round could not be written.
    """
    from wsd_local.datasets.run_file import RunFile
    from wsd_local.reports.time_rounds import OPTION, Rounds
    from wsd_local.system.interrupt import interruptible

    interrupt = stack.enter_context(interruptible())
    file = stack.enter_context(RunFile(out, option=OPTION))
    loaded: dict[str, Any] = {**task.settings, **mode_of(columns), "prompt_cache": "off"}
    task = DataSetTask(task.data, False, None, task.pair, task.models, loaded)
    pair = load_pair(task, 1, reporter, interrupt, stack)
    rounds = Rounds(pair, data, file, columns, repeat, lambda: interrupt.requested)
    if rounds.done:
        reporter.note(f"{out}: {rounds.done} of {plural(rounds.total, 'round')} are there")
    later = sum(bool(item.later) for item in data.items)
    if later:
        reporter.note(f"{plural(later, 'prompt')} of several turns: the first turn is measured")
    failed = 0
    try:
        with reporter.counting("round", rounds.total, rounds.done) as tick:
            for outcome in rounds.outcomes():
                if outcome.error is not None:
                    failed += 1
                    line = "" if outcome.item.line is None else f", line {outcome.item.line}"
                    reporter.report(f"prompt {outcome.item.id}{line}: {outcome.error}")
                tick(rounds.done)
    except CancelledError:
        reporter.note(f"interrupted: {rounds.done} of {plural(rounds.total, 'round')}; the same command goes on")
        raise
    file.sort()
    if rounds.done:
        reporter.note(f"rounds: {out}")
    return rounds, failed


def _about(data: DataSet, task: DataSetTask) -> str:
    return (
        f"Measured with the prompts of {data.path.name}, replies of at most {task.settings['max_tokens']} tokens, one "
        f"at a time, each from empty caches; proposals: {task.settings['speculation']}. The ways took turns on each "
        "prompt, in an order that rotates; an unmeasured reply of each came before."
    )


def _show(found: TimeResults, as_json: bool, about: dict[str, Any]) -> None:
    from wsd_local.cli.evaluate import show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.times_page import time_tables

    if as_json:
        print_json(about | found.as_dict())
        return
    show(time_tables(found))
    terminal.line("")
    for line in found.sentences():
        terminal.line(line)
