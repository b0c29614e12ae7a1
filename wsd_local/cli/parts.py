"""The parts of `wsd-local eval all`: which there are, and how they are worked on.

Contract: a part is measured prompt by prompt, and the time is divided as `reports.evidence.schedule` says. How far each
is, and what it took, is kept in `progress.json` of the folder, which only saves time: without it the files of replies
are read again. A part that fails is reported and left as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from wsd_local.cli import names
from wsd_local.cli.options import flag, number, option
from wsd_local.cli.tax import COLUMNS, executed
from wsd_local.errors import CancelledError, UsageError, WsdError, nearest
from wsd_local.files import read_memory, write_memory
from wsd_local.library.catalog import DEFAULT_PAIR
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.cli.columns import Answering
    from wsd_local.cli.progress import Reporter
    from wsd_local.cli.recording_parts import Options
    from wsd_local.cli.reply_parts import JudgeChoice
    from wsd_local.cli.task import DataSetTask
    from wsd_local.reports.evidence.part import Findings, Part
    from wsd_local.reports.evidence.report import Outcome
    from wsd_local.reports.evidence.schedule import Progress

NAMES = ("demo", "mechanism", "sweep", "time", "gsm8k", "humaneval", "xstest", "hh", "judge", "reward")
REPLY_TOKENS = 512
"""Tokens of a reply to the prompts that a judge compares, at most."""
_PROGRESS = "progress.json"


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class EverythingOptions:
    """What is measured, for how long, and where replies and verdicts go."""

    minutes: Annotated[float, number("Time to divide among the parts.")] = 60.0
    limit: Annotated[int | None, number("At most so many prompts of each part.")] = None
    parts: Annotated[str | None, option("Only these parts, by commas.", metavar="NAMES")] = None
    out: Annotated[
        Path | None,
        option(
            "Folder for replies and verdicts; the same command goes on. [default: in the data folder]", metavar="DIR"
        ),
    ] = None
    columns: Annotated[str, option(COLUMNS, metavar="NAMES")] = "base,wsd,draft"
    gsm8k: Annotated[str, option("GSM8K.", metavar="NAME|PATH", completer=names.data_sets)] = "gsm8k"
    humaneval: Annotated[str, option("HumanEval.", metavar="NAME|PATH", completer=names.data_sets)] = "humaneval"
    xstest: Annotated[str, option("XSTest.", metavar="NAME|PATH", completer=names.data_sets)] = "xstest"
    hh: Annotated[str, option("HH harmless.", metavar="NAME|PATH", completer=names.data_sets)] = "hh_rlhf"
    prompts: Annotated[
        str | None,
        option(
            "Prompts whose replies are compared. [default: 30 of the program's own]",
            metavar="NAME|PATH",
            completer=names.data_sets,
        ),
    ] = None
    judge: Annotated[
        str | None,
        option(
            "A judge: an instruct model by name or path, or an endpoint, http://HOST:PORT/v1.",
            metavar="MODEL|URL",
            completer=names.models,
        ),
    ] = None
    judge_model: Annotated[str | None, option("Name of the judge at the endpoint.", metavar="NAME")] = None
    reward: Annotated[
        str | None, option("A reward model, by name or path.", metavar="NAME|PATH", completer=names.models)
    ] = None
    allow_code_execution: Annotated[bool, flag("Execute the programs that the models write for HumanEval.")] = False
    html: Annotated[Path | None, option("Also write the page.", metavar="FILE")] = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A part, and why it is not measured, if it is not."""

    part: Part
    left_out: str | None = None


def called(task: DataSetTask) -> str:
    """The name of the pair that is measured: its own, or those of its models."""
    chosen = [Path(str(task.models[role])).stem for role in ("draft", "base") if role in task.models]
    return "+".join(chosen) or task.pair or DEFAULT_PAIR


def plan(wanted: EverythingOptions, options: Options, answering: Answering, folder: Path) -> list[Planned]:
    """The parts that are wanted, in the order of the report.

    Raises:
        UsageError: a name is not that of a part, or what a named part needs is not given.
        ModelError: a model is not on this machine.
    """
    _require_models(wanted, answering.task)
    named = None if wanted.parts is None else [name.strip() for name in wanted.parts.split(",") if name.strip()]
    for name in named or ():
        if name not in NAMES:
            raise UsageError(f"there is no part {name!r}{nearest(name, NAMES)}; known are {', '.join(NAMES)}")
    if named == []:
        raise UsageError(f"--parts names no part; known are {', '.join(NAMES)}")
    found = [one for one in _all(wanted, options, answering, folder) if named is None or one.part.name in named]
    for one in found if named else ():
        if one.left_out is not None:
            raise UsageError(f"the part {one.part.name} is named, and {one.left_out}")
    missing = [name for name in named or () if name not in {one.part.name for one in found}]
    if missing:
        raise UsageError(f"the part {missing[0]} is of the embedded pair; leave it out of --parts")
    return found


def _require_models(wanted: EverythingOptions, task: DataSetTask) -> None:
    """Raise an error now if a model is missing, not after hours."""
    from wsd_local.library.gguf import look_at
    from wsd_local.library.resolve import model_path
    from wsd_local.reports.judge.reward import require_head
    from wsd_local.runtime.pair import model_files

    for path in model_files(task.pair, draft=task.models.get("draft"), base=task.models.get("base")).values():
        look_at(path)
    if wanted.reward is not None:
        reward = model_path(wanted.reward)
        look_at(reward)
        require_head(reward)


def _all(wanted: EverythingOptions, options: Options, answering: Answering, folder: Path) -> Iterator[Planned]:
    from wsd_local.cli.demo_part import DemoPart
    from wsd_local.cli.recording_parts import MechanismPart, SweepPart, TimePart
    from wsd_local.cli.reply_parts import JudgeChoice, JudgePart, RewardPart
    from wsd_local.cli.set_parts import Sample
    from wsd_local.paths import own_prompts

    if _is_embedded(answering.task):
        yield Planned(DemoPart(answering, folder, wanted.limit))
    threads = answering.task.settings.get("threads")
    judge = None if wanted.judge is None else JudgeChoice.checked(wanted.judge, wanted.judge_model, threads)
    source, settings = wanted.prompts or str(own_prompts()), {"max_tokens": REPLY_TOKENS}
    sample = Sample("prompts", source, lambda data: data, settings, wanted.limit, answering, folder)
    grader = None if judge is None or judge.model is not None else judge
    yield Planned(MechanismPart(sample, options, grader))
    yield Planned(SweepPart(sample, options))
    has_base = any(column.mode == "base" for column in answering.columns)
    yield Planned(TimePart(sample), None if has_base else "the columns lack base, which times are compared with")
    yield from _sets(wanted, judge, answering, folder)
    yield Planned(JudgePart(sample, judge), None if judge else "no judge is given: --judge MODEL")
    reward = RewardPart(sample, wanted.reward or "", threads)
    yield Planned(reward, None if wanted.reward else "no reward model is given: --reward MODEL")


def _sets(
    wanted: EverythingOptions, judge: JudgeChoice | None, answering: Answering, folder: Path
) -> Iterator[Planned]:
    from wsd_local.cli.classifying import JudgeClassifier
    from wsd_local.cli.set_parts import Sample, SetPart
    from wsd_local.reports.evidence.safety import SafetySet
    from wsd_local.reports.evidence.sets import MeasuredSet
    from wsd_local.reports.evidence.tax import TaxSet

    classifier = None if judge is None else JudgeClassifier(judge, folder, answering)
    forbidden = "the programs that models write are not executed without --allow-code-execution"
    sets: list[tuple[MeasuredSet, str, str | None]] = [
        (TaxSet("gsm8k", executed), wanted.gsm8k, None),
        (TaxSet("humaneval", executed), wanted.humaneval, None if wanted.allow_code_execution else forbidden),
        (SafetySet("xstest", classifier), wanted.xstest, None),
        (SafetySet("hh", classifier), wanted.hh, None),
    ]
    for one, source, left_out in sets:
        sample = Sample(one.name, source, one.ask, one.settings, wanted.limit, answering, folder)
        yield Planned(SetPart(one, sample), left_out)


def _is_embedded(task: DataSetTask) -> bool:
    from wsd_local.config import read_config

    own = DEFAULT_PAIR in read_config().pairs
    return (task.pair or DEFAULT_PAIR) == DEFAULT_PAIR and not task.models and not own


class Work:
    """The work on the parts of an evaluation.

    Args:
        folder: where it is kept.
        reporter: where progress is shown.
        answering: the pair.
        clock: seconds.
    """

    def __init__(
        self, folder: Path, reporter: Reporter, answering: Answering, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self._reporter, self._answering, self._clock = reporter, answering, clock
        self._progress: dict[str, Progress] = {}
        self._findings: dict[str, Findings] = {}
        self.failures: dict[str, WsdError] = {}
        """Why parts failed, in the order in which they did."""

    def run(self, planned: Sequence[Planned], seconds: float) -> None:
        """Open the parts, then measure what fits into `seconds`.

        Raises:
            CancelledError: a signal came; what was measured is kept.
        """
        from wsd_local.reports.evidence.schedule import divide

        parts = {one.part.name: one.part for one in planned if one.left_out is None}
        kept = read_memory(self.folder / _PROGRESS)
        for name, part in parts.items():
            if (total := self._guarded(name, part.open)) is not None:
                self._progress[name] = _recalled(kept.get(name), total)
        self._answering.wanted = max((one.total for one in self._progress.values()), default=1)

        def measure(name: str, count: int) -> float | None:
            self._reporter.note(f"{name}: {count} of {plural(self._progress[name].total, 'prompt')}")
            begun, loading = self._clock(), self._answering.loading_s
            found = self._guarded(name, lambda: parts[name].measure(count))
            if found is None:
                return None
            self._findings[name] = found
            return self._clock() - begun - (self._answering.loading_s - loading)

        divide(self._progress, seconds, measure, self._clock, self._keep)

    def outcome(self, one: Planned, command: str, *, interrupted: bool = False) -> Outcome:
        """What became of a part that `command` measures; `interrupted`: the work was ended by a signal."""
        from wsd_local.reports.evidence.report import Outcome

        name, progress = one.part.name, self._progress.get(one.part.name)
        measured, total = (0, 0) if progress is None else (progress.count, progress.total)
        findings, failure = self._findings.get(name), self.failures.get(name)
        is_whole = findings is not None and measured == total and failure is None and not findings.failed
        more = None if is_whole or one.left_out is not None else command
        why = None if failure is None else str(failure)
        cut = interrupted and one.left_out is None and why is None and (measured < total or findings is None)
        return Outcome(name, one.part.claim, measured, total, findings, why, one.left_out, more, cut)

    def _guarded(self, name: str, work: Callable[[], Any]) -> Any:
        """The work's result; None if it failed, which is reported."""
        if self._answering.interrupt.requested:
            raise CancelledError("interrupted")
        try:
            return work()
        except CancelledError:
            raise
        except WsdError as error:
            self.failures[name] = error
            self._reporter.report(f"{name}: {error}")
            return None

    def _keep(self) -> None:
        state = {name: {"count": one.count, "seconds": one.seconds} for name, one in self._progress.items()}
        path = self.folder / _PROGRESS
        write_memory(path, {**read_memory(path), **state})


def _recalled(kept: Any, total: int) -> Progress:
    """How far a part is, from what is kept about it."""
    from wsd_local.reports.evidence.schedule import Progress

    count, seconds = (kept.get("count"), kept.get("seconds")) if isinstance(kept, dict) else (0, 0.0)
    if type(count) is not int or not isinstance(seconds, int | float) or count < 1 or not 0 <= seconds < 1e12:
        return Progress(total)
    known = min(count, total)
    return Progress(total, known, seconds * known / count)
