"""`wsd-local eval sweep`: every threshold with every window, from one recording of a pair's drafts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    Recorded,
    RecordingOptions,
    RecordingTask,
    recorded,
    recorded_with,
    recording_task,
)
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import CancelledError
from wsd_local.fields import declared
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.calibration import Setting
    from wsd_local.reports.sweep import CheckedReply, SweepResults

_DIFFERENT = 1


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """The grid, and what is done with it."""

    thresholds: str | None = None
    """Thresholds by commas. [default: 0.3,0.5,0.6,0.7,0.8,0.9,0.95]"""
    windows: str | None = None
    """Windows by commas. [default: 2,3,4,6,8,10,12]"""
    replies: int = 0
    """Also answer so many times, prompts and settings drawn from the grid, and compare with what was derived."""
    html: Path | None = None
    """Also write a page with heat maps."""


@takes(
    how=declared(RecordingOptions).values(),
    grid=declared(SweepOptions).values(),
    models=models_named("draft", "base", "base_format"),
    settings=settings_named(*SETTINGS),
)
def sweep(
    pair: PairName = None,
    /,
    *,
    how: Given = NOTHING,
    grid: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Compare every threshold with every window on your own prompts, from one recording.

    What calibrate has recorded of the same pair and prompts is used, and the other way round.
    """
    from wsd_local.cli.evaluate import page_writer
    from wsd_local.reports.sweep import THRESHOLDS, WINDOWS, chosen, grid_of, swept
    from wsd_local.reports.sweep_page import sweep_page

    wanted, own = RecordingOptions(**how), SweepOptions(**grid)
    compared = grid_of(
        THRESHOLDS if own.thresholds is None else own.thresholds, WINDOWS if own.windows is None else own.windows
    )
    show_native_log(verbose)
    write_page = page_writer(own.html)
    with ExitStack() as stack:
        reporter = Reporter(wanted.quiet)
        stack.callback(reporter.close)
        task = recording_task(pair, models, settings, wanted, reporter)
        chosen(own.replies, task.turns, len(compared))
        made = recorded(task, compared, reporter, stack)
        if not made.records:
            terminal.message(f"{task.data.path}: no prompt could be recorded")
            return SOME_FAILED
        chunk = made.pair.settings.check_chunk
        found = swept(made.records, compared, check_chunk=chunk, compared=task.continuation)
        found = replace(found, replies=tuple(_checked(own.replies, made, compared, task, reporter)))
    write_page(lambda: sweep_page(found, [recorded_with(task, found.costs), *_about_replies(found)]))
    _show(found, as_json, task)
    if found.different:
        terminal.message(f"{plural(len(found.different), 'reply')} of {len(found.replies)} decided otherwise")
        return _DIFFERENT
    return SOME_FAILED if made.failed + len(task.data.bad) else 0


def _checked(
    count: int, made: Recorded, compared: Sequence[Setting], task: RecordingTask, reporter: Reporter
) -> list[CheckedReply]:
    """Real replies at places of the grid."""
    from wsd_local.reports.sweep import checked, chosen

    places = chosen(min(count, len(made.prompted) * len(compared)), len(made.prompted), len(compared))
    found: list[CheckedReply] = []
    if not places:
        return found
    with reporter.counting("reply", len(places), 0) as tick:
        for prompt, cell in places:
            record, messages = made.prompted[prompt]
            found.append(checked(made.pair, record, messages, compared[cell], compared=task.continuation))
            if made.interrupt.requested:
                raise CancelledError("interrupted")
            tick(len(found))
    return found


def _about_replies(found: SweepResults) -> list[str]:
    if not found.replies:
        return []
    equal = len(found.replies) - len(found.different)
    return [f"Of {plural(len(found.replies), 'real reply')} at places of the grid {equal} decided as derived."]


def _show(found: SweepResults, as_json: bool, task: RecordingTask) -> None:
    from wsd_local.cli.evaluate import show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.sweep_page import sweep_tables

    if as_json:
        print_json({"pair": task.pair or "demo", "records": str(task.out)} | found.as_dict())
    else:
        show(sweep_tables(found))
