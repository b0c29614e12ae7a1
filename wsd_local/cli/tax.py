"""`wsd-local eval tax`: what alignment costs in arithmetic and in programming, in several columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wsd_local.cli import names
from wsd_local.cli.columns import data_options, shared_settings
from wsd_local.cli.options import NOTHING, Debug, Given, Json, PairName, Verbose, flag, models_named, option, takes
from wsd_local.cli.options import show_native_log as show_log
from wsd_local.cli.side_by_side import Course, Where, compare
from wsd_local.errors import UsageError

if TYPE_CHECKING:
    from wsd_local.reports.tax import TaskName

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
    from wsd_local.reports.columns import columns_of
    from wsd_local.reports.evidence.tax import TaxSet

    show_log(verbose)
    given: dict[TaskName, str | None] = {"gsm8k": how.gsm8k, "humaneval": how.humaneval}
    sources = {task: source for task, source in given.items() if source} or {task: str(task) for task in given}
    columns = columns_of(how.columns)
    _require_permission(humaneval="humaneval" in sources, allowed=how.allow_code_execution)
    course = Course(
        "Alignment tax",
        "tasks",
        [(TaxSet(name, executed), source) for name, source in sources.items()],
        columns,
        execution_notes() if "humaneval" in sources else (),
    )
    return compare(course, Where(how.out, how.html, as_json), pair, models, settings, data)


def _require_permission(*, humaneval: bool, allowed: bool) -> None:
    from wsd_local.system.untrusted import require_limits

    if humaneval and not allowed:
        raise UsageError(_REFUSED)
    if humaneval:
        require_limits()


def execution_notes() -> list[str]:
    """What limits programs that models wrote have here, in sentences."""
    from wsd_local.system.untrusted import USUAL, execute

    tried = execute("")
    limits = f"{USUAL.processor_s} s of processor time, {USUAL.memory >> 20} MiB of memory"
    notes = [f"Programs that the models wrote are executed, each with {limits}."]
    if tried.network:
        notes.append("This system cannot take the network away from them.")
    if tried.processes:
        notes.append("They have root's rights: run this as another user.")
    return notes


def executed(source: str) -> tuple[bool, str]:
    """Execute a program that a model wrote: whether it succeeded, and why not."""
    from wsd_local.system.untrusted import execute

    outcome = execute(source)
    return outcome.succeeded, outcome.why
