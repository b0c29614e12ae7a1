"""Charts as SVG elements of an HTML page.

Contract: figures in, text out; the same figures give the same text. matplotlib draws, and only colours and fonts are
changed in what it gives: colours are variables of the page, which has two sets of them, for light and for dark ground.
Every chart also has its figures in words, for people who do not see it.
"""

from __future__ import annotations

import html
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.errors import WsdError
from wsd_local.reports.chart_words import (
    Intervals,
    Label,
    Points,
    Series,
    beside,
    bounds_in_words,
    in_words,
    shortened,
)
from wsd_local.system.extras import install_command

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK, _FAINT, _GROUND = "#010101", "#020202", "#030303"
_VARIABLES = {_INK: "currentColor", _FAINT: "var(--faint)", _GROUND: "var(--ground)"}
LIGHT = ("#0072b2", "#c75000", "#00795c", "#a2468d", "#86660b", "#3385c6", "#6d6d6d", "#222222")
DARK = ("#56b4e9", "#ff9a52", "#35d1a0", "#e495c8", "#e3c44a", "#a5cdff", "#b0b0b0", "#eeeeee")
"""Colours that people with colour blindness can distinguish; markers and labels differ too."""
_MARKERS = "os^Dv<>P"
_DASHES = ("-", "--", ":", "-.")
_NEUTRAL = 5
_LEVEL = 70
"""Characters that stand below an axis without running into each other."""
_WIDTH = 7.2
_STYLE = {
    "svg.hashsalt": "wsd-local",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}


def require() -> None:
    """Raise `WsdError` if charts cannot be drawn here."""
    try:
        with _out_of_working_folder():
            import matplotlib.backends.backend_svg  # noqa: F401
    except ImportError as error:
        raise WsdError(f"charts need matplotlib ({error}); install it with: {install_command('report')}") from error


@contextmanager
def _out_of_working_folder() -> Iterator[None]:
    """Leave the working folder while matplotlib is imported if it has a `matplotlibrc`, which may be anyone's."""
    if "matplotlib" in sys.modules or not os.path.lexists("matplotlibrc"):
        yield
        return
    here = Path.cwd()
    os.chdir(Path(__file__).parent)
    try:
        yield
    finally:
        os.chdir(here)


# -- charts --------------------------------------------------------------------------------------------------


def bars(
    groups: Sequence[str],
    series: Series,
    *,
    axis: str,
    label: Label,
    most: float | None = None,
    stacked: bool = False,
    colours: Sequence[int] = range(8),
    intervals: Intervals | None = None,
) -> str:
    """Horizontal bars, one group below the other, one bar of each series in a group or all of them in a row.

    Bars of negative values go to the left; those in a row have none.
    `intervals` holds the bounds of the values by series, drawn as lines over bars that do not stand in a row.
    """
    bounds = intervals or {}

    def draw(axes: Axes) -> None:
        height = 0.72 if stacked else 0.8 / len(series)
        left = [0.0] * len(groups)
        least, top = _ends(series, bounds)
        total = most or (max(_sums(series), default=0.0) if stacked else top) or 1.0
        for number, (name, values) in enumerate(series.items()):
            places = [row if stacked else row - 0.4 + (number + 0.5) * height for row in range(len(groups))]
            lengths = [value or 0.0 for value in values]
            axes.barh(
                places,
                lengths,
                height * 0.94,
                left=left if stacked else None,
                color=_colour(colours[number % len(colours)]),
                label=name,
            )
            ends = _intervals(axes, places, lengths, bounds[name]) if name in bounds else lengths
            for place, start, value, end in zip(places, list(left), values, ends, strict=True):
                if value is None or (stacked and value < total * 0.055):
                    continue
                where = start + value / 2 if stacked else max(0.0, end)
                _write(axes, label(value), (where, place), inside=stacked, x=0 if stacked else 3)
            if stacked:
                left = [start + length for start, length in zip(left, lengths, strict=True)]
        axes.set_xlim(least * 1.08, total * (1.0 if stacked else 1.08))
        axes.set_xlabel(axis)
        _ticks(axes, "x", label)
        _groups(axes, groups)
        if stacked or len(series) > 1:
            _legend(axes, series)

    size = len(groups) * (0.34 if stacked else 0.14 + 0.17 * len(series))
    words = in_words(groups, series, label)
    if bounds:
        words += f"; intervals: {bounds_in_words(groups, bounds, label)}"
    return _svg([draw], 0.95 + size, f"{axis}: {words}")


def _ends(series: Series, bounds: Intervals) -> tuple[float, float]:
    """The ends of an axis on which all bars, their intervals and 0 lie; room for labels right of negative bars."""
    places = [value for values in series.values() for value in values if value is not None]
    places += [end for of_name in bounds.values() for bound in of_name if bound is not None for end in bound]
    least, top = min([0.0, *places]), max([0.0, *places])
    return least, max(top, -0.15 * least)


def _groups(axes: Axes, groups: Sequence[str]) -> None:
    """Names of groups, the first one on top."""
    axes.set_yticks(range(len(groups)), [shortened(group) for group in groups])
    axes.set_ylim(len(groups) - 0.45, -0.55)
    axes.grid(axis="x")
    axes.tick_params(left=False)


def _intervals(
    axes: Axes, places: Sequence[float], values: Sequence[float], bounds: Sequence[tuple[float, float] | None]
) -> list[float]:
    """Draw intervals over bars; where each ends, which is where its label stands."""
    ends = []
    for place, value, bound in zip(places, values, bounds, strict=True):
        if bound is not None:
            axes.plot(bound, (place, place), color=_INK, linewidth=1.1, marker="|", markersize=5)
        ends.append(value if bound is None else max(value, bound[1]))
    return ends


@dataclass(frozen=True, slots=True)
class Scale:
    """The scale of values in a line chart; `most` is the top of the axis, None leaves that to the values."""

    name: str
    label: Label
    most: float | None = None
    log: bool = False


def lines(
    points: Points,
    x: str,
    y: Scale,
    *,
    ticks: Sequence[float] | None = None,
    marked: Callable[[str, int], bool] = lambda _series, _number: True,
    colours: Sequence[int] = range(8),
) -> str:
    """Lines through points, `x` being the name of the axis and `ticks` its marks.

    `marked(series, number)` says which points have their number written beside them.
    """
    require()
    from matplotlib.ticker import LogLocator

    def draw(axes: Axes) -> None:
        if y.log:
            axes.set_yscale("log")
        for number, (name, places) in enumerate(points.items()):
            axes.plot(
                [place[0] for place in places],
                [place[1] for place in places],
                _DASHES[number % len(_DASHES)],
                color=_colour(colours[number % len(colours)]),
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=max(4.0, 6.5 - 1.5 * number),
                label=name,
            )
        if y.most is not None:
            axes.set_ylim(0, y.most * 1.1)
        axes.margins(y=0.15)
        for text, at, above in beside(points, y.label, marked):
            _write(axes, text, at, y=3.5 if above else -3.5, over=True)
        axes.set_xlabel(x)
        axes.set_ylabel(y.name)
        if ticks is not None:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.grid(axis="y")
        _ticks(axes, "y", y.label)
        if y.log:
            axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
            axes.minorticks_off()
        if len(points) > 1:
            _legend(axes, points)

    words = "; ".join(
        f"{name}: " + ", ".join(f"{y.label(value)} at {at:g}" for at, value in places)
        for name, places in points.items()
    )
    return _svg([draw], 3.1, f"{y.name} by {x}. {words}")


def histograms(ranges: Sequence[str], counts: Mapping[str, Sequence[int]], *, x: str, y: str) -> str:
    """One panel of upright bars for each series, below each other, over the same ranges."""
    require()
    from matplotlib.ticker import MaxNLocator

    def drawing(last: bool, name: str, values: Sequence[int]) -> Callable[[Axes], None]:
        def draw(axes: Axes) -> None:
            axes.bar(range(len(ranges)), values, 0.9, color=_colour(_NEUTRAL))
            for place, value in enumerate(values):
                if value:
                    _write(axes, str(value), (place, value), y=2.5)
            axes.set_title(shortened(name), loc="left", fontsize=9, fontweight="bold")
            axes.margins(y=0.18)
            axes.set_ylim(bottom=0)
            axes.set_ylabel(y)
            axes.set_xticks(range(len(ranges)), ranges if last else [""] * len(ranges))
            axes.tick_params(axis="x", bottom=False, labelrotation=0 if len("".join(ranges)) < _LEVEL else 45)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.grid(axis="y")
            if last:
                axes.set_xlabel(x)

        return draw

    panels = [drawing(number == len(counts), name, values) for number, (name, values) in enumerate(counts.items(), 1)]
    return _svg(panels, 0.5 + 1.6 * len(counts), f"{x}: {in_words(ranges, counts, str)}")


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    x: str,
    y: str,
    name: str,
    label: Label,
    colour: int = 0,
) -> str:
    """A grid of values, each in its cell, the darker the larger; None is an empty cell. `name` is what they are."""
    known = [value for row in values for value in row if value is not None]
    least, most = min(known, default=0.0), max(known, default=0.0)

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if value is None:
                    continue
                share = (value - least) / (most - least) if most > least else 0.0
                place = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(place, 1, 1, facecolor=_colour(colour), alpha=0.06 + 0.5 * share, linewidth=0))
                _write(axes, label(value), (column, row))
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(left=False, bottom=False)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        for spine in axes.spines.values():
            spine.set_visible(False)

    words = "; ".join(
        f"{y} {row}: "
        + ", ".join(
            f"{label(value)} at {x} {column}" for column, value in zip(columns, line, strict=True) if value is not None
        )
        for row, line in zip(rows, values, strict=True)
    )
    return _svg([draw], 0.8 + 0.42 * len(rows), f"{name}. {words}")


def _svg(panels: Sequence[Callable[[Axes], None]], height: float, words: str) -> str:
    require()
    from matplotlib import style
    from matplotlib.figure import Figure

    written = io.StringIO()
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        # The reader's fonts draw the text, not the one that is measured here.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        for axes, draw in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
            draw(axes)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", metadata=nothing, transparent=True)
    return _inline(written.getvalue(), words)


def _inline(svg: str, words: str) -> str:
    """matplotlib's file as an element of a page."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _recoloured(tag[0]), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)


def _recoloured(tag: str) -> str:
    tag = re.sub(r"#[0-9a-f]{6}", lambda colour: _VARIABLES.get(colour[0], colour[0]), tag)
    tag = re.sub(r"#0400([0-9a-f]{2})", lambda colour: f"var(--c{int(colour[1], 16)})", tag)
    return re.sub(r"""(font: [^;"]*?[\d.]+px) [^;"]*""", r"\1 system-ui, sans-serif", tag)


def _colour(number: int) -> str:
    return f"#0400{number % len(LIGHT):02x}"


def _sums(series: Series) -> list[float]:
    return [sum(value or 0.0 for value in column) for column in zip(*series.values(), strict=True)]


def _write(
    axes: Axes,
    text: str,
    at: tuple[float, float],
    *,
    x: float = 0,
    y: float = 0,
    inside: bool = False,
    over: bool = False,
) -> None:
    """A number at a place, `x` and `y` points away from it, inside a bar or over the lines below it."""
    axes.annotate(
        text,
        at,
        xytext=(x, y),
        textcoords="offset points",
        horizontalalignment="left" if x else "center",
        verticalalignment="bottom" if y > 0 else "top" if y < 0 else "center_baseline",
        fontsize=8,
        color=_GROUND if inside else _INK,
        annotation_clip=False,
        bbox={"facecolor": _GROUND, "edgecolor": "none", "pad": 0.5} if over else None,
    )


def _ticks(axes: Axes, which: str, label: Label) -> None:
    (axes.xaxis if which == "x" else axes.yaxis).set_major_formatter(lambda value, _place: label(value))


def _legend(axes: Axes, names: Mapping[str, Any]) -> None:
    handles, _ = axes.get_legend_handles_labels()
    shown = [shortened(name) for name in names]
    axes.figure.legend(handles, shown, loc="outside upper left", ncols=min(4, len(names)))
