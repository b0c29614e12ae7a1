"""GSM8K and HumanEval as measured sets: the alignment tax.

Contract: nothing is executed here; `execute` runs a program that a model wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wsd_local.datasets import DataSet
from wsd_local.reports.evidence.part import Claim
from wsd_local.reports.evidence.sets import Lines, Marked, Step, share_figures
from wsd_local.reports.tax import Execute, Mark, TaskName, asked, marked, measured, settings_of
from wsd_local.reports.tax_page import tax_parts, tax_tables

_INTERVALS = (
    "Intervals: 95 %, of shares by the bootstrap over the questions, of differences Tango's score interval; columns "
    "are compared by McNemar's exact test."
)
_CLAIMS: Mapping[TaskName, Claim] = {
    "gsm8k": Claim(
        "No alignment tax in arithmetic",
        "The base loses nothing in arithmetic when its replies are opened by the aligned draft.",
        "GSM8K's questions are asked after four worked examples. A reply is right if its last number is the answer's. "
        f"{_INTERVALS}",
        "A negative difference of WSD to the base alone whose interval leaves out 0. With shares near 0 there is "
        "nothing to lose, and the figures say nothing.",
    ),
    "humaneval": Claim(
        "No alignment tax in programming",
        "The base loses nothing in programming when its replies are opened by the aligned draft.",
        f"HumanEval's functions are continued, and the first completion is executed with the set's tests. {_INTERVALS}",
        "A negative difference of WSD to the base alone whose interval leaves out 0. With shares near 0 there is "
        "nothing to lose, and the figures say nothing.",
    ),
}


class TaxSet:
    """One of the two tasks.

    Args:
        name: the task.
        execute: runs a program that a model wrote.
    """

    def __init__(self, name: TaskName, execute: Execute) -> None:
        self.name = name
        self._execute = execute

    @property
    def claim(self) -> Claim:
        """What it is to show."""
        return _CLAIMS[self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of its replies where none are given."""
        return settings_of(self.name)

    def ask(self, data: DataSet) -> DataSet:
        """The records as the task asks them."""
        return asked(self.name, data)

    def mark(self, count: int, lines: Lines, step: Step) -> Marked:
        """Mark the replies to `count` records."""
        results = [measured(self.name, count, {column: self._marks(column, lines, step) for column in lines})]
        return Marked(
            share_figures("right", results[0].right, results[0].comparisons),
            tax_tables(results),
            lambda: tax_parts(results),
            [one.as_dict() for one in results],
        )

    def _marks(self, column: str, lines: Lines, step: Step) -> list[Mark]:
        found: list[Mark] = []
        for values in lines[column]:
            step(f"marking {self.name}, {column}: {len(found)}")
            found.append(marked(self.name, values, self._execute))
        return found
