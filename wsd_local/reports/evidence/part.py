"""A part of an evaluation: a claim, how it is measured, what would refute it, and what was found.

Contract: values alone. A part has prompts in a fixed order, and measures the first so many of them; measuring more goes
on from what is there, and measuring as many again costs next to nothing. The page and the JSON of an evaluation are
made from the same findings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from wsd_local.reports.html import Chart, Table
from wsd_local.reports.statistics import Estimate

Form = Literal["share", "points", "number", "ratio"]
"""How a figure is written: 12.3%, +1.2 points, 1.234, 1.05×."""


_POINTS = " points"


@dataclass(frozen=True, slots=True)
class Claim:
    """What a part is about, in sentences: what is claimed, how it is measured, and what would refute it."""

    title: str
    claim: str
    how: str
    refuted_by: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A headline figure with its interval. A figure in points is a difference of shares, from -1 to 1."""

    name: str
    estimate: Estimate
    form: Form = "share"

    @property
    def value(self) -> str:
        """The figure as text."""
        return _written(self.estimate.value, self.form)

    @property
    def interval(self) -> str:
        """Its interval as text."""
        return self.estimate.between(lambda value: _written(value, self.form).removesuffix(_POINTS))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "form": self.form, **asdict(self.estimate)}


@dataclass(frozen=True, slots=True)
class Findings:
    """What a part found. `failed` counts prompts, or questions to a judge, that could not be answered.

    `parts` makes the charts and tables of a page, `values` are the same and more, ready for JSON, `notes` warnings and
    other sentences, and `runs` how each file of replies was made.
    """

    figures: Sequence[Figure]
    parts: Callable[[], Sequence[Chart | Table]]
    values: Mapping[str, Any]
    notes: Sequence[str] = ()
    failed: int = 0
    runs: Mapping[str, Mapping[str, Any]] | None = None


class Part(Protocol):
    """A part that can be measured. `name` is one word, the part's name in files and options."""

    @property
    def name(self) -> str:
        """One word, which names it in files and options."""
        ...

    @property
    def claim(self) -> Claim:
        """What it is about."""
        ...

    def open(self) -> int:
        """Read what is needed; the number of prompts that there are.

        Raises:
            WsdError: its data set cannot be had.
        """
        ...

    def measure(self, count: int) -> Findings:
        """Measure the first `count` prompts.

        Raises:
            CancelledError: a signal came; what was measured is kept.
            WsdError: it cannot be measured.
        """
        ...


def _written(value: float, form: Form) -> str:
    if form == "points":
        return f"{value * 100:+.1f}{_POINTS}"
    return {"share": f"{value:.1%}", "number": f"{value:.3f}", "ratio": f"{value:.2f}×"}[form]
