"""`eval sweep` as tables, and as a page of heat maps.

Contract: pure; `SweepResults` in, `Table`s, `Chart`s and HTML out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from wsd_local.reports.html import Chart, Table, page, percent, seconds, short, whole_percent
from wsd_local.reports.setting_maps import SettingMap, setting_maps
from wsd_local.reports.statistics import NO_INTERVAL_NOTE, Estimate, between
from wsd_local.reports.sweep import Cell, CheckedReply, SweepResults
from wsd_local.units import plural

_KEPT = (
    "kept: mean tokens of the draft in a reply · no switch: replies in which the base never takes over · time: "
    "estimated for a reply as long as the draft, and relative to the base alone writing as much, prompts not counted · "
    f"intervals: 95% by the bootstrap over the prompts · {NO_INTERVAL_NOTE}"
)
_GOING_ON = (
    "draft's next, base's own: perplexity to the base of the draft's tokens after the switch, and of its own there · "
    "gap: of their log-probabilities, nats per token; 0: the base finds the draft's way to go on as probable as its "
    "own · agrees: share of the draft's tokens there that are the base's own choice · of: replies with a switch before "
    "the draft's end, whose means these are"
)
_CHECKED = (
    "differs: the first that is not equal: the draft's kept tokens, the switch point, or the base's continuation after "
    "it · near: distance of the recorded confidence from the threshold at the first of two switch points"
)


def sweep_tables(found: SweepResults) -> list[Table]:
    """What is kept and how long it takes, how the base goes on, and the replies that were checked, if any."""
    return [_kept(found), _going_on(found), *([_replies(found.replies)] if found.replies else [])]


def _kept(found: SweepResults) -> Table:
    columns = ("γ × w", "kept", "interval", "median", "no\nswitch", "interval", "time", "by base\nalone", "interval")
    rows = tuple(
        (
            _name(cell),
            f"{cell.kept.value:.1f}",
            _interval(cell.kept, lambda value: f"{value:.1f}"),
            f"{cell.kept_median:g}",
            percent(cell.without_switch.value),
            _interval(cell.without_switch, whole_percent),
            "" if cell.seconds is None else seconds(cell.seconds.value),
            _figure(cell.time, _times),
            _interval(cell.time, lambda value: f"{value:.2f}"),
        )
        for cell in found.cells
    )
    return Table(f"{plural(found.prompts, 'prompt')}: threshold γ by window w", columns, rows, _KEPT)


def _going_on(found: SweepResults) -> Table:
    columns = ("γ × w", "draft's\nnext", "interval", "base's\nown", "interval", "gap", "interval", "agrees", "of")
    rows = tuple(
        (
            _name(cell),
            _figure(cell.draft_logprob, _perplexity),
            _interval(cell.draft_logprob, _perplexity),
            _figure(cell.own_logprob, _perplexity),
            _interval(cell.own_logprob, _perplexity),
            _figure(cell.gap, _nats),
            _interval(cell.gap, _nats),
            _figure(cell.agreement, whole_percent),
            str(0 if cell.gap is None else cell.gap.count),
        )
        for cell in found.cells
    )
    return Table("How probable to the base is what follows the switch", columns, rows, _GOING_ON)


def _replies(replies: Sequence[CheckedReply]) -> Table:
    different = [one for one in replies if one.differs is not None]
    rows = tuple(
        (
            one.prompt,
            f"{one.threshold:g} × {one.window}",
            str(one.differs),
            _place(one.derived_index),
            _place(one.index),
            "" if one.near is None else f"{one.near:.4f}",
        )
        for one in different
    )
    title = f"{len(replies) - len(different)} of {plural(len(replies), 'real reply')} as derived"
    columns = ("prompt", "γ × w", "differs", "derived\nswitch", "real\nswitch", "near")
    return Table(title, columns, rows, _CHECKED if rows else "")


def _place(index: int | None) -> str:
    return "no switch" if index is None else str(index)


def _name(cell: Cell) -> str:
    return f"{cell.threshold:g} × {cell.window}"


def _figure(found: Estimate | None, form: Callable[[float], str]) -> str:
    return "" if found is None else form(found.value)


def _interval(found: Estimate | None, form: Callable[[float], str]) -> str:
    if found is None:
        return ""
    bounds = found.interval
    if bounds is not None and form is _perplexity:
        bounds = bounds[::-1]
    return between(bounds, form, "–")


def _perplexity(logprob: float) -> str:
    return f"{math.exp(-logprob):.2f}"


def _nats(value: float) -> str:
    return f"{value:.2f}"


def _times(value: float) -> str:
    return f"{value:.2f}×"


_MAPS: tuple[SettingMap[Cell], ...] = (
    SettingMap(
        "How much of the draft is kept", "Mean tokens of the draft in a reply.", lambda cell: cell.kept.value, short, 0
    ),
    SettingMap(
        "How often the base never takes over",
        "Share of the replies without a switch.",
        lambda cell: cell.without_switch.value,
        whole_percent,
        1,
    ),
    SettingMap(
        "Time by that of the base alone",
        "Estimated for replies as long as the draft, by what tokens cost in this recording; 1 is the base alone.",
        lambda cell: None if cell.time is None else cell.time.value,
        lambda value: f"{value:.2f}",
        2,
    ),
    SettingMap(
        "How hard the draft's next tokens are for the base",
        "Perplexity to the base of what the draft wrote after the switch.",
        lambda cell: None if cell.draft_logprob is None else math.exp(-cell.draft_logprob.value),
        lambda value: f"{value:.2f}",
        4,
    ),
    SettingMap(
        "Does the base go on as an aligned model would?",
        "Gap between the base's own way to go on and the draft's, in nats per token: 0 is none.",
        lambda cell: None if cell.gap is None else cell.gap.value,
        _nats,
        3,
    ),
)


def sweep_parts(found: SweepResults) -> list[Chart | Table]:
    """Heat maps and tables for a page."""
    tables = sweep_tables(found)
    return [*setting_maps(found.cells, tables[0], _MAPS[:3]), *setting_maps(found.cells, tables[1], _MAPS[3:]), *tables]


def sweep_page(found: SweepResults, lead: Sequence[str]) -> str:
    """`eval sweep` as a page; `lead` are sentences on what was measured."""
    return page("Threshold by window", lead, sweep_parts(found))
