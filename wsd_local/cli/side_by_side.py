"""The course that evaluations of data sets in columns share: read the sets, answer, mark, and report.

Contract: the sets say what is asked and how replies are marked (`reports.evidence.sets`); replies go into files that
the same command continues (`cli.columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wsd_local.cli.columns import Answering, Answers, Asked, made_with, provenance, read_set, require_replies, task_of
from wsd_local.cli.progress import Reporter
from wsd_local.cli.task import SOME_FAILED
from wsd_local.errors import CancelledError
from wsd_local.system.interrupt import interruptible

if TYPE_CHECKING:
    from wsd_local.cli.options import Given
    from wsd_local.reports.columns import Column
    from wsd_local.reports.evidence.sets import Lines, MeasuredSet
    from wsd_local.system.interrupt import Stop


@dataclass(frozen=True, slots=True)
class Course:
    """What is measured and reported.

    Attributes:
        title: of the page.
        results: the name of the results in JSON.
        sources: for each set a file, or the name of a public set.
        columns: the ways of answering.
        notes: sentences that are reported before the work, and stand in the page and in JSON.
        ready: called with the pair's answers to come, before the work.
    """

    title: str
    results: str
    sources: Sequence[tuple[MeasuredSet, str]]
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    ready: Callable[[Answering], None] = lambda _answering: None


@dataclass(frozen=True, slots=True)
class Where:
    """Where replies and the page go, and whether JSON is printed."""

    out: Path
    html: Path | None
    as_json: bool


def stepping(reporter: Reporter, interrupt: Stop) -> Callable[[str], None]:
    """What is called before each piece of work: shows what is being done, and ends it if a signal came."""

    def step(message: str) -> None:
        if interrupt.requested:
            raise CancelledError("interrupted")
        reporter.wait(message)

    return step


def lines_of(answers: Answers, name: str) -> Lines:
    """The replies' lines of a set, by column."""
    return {column: lines for (of_set, column), lines in answers.lines.items() if of_set == name}


def compare(course: Course, where: Where, pair: str | None, models: Given, settings: Given, data: Given) -> int:
    """Answer the sets in the columns, mark the replies and report; the exit code.

    Raises:
        CancelledError: a signal came; the same command goes on.
        WsdError: a set cannot be had, or the run cannot begin.
    """
    from wsd_local.cli.evaluate import page_writer, show
    from wsd_local.cli.tables import print_json
    from wsd_local.reports.html import page

    write = page_writer(where.html)
    with ExitStack() as stack:
        task = task_of(pair, models, settings, data)
        reporter = Reporter(task.data.quiet)
        stack.callback(reporter.close)
        asked = [
            Asked(one.name, one.ask(read_set(source, task, reporter)), one.settings) for one, source in course.sources
        ]
        for line in course.notes:
            reporter.report(line)
        interrupt = stack.enter_context(interruptible())
        wanted = max(len(one.data.items) for one in asked)
        answering = stack.enter_context(Answering(task, course.columns, wanted, reporter, interrupt))
        course.ready(answering)
        answers = answering.answers(asked, where.out)
        require_replies(answers)
        step = stepping(reporter, interrupt)
        marked = [
            one.mark(len(found.data.items), lines_of(answers, one.name), step)
            for (one, _), found in zip(course.sources, asked, strict=True)
        ]
    how = [one.claim.how for one, _ in course.sources]
    notes = [*course.notes, *(line for one in marked for line in one.notes)]
    lead = [*how, *notes, *made_with(answers)]
    write(lambda: page(course.title, lead, [part for one in marked for part in one.parts()]))
    if where.as_json:
        values = [value for one in marked for value in one.values]
        classified = [one.judge for one in marked if one.judge is not None]
        judges = {"judge": classified} if classified else {}
        print_json({course.results: values, "notes": notes, **judges, "runs": provenance(answers)})
    else:
        show([table for one in marked for table in one.tables])
    return SOME_FAILED if answers.failed or any(one.failed for one in marked) else 0
