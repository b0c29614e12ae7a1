"""Parts of an evaluation that answer a data set in columns.

Contract: prompts are taken in a fixed random order of the set, so that the first so many of them are a sample of it,
whatever order the file has. Replies go into files of a folder, as those of `cli.columns`.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsd_local.cli.columns import Answering, Answers, Asked, provenance, read_set, require_replies
from wsd_local.cli.side_by_side import lines_of, stepping
from wsd_local.errors import UsageError
from wsd_local.units import plural

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wsd_local.datasets import DataSet
    from wsd_local.reports.evidence.part import Claim, Findings
    from wsd_local.reports.evidence.sets import MeasuredSet


class Sample:
    """The records of a data set in a fixed random order, and the replies to the first so many of them.

    Args:
        name: names the set in files.
        source: a file, or a public set's name.
        ask: makes the records what is asked.
        settings: of its replies where none are given.
        limit: take at most so many records.
        answering: answers them.
        folder: where the replies go.
    """

    def __init__(
        self,
        name: str,
        source: str,
        ask: Callable[[DataSet], DataSet],
        settings: Mapping[str, Any],
        limit: int | None,
        answering: Answering,
        folder: Path,
    ) -> None:
        self.name, self.folder, self.answering = name, folder, answering
        self._source, self._ask, self._settings, self._limit = source, ask, settings, limit
        self._data: DataSet | None = None
        self.bad = 0
        """Records that cannot be asked."""

    def open(self) -> int:
        """Read the set; the number of records to answer.

        Raises:
            WsdError: it cannot be had, or no record can be asked.
        """
        if self._data is None:
            reporter = self.answering.reporter
            data = self._ask(read_set(self._source, self.answering.task, reporter, self.answering.interrupt))
            self.bad = len(data.bad)
            if data.bad:
                reporter.report(f"{data.path}: {plural(self.bad, 'bad record')}; the first: {data.bad[0].reason}")
            items = list(data.items)
            random.Random(0).shuffle(items)
            self._data = replace(data, items=items[: self._limit], bad=[])
        if not self._data.items:
            raise UsageError(f"{self._data.path}: no record can be asked as {self.name}")
        return len(self._data.items)

    def data(self, count: int) -> DataSet:
        """The first `count` records."""
        self.open()
        assert self._data is not None
        return replace(self._data, items=self._data.items[:count])

    def answers(self, count: int) -> Answers:
        """The replies to the first `count` records.

        Raises:
            CancelledError: a signal came; what is written stays.
            WsdError: they cannot be answered.
        """
        answers = self.answering.answers([Asked(self.name, self.data(count), self._settings)], self.folder)
        require_replies(answers)
        return answers


class SetPart:
    """A measured set as a part."""

    def __init__(self, measured: MeasuredSet, sample: Sample) -> None:
        self._measured, self._sample = measured, sample

    @property
    def name(self) -> str:
        """The set's name."""
        return self._measured.name

    @property
    def claim(self) -> Claim:
        """What it is to show."""
        return self._measured.claim

    def open(self) -> int:
        """Read the set; the number of its records."""
        return self._sample.open()

    def measure(self, count: int) -> Findings:
        """Answer and mark the first `count` records."""
        from wsd_local.reports.evidence.part import Findings

        answers = self._sample.answers(count)
        answering = self._sample.answering
        step = stepping(answering.reporter, answering.interrupt)
        marked = self._measured.mark(count, lines_of(answers, self.name), step)
        failed = answers.failed + marked.failed + self._sample.bad
        values: dict[str, Any] = {"results": list(marked.values)}
        if marked.judge is not None:
            values["judge"] = dict(marked.judge)
        return Findings(marked.figures, marked.parts, values, marked.notes, failed, provenance(answers))
