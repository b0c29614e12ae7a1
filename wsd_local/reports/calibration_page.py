"""`calibrate` as a table, as sentences, and as a page with heat maps.

Contract: pure; a `Calibration` in, a `Table`, lines of text and HTML out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wsd_local.calibration.deriving import Setting
from wsd_local.reports.charts import Scale, lines
from wsd_local.reports.html import Chart, Table, page, percent, seconds, short, whole_percent
from wsd_local.reports.recommending import TAKES_OVER, TOLERANCE, Calibration, Row
from wsd_local.reports.setting_maps import SettingMap, setting_maps
from wsd_local.reports.statistics import RESAMPLES, between
from wsd_local.units import plural

_COLUMNS = (
    "γ × w",
    "kept",
    "quartiles",
    "no\nswitch",
    "switch",
    "time",
    "draft's\nnext",
    "base's\nown",
    "gap",
    "agrees",
    "wins",
    "",
)
_NOTE = (
    "kept, quartiles: tokens of the draft in a reply · no switch: replies in which the base never takes over · switch: "
    "median position, from 0 · time: estimated, for a reply as long as the draft · draft's next, base's own: "
    "perplexity to the base of the draft's tokens after the switch, and of its own there · gap: of their "
    "log-probabilities, nats per token · agrees: share of the draft's tokens there that are the base's own choice · "
    "wins: share of the resamples in which a setting is the best"
)


def name_of_setting(setting: Setting) -> str:
    """A setting as the table names it."""
    return f"{setting.threshold:g} × {setting.window}"


def calibration_table(found: Calibration) -> Table:
    """One row for each setting."""
    return Table(
        f"{plural(found.prompts, 'prompt')}: what each threshold γ and window w would have done",
        _COLUMNS,
        tuple(_cells(found, row) for row in found.rows),
        _NOTE,
    )


def _cells(found: Calibration, row: Row) -> tuple[str, ...]:
    return (
        name_of_setting(row.setting),
        f"{row.kept_median:g}",
        f"{row.kept_quartiles[0]:g}–{row.kept_quartiles[1]:g}",
        percent(row.without_switch),
        "" if row.switch is None else f"{row.switch:g}",
        seconds(row.seconds),
        _perplexity(row.draft_logprob),
        _perplexity(row.own_logprob),
        "" if row.gap is None else f"{row.gap:.2f}",
        percent(row.agreement),
        percent(row.wins),
        ", ".join(_marks(found, row)),
    )


def _marks(found: Calibration, row: Row) -> list[str]:
    advice = found.recommendation
    marks = ["present"] if row.setting == advice.present else []
    if row.setting == advice.winner:
        marks.append("best")
    return marks if row.counts else [*marks, "too rarely"]


def _perplexity(logprob: float | None) -> str:
    return "" if logprob is None else f"{math.exp(-logprob):.2f}"


def verdict(found: Calibration) -> list[str]:
    """The recommendation in sentences: what to use, why, and how sure that is."""
    advice = found.recommendation
    said = []
    if advice.winner is not None:
        best = found.row(advice.winner)
        said.append(
            f"best by the criterion: threshold {best.threshold:g}, window {best.window}; it is the best again in "
            f"{advice.wins:.0%} of {RESAMPLES:,} resamples of the prompts. It keeps {best.kept:.1f} tokens of the "
            f"draft on average (95%: {between(best.kept_interval, '{:.1f}'.format)}){_time(best)}."
        )
    action = "use" if advice.distinguished else "stay with"
    said.append(
        f"recommendation: {action} threshold {advice.setting.threshold:g}, window {advice.setting.window}: "
        f"{advice.reason}."
    )
    said.append(
        f"criterion: of the settings with which the base takes over in at least {TAKES_OVER:.0%} of the replies, and "
        f"whose gap is within {TOLERANCE:g} nats of the smallest, the one that keeps the fewest tokens."
    )
    return said


def _time(row: Row) -> str:
    if row.seconds is None:
        return ""
    return f", and a reply takes {seconds(row.seconds)} (95%: {between(row.seconds_interval, seconds)})"


def calibration_page(found: Calibration, about: Sequence[str]) -> str:
    """`calibrate` as a page; `about` are sentences on what was measured."""
    table = calibration_table(found)
    parts: list[Chart | Table] = [*setting_maps(found.rows, table, _MAPS)]
    if any(row.gap is not None for row in found.rows):
        parts.append(_gap_chart(found, table))
    lead = [text[:1].upper() + text[1:] for text in (*verdict(found), *about)]
    return page("Threshold and window for a pair", lead, [*parts, table])


_MAPS: tuple[SettingMap[Row], ...] = (
    SettingMap(
        "How much of the draft is kept", "Median tokens of the draft in a reply.", lambda row: row.kept_median, short, 0
    ),
    SettingMap(
        "How often the base never takes over",
        "Share of the replies without a switch.",
        lambda row: row.without_switch,
        whole_percent,
        1,
    ),
    SettingMap(
        "Does the base go on as an aligned model would?",
        "Gap between the base's own way to go on and the draft's, in nats per token: 0 is none.",
        lambda row: row.gap,
        lambda value: f"{value:.2f}",
        3,
    ),
    SettingMap(
        "How long a reply takes",
        "Estimated time of a reply that is as long as the draft, by what tokens cost in this recording.",
        lambda row: row.seconds,
        seconds,
        2,
    ),
)


def _gap_chart(found: Calibration, table: Table) -> Chart:
    points: dict[str, list[tuple[float, float]]] = {}
    for row in found.rows:
        if row.gap is not None:
            points.setdefault(f"window {row.window}", []).append((row.threshold, row.gap))
    title = "The gap by the threshold"
    caption = (
        "By how many nats per token the base prefers its own way to go on after the switch to the draft's. Where the "
        "lines are level, a higher threshold keeps more of the draft and gains nothing."
    )
    ticks = sorted({row.threshold for row in found.rows})
    drawn = lines(
        points,
        "threshold",
        Scale("gap, nats per token", lambda value: f"{value:.2f}"),
        ticks=ticks,
        marked=lambda _series, number: number in (0, len(ticks) - 1),
    )
    return Chart(title, caption, drawn, table)
