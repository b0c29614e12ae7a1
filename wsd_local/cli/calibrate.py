"""`wsd-local calibrate`: the threshold and the window that suit a pair, from one recording of its drafts."""

from __future__ import annotations

from contextlib import ExitStack
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
    settings_named,
    show_native_log,
    takes,
)
from wsd_local.cli.progress import Reporter
from wsd_local.cli.recordings import (
    SETTINGS,
    RecordingOptions,
    RecordingTask,
    recorded,
    recorded_with,
    recording_task,
)
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import UsageError
from wsd_local.fields import declared

if TYPE_CHECKING:
    from wsd_local.reports.recommending import Calibration


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """Where what follows from the records goes."""

    write: bool = False
    """Write the recommended setting to the pair in config.toml."""
    html: Path | None = None
    """Also write a page with heat maps."""


@takes(
    how=declared(RecordingOptions).values(),
    more=declared(CalibrationOptions).values(),
    models=models_named("draft", "base", "base_format"),
    settings=settings_named(*SETTINGS),
)
def calibrate(
    pair: PairName = None,
    /,
    *,
    how: Given = NOTHING,
    more: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Find the threshold and the window that suit a pair, by one recording of its drafts."""
    from wsd_local.cli.evaluate import page_writer
    from wsd_local.reports.calibration_page import calibration_page
    from wsd_local.reports.recommending import calibrated, grid

    wanted, also = RecordingOptions(**how), CalibrationOptions(**more)
    if also.write and models:
        raise UsageError(
            "--write is given with models in place of the pair's: make a pair of them in config.toml first"
        )
    show_native_log(verbose)
    write_page = page_writer(also.html)
    with ExitStack() as stack:
        reporter = Reporter(wanted.quiet)
        stack.callback(reporter.close)
        task = recording_task(pair, models, settings, wanted, reporter)
        compared = grid(task.present)
        made = recorded(task, compared, reporter, stack)
        chunk = made.pair.settings.check_chunk
    if not made.records:
        terminal.message(f"{task.data.path}: no prompt could be recorded")
        return SOME_FAILED
    found = calibrated(made.records, compared, task.present, check_chunk=chunk, compared=task.continuation)
    write_page(lambda: calibration_page(found, [recorded_with(task, found.costs)]))
    _show(found, as_json, task)
    if also.write:
        _write(task, found)
    return SOME_FAILED if made.failed + len(task.data.bad) else 0


def _show(found: Calibration, as_json: bool, task: RecordingTask) -> None:
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


def _write(task: RecordingTask, found: Calibration) -> None:
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
