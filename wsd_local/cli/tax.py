"""`wsd-local eval tax`: what alignment costs in arithmetic and in programming, in several columns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from wsd_local.cli import names
from wsd_local.cli.columns import (
    Answers,
    Asked,
    answer_columns,
    data_options,
    made_with,
    provenance,
    read_set,
    require_replies,
    shared_settings,
    task_of,
)
from wsd_local.cli.options import NOTHING, Debug, Given, Json, PairName, Verbose, flag, models_named, option, takes
from wsd_local.cli.options import show_native_log as show_log
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import UsageError
from wsd_local.system.interrupt import interruptible

if TYPE_CHECKING:
    from wsd_local.reports.tax import Mark, TaskName, TaskResults
    from wsd_local.system.interrupt import Stop

OUT = "Folder for the replies, a file for each column; the same command continues them."
COLUMNS = "Ways of answering, by commas: base, urial, wsd, draft, fixed:K, or another rule; with @ its number: wsd@0.7."
_REFUSED = (
    "HumanEval's figures come from executing programs that the models wrote. --allow-code-execution allows it: each in "
    "a process of its own with limits of time, memory, files and processes, without network where the system can take "
    "it away; a program that is written to break out may do so. Without it, measure GSM8K alone: --gsm8k gsm8k"
)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class TaxOptions:
    """What is measured, and where the replies go."""

    out: Annotated[Path, option(OUT, metavar="DIR")]
    gsm8k: Annotated[
        str | None, option("GSM8K: a file, or the public set gsm8k.", metavar="NAME|PATH", completer=names.data_sets)
    ] = None
    humaneval: Annotated[
        str | None,
        option("HumanEval: a file, or the public set humaneval.", metavar="NAME|PATH", completer=names.data_sets),
    ] = None
    columns: Annotated[str, option(COLUMNS, metavar="NAMES")] = "base,wsd,draft"
    allow_code_execution: Annotated[bool, flag("Execute the programs that the models write for HumanEval.")] = False
    html: Annotated[Path | None, option("Also write a page.", metavar="FILE")] = None


@takes(models=models_named("draft", "base", "base_format"), data=data_options(), settings=shared_settings())
def tax(
    pair: PairName = None,
    /,
    *,
    how: TaxOptions,
    data: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Measure GSM8K and HumanEval for the base alone, WSD, the draft alone and other rules, side by side.

    Without --gsm8k and --humaneval both public sets are measured.
    """
    from wsd_local.cli.evaluate import page_writer, show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.columns import columns_of
    from wsd_local.reports.tax import asked, settings_of
    from wsd_local.reports.tax_page import tax_page, tax_tables

    show_log(verbose)
    write, chosen = page_writer(how.html), columns_of(how.columns)
    given: dict[TaskName, str | None] = {"gsm8k": how.gsm8k, "humaneval": how.humaneval}
    sources = {task: source for task, source in given.items() if source} or {task: str(task) for task in given}
    _require_permission(humaneval="humaneval" in sources, allowed=how.allow_code_execution)
    with ExitStack() as stack:
        task = task_of(pair, models, settings, data)
        reporter = Reporter(task.data.quiet)
        stack.callback(reporter.close)
        sets = [
            Asked(name, asked(name, read_set(source, task, reporter)), settings_of(name))
            for name, source in sources.items()
        ]
        answers = answer_columns(task, sets, chosen, how.out, reporter)
        require_replies(answers)
        results, notices = _results(sets, [column.name for column in chosen], answers, reporter)
    write(lambda: tax_page(results, [*notices, *made_with(answers)]))
    if as_json:
        print_json({"tasks": [one.as_dict() for one in results], "notes": notices, "runs": provenance(answers)})
    else:
        show(tax_tables(results))
    return SOME_FAILED if answers.failed else 0


def _require_permission(*, humaneval: bool, allowed: bool) -> None:
    from wsd_local.system.untrusted import require_limits

    if humaneval and not allowed:
        raise UsageError(_REFUSED)
    if humaneval:
        require_limits()


def _results(
    sets: Sequence[Asked], columns: Sequence[str], answers: Answers, reporter: Reporter
) -> tuple[list[TaskResults], list[str]]:
    from wsd_local.reports.tax import measured
    from wsd_local.system.untrusted import USUAL, execute

    notices = []
    if any(one.name == "humaneval" for one in sets):
        tried = execute("")
        limits = f"{USUAL.processor_s} s of processor time, {USUAL.memory >> 20} MiB of memory"
        notices.append(f"Programs that the models wrote are executed, each with {limits}.")
        if tried.network:
            notices.append("This system cannot take the network away from them.")
        if tried.processes:
            notices.append("They have root's rights: run this as another user.")
        for line in notices:
            reporter.report(line)
    results: list[Any] = []
    with interruptible() as interrupt:
        for one in sets:
            marks = {column: _marks(one, column, answers, reporter, interrupt) for column in columns}
            results.append(measured(one.name, len(one.data.items), marks))  # type: ignore[arg-type]
    return results, notices


def _marks(one: Asked, column: str, answers: Answers, reporter: Reporter, interrupt: Stop) -> list[Mark]:
    from wsd_local.errors import CancelledError
    from wsd_local.reports.tax import marked
    from wsd_local.system.untrusted import execute

    def run(source: str) -> tuple[bool, str]:
        outcome = execute(source)
        return outcome.succeeded, outcome.why

    found: list[Mark] = []
    for values in answers.lines[one.name, column]:
        if interrupt.requested:
            raise CancelledError("interrupted")
        if one.name == "humaneval":
            reporter.wait(f"executing programs of {column}: {len(found)}")
        found.append(marked(one.name, values, run))  # type: ignore[arg-type]
    return found
