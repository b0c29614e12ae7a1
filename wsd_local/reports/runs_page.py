"""`eval report` as tables and as a page with charts, one column or bar per run.

Contract: pure; `Summary`s in, `Table`s and HTML out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from wsd_local.errors import cut
from wsd_local.events import FinishReason, SwitchReason
from wsd_local.reports.charts import bars, histograms
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
from wsd_local.reports.runs import MANY, Summary, binned, bins

TERMINAL_BINS = 10
LONG = 40
"""Characters of a setting's value that are shown."""

Differences = Mapping[str, Sequence[Sequence[Any]]]


def run_tables(runs: Sequence[Summary], differing: Differences, most: int) -> list[Table]:
    """The tables of `eval report`, one column per run; switch positions in at most `most` ranges."""
    names = tuple(run.name for run in runs)
    rows = tuple((trait, *(_values(values) for values in of_runs)) for trait, of_runs in differing.items())
    others = [Table("What differs", ("", *names), rows)] if rows else []
    return [_overview(runs, names), *others, _positions_table(runs, names, most)]


def _overview(runs: Sequence[Summary], names: tuple[str, ...]) -> Table:
    def row(title: str, cells: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        return ((title, *cells),) if any(cells) else ()

    def counted(title: str, field: str) -> tuple[tuple[str, ...], ...]:
        found = dict.fromkeys(key for run in runs for key in getattr(run, field))
        return tuple(
            (f"{title} {key}", *(_part(getattr(run, field).get(key, 0), run) for run in runs)) for key in found
        )

    rows = (
        *row("draft model", [", ".join(run.draft_models) for run in runs]),
        *row("base model", [", ".join(run.base_models) for run in runs]),
        *row("replies", [str(run.replies) for run in runs]),
        *row("failed", [str(run.failed or "") for run in runs]),
        *counted("switch:", "reasons"),
        *row("switch position, mean", [decimal(run.mean_switch) for run in runs]),
        *row(
            "switch position, median", ["" if run.median_switch is None else f"{run.median_switch:g}" for run in runs]
        ),
        *row("tokens", [str(run.draft_tokens + run.base_tokens) for run in runs]),
        *row("tokens, mean", [decimal(run.mean_tokens) for run in runs]),
        *row("without a word", [str(run.empty) for run in runs]),
        *row("words, median", ["" if run.median_words is None else f"{run.median_words:g}" for run in runs]),
        *row("from the draft", [percent(run.draft_share) for run in runs]),
        *row("drafted in all", [str(run.drafted_tokens) for run in runs]),
        *row("time of the run", [seconds(run.wall_s) for run in runs]),
        *row("time of the replies, added up", [seconds(run.total_s) for run in runs]),
        *row("time, mean", [seconds(run.mean_s) for run in runs]),
        *row("time, median", [seconds(run.median_s) for run in runs]),
        *row("first text, median", [seconds(run.first_text_s) for run in runs]),
        *row("tokens/s, draft, one reply", [decimal(run.draft_tokens_per_s) for run in runs]),
        *row("tokens/s, base, one reply", [decimal(run.base_tokens_per_s) for run in runs]),
        *row("tokens/s of the run", [decimal(run.tokens_per_s) for run in runs]),
        *counted("finish:", "finish_reasons"),
    )
    note = (
        "time of the run: while any reply was in progress; tokens/s of the run: tokens of its replies over that time; "
        "one reply: median of each reply's own rate, without prompts"
    )
    return Table("Runs", ("", *names), rows, note)


def _part(count: int, run: Summary) -> str:
    return f"{count} ({count / run.replies:.0%})" if count else ""


def _positions_table(runs: Sequence[Summary], names: tuple[str, ...], most: int) -> Table:
    ranges = _ranges(runs, most)
    counts = [binned(run.switch_positions, ranges) for run in runs]
    rows = [
        (range_name(*place), *(_part(of[i], run) for of, run in zip(counts, runs, strict=True)))
        for i, place in enumerate(ranges)
    ]
    rows.append(("no switch", *(_part(run.without_switch, run) for run in runs)))
    return Table("Switch positions (base token, from 0)", ("", *names), tuple(rows))


def _ranges(runs: Sequence[Summary], most: int) -> list[tuple[int, int]]:
    return bins((position for run in runs for position, _ in run.switch_positions), most)


def _values(values: Sequence[Any]) -> str:
    if len(values) > MANY:
        return f"{len(values)} values"
    texts = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values]
    return ", ".join(cut(text, LONG) for text in texts) or "not said"


def runs_page(runs: Sequence[Summary], differing: Differences) -> str:
    """`eval report` as a page."""
    overview, *others, positions = run_tables(runs, differing, CHART_BINS)
    ranges = _ranges(runs, CHART_BINS)
    parts: list[Chart | Table] = [
        overview,
        *others,
        *([_positions_chart(runs, ranges, positions)] if ranges else []),
        _shares_chart("Why the models changed places", "Share of the replies, by reason.", runs, "reasons", overview),
        _writers_chart(runs, overview),
        _time_chart(runs, overview),
        *_speed_charts(runs, overview),
        _shares_chart("How the replies ended", "Share of the replies.", runs, "finish_reasons", overview),
    ]
    count = sum(run.replies for run in runs)
    return page("Runs side by side", [f"{count} replies in {len(runs)} run{'' if len(runs) == 1 else 's'}."], parts)


def _positions_chart(runs: Sequence[Summary], ranges: Sequence[tuple[int, int]], figures: Table) -> Chart:
    counts = {run.name: binned(run.switch_positions, ranges) for run in runs if run.switch_positions}
    names = [range_name(*place) for place in ranges]
    drawn = histograms(names, counts, x="switch position (base token, from 0)", y="replies")
    caption = "Replies by the position of the switch; those without one are in the table."
    return Chart("Where the base takes over", caption, drawn, figures)


def _writers_chart(runs: Sequence[Summary], figures: Table) -> Chart:
    shares = {
        "draft": [run.draft_share for run in runs],
        "base": [None if run.draft_share is None else 1 - run.draft_share for run in runs],
    }
    names = [run.name for run in runs]
    drawn = bars(names, shares, axis="share of the tokens", label=whole_percent, most=1.0, stacked=True)
    caption = "Share of all tokens that were kept from the draft, and that the base wrote."
    return Chart("Who wrote the replies", caption, drawn, figures)


def _time_chart(runs: Sequence[Summary], figures: Table) -> Chart:
    times = {"mean": [run.mean_s for run in runs], "median": [run.median_s for run in runs]}
    drawn = bars([run.name for run in runs], times, axis="time", label=seconds, colours=(6, 4))
    return Chart("Time for a reply", "Mean and median time for a whole reply, its prompt included.", drawn, figures)


def _speed_charts(runs: Sequence[Summary], figures: Table) -> list[Chart]:
    rates = {
        "draft": [run.draft_tokens_per_s for run in runs],
        "base": [run.base_tokens_per_s for run in runs],
    }
    known = {name: values for name, values in rates.items() if any(value is not None for value in values)}
    if not known:
        return []
    drawn = bars([run.name for run in runs], known, axis="tokens per second", label=short)
    caption = "Tokens per second of each model without prompts, median over the replies."
    return [Chart("Speed of each model", caption, drawn, figures)]


def _shares_chart(title: str, caption: str, runs: Sequence[Summary], field: str, figures: Table) -> Chart:
    known = get_args({"reasons": SwitchReason, "finish_reasons": FinishReason}[field])
    found = [key for key in known if any(key in getattr(run, field) for run in runs)]
    series: dict[str, list[float | None]] = {
        key: [getattr(run, field).get(key, 0) / run.replies if run.replies else None for run in runs] for key in found
    }
    names = [run.name for run in runs]
    drawn = bars(names, series, axis="share of the replies", label=whole_percent, most=1.0, stacked=True)
    return Chart(title, caption, drawn, figures)
