"""How a training went, as a page: loss, reward margin and accuracy from the first step to the last.

Contract: pure; lines of a training's log in, HTML out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wsd_local.reports.chart_words import Points
from wsd_local.reports.charts import Scale, lines
from wsd_local.reports.html import Chart, Table, page

_CHARTS = (
    ("loss", "Loss", "What the training lowers."),
    (
        "margin",
        "Reward margin",
        "How much more probable than before the better reply has become, compared with the worse one, times beta.",
    ),
    ("accuracy", "Accuracy", "Share of the pairs with a positive margin."),
)
_SIDES = (("", "training"), ("validation_", "pairs set aside"))


def training_page(name: str, lead: Sequence[str], log: Sequence[Mapping[str, float]]) -> str:
    """The page of a training.

    Args:
        name: of what was trained.
        lead: sentences at the top.
        log: values by name for some of the steps, each with its `step`.
    """
    charts = [_chart(log, *about) for about in _CHARTS if any(about[0] in line for line in log)]
    nothing = () if charts else ("Nothing was logged.",)
    return page(f"Training of {name}", [*lead, *nothing], charts)


def _chart(log: Sequence[Mapping[str, float]], value: str, title: str, caption: str) -> Chart:
    points: dict[str, list[tuple[float, float]]] = {}
    for prefix, side in _SIDES:
        found = [(line["step"], line[prefix + value]) for line in log if prefix + value in line]
        if found:
            points[side] = found
    ends = {(side, number) for side, found in points.items() for number in (0, len(found) - 1)}
    svg = lines(points, "step", Scale(title.lower(), _short), marked=lambda side, number: (side, number) in ends)
    return Chart(title, caption, svg, _figures(points, title))


def _figures(points: Points, title: str) -> Table:
    steps = sorted({step for found in points.values() for step, _ in found})
    values = {side: dict(found) for side, found in points.items()}
    rows = tuple(
        (f"{step:g}", *(_short(values[side][step]) if step in values[side] else "" for side in points))
        for step in steps
    )
    return Table(title, ("step", *points), rows)


def _short(value: float) -> str:
    return f"{value:.4g}"
