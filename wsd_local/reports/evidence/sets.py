"""Data sets that are answered in columns and marked: what each of them asks, counts and claims.

Contract: a set reads replies' lines and nothing else. What executes programs, and the judge that classifies replies,
are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wsd_local.datasets import DataSet
from wsd_local.reports.columns import Comparison
from wsd_local.reports.evidence.part import Claim, Figure
from wsd_local.reports.html import Chart, Table
from wsd_local.reports.statistics import Estimate

Lines = Mapping[str, Sequence[Mapping[str, Any]]]
"""The replies' lines of each column."""
Step = Callable[[str], None]
"""Shows what is being done; raises `CancelledError` if it is to end."""


@dataclass(frozen=True, slots=True)
class Marked:
    """What replies to a set amount to: figures, tables for a terminal, `parts` of a page, and values for JSON.

    `failed` counts questions to a judge that could not be asked, and `judge` says how far a judge that classified the
    replies agrees with the rules.
    """

    figures: Sequence[Figure]
    tables: Sequence[Table]
    parts: Callable[[], Sequence[Chart | Table]]
    values: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()
    failed: int = 0
    judge: Mapping[str, Any] | None = None


class MeasuredSet(Protocol):
    """A data set that is answered and marked."""

    @property
    def name(self) -> str:
        """One word, which names it in files."""
        ...

    @property
    def claim(self) -> Claim:
        """What it is to show."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """Settings of its replies where none are given."""
        ...

    def ask(self, data: DataSet) -> DataSet:
        """The records as they are asked; those that cannot be are bad."""
        ...

    def mark(self, count: int, lines: Lines, step: Step) -> Marked:
        """Mark the replies to `count` records. `step` is called before each piece of work.

        Raises:
            CancelledError: a signal came.
        """
        ...


def share_figures(what: str, shares: Mapping[str, Estimate], comparisons: Sequence[Comparison]) -> list[Figure]:
    """Headline figures: the share of each column, and how each differs from the first one."""
    first = next(iter(shares), None)
    found = [Figure(f"{what}: {name}", one) for name, one in shares.items()]
    against = [one for one in comparisons if one.first == first]
    return found + [Figure(f"{what}: {one.second} minus {one.first}", one.difference, "points") for one in against]
