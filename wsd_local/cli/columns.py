"""Data sets answered in several ways by one pair, for the evaluations that compare columns.

Contract: each column of each set has a file of replies in the folder, `SET.COLUMN.jsonl`, which is that of a run over a
data set: the same command continues it, and files of several shards may be joined. The pair is loaded once. A column
decides alone on rule, mode and threshold; other settings hold for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli.dataset import follow, most, paying_number
from wsd_local.cli.options import DataSetOptions, Given, models_of, setting_values, settings_named
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import DataSetTask, keep_prompts, load_pair
from wsd_local.errors import CancelledError, UsageError, WsdError, reason
from wsd_local.fields import Declared, declared
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.datasets import DataSet
    from wsd_local.datasets.run_file import RunFile
    from wsd_local.reports.columns import Column
    from wsd_local.runtime.pair import Pair
    from wsd_local.settings import ReplySettings
    from wsd_local.system.interrupt import Stop

_SETTINGS = (
    "window",
    "draft_max_tokens",
    "on_draft_end",
    "max_tokens",
    "loop_guard",
    "draft_lora",
    "draft_lora_scale",
    "base_lora",
    "base_lora_scale",
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
    "resident",
)


def shared_settings() -> list[Declared]:
    """Settings that hold for all columns, as options."""
    return settings_named(*_SETTINGS)


def data_options(*names: str) -> list[Declared]:
    """Which records are answered, and how, as options; all of them if none are named."""
    found = declared(DataSetOptions)
    return [found[name] for name in names or ("limit", "shard", "parallel", "on_error", "quiet")]


@dataclass(frozen=True, slots=True)
class Asked:
    """A data set to answer, its name in files, and settings of its replies where none are given."""

    name: str
    data: DataSet
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered: the replies' lines of each set and column, and how many records failed."""

    lines: Mapping[tuple[str, str], list[dict[str, Any]]]
    failed: int


def task_of(pair: str | None, models: Given, settings: Given, data: Given) -> DataSetTask:
    """What the options say, and the configuration where they say nothing."""
    from wsd_local.config import read_config

    config = read_config()
    chosen = config.pair if pair is None else pair
    usual = {name: value for name, value in config.settings_of(chosen, models).items() if name in _SETTINGS}
    given: dict[str, Any] = {"loop_guard": "off", "speculation": "off", **usual, **setting_values(settings)}
    return DataSetTask(DataSetOptions(**data), False, None, chosen, models_of(models), given)


def read_set(source: str, task: DataSetTask, reporter: Reporter, interrupt: Stop | None = None) -> DataSet:
    """The records of a file, or of a public set, that are to be answered.

    Raises:
        CancelledError: `interrupt` noted a signal while the set was fetched.
        WsdError: it cannot be read or fetched.
    """
    from wsd_local.datasets import dataset_path, parse_shard, read

    def transfer(done: int, total: int, phase: str) -> None:
        if interrupt is not None and interrupt.requested:
            raise CancelledError("interrupted")
        reporter.transfer(done, total, phase)

    shard = None if task.data.shard is None else parse_shard(task.data.shard)
    path, known = dataset_path(source, transfer)
    return read(path, format=known, limit=task.data.limit, shard=shard)


class Answering:
    """The pair of a task, loaded when it is first needed, and its answers to data sets in columns.

    Args:
        task: what the options say.
        columns: ways of answering.
        wanted: the most records that are answered at once.
        reporter: where progress is shown.
        interrupt: whether a signal came.

    Attributes:
        loading_s: seconds that loading took until now.
    """

    def __init__(
        self, task: DataSetTask, columns: Sequence[Column], wanted: int, reporter: Reporter, interrupt: Stop
    ) -> None:
        self.task, self.columns, self.reporter, self.interrupt = task, columns, reporter, interrupt
        self.loading_s = 0.0
        self.wanted = wanted
        self._loaded = ExitStack()
        self._pair: Pair | None = None
        self._usual: ReplySettings | None = None

    def __enter__(self) -> Answering:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def pair(self, files: Iterable[RunFile] = ()) -> Pair:
        """The pair with its own settings, loaded for runs that continue `files`.

        Raises:
            CancelledError: a signal came.
            WsdError: it cannot be loaded.
        """
        if self._pair is None:
            begun = time.monotonic()
            task = replace(self.task, settings={**self.task.settings, **mode_of(self.columns)})
            parallel = _sequences(task, self.wanted, files)
            self._pair = load_pair(task, parallel, self.reporter, self.interrupt, self._loaded)
            self._usual = self._pair.settings
            self.loading_s += time.monotonic() - begun
        assert self._usual is not None
        self._pair.settings = self._usual
        return self._pair

    def release(self) -> None:
        """Free the models; they are loaded again when they are needed."""
        self._pair = self._usual = None
        self.interrupt.on_request(lambda: None)
        self._loaded.close()

    def answers(self, sets: Sequence[Asked], folder: Path) -> Answers:
        """Answer each set in each column into files of the folder, and read what is in them then.

        Raises:
            CancelledError: a signal came; what is written stays.
            WsdError: the run cannot begin.
        """
        _report_bad(self.task, sets, self.reporter)
        _make(folder)
        with ExitStack() as stack:
            files = {
                (one.name, column.name): _opened(folder, one, column, stack) for one in sets for column in self.columns
            }
            pair = self.pair(files.values())
            usual, number = pair.settings, _at_once(self.task, pair, self.reporter)
            failed = sum(len(one.data.bad) for one in sets)
            for one in sets:
                for column in self.columns:
                    pair.settings = _changed(usual, one, column, self.task)
                    file = files[one.name, column.name]
                    failed += _answer(pair, one, column, file, number, self.task, self.reporter)
            return Answers({key: _lines(file, sets, key[0]) for key, file in files.items()}, failed)


def mode_of(columns: Sequence[Column]) -> dict[str, str]:
    """The mode to load a pair for, where all columns need the same single model; nothing where both are needed."""
    from wsd_local.runtime.loading import roles_of

    roles = {roles_of(column.mode) for column in columns}
    return {"mode": roles.pop()[0]} if roles in ({("base",)}, {("draft",)}) else {}


def _report_bad(task: DataSetTask, sets: Sequence[Asked], reporter: Reporter) -> None:
    bad = [(one.data.path, record) for one in sets for record in one.data.bad]
    for path, record in bad:
        line = f", row {record.index + 1}" if record.line is None else f", line {record.line}"
        reporter.report(f"{path}{line}: {record.reason}")
    if bad and task.data.on_error == "stop":
        raise UsageError(f"{plural(len(bad), 'bad record')} (--on-error stop); nothing was answered")
    for one in sets:
        if not one.data.items:
            raise UsageError(f"{one.data.path}: no record can be asked as {one.name}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {reason(error)}; choose another --out") from error


def _opened(folder: Path, one: Asked, column: Column, stack: ExitStack) -> RunFile:
    from wsd_local.datasets.run_file import RunFile

    path = folder / f"{one.name}.{column.slug}.jsonl"
    if path.exists() and path.samefile(one.data.path):
        raise UsageError(f"{path}: is the input; choose another --out")
    return stack.enter_context(RunFile(path))


def _sequences(task: DataSetTask, wanted: int, files: Iterable[RunFile]) -> int:
    """Sequences of each context: as given, as in a file that is continued, or as many as fit."""
    from wsd_local.datasets.shape import recorded

    if task.data.parallel != "auto":
        return min(task.data.parallel, wanted)
    before = next((found for file in files if (found := recorded(file.made_by)) is not None), None)
    return before[1] if before is not None else min(most(task, wanted), wanted)


def _at_once(task: DataSetTask, pair: Pair, reporter: Reporter) -> int:
    sequences = pair.models.loading.parallel
    return sequences if task.data.parallel != "auto" or sequences == 1 else paying_number(pair, reporter)


def _changed(usual: ReplySettings, one: Asked, column: Column, task: DataSetTask) -> ReplySettings:
    own = {name: value for name, value in one.settings.items() if name not in task.settings}
    return column.over(usual, **own)


def _answer(
    pair: Pair, one: Asked, column: Column, file: RunFile, number: int, task: DataSetTask, reporter: Reporter
) -> int:
    """Answer what is left of a set in a column; the number of replies that failed."""
    from wsd_local.datasets.batch import Batch, made_by

    batch = Batch(pair, one.data, file)
    batch.fleet.parallel = number
    file.begin(made_by(pair, one.data, None, None, number))
    if batch.done == batch.total:
        return 0
    reporter.note(f"{one.name}, {column.name}: {batch.done} of {plural(batch.total, 'reply')} are there")
    try:
        failed = follow(batch, pair, number, reporter, stop_on_error=task.data.on_error == "stop")
    except CancelledError:
        reporter.note(
            f"interrupted: {one.name}, {column.name}: {batch.done} of {batch.total}; the same command goes on"
        )
        raise
    keep_prompts(pair, reporter)
    file.sort()
    return failed


def _lines(file: RunFile, sets: Sequence[Asked], name: str) -> list[dict[str, Any]]:
    """The replies to the records that were asked for now."""
    wanted = {item.index for one in sets if one.name == name for item in one.data.items}
    return [values for values in file.values() if values["index"] in wanted]


def provenance(answers: Answers) -> dict[str, Any]:
    """How each file of replies was made, by its name."""
    return {f"{name}.{column}": lines[0]["run"] for (name, column), lines in answers.lines.items() if lines}


def made_with(answers: Answers) -> list[str]:
    """What the replies were made with, in sentences for a page."""
    from wsd_local.version import __version__

    runs = provenance(answers)
    first = next(iter(runs.values()))
    hashes = {role: sha256 for run in runs.values() for role, sha256 in run["models"].items()}
    sources = {name.split(".", 1)[0]: run["input_sha256"] for name, run in runs.items()}
    models = ", ".join(f"{role} {sha256}" for role, sha256 in sorted(hashes.items()))
    data = ", ".join(f"{name} {sha256}" for name, sha256 in sources.items())
    return [
        f"Made by wsd-local {__version__} with llama.cpp {first['llama_cpp']}; replies of at most "
        f"{plural(first['settings']['max_tokens'], 'token')}. Each line of the files of replies holds all settings.",
        f"SHA-256 of the models: {models}. Of the data: {data}.",
    ]


def require_replies(answers: Answers) -> None:
    """Raise `WsdError` if a column has no reply at all."""
    for (name, column), lines in answers.lines.items():
        if not lines:
            raise WsdError(f"{name}, {column}: no record was answered, so there is nothing to compare")
