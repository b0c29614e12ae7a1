"""`wsd-local run --input -`: lines of JSON on standard input, each answered before the next is read."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wsd_local.cli import terminal
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED, DataSetTask, is_cut, keep_prompts, load_pair, report_cut
from wsd_local.datasets.lines import check_line_format, line_record
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.prompts.messages import counted
from wsd_local.system.lines import lines

if TYPE_CHECKING:
    from wsd_local.runtime.pair import Pair
    from wsd_local.system.interrupt import Stop


@dataclass(slots=True)
class _Tally:
    """What became of the lines so far."""

    seen: int = 0
    failed: int = 0
    cut: int = 0
    unused: Counter[str] = field(default_factory=Counter)


def answer_lines(task: DataSetTask, interrupt: Stop, stack: ExitStack) -> int:
    """Answer standard input line by line; the exit code.

    Raises:
        UsageError: an option is given that needs a file.
        CancelledError: a signal came.
    """
    data = task.data
    if data.output is not None or data.parallel not in ("auto", 1) or data.shard or data.column:
        raise UsageError("--input - answers line by line: --output, --parallel, --shard and --column are for files")
    check_line_format(data.format)
    if data.limit is not None and data.limit < 1:
        raise UsageError(f"limit is {data.limit}: it counts records and must be at least 1")
    terminal.require_output()
    reporter = Reporter(data.quiet)
    stack.callback(reporter.close)
    pair = load_pair(task, 1, reporter, interrupt, stack)
    reporter.close()
    stack.enter_context(terminal.reader_may_leave())
    tally = _Tally()
    if sys.stdin is not None:
        for index, line in enumerate(lines(sys.stdin.fileno(), lambda: interrupt.requested)):
            if line.strip() and not _answer(task, index, line, pair, reporter, tally):
                break
    if tally.unused:
        reporter.report(f"standard input: the models do not read these fields: {counted(tally.unused)}")
    report_cut(reporter, tally.cut)
    if interrupt.requested:
        raise CancelledError("interrupted")
    keep_prompts(pair, reporter)
    return SOME_FAILED if tally.failed else 0


def _answer(task: DataSetTask, index: int, line: bytes, pair: Pair, reporter: Reporter, tally: _Tally) -> bool:
    """Answer one line; whether there may be more."""
    tally.seen += 1
    is_last = tally.seen == task.data.limit
    try:
        item = line_record(line, index, task.data.format, task.system)
        tally.unused.update(item.unused)
        reply = pair.reply(item.messages)
    except CancelledError:
        return False
    except (ValueError, WsdError) as error:
        tally.failed += 1
        reporter.report(f"standard input, line {index + 1}: {error}")
        return not (is_last or task.data.on_error == "stop")
    if reply.finish_reason == "cancelled":
        return False
    tally.cut += is_cut(reply)
    values = {"index": index, "id": item.id, "turn": 0, "input": item.record}
    terminal.json_line(values | reply.as_dict(tokens=task.tokens))
    sys.stdout.flush()
    return not is_last
