"""`wsd-local eval mechanism`: where replies are hard for the base, and where and at what it takes over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli import terminal
from wsd_local.cli.options import (
    NOTHING,
    DataSetOptions,
    Debug,
    Given,
    Json,
    PairName,
    Verbose,
    models_named,
    models_of,
    settings_named,
    show_native_log,
    takes,
)
from wsd_local.cli.progress import Reporter
from wsd_local.cli.recordings import SETTINGS, RecordingOptions, RecordingTask, recorded, recording_task
from wsd_local.cli.task import SOME_FAILED, DataSetTask, load_pair
from wsd_local.errors import CancelledError, UsageError
from wsd_local.fields import declared
from wsd_local.system.interrupt import interruptible
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.datasets.run_file import RunFile
    from wsd_local.reports.mechanism.figures import MechanismResults
    from wsd_local.reports.mechanism.grades import Judging
    from wsd_local.reports.mechanism.recording import BaseReader, Openings, Prompted
    from wsd_local.reports.mechanism.records import Case


@dataclass(frozen=True, slots=True)
class MechanismOptions:
    """What the base samples, who judges it, and where the page goes."""

    openings: int = 9
    """Openings that the base samples itself for each prompt, at temperature 1."""
    opening_tokens: int = 100
    """Tokens of an opening, at most."""
    opening_seed: int = 0
    """Seed of these openings."""
    judge: str | None = None
    """A judge that grades all openings: an instruct model by name or path."""
    html: Path | None = None
    """Also write a page with charts."""


@dataclass(frozen=True, slots=True)
class Read:
    """Prompts with all that is recorded of them, how it was made, and the number of prompts that failed."""

    cases: Sequence[Case]
    run: Mapping[str, Any]
    failed: int


@takes(
    how=declared(RecordingOptions).values(),
    more=declared(MechanismOptions).values(),
    models=models_named("draft", "base", "base_format"),
    settings=settings_named("window", "threshold", *SETTINGS),
)
def mechanism(
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
    """Measure why it works on your own prompts: what the base finds hard, and where it takes over.

    Drafts that calibrate or eval sweep have recorded of the same pair and prompts are used, and the other way round.
    """
    from wsd_local.cli.evaluate import page_writer
    from wsd_local.reports.mechanism.figures import measured
    from wsd_local.reports.mechanism.parts import mechanism_page
    from wsd_local.reports.mechanism.recording import Openings

    wanted, own = RecordingOptions(**how), MechanismOptions(**more)
    openings = Openings(own.openings, own.opening_tokens, own.opening_seed)
    _require_judge(own.judge)
    show_native_log(verbose)
    write_page = page_writer(own.html)
    decided = {name: settings[name] for name in ("window", "threshold") if name in settings}
    with ExitStack() as stack:
        reporter = Reporter(wanted.quiet)
        stack.callback(reporter.close)
        others = {name: value for name, value in settings.items() if name not in decided}
        task = recording_task(pair, models, others, wanted, reporter)
        setting = replace(task.present, **decided)
        with ExitStack() as drafting:
            made = recorded(task, [setting], reporter, drafting)
            draft = made.pair.models.hashes["draft"]
        found = openings_of(task, made.prompted, openings, draft, reporter) if made.prompted else Read((), {}, 0)
        if not found.cases:
            terminal.message(f"{task.data.path}: no prompt could be recorded")
            return SOME_FAILED
        judging, too_long = grades_of(own.judge, found.cases, task, settings, reporter)
    results = measured(found.cases, setting, openings, judging)
    write_page(lambda: mechanism_page(results, _made_with(found.run, draft)))
    _show(results, as_json, task, found.run)
    return SOME_FAILED if made.failed + found.failed + too_long + len(task.data.bad) else 0


def _require_judge(judge: str | None) -> None:
    """What would prevent the judge's work raises an error now, before any other work."""
    from wsd_local.cli.judge import is_endpoint
    from wsd_local.library.gguf import look_at
    from wsd_local.library.resolve import model_path

    if judge is not None and is_endpoint(judge):
        raise UsageError(
            f"--judge is {judge}: grades need a judge on this machine; endpoints tell probabilities of first tokens"
        )
    if judge is not None:
        look_at(model_path(judge))


def _beside(task: RecordingTask, what: str) -> Path:
    """A file beside that of the drafts."""
    return task.out.with_name(f"{task.out.stem}.{what}.jsonl")


def openings_of(task: RecordingTask, prompted: Prompted, openings: Openings, draft: str, reporter: Reporter) -> Read:
    """What the base alone has to do with the prompts.

    Raises:
        CancelledError: a signal came; what is written stays.
        WsdError: the work cannot begin, or a line could not be written.
    """
    from wsd_local.calibration.runs import OPTION
    from wsd_local.datasets.run_file import RunFile
    from wsd_local.reports.mechanism.recording import BaseReader

    with ExitStack() as stack:
        interrupt = stack.enter_context(interruptible())
        file = stack.enter_context(RunFile(_beside(task, "openings"), option=OPTION))
        values = {**task.settings, **openings.settings}
        loading = DataSetTask(DataSetOptions(), False, None, task.pair, models_of(task.given), values)
        pair = load_pair(loading, _sequences(loading, openings.count, file), reporter, interrupt, stack)
        reader = BaseReader(pair, task.data, prompted, file, openings, draft, lambda: interrupt.requested)
        if reader.done:
            reporter.note(f"{file.path}: openings of {reader.done} of {plural(reader.total, 'prompt')} are there")
        try:
            failed = _follow(reader, reporter)
        except CancelledError:
            reporter.note(
                f"interrupted: openings of {reader.done} of {plural(reader.total, 'prompt')} are there; the same "
                "command goes on"
            )
            raise
        file.sort()
        return Read(reader.cases(), file.made_by or {}, failed)


def _sequences(task: DataSetTask, wanted: int, file: RunFile) -> int:
    """Openings at once: as in a file that is continued, or as many as fit."""
    from wsd_local.cli.dataset import most
    from wsd_local.datasets.shape import recorded as shape_of_file

    before = shape_of_file(file.made_by)
    return before[1] if before is not None else min(most(task, wanted), wanted)


def _follow(reader: BaseReader, reporter: Reporter) -> int:
    """Work on what is left; the number of prompts that failed."""
    failed = 0
    with reporter.counting("prompt", reader.total, reader.done) as tick:
        for outcome in reader.outcomes():
            if outcome.error is not None:
                failed += 1
                reporter.report(f"prompt {outcome.id}: {outcome.error}")
            tick(reader.done)
    return failed


def grades_of(
    judge: str | None, cases: Sequence[Case], task: RecordingTask, settings: Given, reporter: Reporter
) -> tuple[Judging | None, int]:
    """The judge's grades, if there is a judge, and the number of openings that are too long for it."""
    from wsd_local.cli import judge as judges
    from wsd_local.reports.judge.record import VerdictFile
    from wsd_local.reports.mechanism.grades import judging, questions
    from wsd_local.version import __version__

    if judge is None:
        return None, 0
    of_loading = {name: value for name, value in settings.items() if name in judges.SETTINGS}
    with ExitStack() as stack:
        interrupt = stack.enter_context(interruptible())
        chosen = stack.enter_context(judges.opened_judge(judge, None, of_loading, reporter, interrupt))
        file = _beside(task, f"grades.{re.sub(r'[^A-Za-z0-9._-]+', '-', chosen.identity['model'])}")
        about = {"version": __version__, "ask": "grade", "judge": chosen.identity, "prompts": task.data.sha256}
        sink = stack.enter_context(VerdictFile(file, about, option="--out"))
        work = judges.follow_judge(chosen, questions(cases), sink, reporter, interrupt)
        found = judging(chosen.identity, sink.done, cases)
    for line in found.warnings if found is not None else ():
        terminal.message(line)
    if work.too_long:
        question, why = work.too_long[0]
        reporter.report(f"{plural(len(work.too_long), 'opening')} too long for the judge; of {question.id}: {why}")
    return found, len(work.too_long)


def _made_with(run: Mapping[str, Any], draft: str) -> list[str]:
    """What was measured with what, in sentences for a page."""
    from wsd_local.version import __version__

    models = {"draft": draft, **run["models"]}
    hashes = ", ".join(f"{role} {sha256}" for role, sha256 in models.items())
    return [
        f"Made by wsd-local {__version__} with llama.cpp {run['llama_cpp']}.",
        f"SHA-256 of the models: {hashes}. Of the prompts: {run['input_sha256']}.",
    ]


def _show(found: MechanismResults, as_json: bool, task: RecordingTask, run: Mapping[str, Any]) -> None:
    from wsd_local.cli.evaluate import show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.mechanism.parts import mechanism_tables

    if as_json:
        print_json({"pair": task.pair or "demo", "records": str(task.out), "run": run} | found.as_dict())
    else:
        show(mechanism_tables(found))
