"""`wsd-local eval`: measurements."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wsd_local.cli import terminal
from wsd_local.cli.app import COMMANDS, group
from wsd_local.cli.options import Debug, Json, number, option

if TYPE_CHECKING:
    from wsd_local.reports.html import Table

app = group("eval", COMMANDS["eval"][1])

app.command("wsd_local.cli.judge:judge", name="judge", help="Compare replies, or grade them, by a judge model.")
app.command("wsd_local.cli.reward:reward", name="reward", help="Score replies by a reward model.")
app.command(
    "wsd_local.cli.preferences:preferences",
    name="preferences",
    help="Measure how often models find the preferred reply of a pair the more probable one, before and after "
    "training.\n\n"
    "Pairs that do not fit into a model's context are left out, and counted; exit code 5 then.",
    help_epilogue="",
)

_NOTE_WIDTH = 100

Html = Annotated[Path | None, option("Also write a page with charts.", metavar="FILE")]


@app.command
def demo(
    *,
    as_json: Json = False,
    html: Html = None,
    limit: Annotated[int | None, number("Ask only the first questions.")] = None,
    file: Annotated[
        Path | None, option("Another file of questions (models/training/questions.py).", "--questions")
    ] = None,
    threads: Annotated[int, number("CPU threads; the pair is too small to gain from more.")] = 1,
    debug: Debug = False,
) -> None:
    """Answer the embedded pair's held-out questions in several ways, and judge the answers."""
    from rich.progress import Progress

    from wsd_local.cli.tables import print_json
    from wsd_local.reports.evaluation import measure, questions, steps
    from wsd_local.runtime.pair import load

    chosen = questions(file, limit)
    write = page_writer(html)
    with load("demo", threads=threads) as pair, Progress(console=terminal.console(stderr=True)) as progress:
        task = progress.add_task("answering", total=steps(len(chosen)))
        results = measure(pair, chosen, lambda done: progress.update(task, advance=1, description=done))
    from wsd_local.reports.evaluation_page import demo_page, demo_tables

    write(lambda: demo_page(results))
    if as_json:
        print_json(results.as_dict())
    else:
        show(demo_tables(results))


@app.command
def report(
    runs: Annotated[list[Path], Parameter(name="RUN.jsonl", help="Files with one reply per line.")],
    /,
    *,
    as_json: Json = False,
    html: Html = None,
    debug: Debug = False,
) -> None:
    """Compare files of replies: switch positions, reasons, who wrote how much, time."""
    from wsd_local.cli.tables import print_json
    from wsd_local.errors import UsageError
    from wsd_local.reports.run_shape import shape_note
    from wsd_local.reports.runs import differences, read_runs, summary

    if html is not None and html.exists() and any(path.exists() and html.samefile(path) for path in runs):
        raise UsageError(f"{html}: is one of the runs; choose another file for the page")
    write = page_writer(html)
    files = read_runs(runs)
    for file in files:
        if file.torn:
            terminal.message(f"{file.path}: its last line is not whole and is left out")
        if not file.records:
            terminal.message(f"{file.path}: there is no reply in it")
    if not any(file.records for file in files):
        raise UsageError("there is nothing to report: no file holds a reply")
    summaries, differing = [summary(file) for file in files], differences(files)
    from wsd_local.reports.runs_page import TERMINAL_BINS, run_tables, runs_page

    write(lambda: runs_page(summaries, differing))
    if (note := shape_note(differing)) is not None:
        terminal.message(note)
    if as_json:
        print_json({"runs": [one.as_dict() for one in summaries], "differences": differing})
    else:
        show(run_tables(summaries, differing, TERMINAL_BINS))


def page_writer(path: Path | None) -> Callable[[Callable[[], str]], None]:
    """What writes the page, if one is wanted; what would prevent it raises an error now, before any work."""
    if path is None:
        return lambda _page: None
    from wsd_local.errors import UsageError
    from wsd_local.files import check_file, write_text
    from wsd_local.reports import charts

    charts.require()
    check_file(path)
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: cannot be written: {path.parent} is no folder to write to")

    def write(page: Callable[[], str]) -> None:
        write_text(path, page())
        terminal.message(f"written: {path}")

    return write


def show(tables: Sequence[Table]) -> None:
    """Tables below each other, each with its note."""
    from wsd_local.cli.tables import plain_table, print_tables
    from wsd_local.errors import printable

    width = min(_NOTE_WIDTH, shutil.get_terminal_size().columns)
    for index, table in enumerate(tables):
        columns = ["\n".join(map(printable, name.split("\n"))) for name in table.columns]
        shown = plain_table(table.title, columns, range(1, len(columns)))
        for column in shown.columns[1:]:
            column.no_wrap = False
        for row in table.rows:
            shown.add_row(*(printable(cell) for cell in row))
        with terminal.reader_may_leave():
            terminal.write("\n" if index else "")
        print_tables(shown)
        with terminal.reader_may_leave():
            terminal.write(textwrap.fill(table.note, width) + "\n" if table.note else "")


app.command(
    "wsd_local.cli.sweep:sweep",
    name="sweep",
    help="Compare every threshold with every window on your own prompts, from one recording.\n\n"
    "What calibrate has recorded of the same pair and prompts is used, and the other way round.",
    help_epilogue="",
)
app.command(
    "wsd_local.cli.times:times",
    name="time",
    help="Measure how long whole replies take: base alone, after examples (URIAL), WSD, draft alone, other rules.\n\n"
    "The ways take turns on each prompt, in an order that rotates.",
    help_epilogue="",
)
app.command(
    "wsd_local.cli.evaluate_all:everything",
    name="all",
    help="Measure what fits the time given, and report it as one page.\n\n"
    "Parts: demo (the embedded pair's own), mechanism, sweep, time, gsm8k, humaneval (with --allow-code-execution), "
    "xstest, hh, judge (with --judge), reward (with --reward). The first prompts of each part show what it costs; then "
    "the time is divided. The same command goes on. Exit code 5 if a part, or a prompt, failed.",
    help_epilogue="",
)
app.command(
    "wsd_local.cli.tax:tax",
    name="tax",
    help="Measure GSM8K and HumanEval for the base alone, WSD, the draft alone and other rules, side by side.\n\n"
    "Without --gsm8k and --humaneval both public sets are measured.",
    help_epilogue="",
)
app.command(
    "wsd_local.cli.safety:safety",
    name="safety",
    help="Measure refusals of safe prompts, and answers to unsafe ones, side by side and for each threshold.\n\n"
    "Without --xstest and --hh both public sets are measured; their texts may offend.",
    help_epilogue="",
)
app.command(
    "wsd_local.cli.mechanism:mechanism",
    name="mechanism",
    help="Measure why it works on your own prompts: what the base finds hard, and where it takes over.\n\n"
    "Drafts that calibrate or eval sweep have recorded of the same pair and prompts are used, and the other way round.",
    help_epilogue="",
)
