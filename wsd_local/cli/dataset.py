"""`wsd-local run --input FILE`: a data set, one line of JSON for each reply."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli import terminal
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED, DataSetTask, is_cut, keep_prompts, load_pair, report_cut
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.prompts.messages import counted
from wsd_local.system.interrupt import interruptible
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.datasets import DataSet
    from wsd_local.datasets.batch import Batch, TurnOutcome
    from wsd_local.datasets.run_file import Key, RunFile
    from wsd_local.runtime.pair import Pair
    from wsd_local.system.interrupt import Stop


def answer_data(task: DataSetTask) -> int:
    """Answer a data set; the exit code.

    Raises:
        WsdError: the run cannot begin, or was stopped.
    """
    _check_exports(task)
    task = replace(task, settings={**task.settings, "loop_guard": _loop_guard(task)})
    with ExitStack() as stack:
        if task.data.input == "-":
            from wsd_local.cli.lines import answer_lines

            return answer_lines(task, stack.enter_context(interruptible()), stack)
        # How many tokens are proposed depends on measured times, and with quantised weights replies on that.
        task = replace(task, settings={"speculation": "off", **task.settings})
        reporter = Reporter(task.data.quiet)
        stack.callback(reporter.close)
        data = _data(task, reporter)  # may be fetched, or come through a pipe: a signal ends that at once
        interrupt = stack.enter_context(interruptible())
        _report_records(task, data, reporter)
        failed = _run(task, data, reporter, interrupt, stack) + len(data.bad)
    return SOME_FAILED if failed else 0


def _loop_guard(task: DataSetTask) -> Any:
    """The setting of a run over a data set: off where it is not given, as in the paper's runs."""
    given = task.settings.get("loop_guard", "auto")
    return "off" if given == "auto" else given


def _report_records(task: DataSetTask, data: DataSet, reporter: Reporter) -> None:
    """Report what is wrong with records, or is not read of them."""
    for bad in data.bad:
        line = f", row {bad.index + 1}" if bad.line is None else f", line {bad.line}"
        reporter.report(f"{data.path}{line}: {bad.reason}")
    if data.unused:
        reporter.report(f"{data.path}: the models do not read these fields: {counted(data.unused)}")
    if data.same_id:
        reporter.report(
            f"{data.path}: {plural(data.same_id, 'record')} with an id that others have too: named by their place"
        )
    if data.bad and task.data.on_error == "stop":
        raise UsageError(f"{data.path}: {plural(len(data.bad), 'bad record')} (--on-error stop); nothing was answered")


def _check_exports(task: DataSetTask) -> None:
    from wsd_local.core.rule_settings import SINGLE_SWITCH
    from wsd_local.datasets.exports import EXPORTS, export_path
    from wsd_local.errors import nearest
    from wsd_local.files import check_regular

    if task.data.export and task.data.output is None:
        raise UsageError("--export is given without --output: name the file that the run is kept in")
    for kind in task.data.export:
        if kind not in EXPORTS:
            raise UsageError(f"there is no export {kind!r}{nearest(kind, list(EXPORTS))}")
        if task.data.output is not None:
            check_regular(export_path(task.data.output, kind))
    if "authors" in task.data.export and not task.tokens:
        raise UsageError("--export authors needs every token: give --tokens too")
    if "authors" in task.data.export and (rule := task.settings.get("rule", "window")) not in SINGLE_SWITCH:
        raise UsageError(
            f"--export authors and the rule {rule} are given: the authors' files have room for one switch; choose "
            f"{' or '.join(SINGLE_SWITCH)}"
        )


def _data(task: DataSetTask, reporter: Reporter) -> DataSet:
    from wsd_local.datasets import dataset_path, parse_shard, read

    shard = None if task.data.shard is None else parse_shard(task.data.shard)
    path, known = dataset_path(task.data.input or "", reporter.transfer)
    return read(
        path,
        format=task.data.format or known,
        column=task.data.column,
        limit=task.data.limit,
        shard=shard,
        system=task.system,
    )


def _run(task: DataSetTask, data: DataSet, reporter: Reporter, interrupt: Stop, stack: ExitStack) -> int:
    """Answer what is left; the number of replies that failed."""
    from wsd_local.datasets.batch import Batch, made_by

    output = None if task.data.output is None else stack.enter_context(_opened(task.data.output, data))
    if output is None:
        terminal.require_output()
        stack.enter_context(terminal.reader_may_leave())
    parallel, sequences, changed = _shape(task, data, output)
    pair = load_pair(task, sequences, reporter, interrupt, stack)
    sink = output or _Printed()
    begun_with = len(sink.done)
    batch = Batch(pair, data, sink, tokens=task.tokens)
    if parallel is None:
        parallel = batch.fleet.parallel
        if parallel > 1 and batch.done < batch.total:
            parallel = paying_number(pair, reporter)
    number = batch.fleet.parallel = parallel
    if output is not None:
        output.begin(made_by(pair, data, task.system, task.data.column, number))
    if changed is not None and batch.done < batch.total:
        reporter.report(changed)
    if begun_with:
        reporter.note(f"{task.data.output}: {_are_done(begun_with)}; the run continues")
    try:
        failed = follow(batch, pair, number, reporter, stop_on_error=task.data.on_error == "stop")
    except CancelledError:
        where = "" if task.data.output is None else "; the same command continues the run"
        reporter.note(f"interrupted: {batch.done} of {_are_done(batch.total)}{where}")
        raise
    keep_prompts(pair, reporter)
    if output is not None:
        _finish(task, output, pair, reporter)
    return failed


def _shape(task: DataSetTask, data: DataSet, output: RunFile | None) -> tuple[int | None, int, str | None]:
    """Replies at once, None if they are to be measured, sequences of each context, and what is to be reported.

    A run that continues keeps those of its file; it is reported where others are asked for.
    """
    from wsd_local.datasets.shape import recorded

    wanted = max(1, len(data.items))
    before = None if output is None else recorded(output.made_by)
    asked = None if task.data.parallel == "auto" else min(task.data.parallel, wanted)
    if before is not None and asked in (None, before[0]):
        return (*before, None)
    if asked is None:
        return None, min(most(task, wanted), wanted), None
    if before is None:
        return asked, asked, None
    note = (
        f"{task.data.output}: was made with {plural(before[0], 'reply')} at once, and continues with {asked}: with "
        "quantised weights, replies may differ near ties; without --parallel it continues as it began"
    )
    return asked, asked, note


def most(task: DataSetTask, wanted: int) -> int:
    from wsd_local.placement.parallel import most_replies
    from wsd_local.runtime.pair import model_files
    from wsd_local.settings import split

    reply, loading = split(task.settings)
    if not loading.planned:
        return 1
    names = {role: task.models.get(role) for role in ("draft", "base")}
    files = model_files(task.pair, mode=reply.mode, **names)
    return most_replies(files, loading, wanted) if files else wanted


def paying_number(pair: Pair, reporter: Reporter) -> int:
    from wsd_local.datasets.shape import remembered
    from wsd_local.runtime.loading import roles_of
    from wsd_local.runtime.throughput import chosen, paying

    models = pair.models
    if models.loading.resident == "one" or models.remote is not None:  # a server shares its evaluations itself
        return models.loading.parallel

    def measure() -> int:
        reporter.wait("measuring how many replies at once pay")
        measured = paying(models, roles_of(pair.settings.mode))
        number = chosen(measured)
        rate = {one.parallel: one.rate for one in measured}
        gain = f"{rate[number] / rate[1]:.1f} times the tokens per second of one"
        reporter.note(f"{plural(number, 'reply')} at once: {gain}")
        return number

    return remembered(models, measure)


@contextmanager
def _opened(path: Path, data: DataSet) -> Iterator[RunFile]:
    from wsd_local.datasets.run_file import RunFile

    if path.exists() and path.samefile(data.path):
        raise UsageError(f"{path}: is the input; choose another --output")
    with RunFile(path) as output:
        yield output


class _Printed:
    """Replies go to standard output, a line each."""

    def __init__(self) -> None:
        self.done: dict[Key, str] = {}

    def append(self, key: Key, values: Mapping[str, Any]) -> None:
        terminal.json_line({"index": key[0], "turn": key[1], **values})
        sys.stdout.flush()
        self.done[key] = str(values["text"])


def follow(batch: Batch, pair: Pair, parallel: int, reporter: Reporter, *, stop_on_error: bool) -> int:
    failed = switched = cut = 0
    pair.models.cancellation.check()
    with reporter.working(batch, parallel) as tick:
        for outcome in batch.outcomes():
            if outcome.error is not None:
                failed += 1
                reporter.report(f"{_where(outcome)}: {outcome.error}")
                if stop_on_error:
                    raise WsdError(f"a reply failed (--on-error stop); {batch.done} of {_are_done(batch.total)}")
            elif outcome.notice is not None:
                reporter.report(f"{_where(outcome)}: {outcome.notice}")
            elif outcome.reply is not None:
                switched += outcome.reply.switch.index is not None
                cut += is_cut(outcome.reply)
            tick(switched)
    report_cut(reporter, cut)
    return failed


def _are_done(number: int) -> str:
    return f"{plural(number, 'reply')} {'is' if number == 1 else 'are'} done"


def _where(outcome: TurnOutcome) -> str:
    line = "" if outcome.item.line is None else f", line {outcome.item.line}"
    turn = f", turn {outcome.turn + 1}" if outcome.item.later else ""
    return f"record {outcome.item.id}{line}{turn}"


def _finish(task: DataSetTask, output: RunFile, pair: Pair, reporter: Reporter) -> None:
    from wsd_local.datasets.exports import export_path, formulas, write_export
    from wsd_local.library.naming import name_of
    from wsd_local.runtime.loading import roles_of

    output.sort()
    names = [name_of(pair.models.model(role)) for role in roles_of(pair.settings.mode)]
    generator = "-".join(["wsd-local", pair.settings.mode, *names]).replace(" ", "_")
    for kind in task.data.export:
        target = export_path(output.path, kind)
        files = write_export(kind, output.values(), target, generator=generator, result_key=task.data.result_key)
        for path, count in files.items():
            reporter.note(f"{path}: {plural(count, 'record')}, as {generator}")
        if found := formulas(target):
            reporter.report(
                f"{target}: cells that begin like a formula (= + - @): {found}; "
                "in a spreadsheet import the columns as text"
            )
