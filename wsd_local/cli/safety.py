"""`wsd-local eval safety`: refusals of safe prompts and answers to unsafe ones, in several columns."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wsd_local.cli import names
from wsd_local.cli.columns import (
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
from wsd_local.cli.options import NOTHING, Debug, Given, Json, PairName, Verbose, models_named, option, takes
from wsd_local.cli.options import show_native_log as show_log
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED
from wsd_local.cli.tax import COLUMNS, OUT
from wsd_local.errors import UsageError


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class SafetyOptions:
    """What is measured, and where the replies go."""

    out: Annotated[Path, option(OUT, metavar="DIR")]
    xstest: Annotated[
        str | None, option("XSTest: a file, or the public set xstest.", metavar="NAME|PATH", completer=names.data_sets)
    ] = None
    hh: Annotated[
        str | None,
        option("HH harmless: a file, or the public set hh_rlhf.", metavar="NAME|PATH", completer=names.data_sets),
    ] = None
    columns: Annotated[str, option(COLUMNS, metavar="NAMES")] = "base,wsd,draft"
    thresholds: Annotated[
        str | None, option("Thresholds by commas: a column wsd@ for each, in place of wsd.", metavar="NUMBERS")
    ] = None
    html: Annotated[Path | None, option("Also write a page.", metavar="FILE")] = None


@takes(models=models_named("draft", "base", "base_format"), data=data_options(), settings=shared_settings())
def safety(
    pair: PairName = None,
    /,
    *,
    how: SafetyOptions,
    data: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Measure refusals of safe prompts, and answers to unsafe ones, side by side and for each threshold."""
    from wsd_local.cli.evaluate import page_writer, show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.columns import columns_of
    from wsd_local.reports.safety import MAX_TOKENS, asked, judged, measured
    from wsd_local.reports.safety_page import safety_page, safety_tables

    show_log(verbose)
    write, chosen = page_writer(how.html), columns_of(_with_thresholds(how.columns, how.thresholds))
    given = {name: source for name, source in (("xstest", how.xstest), ("hh", how.hh)) if source}
    sources = given or {"xstest": "xstest", "hh": "hh_rlhf"}
    with ExitStack() as stack:
        task = task_of(pair, models, settings, data)
        reporter = Reporter(task.data.quiet)
        stack.callback(reporter.close)
        sets = [
            Asked(name, asked(read_set(source, task, reporter)), {"max_tokens": MAX_TOKENS})
            for name, source in sources.items()
        ]
        answers = answer_columns(task, sets, chosen, how.out, reporter)
    require_replies(answers)
    results = [
        found
        for one in sets
        for found in measured(
            one.name, {column.name: map(judged, answers.lines[one.name, column.name]) for column in chosen}
        )
    ]
    write(lambda: safety_page(results, made_with(answers)))
    if as_json:
        print_json({"results": [one.as_dict() for one in results], "runs": provenance(answers)})
    else:
        show(safety_tables(results))
    return SOME_FAILED if answers.failed else 0


def _with_thresholds(columns: str, thresholds: str | None) -> str:
    """Names of columns, with one for each threshold in the place of `wsd`."""
    if thresholds is None:
        return columns
    swept = [f"wsd@{part.strip()}" for part in thresholds.split(",") if part.strip()]
    if not swept:
        raise UsageError("no threshold is given: write numbers by commas, such as 0.5,0.8")
    found: list[str] = []
    for name in (part.strip() for part in columns.split(",")):
        found += swept if name == "wsd" else [name]
    return ",".join(found if swept[0] in found else [*found, *swept])
