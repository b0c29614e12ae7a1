"""`wsd-local calibrate`: the threshold and the window that suit a pair, from one recording of its drafts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli import terminal
from wsd_local.cli.options import (
    NOTHING,
    Debug,
    Given,
    Json,
    PairName,
    Verbose,
    models_named,
    models_of,
    setting_values,
    settings_named,
    show_native_log,
    takes,
)
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED, DataSetTask, load_pair
from wsd_local.errors import CancelledError, UsageError
from wsd_local.fields import declared
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.calibration import Calibration, Setting
    from wsd_local.calibration.runs import Recorder
    from wsd_local.config import Config
    from wsd_local.datasets import DataSet

SETTINGS = (
    "draft_lora",
    "draft_lora_scale",
    "base_lora",
    "base_lora_scale",
    "draft_max_tokens",
    "check_chunk",
    "loop_guard",
    "stop",
    "ctx",
    "threads",
    "n_gpu_layers",
    "draft_n_gpu_layers",
    "base_n_gpu_layers",
    "cache_type_k",
    "cache_type_v",
    "flash_attn",
    "load_mode",
)
_LONGEST = 4096
_REPORT_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """What is recorded, and where the records and what follows from them go.

    Raises:
        UsageError: the length of continuations is outside its range.
    """

    prompts: str | None = None
    """Prompts: a data set in any form that run --input reads. [default: 30 of the program's own]"""
    format: str | None = None
    """Format of the prompts, where it is not recognised."""
    column: str | None = None
    """Column of a table that holds the prompts."""
    limit: int | None = None
    """Only the first prompts."""
    out: Path | None = None
    """File of the records; the same command continues it. [default: in the data folder]"""
    continuation: int = 24
    """Tokens that the base writes from each switch point, to be compared."""
    write: bool = False
    """Write the recommended setting to the pair in config.toml."""
    html: Path | None = None
    """Also write a page with heat maps."""
    quiet: bool = False
    """Show no progress."""

    def __post_init__(self) -> None:
        if not 1 <= self.continuation <= _LONGEST:
            raise UsageError(
                f"continuation is {self.continuation}: it counts tokens and must lie between 1 and {_LONGEST}"
            )


@dataclass(frozen=True, slots=True)
class _Task:
    """What is recorded, with what, and into which file."""

    pair: str | None
    given: Given
    settings: dict[str, Any]
    config: Config
    data: DataSet
    out: Path
    present: Setting
    continuation: int


@takes(
    how=declared(CalibrationOptions).values(),
    models=models_named("draft", "base", "base_format"),
    settings=settings_named(*SETTINGS),
)
def calibrate(
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
    """Find the threshold and the window that suit a pair, by one recording of its drafts."""
    from wsd_local.cli.evaluate import page_writer
    from wsd_local.reports.calibration_page import calibration_page

    wanted = CalibrationOptions(**how)
    if wanted.write and models:
        raise UsageError(
            "--write is given with models in place of the pair's: make a pair of them in config.toml first"
        )
    show_native_log(verbose)
    write_page = page_writer(wanted.html)
    with ExitStack() as stack:
        reporter = Reporter(wanted.quiet)
        stack.callback(reporter.close)
        task = _task(pair, models, settings, wanted, reporter)
        failed = len(task.data.bad)
        for bad in task.data.bad:
            line = "" if bad.line is None else f", line {bad.line}"
            reporter.report(f"{task.data.path}{line}: {bad.reason}")
        found, more = _calibrated(task, reporter, wanted.quiet, stack)
    if found is None:
        terminal.message(f"{task.data.path}: no prompt could be recorded")
        return SOME_FAILED
    write_page(lambda: calibration_page(found, _about(task, found)))
    _show(found, as_json, task)
    if wanted.write:
        _write(task, found)
    return SOME_FAILED if failed + more else 0


def _task(
    pair: str | None,
    models: Given,
    settings: Given,
    wanted: CalibrationOptions,
    reporter: Reporter,
) -> _Task:
    from wsd_local.calibration import Setting
    from wsd_local.calibration.recording import OVERRIDES
    from wsd_local.calibration.runs import default_file
    from wsd_local.config import read_config
    from wsd_local.core.rule_settings import USES
    from wsd_local.datasets import dataset_path, read
    from wsd_local.library.resolve import named_pair
    from wsd_local.paths import make_folder, own_prompts
    from wsd_local.settings import split

    config = read_config()
    pair = config.pair if pair is None else pair
    entry = named_pair(pair, config.pairs)
    own = config.settings_of(pair, models)
    reply, _ = split(own)
    of_window = {name: value for name, value in own.items() if "window" in USES.get(name, ("window",))}
    values = {**of_window, **setting_values(settings), **OVERRIDES}
    if split(values)[1].resident == "one":
        raise UsageError("calibrate needs both models in memory: the configuration's resident is one; set it to both")
    path: Path = own_prompts()
    known: str | None = None
    if wanted.prompts is not None:
        path, known = dataset_path(wanted.prompts, reporter.transfer)
    data = read(path, format=wanted.format or known, column=wanted.column, limit=wanted.limit)
    if not data.items:
        raise UsageError(f"{path}: no prompt in it can be answered; the first: {data.bad[0].reason}")
    out = wanted.out
    if out is None:
        chosen = [Path(str(models[role])).stem for role in ("draft", "base") if role in models]
        out = default_file("+".join(chosen) or entry.name, None if wanted.prompts is None else path)
        make_folder(out.parent)
    elif out.exists() and out.samefile(path):
        raise UsageError(f"{out}: holds the prompts; choose another --out")
    present = Setting(reply.threshold, reply.window)
    return _Task(pair, models, values, config, data, out, present, wanted.continuation)


def _calibrated(task: _Task, reporter: Reporter, quiet: bool, stack: ExitStack) -> tuple[Calibration | None, int]:
    """What was found, None without a record, and how many prompts failed."""
    from wsd_local.calibration.recommending import calibrated, grid
    from wsd_local.calibration.runs import OPTION, Recorder
    from wsd_local.cli.options import DataSetOptions
    from wsd_local.datasets.run_file import RunFile
    from wsd_local.system.interrupt import interruptible

    interrupt = stack.enter_context(interruptible())
    file = stack.enter_context(RunFile(task.out, option=OPTION))
    loading = DataSetTask(DataSetOptions(), False, None, task.pair, models_of(task.given), task.settings)
    pair = load_pair(loading, 1, reporter, interrupt, stack)
    settings = grid(task.present)
    recorder = Recorder(pair, task.data, file, settings, task.continuation, lambda: interrupt.requested)
    if recorder.done:
        reporter.note(f"{task.out}: {_recorded(recorder)}")
    try:
        failed = _follow(recorder, reporter, quiet)
    except CancelledError:
        reporter.note(f"interrupted: {_recorded(recorder)}; the same command goes on")
        raise
    reporter.close()
    records = recorder.records()
    if not records:
        return None, failed
    reporter.note(f"records: {task.out}")
    chunk, compared = pair.settings.check_chunk, task.continuation
    return calibrated(records, settings, task.present, check_chunk=chunk, compared=compared), failed


def _recorded(recorder: Recorder) -> str:
    return f"{recorder.done} of {plural(recorder.total, 'prompt')} {'is' if recorder.total == 1 else 'are'} recorded"


def _follow(recorder: Recorder, reporter: Reporter, quiet: bool) -> int:
    """Record what is left; the number of prompts that failed."""
    failed = 0
    with _progress(recorder, reporter, quiet) as tick:
        for outcome in recorder.outcomes():
            if outcome.error is not None:
                failed += 1
                line = "" if outcome.item.line is None else f", line {outcome.item.line}"
                reporter.report(f"prompt {outcome.item.id}{line}: {outcome.error}")
            tick()
    return failed


@contextmanager
def _progress(recorder: Recorder, reporter: Reporter, quiet: bool) -> Iterator[Any]:
    """A bar on a terminal, lines elsewhere."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    reporter.close()
    console = terminal.console(stderr=True)
    shows = console.is_terminal and not quiet
    begun = reported = time.monotonic()
    first = recorder.done
    columns = (TextColumn("{task.completed}/{task.total} prompts"), BarColumn(bar_width=20), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shows, transient=True) as bar:
        shown = bar.add_task("prompts", total=recorder.total, completed=first)

        def tick() -> None:
            nonlocal reported
            now, done = time.monotonic(), recorder.done
            bar.update(shown, completed=done)
            if not quiet and not shows and now - reported >= _REPORT_EVERY_S:
                reported = now
                left = (recorder.total - done) * (now - begun) / max(done - first, 1)
                terminal.message(f"{done}/{plural(recorder.total, 'prompt')} · {left:.0f} s left")

        yield tick


def _about(task: _Task, found: Calibration) -> list[str]:
    costs = found.costs
    parts = [
        f"{cost * 1000:.1f} ms for a token that {what}"
        for cost, what in (
            (costs.drafted, "the draft writes"),
            (costs.checked, "the base checks"),
            (costs.written, "the base writes"),
        )
        if cost is not None
    ]
    return [f"Recorded with the prompts of {task.data.path.name}. Measured: {', '.join(parts) or 'no costs'}."]


def _show(found: Calibration, as_json: bool, task: _Task) -> None:
    from wsd_local.cli.evaluate import show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.calibration_page import calibration_table, verdict

    if as_json:
        print_json({"pair": task.pair or "demo", "records": str(task.out)} | found.as_dict())
        return
    show([calibration_table(found)])
    for line in verdict(found):
        terminal.line("")
        terminal.line(line)


def _write(task: _Task, found: Calibration) -> None:
    from wsd_local.config import write_pair_settings
    from wsd_local.library.catalog import DEFAULT_PAIR

    advice = found.recommendation
    if not advice.distinguished:
        terminal.message("nothing is written: the recommendation is to stay with the present setting")
        return
    values: dict[str, Any] = {"threshold": advice.setting.threshold, "window": advice.setting.window}
    if task.config.settings_of(task.pair).get("rule", "window") != "window":
        values["rule"] = "window"
    pair = task.pair or DEFAULT_PAIR
    path = write_pair_settings(pair, values)
    terminal.message(f"written: [pairs.{pair}.settings] in {path}")
