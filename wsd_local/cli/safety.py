"""`wsd-local eval safety`: refusals of safe prompts and answers to unsafe ones, in several columns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wsd_local.cli import names
from wsd_local.cli.columns import data_options, shared_settings
from wsd_local.cli.options import NOTHING, Debug, Given, Json, PairName, Verbose, models_named, option, takes
from wsd_local.cli.options import show_native_log as show_log
from wsd_local.cli.side_by_side import Course, Where, compare
from wsd_local.cli.tax import COLUMNS, OUT
from wsd_local.errors import UsageError

if TYPE_CHECKING:
    from wsd_local.cli.classifying import JudgeClassifier
    from wsd_local.cli.columns import Answering
    from wsd_local.reports.evidence.safety import SafetyName


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
    judge: Annotated[
        str | None,
        option(
            "Also let a judge classify every reply: an instruct model by name or path, or an endpoint, "
            "http://HOST:PORT/v1.",
            metavar="MODEL|URL",
            completer=names.models,
        ),
    ] = None
    judge_model: Annotated[str | None, option("Name of the judge at the endpoint.", metavar="NAME")] = None
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
    from wsd_local.reports.columns import columns_of
    from wsd_local.reports.evidence.safety import SafetySet

    show_log(verbose)
    classifier = _classifier(how, settings)
    given = [(SafetySet(name, classifier), source) for name, source in _sources(how.xstest, how.hh).items()]
    columns = columns_of(_with_thresholds(how.columns, how.thresholds))

    def ready(answering: Answering) -> None:
        if classifier is not None:
            classifier.answering = answering

    course = Course("Safety", "results", given, columns, ready=ready)
    return compare(course, Where(how.out, how.html, as_json), pair, models, settings, data)


def _classifier(how: SafetyOptions, settings: Given) -> JudgeClassifier | None:
    """The judge that classifies replies, if one is given.

    Raises:
        UsageError: the options do not agree.
        ModelError: it is not on this machine.
    """
    from wsd_local.cli.classifying import JudgeClassifier
    from wsd_local.cli.reply_parts import JudgeChoice

    if how.judge is None:
        if how.judge_model is not None:
            raise UsageError("--judge-model is given without --judge: name the endpoint")
        return None
    choice = JudgeChoice.checked(how.judge, how.judge_model, settings.get("threads"))
    return JudgeClassifier(choice, how.out)


def _sources(xstest: str | None, hh: str | None) -> dict[SafetyName, str]:
    """The sets that are named, both public ones if none is."""
    named: dict[SafetyName, str | None] = {"xstest": xstest, "hh": hh}
    given = {name: source for name, source in named.items() if source}
    return given or {"xstest": "xstest", "hh": "hh_rlhf"}


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
