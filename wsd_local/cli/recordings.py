"""Recording a pair's drafts, for the commands that derive from them what each setting would do.

Contract: these commands share options, and files of records: where the pair, the prompts and the settings are the same,
one of them goes on with what another has recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli.options import DataSetOptions, Given, models_of, setting_values
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import DataSetTask, load_pair
from wsd_local.errors import CancelledError, UsageError
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.calibration import Costs, Record, Setting
    from wsd_local.calibration.runs import Recorder
    from wsd_local.config import Config
    from wsd_local.datasets import DataSet
    from wsd_local.prompts.messages import Message
    from wsd_local.runtime.pair import Pair
    from wsd_local.system.interrupt import Stop

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
    "ubatch",
    "n_gpu_layers",
    "draft_n_gpu_layers",
    "base_n_gpu_layers",
    "cache_type_k",
    "cache_type_v",
    "flash_attn",
    "load_mode",
)
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What is recorded, and where the records go.

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
    quiet: bool = False
    """Show no progress."""

    def __post_init__(self) -> None:
        if not 1 <= self.continuation <= _LONGEST:
            raise UsageError(
                f"continuation is {self.continuation}: it counts tokens and must lie between 1 and {_LONGEST}"
            )


@dataclass(frozen=True, slots=True)
class RecordingTask:
    """What is recorded, with what, and into which file. `present` is the setting that the configuration has."""

    pair: str | None
    given: Given
    settings: dict[str, Any]
    config: Config
    data: DataSet
    out: Path
    present: Setting
    continuation: int

    @property
    def turns(self) -> int:
        """Prompts to record, further turns counted."""
        return sum(1 + len(item.later) for item in self.data.items)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Records with their conversations, the loaded pair that they are of, and the number of prompts that failed."""

    pair: Pair
    prompted: Sequence[tuple[Record, list[Message]]]
    failed: int
    interrupt: Stop

    @property
    def records(self) -> list[Record]:
        """The records."""
        return [record for record, _ in self.prompted]


def recording_task(
    pair: str | None, models: Given, settings: Given, wanted: RecordingOptions, reporter: Reporter
) -> RecordingTask:
    """What the options say, and the configuration where they say nothing; prompts that are none are reported.

    Raises:
        WsdError: the prompts cannot be read, or an option does not go with the others.
    """
    from wsd_local.calibration import Setting
    from wsd_local.calibration.recording import OVERRIDES
    from wsd_local.config import read_config
    from wsd_local.core.rule_settings import USES
    from wsd_local.library.resolve import named_pair
    from wsd_local.settings import split

    config = read_config()
    pair = config.pair if pair is None else pair
    named_pair(pair, config.pairs)
    own = config.settings_of(pair, models)
    reply, _ = split(own)
    of_window = {name: value for name, value in own.items() if "window" in USES.get(name, ("window",))}
    values = {**of_window, **setting_values(settings), **OVERRIDES, "prompt_cache": "off"}
    if split(values)[1].resident == "one":
        raise UsageError("recording needs both models in memory: the configuration's resident is one; set it to both")
    data = chosen_prompts(wanted.prompts, reporter, limit=wanted.limit, format=wanted.format, column=wanted.column)
    out = chosen_file(wanted.out, pair, models, data.path, wanted.prompts)
    present = Setting(reply.threshold, reply.window)
    return RecordingTask(pair, models, values, config, data, out, present, wanted.continuation)


def chosen_prompts(source: str | None, reporter: Reporter, **reading: Any) -> DataSet:
    """The prompts of a data set, or the program's own; those that cannot be asked are reported.

    Raises:
        WsdError: they cannot be read, or there is none.
    """
    from wsd_local.datasets import dataset_path, read
    from wsd_local.paths import own_prompts

    path: Path = own_prompts()
    known: str | None = None
    if source is not None:
        path, known = dataset_path(source, reporter.transfer)
    data = read(path, **{**reading, "format": reading.get("format") or known})
    if not data.items:
        raise UsageError(f"{path}: no prompt in it can be answered; the first: {data.bad[0].reason}")
    for bad in data.bad:
        line = "" if bad.line is None else f", line {bad.line}"
        reporter.report(f"{data.path}{line}: {bad.reason}")
    return data


def chosen_file(
    given: Path | None, pair: str | None, models: Given, prompts: Path, source: str | None, folder: str = "calibration"
) -> Path:
    """The file of records: the one that is given, else that of the pair and the prompts in a folder of the data folder.

    Raises:
        UsageError: there is no such pair, or the file is that of the prompts.
    """
    from wsd_local.calibration.runs import default_file
    from wsd_local.config import read_config
    from wsd_local.library.resolve import named_pair
    from wsd_local.paths import make_folder

    if given is None:
        chosen = [Path(str(models[role])).stem for role in ("draft", "base") if role in models]
        name = "+".join(chosen) or named_pair(pair, read_config().pairs).name
        out = default_file(name, None if source is None else prompts, folder)
        make_folder(out.parent)
        return out
    if given.exists() and given.samefile(prompts):
        raise UsageError(f"{given}: holds the prompts; choose another --out")
    return given


def recorded(task: RecordingTask, settings: Sequence[Setting], reporter: Reporter, stack: ExitStack) -> Recorded:
    """Load the pair and record what the file lacks; the pair is closed with `stack`.

    Raises:
        CancelledError: a signal came; what is recorded stays.
        WsdError: the work cannot begin, or a record could not be written.
    """
    from wsd_local.calibration.runs import OPTION, Recorder
    from wsd_local.datasets.run_file import RunFile
    from wsd_local.system.interrupt import interruptible

    interrupt = stack.enter_context(interruptible())
    file = stack.enter_context(RunFile(task.out, option=OPTION, renews=True))
    loading = DataSetTask(DataSetOptions(), False, None, task.pair, models_of(task.given), task.settings)
    pair = load_pair(loading, 1, reporter, interrupt, stack)
    recorder = Recorder(pair, task.data, file, settings, task.continuation, lambda: interrupt.requested)
    if recorder.done:
        reporter.note(f"{task.out}: {_how_far(recorder)}")
    if recorder.lacking:
        reporter.note(
            f"{plural(recorder.lacking, 'record')} of other settings: only the continuations that they lack are written"
        )
    try:
        failed = _follow(recorder, reporter)
    except CancelledError:
        reporter.note(f"interrupted: {_how_far(recorder)}; the same command goes on")
        raise
    file.sort()
    found = recorder.prompted()
    if found:
        reporter.note(f"records: {task.out}")
    return Recorded(pair, found, failed, interrupt)


def _how_far(recorder: Recorder) -> str:
    return f"{recorder.done} of {plural(recorder.total, 'prompt')} {'is' if recorder.total == 1 else 'are'} recorded"


def _follow(recorder: Recorder, reporter: Reporter) -> int:
    """Record what is left; the number of prompts that failed."""
    failed = 0
    with reporter.counting("prompt", recorder.total, recorder.done) as tick:
        for outcome in recorder.outcomes():
            if outcome.error is not None:
                failed += 1
                line = "" if outcome.item.line is None else f", line {outcome.item.line}"
                reporter.report(f"prompt {outcome.item.id}{line}: {outcome.error}")
            tick(recorder.done)
    return failed


def recorded_with(task: RecordingTask, costs: Costs) -> str:
    """What was recorded, and what tokens cost there, in two sentences."""
    parts = [
        f"{cost * 1000:.1f} ms for a token that {what}"
        for cost, what in (
            (costs.drafted, "the draft writes"),
            (costs.checked, "the base checks"),
            (costs.written, "the base writes"),
        )
        if cost is not None
    ]
    return f"Recorded with the prompts of {task.data.path.name}. Measured: {', '.join(parts) or 'no costs'}."
