"""Columns side by side as tables and charts.

Contract: pure; estimates and comparisons in, `Table`s and `Chart`s out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wsd_local.reports.chart_words import Label
from wsd_local.reports.charts import bars
from wsd_local.reports.columns import Comparison
from wsd_local.reports.html import Chart, Table, whole_percent
from wsd_local.reports.statistics import Estimate

_COMPARED = (
    "difference: of the second column to the first, with Tango's score interval of 95 % · only: questions that only "
    "one of them has in the share · p: McNemar's exact test, two-sided, not corrected for several comparisons"
)
SHARE_INTERVAL = "interval: 95 % by the bootstrap, of 0% and 100% Clopper and Pearson's"
"""What the interval of a column's share is."""


def interval(one: Estimate) -> str:
    """The interval of a share."""
    return one.between("{:.1%}".format)


def points(difference: float) -> str:
    """A difference of shares in percentage points."""
    return f"{difference * 100:+.1f}"


def compared_table(comparisons: Sequence[Comparison]) -> Table:
    """Columns two by two."""
    rows = tuple(
        (
            f"{one.first} and {one.second}",
            points(one.difference.value),
            one.difference.between(points),
            str(one.test.only_first),
            str(one.test.only_second),
            f"{one.test.p:.3f}",
        )
        for one in comparisons
    )
    columns = ("", "difference\nin points", "interval", "only\nfirst", "only\nsecond", "p")
    return Table("Columns two by two", columns, rows, _COMPARED)


def estimate_bars(found: Mapping[str, Estimate], *, axis: str, label: Label, most: float | None = None) -> str:
    """A bar with its interval for each estimate; `most` is the axis' end, None leaves that to the values."""
    return bars(
        list(found),
        {axis: [one.value for one in found.values()]},
        axis=axis,
        label=label,
        most=most,
        intervals={axis: [one.interval for one in found.values()]},
    )


def share_chart(what: str, shares: Mapping[str, Estimate], figures: Table) -> Chart:
    """A bar with its interval for each column; `what` the shares are of stands below them."""
    drawn = estimate_bars(shares, axis=what, label=whole_percent, most=1.0)
    title = f"{figures.title.rpartition(': ')[0]}: {what}"
    return Chart(title, "The lines over the bars are 95 % intervals.", drawn, figures)
