"""What charts write: their figures in words, and which labels stand where.

Contract: pure; figures in, text out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from wsd_local.errors import printable

Series = Mapping[str, Sequence[float | None]]
Intervals = Mapping[str, Sequence[tuple[float, float] | None]]
Points = Mapping[str, Sequence[tuple[float, float]]]
Label = Callable[[float], str]

_NAME = 30
"""Characters of a name that a chart has room for."""


def shortened(name: str) -> str:
    """A name that is no longer than a chart has room for."""
    name = printable(name)
    return name if len(name) <= _NAME else f"{name[: _NAME // 2]}…{name[1 - _NAME // 2 :]}"


def in_words(groups: Sequence[str], series: Series, label: Label) -> str:
    """The figures in words, for those who do not see the chart."""
    found = []
    for name, values in series.items():
        pairs = zip(groups, values, strict=True)
        found.append(f"{name}: " + ", ".join(f"{group} {label(value)}" for group, value in pairs if value is not None))
    return printable("; ".join(found))


def bounds_in_words(groups: Sequence[str], bounds: Intervals, label: Label) -> str:
    found = [
        f"{name} {group} {label(bound[0])} to {label(bound[1])}"
        for name, of_name in bounds.items()
        for group, bound in zip(groups, of_name, strict=True)
        if bound is not None
    ]
    return printable(", ".join(found))


def beside(
    points: Points, label: Label, marked: Callable[[str, int], bool]
) -> list[tuple[str, tuple[float, float], bool]]:
    """Labels of points: the highest one at a place above it, the lowest below, each text once."""
    at: dict[float, list[float]] = {}
    for name, places in points.items():
        for number, (place, value) in enumerate(places):
            if marked(name, number):
                at.setdefault(place, []).append(value)
    found = []
    for place, values in at.items():
        high, low = max(values), min(values)
        found.append((label(high), (place, high), True))
        if label(low) != label(high):
            found.append((label(low), (place, low), False))
    return found
