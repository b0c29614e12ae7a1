"""What models prefer, as tables and as a page.

Contract: pure; results in, `Table`s and text out.
"""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.reports.columns_page import estimate_bars, interval, points
from wsd_local.reports.html import Chart, Table, page, percent, whole_percent
from wsd_local.reports.preferences import Change, Preference, PreferenceResults
from wsd_local.reports.statistics import NO_INTERVAL_NOTE, Estimate

_NOTE = (
    "prefers: share of the pairs whose preferred reply is the more probable one, all tokens together, and by the mean "
    "over the tokens · margin: nats by which it is more probable, mean · intervals: 95 %, by the bootstrap · "
    f"{NO_INTERVAL_NOTE}"
)
_CHANGE_NOTE = (
    "points: differences of shares, with Tango's score interval · only: pairs that only one of them prefers rightly · "
    "p: McNemar's exact test, two-sided · moved: share of pairs whose margin is larger in the second model, DPO's "
    "accuracy with the first one as the reference"
)


def preference_tables(found: PreferenceResults, pairs: int) -> list[Table]:
    """The models' figures, and the change if there are two."""
    columns = ("", "prefers", "interval", "prefers\nper token", "interval", "margin", "interval")
    models = Table(f"{pairs} pairs: what the models prefer", columns, tuple(map(_row, found.models)), _NOTE)
    return [models] if found.change is None else [models, _change_table(found.models, found.change)]


def preference_page(found: PreferenceResults, pairs: int, lead: Sequence[str]) -> str:
    """The figures as a page."""
    tables = preference_tables(found, pairs)
    shares = {
        "all tokens together": [one.prefers for one in found.models],
        "by the mean over the tokens": [one.prefers_per_token for one in found.models],
    }
    charts = [
        Chart(
            f"Preferred replies that are the more probable ones: {name}",
            "Half is chance. The lines over the bars are 95 % intervals.",
            estimate_bars(
                {model.model: one for model, one in zip(found.models, values, strict=True)},
                axis="share of the pairs",
                label=whole_percent,
                most=1.0,
            ),
            tables[0],
        )
        for name, values in shares.items()
    ]
    return page("Preference accuracy", lead, [*tables, *charts])


def _row(one: Preference) -> tuple[str, ...]:
    shares = (one.prefers, one.prefers_per_token)
    return (one.model, *(text for each in shares for text in (percent(each.value), interval(each))), *_nats(one.margin))


def _change_table(models: Sequence[Preference], change: Change) -> Table:
    rows = (
        ("prefers, points", *_points(change.prefers)),
        ("prefers per token, points", *_points(change.prefers_per_token)),
        ("moved", percent(change.moved.value), interval(change.moved)),
        ("margin, nats", *_nats(change.margin)),
        ("only the first, only the second", f"{change.test.only_first}, {change.test.only_second}", ""),
        ("p", f"{change.test.p:.3f}", ""),
    )
    return Table(f"{models[1].model} minus {models[0].model}", ("", "", "interval"), rows, _CHANGE_NOTE)


def _points(one: Estimate) -> tuple[str, str]:
    return points(one.value), one.between(points)


def _nats(one: Estimate) -> tuple[str, str]:
    return f"{one.value:+.2f}", one.between("{:+.2f}".format)
