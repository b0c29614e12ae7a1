"""Heat maps of figures by threshold and window.

Contract: pure; rows with a threshold and a window in, a chart out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from wsd_local.reports.charts import heat_map
from wsd_local.reports.html import Chart, Table


class Placed(Protocol):
    """Figures of one threshold and one window."""

    @property
    def threshold(self) -> float:
        """The threshold."""
        ...

    @property
    def window(self) -> int:
        """The window."""
        ...


RowT = TypeVar("RowT", bound=Placed)


@dataclass(frozen=True, slots=True)
class SettingMap(Generic[RowT]):
    """One figure as a heat map: its title and what it is, how it is read from a row, and how it is written."""

    title: str
    caption: str
    value: Callable[[RowT], float | None]
    label: Callable[[float], str]
    colour: int


def setting_maps(rows: Sequence[RowT], figures: Table, shown: Sequence[SettingMap[RowT]]) -> list[Chart]:
    """The heat maps of which some cell is known; `figures` are shown with each."""
    return [_map(rows, figures, one) for one in shown if any(one.value(row) is not None for row in rows)]


def _map(rows: Sequence[RowT], figures: Table, shown: SettingMap[RowT]) -> Chart:
    thresholds = sorted({row.threshold for row in rows})
    windows = sorted({row.window for row in rows})
    cells = {(row.threshold, row.window): shown.value(row) for row in rows}
    drawn = heat_map(
        [str(window) for window in windows],
        [f"{threshold:g}" for threshold in thresholds],
        [[cells.get((threshold, window)) for threshold in thresholds] for window in windows],
        x="threshold",
        y="window",
        name=shown.title,
        label=shown.label,
        colour=shown.colour,
    )
    return Chart(shown.title, f"{shown.caption} By threshold and window.", drawn, figures)
