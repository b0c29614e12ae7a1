"""`eval time` as tables, and as a page with charts.

Contract: pure; `TimeResults` in, `Table`s, `Chart`s and HTML out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsd_local.reports.charts import bars
from wsd_local.reports.html import Chart, Table, decimal, page, percent, seconds, short
from wsd_local.reports.statistics import NO_INTERVAL_NOTE, Estimate
from wsd_local.reports.times import BASE, TimeResults, Way
from wsd_local.units import plural

_TIMES = (
    "medians over the prompts · first text, whole reply: seconds from the messages on, prompts read included · token: "
    "of the whole reply, by its tokens · by base alone: median over the prompts of the quotient, that of all seconds "
    f"together (sum), and that per token · intervals: 95% by the bootstrap over the prompts · {NO_INTERVAL_NOTE}"
)
_WORK = (
    "means over the replies · tokens: those of the reply, in the vocabulary of the model that ends it · kept: tokens "
    "of the draft in it · cut: replies that ended at --max-tokens · evaluated: tokens that each model evaluated, "
    "prompts included"
)


def time_tables(found: TimeResults) -> list[Table]:
    """Times, and the work they come from."""
    return [_times(found), _work(found)]


def _times(found: TimeResults) -> Table:
    columns = (
        "",
        "first\ntext",
        "whole\nreply",
        "interval",
        "token",
        "by base\nalone",
        "interval",
        "sum",
        "interval",
        "per\ntoken",
        "interval",
    )
    rows = tuple(
        (
            way.name,
            seconds(None if way.first_text_s is None else way.first_text_s.value),
            seconds(way.seconds.value),
            way.seconds.between(seconds, "–"),
            "" if way.token_s is None else f"{way.token_s.value * 1000:.1f} ms",
            *_ratio(way, way.ratio),
            *_ratio(way, way.sum_ratio),
            *_ratio(way, way.token_ratio),
        )
        for way in found.ways
    )
    title = f"{plural(found.prompts, 'prompt')}, {plural(found.rounds, 'round')}: time of whole replies"
    return Table(title, columns, rows, _TIMES)


def _ratio(way: Way, found: Estimate | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    return f"{found.value:.2f}×", "" if way.name == BASE else found.between("{:.2f}".format, "–")


def _work(found: TimeResults) -> Table:
    columns = ("", "tokens", "kept", "cut", "evaluated\nby draft", "evaluated\nby base")
    rows = tuple(
        (
            way.name,
            decimal(way.tokens),
            decimal(way.kept),
            percent(way.cut),
            decimal(way.draft_evaluated),
            decimal(way.base_evaluated),
        )
        for way in found.ways
    )
    return Table("What the models worked on", columns, rows, _WORK)


def time_parts(found: TimeResults) -> list[Chart | Table]:
    """Charts and tables for a page."""
    times, work = time_tables(found)
    names = [way.name for way in found.ways]
    whole = bars(
        names,
        {
            "first text": [None if way.first_text_s is None else way.first_text_s.value for way in found.ways],
            "whole reply": [way.seconds.value for way in found.ways],
        },
        axis="seconds, medians over the prompts",
        label=seconds,
    )
    alone = bars(
        names,
        {
            "whole replies": [way.ratio.value for way in found.ways],
            "per token": _values(found, lambda way: way.token_ratio),
        },
        axis="time by that of the base alone",
        label=lambda value: f"{value:.2f}",
        colours=(2, 3),
    )
    evaluated = bars(
        names,
        {
            "draft": [way.draft_evaluated for way in found.ways],
            "base": [way.base_evaluated for way in found.ways],
        },
        axis="tokens evaluated for a reply, prompts included",
        label=short,
    )
    return [
        Chart("How long a reply takes", "Until the first text, and until the end.", whole, times),
        Chart("Against the base alone", "The median over the prompts; 1 is the base alone.", alone, times),
        Chart("What the models work on", "Mean tokens that each model evaluates for a reply.", evaluated, work),
        times,
        work,
    ]


def _values(found: TimeResults, figure: Callable[[Way], Estimate | None]) -> list[float | None]:
    return [None if (one := figure(way)) is None else one.value for way in found.ways]


def time_page(found: TimeResults, lead: Sequence[str]) -> str:
    """`eval time` as a page; `lead` are sentences on what was measured."""
    return page("Time of whole replies", lead, time_parts(found))
