"""`wsd-local run --input`: many prompts, one line of JSON each."""

from __future__ import annotations

import codecs
import os
import queue
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from wsd_local.cli import terminal
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.prompts.messages import counted
from wsd_local.system.inputs import LARGEST, json_value, text_of
from wsd_local.system.interrupt import Stop, interruptible
from wsd_local.units import plural

if TYPE_CHECKING:
    from wsd_local.datasets import DataSet
    from wsd_local.datasets.batch import Batch, Outcome
    from wsd_local.datasets.run_file import Key, Output
    from wsd_local.runtime.pair import Pair
    from wsd_local.runtime.reply import Reply

SOME_FAILED = 5
SAY_EVERY_S = 10.0
"""Between two lines of progress where there is no terminal."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say."""

    source: str
    output: Path | None
    format: str | None
    column: str | None
    limit: int | None
    shard: str | None
    parallel: str
    stop_on_error: bool
    export: tuple[str, ...]
    quiet: bool
    tokens: bool
    system: str | None
    pair: str | None
    models: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


def answer_data(asked: Asked) -> None:
    """Answer a data set.

    Raises:
        WsdError: it cannot be begun.
        typer.Exit: some records failed.
    """
    parallel = None if asked.parallel == "auto" else _number(asked.parallel)
    _check_exports(asked)
    with ExitStack() as stack:
        if asked.source == "-":
            _answer_lines(asked, stack.enter_context(interruptible()), stack)
            return
        console = _Console(asked.quiet)
        stack.callback(console.close)
        data = _data(asked, console)  # may be fetched, or come through a pipe: a signal ends that at once
        interrupt = stack.enter_context(interruptible())
        for bad in data.bad:
            line = f", row {bad.index + 1}" if bad.line is None else f", line {bad.line}"
            console.say(f"{data.path}{line}: {bad.reason}")
        if data.unused:
            console.say(f"{data.path}: the models do not read these fields: {counted(data.unused)}")
        if data.same_id:
            console.say(
                f"{data.path}: {plural(data.same_id, 'record')} with an id that others have too: named by their place"
            )
        if data.bad and asked.stop_on_error:
            raise UsageError(f"{data.path}: {plural(len(data.bad), 'bad record')} (--on-error stop); nothing was asked")
        failed = _run(asked, parallel, data, console, interrupt, stack) + len(data.bad)
    if failed:
        raise typer.Exit(SOME_FAILED)


def _check_exports(asked: Asked) -> None:
    from wsd_local.datasets.exports import EXPORTS, export_path
    from wsd_local.errors import nearest
    from wsd_local.files import check_regular

    if asked.export and asked.output is None:
        raise UsageError("--export is given without --output: name the file that the run is kept in")
    for kind in asked.export:
        if kind not in EXPORTS:
            raise UsageError(f"there is no export {kind!r}{nearest(kind, list(EXPORTS))}")
        if asked.output is not None:
            check_regular(export_path(asked.output, kind))
    if "authors" in asked.export and not asked.tokens:
        raise UsageError("--export authors needs every token: give --tokens too")


def _number(text: str) -> int:
    from wsd_local.settings import MOST_PARALLEL

    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"parallel is {text!r}: it must be auto or a number of at least 1")
    if int(text) > MOST_PARALLEL:
        raise UsageError(f"parallel is {text}: llama.cpp has at most {MOST_PARALLEL} sequences")
    return int(text)


def _data(asked: Asked, console: _Console) -> DataSet:
    from wsd_local.datasets import dataset_path, parse_shard, read

    shard = None if asked.shard is None else parse_shard(asked.shard)
    path, known = dataset_path(asked.source, console.transfer)
    return read(
        path,
        format=asked.format or known,
        column=asked.column,
        limit=asked.limit,
        shard=shard,
        system=asked.system,
    )


def _load(asked: Asked, parallel: int, console: _Console, interrupt: Stop, stack: ExitStack) -> Pair:
    from wsd_local.events import Source
    from wsd_local.runtime.pair import load

    def loading(role: Source, fraction: float) -> bool:
        console.wait(f"loading the {role} model: {fraction:.0%}")
        return not interrupt.asked

    pair = stack.enter_context(
        load(asked.pair, progress=loading, **asked.models, **{**asked.settings, "parallel": parallel})
    )
    interrupt.calls(pair.cancel)
    for line in () if pair.plan is None else pair.plan.given_up:
        console.say(line)

    def hashing(done: int, total: int) -> None:
        console.wait(f"hashing the models, once: {done / max(total, 1):.0%}")
        if interrupt.asked:
            raise CancelledError("interrupted")

    pair.hash_models(hashing)
    return pair


def _run(
    asked: Asked, parallel: int | None, data: DataSet, console: _Console, interrupt: Stop, stack: ExitStack
) -> int:
    """Answer what is left; the number of replies that failed."""
    from wsd_local.datasets.batch import Batch, made_by

    output = None if asked.output is None else stack.enter_context(_opened(asked.output, data))
    if output is None:
        terminal.require_output()
        stack.enter_context(terminal.reader_may_leave())
    wanted = max(1, len(data.items))
    pair = _load(asked, min(parallel or _most(asked, wanted), wanted), console, interrupt, stack)
    if output is not None:
        output.begin(made_by(pair, data, asked.system, asked.column))
    sink = output or _Printed()
    begun_with = len(sink.done)
    if begun_with:
        console.note(f"{asked.output}: {_are_there(begun_with)}; the run goes on")
    batch = Batch(pair, data, sink, tokens=asked.tokens)
    number = batch.fleet.parallel
    if parallel is None and number > 1 and batch.done < batch.total:
        number = batch.fleet.parallel = _paying(pair, console)
    try:
        failed = _follow(batch, pair, number, console, stop_on_error=asked.stop_on_error)
    except CancelledError:
        where = "" if asked.output is None else "; the same command goes on"
        console.note(f"interrupted: {batch.done} of {_are_there(batch.total)}{where}")
        raise
    if output is not None:
        _finish(asked, output, pair, console)
    return failed


def _most(asked: Asked, wanted: int) -> int:
    from wsd_local.placement.parallel import roomy
    from wsd_local.runtime.pair import model_files
    from wsd_local.settings import split

    reply, loading = split(asked.settings)
    if not loading.planned:
        return 1
    names = {role: asked.models.get(role) for role in ("draft", "base")}
    return roomy(model_files(asked.pair, mode=reply.mode, **names), loading, wanted)


def _paying(pair: Pair, console: _Console) -> int:
    from wsd_local.runtime.throughput import chosen, paying

    if pair.loading.resident == "one":
        return pair.loading.parallel
    console.wait("measuring how many replies at once pay")
    measured = paying(pair, pair.roles(pair.settings.mode))
    number = chosen(measured)
    rate = {one.parallel: one.rate for one in measured}
    console.note(f"{plural(number, 'reply')} at once: {rate[number] / rate[1]:.1f} times the tokens per second of one")
    return number


@contextmanager
def _opened(path: Path, data: DataSet) -> Iterator[Output]:
    from wsd_local.datasets.run_file import Output

    if path.exists() and path.samefile(data.path):
        raise UsageError(f"{path}: is the input; choose another --output")
    with Output(path) as output:
        yield output


class _Printed:
    """Replies go to standard output, a line each."""

    def __init__(self) -> None:
        self.done: dict[Key, str] = {}

    def append(self, key: Key, values: Mapping[str, Any]) -> None:
        terminal.json_line({"index": key[0], "turn": key[1], **values})
        sys.stdout.flush()
        self.done[key] = str(values["text"])


def _follow(batch: Batch, pair: Pair, parallel: int, console: _Console, *, stop_on_error: bool) -> int:
    failed = switched = cut = 0
    pair.cancellation.check()
    with console.working(batch, pair, parallel) as tick:
        for outcome in batch.outcomes():
            if outcome.error is not None:
                failed += 1
                console.say(f"{_where(outcome)}: {outcome.error}")
                if stop_on_error:
                    raise WsdError(f"a reply failed (--on-error stop); {batch.done} of {_are_there(batch.total)}")
            elif outcome.notice is not None:
                console.say(f"{_where(outcome)}: {outcome.notice}")
            elif outcome.reply is not None:
                switched += outcome.reply.switch.index is not None
                cut += _is_cut(outcome.reply)
            tick(switched)
    _say_cut(console, cut)
    return failed


def _are_there(number: int) -> str:
    return f"{plural(number, 'reply')} {'is' if number == 1 else 'are'} there"


def _is_cut(reply: Reply) -> bool:
    """Whether a reply does not follow its constraint to the end."""
    return reply.constraint is not None and not reply.constraint.complete


def _say_cut(console: _Console, cut: int) -> None:
    if cut:
        replies = "1 reply was" if cut == 1 else f"{cut} replies were"
        console.say(f'{replies} cut before the constraint was followed to its end: "constraint": {{"complete": false}}')


def _where(outcome: Outcome) -> str:
    line = "" if outcome.item.line is None else f", line {outcome.item.line}"
    turn = f", turn {outcome.turn + 1}" if outcome.item.later else ""
    return f"record {outcome.item.id}{line}{turn}"


def _finish(asked: Asked, output: Output, pair: Pair, console: _Console) -> None:
    from wsd_local.datasets.exports import export_path, formulas, write_export
    from wsd_local.library.naming import name_of

    output.sort()
    names = [name_of(pair.model(role)) for role in pair.roles(pair.settings.mode)]
    generator = "-".join(["wsd-local", pair.settings.mode, *names]).replace(" ", "_")
    for kind in asked.export:
        target = export_path(output.path, kind)
        count = write_export(kind, output.values(), target, generator=generator)
        console.note(f"{target}: {plural(count, 'record')}, as {generator}")
        if found := formulas(target):
            console.say(
                f"{target}: cells that begin like a formula (= + - @): {found}; "
                "in a spreadsheet import the columns as text"
            )


# -- line by line ------------------------------------------------------------------------------------------------


def _answer_lines(asked: Asked, interrupt: Stop, stack: ExitStack) -> None:
    """JSON lines on standard input, each answered before the next is read."""
    from wsd_local.datasets import FORMATS, record_of

    if asked.output is not None or asked.parallel not in ("auto", "1") or asked.shard or asked.column:
        raise UsageError("--input - answers line by line: --output, --parallel, --shard and --column are for files")
    if asked.format is not None and (asked.format not in FORMATS or asked.format in ("csv", "mt_bench")):
        raise UsageError(f"--input - cannot read {asked.format!r}: give JSON lines of one turn, or --format text")
    if asked.limit is not None and asked.limit < 1:
        raise UsageError(f"limit is {asked.limit}: it counts records and must be at least 1")
    terminal.require_output()
    console = _Console(asked.quiet)
    stack.callback(console.close)
    pair = _load(asked, 1, console, interrupt, stack)
    console.close()
    stack.enter_context(terminal.reader_may_leave())
    failed = seen = cut = 0
    unused = Counter[str]()
    for index, line in enumerate(_lines(interrupt)):
        if not line.strip():
            continue
        seen += 1
        try:
            value = _value(asked, line)
            item = record_of(asked.format or _seen(value), index, index + 1, value, asked.system)
            if item.later:
                raise ValueError("asks several turns, and --input - answers one: put it into a file")
            unused.update(item.unused)
            reply = pair.reply(item.messages)
        except CancelledError:
            break
        except (ValueError, WsdError) as error:
            failed += 1
            console.say(f"standard input, line {index + 1}: {error}")
            if asked.stop_on_error or seen == asked.limit:
                break
            continue
        if reply.finish_reason == "cancelled":
            break
        cut += _is_cut(reply)
        values = {"index": index, "id": item.id, "turn": 0, "input": item.record}
        terminal.json_line(values | reply.as_dict(tokens=asked.tokens))
        sys.stdout.flush()
        if seen == asked.limit:
            break
    if unused:
        console.say(f"standard input: the models do not read these fields: {counted(unused)}")
    _say_cut(console, cut)
    if interrupt.asked:
        raise CancelledError("interrupted")
    if failed:
        raise typer.Exit(SOME_FAILED)


def _lines(interrupt: Stop) -> Iterator[bytes]:
    """Lines of standard input until it ends, or until a stop is asked for, also while none comes."""
    if sys.stdin is None:
        return
    found: queue.Queue[bytes | Exception | None] = queue.Queue(1)
    descriptor = sys.stdin.fileno()

    def read() -> None:
        try:
            for line in _split(descriptor):
                found.put(line)
            found.put(None)
        except (OSError, UsageError) as error:
            found.put(error)

    threading.Thread(target=read, daemon=True).start()
    while not interrupt.asked:
        try:
            line = found.get(timeout=0.05)
        except queue.Empty:
            continue
        if isinstance(line, Exception):
            raise line
        if line is None:
            return
        yield line


def _split(descriptor: int) -> Iterator[bytes]:
    """Lines of a stream as they come, whatever ends them.

    Raises:
        UsageError: a line has no end within `LARGEST` bytes, or the stream is in an encoding of wide characters.
    """
    rest, after_return = bytearray(), False
    begun = False
    while data := os.read(descriptor, 1 << 16):  # Python's own buffer would be locked when it exits
        if not begun and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UsageError("standard input is UTF-16, which --input - does not read: send UTF-8, or name a file")
        begun = True
        if after_return:
            data = data.removeprefix(b"\n")
        after_return = data.endswith(b"\r")
        *lines, last = re.split(rb"\r\n|\r|\n", data)
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > LARGEST:
            raise UsageError(f"standard input has a line of more than {LARGEST >> 20} MiB: send shorter ones")
    if rest:
        yield bytes(rest)


def _seen(value: Any) -> str:
    """The format that a record has by its fields."""
    from wsd_local.datasets.formats import MissingField, detected

    try:
        return detected(value) if isinstance(value, dict) else "jsonl"
    except MissingField:
        return "jsonl"


def _value(asked: Asked, line: bytes) -> Any:
    text = text_of(line)
    if asked.format == "text":
        return text
    try:
        return json_value(text)
    except ValueError as error:
        raise ValueError(f"is not JSON ({error})") from error


# -- what is said on the way -------------------------------------------------------------------------------------


class _Console:
    """Standard error: a bar on a terminal, lines elsewhere, nothing but troubles if quiet."""

    def __init__(self, quiet: bool) -> None:
        self._console = terminal.console(stderr=True)
        self._shows = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._status = self._console.status("") if self._shows else None

    def note(self, line: str) -> None:
        """A line that stays, but for those who want quiet."""
        if not self._quiet:
            self.say(line)

    def say(self, line: str) -> None:
        """A line that stays."""
        self.close()
        terminal.note(f"wsd-local: {line}")

    def wait(self, message: str) -> None:
        """What is being waited for."""
        if self._status is not None:
            self._status.update(message)
            self._status.start()

    def transfer(self, done: int, _total: int, _phase: str) -> None:
        """A data set is being fetched."""
        self.wait(f"fetching the data set: {done >> 10} KiB")

    def close(self) -> None:
        """Nothing is waited for any more."""
        if self._status is not None:
            self._status.stop()

    @contextmanager
    def working(self, batch: Batch, pair: Pair, parallel: int) -> Iterator[Callable[[int], None]]:
        """Show how a run goes; what is given is called with the switches so far."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.close()
        begun = said = time.monotonic()
        bar = Progress(
            TextColumn("{task.completed}/{task.total} replies"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._shows,
        )
        first = batch.done
        task = bar.add_task("replies", total=batch.total, completed=first, rates="")

        def tick(switched: int) -> None:
            nonlocal said
            now = time.monotonic()
            text = f"{_rate(batch, now - begun)} · {plural(switched, 'switch')}"
            bar.update(task, completed=batch.done, rates=text)
            if not self._quiet and not self._shows and now - said >= SAY_EVERY_S:
                said = now
                left = (batch.total - batch.done) * (now - begun) / max(batch.done - first, 1)
                terminal.note(
                    f"wsd-local: {batch.done}/{plural(batch.total, 'reply')} · {text} · {parallel} at once · "
                    f"{left:.0f} s left"
                )

        with bar:
            yield tick
        if not self._quiet:
            seconds = time.monotonic() - begun
            rate = _rate(batch, seconds)
            terminal.note(f"wsd-local: {batch.done}/{plural(batch.total, 'reply')} in {seconds:.1f} s, {rate}")


def _rate(batch: Batch, seconds: float) -> str:
    """The run's throughput so far: tokens of its replies over the seconds since it began."""
    return f"{batch.tokens / max(seconds, 1e-3):.1f} tokens/s"
