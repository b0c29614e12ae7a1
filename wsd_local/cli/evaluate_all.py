"""`wsd-local eval all`: what fits the time given, as one report.

Contract: parts measure prompt by prompt into files of a folder (`cli.parts`), so that nothing is lost when it is
stopped, and the same command goes on; a report of what was measured until then is written before the command ends. A
part that fails, or whose data cannot be had, is left out with the reason, and the others are measured.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from wsd_local.cli.columns import Answering, data_options, shared_settings, task_of
from wsd_local.cli.options import (
    NOTHING,
    Debug,
    Given,
    Json,
    PairName,
    Verbose,
    models_named,
    takes,
)
from wsd_local.cli.options import show_native_log as show_log
from wsd_local.cli.parts import EverythingOptions, Work, called, plan
from wsd_local.cli.progress import Reporter
from wsd_local.cli.recording_parts import Options
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.paths import evaluation_dir
from wsd_local.system.interrupt import interruptible
from wsd_local.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsd_local.cli.task import DataSetTask
    from wsd_local.reports.evidence.report import Outcome, Report
    from wsd_local.system.interrupt import Stop


_MOST_MINUTES = 1_000_000
_USUAL = EverythingOptions()


@takes(
    models=models_named("draft", "base", "base_format"),
    data=data_options("parallel", "quiet"),
    settings=shared_settings(),
)
def everything(
    pair: PairName = None,
    /,
    *,
    how: EverythingOptions = _USUAL,
    data: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Measure what fits the time given, and report it as one page."""
    from wsd_local.cli.evaluate import page_writer

    show_log(verbose)
    _check(how)
    write = page_writer(how.html)
    with ExitStack() as stack:
        task = task_of(pair, models, settings, data)
        reporter = Reporter(task.data.quiet)
        stack.callback(reporter.close)
        interrupt = stack.enter_context(interruptible())
        report = _measured(how, Options(task.pair, models, settings, how.prompts), task, reporter, interrupt)
        if report.interrupted:
            reporter.close()
            _show(report, write, as_json)
            raise CancelledError("interrupted")
    _show(report, write, as_json)
    return SOME_FAILED if any(map(_is_incomplete, report.outcomes)) else 0


def _show(report: Report, write: Callable[[Callable[[], str]], None], as_json: bool) -> None:
    """Write the page, and print the values or the tables."""
    from wsd_local.cli.evaluate import show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.evidence.report import report_page, report_tables

    write(lambda: report_page(report))
    if as_json:
        print_json(report.as_dict())
    else:
        show(report_tables(report))


def _check(how: EverythingOptions) -> None:
    if not 0 < how.minutes < _MOST_MINUTES:
        raise UsageError(f"minutes is {how.minutes:g}: it must be more than 0, and less than {_MOST_MINUTES}")
    if how.limit is not None and how.limit < 1:
        raise UsageError(f"limit is {how.limit}: it counts prompts and must be at least 1")
    if how.judge_model is not None and how.judge is None:
        raise UsageError("--judge-model is given without --judge: name the endpoint")


def _measured(
    how: EverythingOptions, options: Options, task: DataSetTask, reporter: Reporter, interrupt: Stop
) -> Report:
    """Measure, and put what was found together; if a signal came, what was found until then.

    Raises:
        CancelledError: a signal came before anything was found; what was measured is kept.
        WsdError: nothing could be measured.
    """
    from wsd_local.reports.columns import columns_of
    from wsd_local.reports.evidence.report import Report
    from wsd_local.runtime.loading import roles_of

    columns = columns_of(how.columns)
    if all(len(roles_of(column.mode)) == 1 for column in columns):
        raise UsageError(f"--columns {how.columns}: names no way in which both models write; add wsd")
    name = called(task)
    with Answering(task, columns, 1, reporter, interrupt) as answering:
        work = Work(how.out or evaluation_dir(name), reporter, answering)
        planned = plan(how, options, answering, work.folder)
        stopped: CancelledError | None = None
        try:
            work.run(planned, how.minutes * 60)
        except CancelledError as error:
            reporter.note("interrupted: what was measured is kept; the same command goes on")
            stopped = error
        outcomes = [work.outcome(one, _command(), interrupted=stopped is not None) for one in planned]
    if all(one.findings is None for one in outcomes):
        raise stopped or _nothing(next(iter(work.failures.values()), None))
    return Report(name, outcomes, _about(how), interrupted=stopped is not None)


def _nothing(first: WsdError | None) -> WsdError:
    """The error if nothing could be measured; its exit code is that of the first failure."""
    why = "no part is left: see --parts" if first is None else f"the first reason: {first}"
    error = WsdError(f"nothing could be measured; {why}")
    error.exit_code = error.exit_code if first is None else first.exit_code
    return error


def _command() -> str:
    return shlex.join(["wsd-local", *sys.argv[1:]])


def _about(how: EverythingOptions) -> dict[str, str]:
    """What the report was made with, beside models, data and settings."""
    import os
    import platform
    from datetime import UTC, datetime

    from wsd_local.llama.build import version as llama_cpp
    from wsd_local.version import __version__

    return {
        "command": _command(),
        "wsd-local": __version__,
        "llama.cpp": llama_cpp(),
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {plural(os.cpu_count() or 1, 'processor')}",
        "time given": f"{how.minutes:g} minutes",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _is_incomplete(one: Outcome) -> bool:
    """Whether something could not be measured for another reason than time, or a missing permission."""
    return one.failure is not None or (one.findings is not None and one.findings.failed > 0)
