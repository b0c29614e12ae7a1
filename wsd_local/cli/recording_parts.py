"""Parts of an evaluation that record drafts, or time replies: mechanism, sweep and time.

Contract: they measure the prompts of a `Sample`, and load the pair themselves in the shape that they need, after the
one that answers data sets is freed. Mechanism and sweep share a file of records.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wsd_local.cli.recordings import SETTINGS, RecordingOptions, RecordingTask, recorded, recording_task
from wsd_local.errors import WsdError
from wsd_local.reports.evidence.recording import (
    MECHANISM,
    SWEEP,
    TIME,
    mechanism_findings,
    sweep_findings,
    time_findings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from wsd_local.cli.options import Given
    from wsd_local.cli.reply_parts import JudgeChoice
    from wsd_local.cli.set_parts import Sample
    from wsd_local.reports.evidence.part import Claim, Findings

_OPTION = "--out"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was given: the pair, models and settings as options, and the prompts' source."""

    pair: str | None
    models: Given
    settings: Given
    prompts: str | None


class _Recording:
    """What mechanism and sweep share."""

    def __init__(self, sample: Sample, options: Options) -> None:
        self._sample, self._options = sample, options

    def open(self) -> int:
        """Read the prompts; their number."""
        return self._sample.open()

    def _task(self, count: int) -> RecordingTask:
        """The first `count` prompts, to be recorded."""
        given, answering = self._options, self._sample.answering
        settings = {name: value for name, value in given.settings.items() if name in SETTINGS}
        wanted = RecordingOptions(prompts=given.prompts, out=self._sample.folder / "recording.jsonl", quiet=True)
        self._sample.folder.mkdir(parents=True, exist_ok=True)
        answering.release()
        task = recording_task(given.pair, given.models, settings, wanted, answering.reporter)
        present = task.present
        if "window" in given.settings:
            present = replace(present, window=given.settings["window"])
        return replace(task, data=self._sample.data(count), present=present)


class MechanismPart(_Recording):
    """Where replies are hard for the base, and where it takes over."""

    name = "mechanism"
    claim: Claim = MECHANISM

    def __init__(self, sample: Sample, options: Options, judge: JudgeChoice | None) -> None:
        super().__init__(sample, options)
        self._judge = judge

    def measure(self, count: int) -> Findings:
        """Record the first `count` prompts, and let the base read them and begin them itself."""
        from wsd_local.cli.mechanism import grades_of, openings_of
        from wsd_local.reports.mechanism.figures import measured
        from wsd_local.reports.mechanism.recording import Openings

        task, reporter, openings = self._task(count), self._sample.answering.reporter, Openings(9, 100, 0)
        with ExitStack() as stack:
            made = recorded(task, [task.present], reporter, stack)
            draft = made.pair.models.hashes["draft"]
        if not made.prompted:
            raise WsdError("no prompt could be recorded")
        found = openings_of(task, made.prompted, openings, draft, reporter)
        if not found.cases:
            raise WsdError("the base could read no prompt")
        judge, settings = (None, {}) if self._judge is None else (self._judge.judge, self._judge.settings)
        judging, too_long = grades_of(judge, found.cases, task, settings, reporter)
        results = measured(found.cases, task.present, openings, judging)
        run = dict(found.run) | {"models": {"draft": draft, **found.run["models"]}}
        failed = made.failed + found.failed + too_long + self._sample.bad
        return mechanism_findings(results, failed, {"prompts.openings": run})


class SweepPart(_Recording):
    """Every threshold with every window."""

    name = "sweep"
    claim: Claim = SWEEP

    def measure(self, count: int) -> Findings:
        """Record the first `count` prompts, and derive what each setting would have done."""
        from wsd_local.datasets.batch import made_by
        from wsd_local.reports.sweep import THRESHOLDS, WINDOWS, grid_of, swept

        task, grid = self._task(count), grid_of(THRESHOLDS, WINDOWS)
        with ExitStack() as stack:
            made = recorded(task, grid, self._sample.answering.reporter, stack)
            chunk, run = made.pair.settings.check_chunk, made_by(made.pair, task.data, None)
        if not made.records:
            raise WsdError("no prompt could be recorded")
        found = swept(made.records, grid, check_chunk=chunk, compared=task.continuation)
        return sweep_findings(found, task.present, made.failed + self._sample.bad, {"prompts.recording": run})


class TimePart:
    """How long whole replies take."""

    name = "time"
    claim: Claim = TIME

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def open(self) -> int:
        """Read the prompts; their number."""
        return self._sample.open()

    def measure(self, count: int) -> Findings:
        """Time replies to the first `count` prompts in every column."""
        from wsd_local.cli.times import MAX_TOKENS, rounds_of
        from wsd_local.reports.times import timed

        answering, path = self._sample.answering, self._sample.folder / "time.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        answering.release()
        task = replace(answering.task, settings={"max_tokens": MAX_TOKENS, **answering.task.settings})
        columns = list(answering.columns)
        with ExitStack() as stack:
            rounds, failed = rounds_of(task, self._sample.data(count), columns, path, 1, answering.reporter, stack)
            found = rounds.rounds()
        if not found:
            raise WsdError("no prompt could be answered in every way")
        results = timed(found, [column.name for column in columns])
        return time_findings(results, failed + self._sample.bad, {"prompts.time": _made_by(path)})


def _made_by(path: Path) -> dict[str, Any]:
    from wsd_local.datasets.run_file import RunFile

    with RunFile(path, option=_OPTION) as file:
        return file.made_by or {}
