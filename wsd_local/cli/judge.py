"""`wsd-local eval judge`: replies compared, or graded, by a judge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from wsd_local.cli import names, terminal
from wsd_local.cli.evaluate import Html, page_writer, show
from wsd_local.cli.options import (
    NOTHING,
    Debug,
    Given,
    Json,
    Verbose,
    flag,
    number,
    option,
    setting_values,
    settings_named,
    show_native_log,
    takes,
)
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import CancelledError, UsageError
from wsd_local.system.interrupt import interruptible
from wsd_local.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from wsd_local.reports.html import Table
    from wsd_local.reports.judge.questions import JudgeQuestion, Sink, Work
    from wsd_local.reports.judge.replies import Place, ReplyFile
    from wsd_local.reports.judge.verdicts import Judge
    from wsd_local.system.interrupt import Stop

SETTINGS = ("ctx", "threads", "n_gpu_layers", "cache_type_k", "cache_type_v", "flash_attn", "load_mode")


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeOptions:
    """Who judges what, how it is asked, and where the verdicts go."""

    judge: Annotated[
        str,
        option(
            "The judge: an instruct model by name or path, or an OpenAI-compatible endpoint, http://HOST:PORT/v1.",
            metavar="MODEL|URL",
            completer=names.models,
        ),
    ]
    judge_model: Annotated[str | None, option("Name of the judge at the endpoint.", metavar="NAME")] = None
    ask: Annotated[
        Literal["mt_bench", "alpaca_eval"],
        option("The way of asking: with the verdict tie among the answers, or without."),
    ] = "mt_bench"
    grade: Annotated[bool, flag("Grade each reply from 1 to 10 instead of comparing two.")] = False
    output: Annotated[Path | None, option("File for the verdicts; the same command continues it.", metavar="FILE")] = (
        None
    )
    limit: Annotated[int | None, number("Judge only the first prompts.")] = None
    common: Annotated[bool, flag("Leave out prompts that only one of the files has a reply to.")] = False
    quiet: Annotated[bool, flag("Show no progress.")] = False
    html: Html = None


@takes(settings=settings_named(*SETTINGS))
def judge(
    replies: Annotated[
        list[Path], Parameter(name="A.jsonl B.jsonl", help="Two files of replies; one or two with --grade.")
    ],
    /,
    *,
    how: JudgeOptions,
    as_json: Json = False,
    settings: Given = NOTHING,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Compare two files of replies, or grade replies, by a judge's probabilities of its answers.

    Each pair is judged in both orders. A key for an endpoint is read from WSD_LOCAL_JUDGE_API_KEY.
    """
    show_native_log(verbose)
    if how.grade and is_endpoint(how.judge):
        raise UsageError("--grade needs a judge on this machine: endpoints tell probabilities of first tokens only")
    task = _task(replies, ask="grade" if how.grade else how.ask, limit=how.limit, common=how.common)
    if how.output is not None and any(how.output.exists() and how.output.samefile(path) for path in replies):
        raise UsageError(f"{how.output}: is one of the files of replies; choose another --output")
    write = page_writer(how.html)
    if how.html is not None and any(how.html.exists() and how.html.samefile(path) for path in replies):
        raise UsageError(f"{how.html}: is one of the files of replies; choose another file for the page")
    reporter = Reporter(how.quiet)
    with ExitStack() as stack:
        stack.callback(reporter.close)
        interrupt = stack.enter_context(interruptible())
        chosen = stack.enter_context(opened_judge(how.judge, how.judge_model, settings, reporter, interrupt))
        for file in task.files.values():
            if file.empty:
                reporter.report(f"{file.path}: {file.empty} of {plural(len(file.replies), 'reply')} without text")
        sink = _sink(how.output, task, chosen, stack)
        work = follow_judge(chosen, task.questions, sink, reporter, interrupt)
    for question, why in work.too_long[:3]:
        reporter.report(f"record {question.id}: too long for the judge: {why}")
    if work.too_long:
        reporter.report(f"{plural(len(work.too_long), 'question')} too long for the judge: not judged, nothing was cut")
    _report(task, sink, chosen, as_json=as_json, write=write)
    return SOME_FAILED if work.too_long else 0


@dataclass(frozen=True, slots=True)
class _Task:
    """What is judged: files by the names that their answers are kept under, and the questions."""

    ask: Literal["mt_bench", "alpaca_eval", "grade"]
    files: Mapping[str, ReplyFile]
    places: Sequence[Place]
    questions: Sequence[JudgeQuestion]


def _task(
    paths: Sequence[Path], *, ask: Literal["mt_bench", "alpaca_eval", "grade"], limit: int | None, common: bool
) -> _Task:
    from wsd_local.reports.judge.questions import comparisons, gradings
    from wsd_local.reports.judge.replies import chosen_places, read_replies, shared_places

    if len(paths) > 2 or (len(paths) == 1 and ask != "grade"):
        raise UsageError(f"{plural(len(paths), 'file')} of replies: give two to compare, or one or two with --grade")
    files = dict(zip("ab", map(read_replies, paths), strict=False))
    places = chosen_places(shared_places(list(files.values()), partial=common), limit)
    if ask == "grade":
        return _Task(ask, files, places, list(gradings(files, places)))
    return _Task(ask, files, places, list(comparisons(ask, files["a"], files["b"], places)))


def is_endpoint(judge: str) -> bool:
    """Whether a judge is an address."""
    return judge.lower().startswith(("http://", "https://"))


@contextmanager
def opened_judge(
    judge: str, model: str | None, settings: Given, reporter: Reporter, interrupt: Stop
) -> Iterator[Judge]:
    """The judge, ready to be asked: a model on this machine, or `model` at an endpoint.

    Raises:
        UsageError: the options do not agree.
        WsdError: the model cannot be loaded.
    """
    if is_endpoint(judge):
        from wsd_local.reports.judge.endpoint import EndpointJudge

        if model is None:
            raise UsageError("--judge is an endpoint: name the model there with --judge-model")
        if settings:
            raise UsageError(f"{', '.join(settings)}: for judges on this machine; an endpoint has its own settings")
        yield EndpointJudge(judge, model)
        return
    if model is not None:
        raise UsageError("--judge-model is given, and --judge is no endpoint: leave it out")
    from wsd_local.config import read_config
    from wsd_local.reports.judge.local import local_judge

    def loading(_role: Any, fraction: float) -> bool:
        reporter.wait(f"loading the judge: {fraction:.0%}")
        return not interrupt.requested

    def hashing(done: int, total: int) -> None:
        reporter.wait(f"hashing the judge, once: {done / max(total, 1):.0%}")
        if interrupt.requested:
            raise CancelledError("interrupted")

    configured = {name: value for name, value in read_config().settings.items() if name in SETTINGS}
    with local_judge(judge, {**configured, **setting_values(settings)}, loading, hashing) as chosen:
        interrupt.on_request(chosen.stop)
        yield chosen


def _sink(output: Path | None, task: _Task, judge: Judge, stack: ExitStack) -> Sink:
    from wsd_local.reports.judge.questions import Memory
    from wsd_local.reports.judge.record import VerdictFile
    from wsd_local.version import __version__

    if output is None:
        return Memory()
    inputs = {which: {"name": file.path.name, "sha256": file.sha256} for which, file in task.files.items()}
    header = {"version": __version__, "ask": task.ask, "judge": judge.identity, "inputs": inputs}
    return stack.enter_context(VerdictFile(output, header))


def follow_judge(
    judge: Judge, questions: Sequence[JudgeQuestion], sink: Sink, reporter: Reporter, interrupt: Stop
) -> Work:
    """Ask, and show how far the work has come.

    Raises:
        CancelledError: a signal came; what is kept stays.
        WsdError: the judge cannot answer.
    """
    from wsd_local.reports.judge.questions import ask

    total = len(questions)
    if before := sum(question.key in sink.done for question in questions):
        reporter.note(f"{before} of {plural(total, 'verdict')} are there already; the work continues")

    def done() -> int:
        return sum(question.key in sink.done for question in questions)

    try:
        with reporter.counting("verdict", total, before) as tick:

            def step(work: Work) -> None:
                tick(before + work.asked + len(work.too_long))
                if interrupt.requested:
                    raise CancelledError("interrupted")

            work = ask(judge, questions, sink, step)
    except CancelledError:
        reporter.note(f"interrupted: {done()} of {plural(total, 'verdict')} are done; with --output they are kept")
        raise
    if work.asked:
        reporter.note(
            f"{plural(work.asked, 'verdict')} in {work.seconds:.1f} s, {work.seconds / work.asked:.2f} s each"
        )
    return work


def _report(
    task: _Task, sink: Sink, judge: Judge, *, as_json: bool, write: Callable[[Callable[[], str]], None]
) -> None:
    from wsd_local.cli.tables import print_json

    inputs = {which: {"file": str(file.path), "sha256": file.sha256} for which, file in task.files.items()}
    about = {"ask": task.ask, "judge": judge.identity, "inputs": inputs}
    lead = [f"Judge: {judge.identity['model']}. Way of asking: {task.ask}."]
    lead += [f"{which.upper()}: {one['file']}, SHA-256 {one['sha256']}" for which, one in inputs.items()]
    found = (_graded if task.ask == "grade" else _compared)(task, sink, judge, lead)
    write(found.page)
    for line in found.warnings:
        terminal.message(line)
    if as_json:
        print_json({**about, **found.values, "warnings": list(found.warnings)})
    else:
        show(found.tables)


@dataclass(frozen=True, slots=True)
class _Found:
    """A result in its forms."""

    values: Mapping[str, Any]
    warnings: Sequence[str]
    tables: Sequence[Table]
    page: Callable[[], str]


def _compared(task: _Task, sink: Sink, judge: Judge, lead: Sequence[str]) -> _Found:
    from wsd_local.reports.judge.page import comparison_page, comparison_tables
    from wsd_local.reports.judge.summary import compared, comparison_of
    from wsd_local.reports.runs import names as names_of

    a, b = task.files.values()
    pairs = compared(sink.done, a, b, task.places)
    if not pairs:
        raise UsageError("no pair was judged in both orders: there is nothing to report")
    found = comparison_of(pairs)
    first, second = names_of([a.path, b.path])
    about = (found, (first, second), str(judge.identity["model"]))
    return _Found(found.as_dict(), found.warnings, comparison_tables(*about), lambda: comparison_page(*about, lead))


def _graded(task: _Task, sink: Sink, judge: Judge, lead: Sequence[str]) -> _Found:
    from dataclasses import asdict

    from wsd_local.reports.judge.page import grade_page, grade_tables
    from wsd_local.reports.judge.summary import grade_difference, grading_of, mass_warnings
    from wsd_local.reports.runs import names as names_of

    called = names_of([file.path for file in task.files.values()])
    graded = [
        grading_of(sink.done, name, which, file, task.places)
        for name, (which, file) in zip(called, task.files.items(), strict=True)
        if any((*place, which) in sink.done for place in task.places)
    ]
    if not graded:
        raise UsageError("no reply was graded: there is nothing to report")
    difference = grade_difference(sink.done, task.places)
    about = (graded, difference, str(judge.identity["model"]))
    values = {
        "grades": [one.as_dict() for one in graded],
        "difference": None if difference is None else asdict(difference),
    }
    warned = mass_warnings(min(one.mass for one in graded))
    return _Found(values, warned, grade_tables(*about), lambda: grade_page(*about, lead))
