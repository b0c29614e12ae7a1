"""`eval demo` as tables and as a page with charts.

Contract: pure; `DemoResults` in, `Table`s and HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.reports.charts import Scale, bars, histograms, lines
from wsd_local.reports.evaluation import BASE, DRAFT, USUAL, WSD, DemoResults, PrefixRow, WayRow
from wsd_local.reports.html import (
    CHART_BINS,
    Chart,
    Table,
    decimal,
    page,
    percent,
    range_name,
    seconds,
    short,
    whole_percent,
)
from wsd_local.reports.perplexity import Perplexity
from wsd_local.reports.runs import binned, bins
from wsd_local.units import plural

_SHOWN_PREFIXES = (0, 1, 2, 4, 8, 16, 24)
_COLUMNS = ("well", "right", "right\nof well", "switch", "kept", "none", "tokens", "time")
_JUDGED, _DRAFTED = (2, 3), (0,)
"""Colours of well and right, and of what the draft wrote."""

_NOTE = (
    "well: the whole text is a friendly, complete answer · right: it states the truth · switch: position, from 0 · "
    "kept: tokens of the draft in the reply · none: replies without a switch · tokens: of the reply · means all of "
    "them; time: the median for a reply"
)


def demo_tables(results: DemoResults) -> list[Table]:
    """The four tables of `eval demo`."""
    count = results.ways[0].questions
    return [
        Table(
            f"{plural(count, 'held-out question')}, window {USUAL.window}",
            ("", *_COLUMNS),
            tuple((row.way, *_cells(row)) for row in results.ways),
            f"{_NOTE} · fixed:K keeps just K tokens of the draft",
        ),
        _sweep_table(f"Threshold, with window {USUAL.window}", "threshold", results.thresholds),
        _sweep_table(f"Window, with threshold {USUAL.threshold:g}", "window", results.windows),
        _perplexity_table(results.perplexity),
    ]


def _cells(row: WayRow) -> tuple[str, ...]:
    return (
        percent(row.well),
        percent(row.right),
        percent(row.right_of_well),
        decimal(row.mean_switch),
        decimal(row.mean_kept),
        str(row.without_switch) if row.checked else "",
        decimal(row.mean_tokens),
        seconds(row.median_s),
    )


def _sweep_table(title: str, name: str, rows: Sequence[WayRow]) -> Table:
    cells = tuple((f"{getattr(row, name):g}", *_cells(row)) for row in rows)
    return Table(f"{title}: {plural(rows[0].questions, 'held-out question')}", (name, *_COLUMNS), cells)


def _perplexity_table(rows: Sequence[PrefixRow]) -> Table:
    shown = [row for row in rows if row.prefix_tokens in _SHOWN_PREFIXES]
    return Table(
        "Well begun is half done: how surprising a reply is to the base, given its first tokens",
        ("given", "draft's\nright", "draft's\nother", "draft's\nall", "next\ntoken", "base's\nown", "next\ntoken"),
        tuple(
            (
                str(row.prefix_tokens),
                *(_rest(p) for p in (row.aligned_right, row.aligned_wrong, row.aligned)),
                _next(row.aligned),
                _rest(row.own),
                _next(row.own),
            )
            for row in shown
        ),
        "given: first base tokens of the reply · figures: perplexity of the rest of it, and of the next token alone "
        "· right, other: the draft's replies that state the truth, and those that do not · own: what the base writes "
        "alone · 1 is no surprise at all",
    )


def _rest(found: Perplexity | None) -> str:
    return "" if found is None else f"{found.rest:.2f}"


def _next(found: Perplexity | None) -> str:
    return "" if found is None else f"{found.next:.2f}"


def demo_page(results: DemoResults) -> str:
    """`eval demo` as a page."""
    rows = {row.way: row for row in results.ways}
    base, draft, wsd = rows[BASE], rows[DRAFT], rows[WSD]
    lead = [
        f"The embedded pair answered {plural(wsd.questions, 'held-out question')}. Weak-to-Strong Decoding answered "
        f"{percent(wsd.well)} of them well and {percent(wsd.right)} of them right; the base alone "
        f"{percent(base.well)} and {percent(base.right)}, the draft alone {percent(draft.well)} and "
        f"{percent(draft.right)}.",
        "Answered well: the whole text is a friendly, complete answer. Right: it states the truth. The draft is always "
        "friendly and knows fewer than half of the facts; the base knows the facts and seldom says them well.",
    ]
    return page("Weak-to-Strong Decoding in miniature", lead, demo_parts(results))


def demo_parts(results: DemoResults) -> list[Chart | Table]:
    """The charts of `eval demo`, each with its figures."""
    ways, thresholds, windows, _ = demo_tables(results)
    wsd = next(row for row in results.ways if row.way == WSD)
    every = f"{results.thresholds[0].questions} of the questions"
    return [
        _judged_chart(results.ways, ways),
        *([_switch_chart(wsd)] if wsd.switches else []),
        _writers_chart(results.ways, ways),
        *_perplexity_charts(results.perplexity),
        _time_chart(results.ways, ways),
        *_sweep_charts("threshold", "The threshold", results.thresholds, thresholds, every),
        *_sweep_charts("window", "The window", results.windows, windows, every),
    ]


def _judged_chart(rows: Sequence[WayRow], figures: Table) -> Chart:
    drawn = bars(
        [row.way for row in rows],
        {"well": [row.well for row in rows], "right": [row.right for row in rows]},
        axis="share of the questions",
        label=whole_percent,
        most=1.0,
        colours=_JUDGED,
    )
    caption = "Share of the questions, for each way of answering. fixed:K keeps just K tokens of the draft."
    return Chart("Answered well, and right", caption, drawn, figures)


def _writers_chart(rows: Sequence[WayRow], figures: Table) -> Chart:
    tokens = {"draft": [row.mean_kept for row in rows], "base": [row.mean_tokens - row.mean_kept for row in rows]}
    drawn = bars([row.way for row in rows], tokens, axis="tokens", label=lambda value: f"{value:.0f}", stacked=True)
    caption = "Mean tokens of a reply that the draft opened it with, and that the base wrote."
    return Chart("Who writes the reply", caption, drawn, figures)


def _time_chart(rows: Sequence[WayRow], figures: Table) -> Chart:
    times = {"time": [row.median_s for row in rows]}
    drawn = bars([row.way for row in rows], times, axis="time", label=seconds, colours=(6,))
    return Chart("Time for a reply", "Median time for a whole reply, its prompt included.", drawn, figures)


def _switch_chart(row: WayRow) -> Chart:
    ranges = bins([0, *(at for at, _ in row.switches)], CHART_BINS)
    counts = binned(row.switches, ranges)
    title = "Where the base takes over"
    return Chart(
        title,
        f"Replies by the position of the switch, with threshold {row.threshold:g} and window {row.window}; "
        f"{plural(row.without_switch, 'reply')} had none.",
        histograms(
            [range_name(*place) for place in ranges],
            {row.way: counts},
            x="switch position (base token, from 0)",
            y="replies",
        ),
        Table(title, ("position", "replies"), tuple((str(at), str(n)) for at, n in row.switches)),
    )


def _sweep_charts(name: str, title: str, rows: Sequence[WayRow], figures: Table, every: str) -> list[Chart]:
    points = [float(getattr(row, name)) for row in rows]
    axis = {"threshold": "threshold (confidence at which the base takes over)", "window": "window (base tokens)"}[name]
    return [
        Chart(
            f"{title}: answered well, and right",
            f"Share of {every}, by {name}.",
            lines(
                {
                    "well": [(at, row.well) for at, row in zip(points, rows, strict=True)],
                    "right": [(at, row.right) for at, row in zip(points, rows, strict=True)],
                },
                axis,
                Scale("share of the questions", whole_percent, most=1.0),
                ticks=points,
                colours=_JUDGED,
            ),
            figures,
        ),
        Chart(
            f"{title}: how much of the draft is kept",
            f"Mean tokens of the draft that open a reply, by {name}; {every}.",
            lines(
                {"kept": [(at, row.mean_kept) for at, row in zip(points, rows, strict=True)]},
                axis,
                Scale("tokens kept", short, most=max(row.mean_kept for row in rows) or 1.0),
                ticks=points,
                colours=_DRAFTED,
            ),
            figures,
        ),
    ]


def _perplexity_charts(rows: Sequence[PrefixRow]) -> list[Chart]:
    return [
        _perplexity_chart(
            rows,
            "Well begun is half done: the next token",
            "Perplexity to the base of the next token of a reply, by the number of tokens that it was given. What the "
            "base finds hard in the draft's reply is to begin it, and further on the values that it states, where they "
            "are made up.",
            "perplexity of the next token",
            "next",
        ),
        _perplexity_chart(
            rows,
            "Well begun is half done: the whole rest",
            "Perplexity to the base of the whole rest of a reply, by the number of tokens that it was given. 1 is no "
            "surprise at all.",
            "perplexity of the rest",
            "rest",
        ),
    ]


def _perplexity_chart(rows: Sequence[PrefixRow], title: str, caption: str, axis: str, what: str) -> Chart:
    names = {
        "aligned_right": "draft's replies, right",
        "own": "base's own replies",
        "aligned_wrong": "draft's replies, other",
    }
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for field, name in names.items():
            if (found := getattr(row, field)) is not None:
                points.setdefault(name, []).append((float(row.prefix_tokens), getattr(found, what)))
    peaks = {name: max(places, key=lambda place: place[1]) for name, places in points.items()}

    def marked(name: str, number: int) -> bool:
        return number == 0 or points[name][number] == peaks[name]

    cells = [
        (
            str(row.prefix_tokens),
            *("" if (found := getattr(row, field)) is None else f"{getattr(found, what):.3f}" for field in names),
        )
        for row in rows
    ]
    return Chart(
        title,
        caption,
        lines(
            points,
            "base tokens of the reply that are given",
            Scale(axis, short, log=what == "next"),
            marked=marked,
            colours=(0, 1, 5),
        ),
        Table(title, ("given", *names.values()), tuple(cells)),
    )
