"""What a measurement found, as rows of a table and sentences for people.

Contract: pure; a difference that lies within noise is called none, and what was not measured is named with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator

from wsd_local.fields import spelled
from wsd_local.reports.tune.deciding import LEAST_GAIN, Median
from wsd_local.reports.tune.replies import Confirmed
from wsd_local.reports.tune.rounds import Finding
from wsd_local.reports.tune.tuning import Tuned
from wsd_local.units import plural

PART_COLUMNS = ("setting", "way", "present", "time / present", "noise", "rounds", "verdict", "what it measured, in ms")
REPLY_COLUMNS = ("whole replies", "time / present", "noise", "replies", "verdict")
_NAMES = {
    "draft_read": "draft reads",
    "draft_token": "draft writes",
    "base_read": "base reads",
    "base_token": "base writes",
    "base_token_deep": "base writes deep",
    "check": "check",
    "load": "loads",
}


def part_rows(found: Tuned) -> list[tuple[str, ...]]:
    """A row for each way of each setting."""
    return [
        (one.knob, one.way, one.present, *_ratio(one.ratio), _verdict(one), _milliseconds(one))
        for one in found.findings
    ]


def reply_rows(found: Tuned) -> list[tuple[str, ...]]:
    """A row for each way that was compared by whole replies."""
    return [(one.way.name, *_ratio(one.ratio), one.ratio.verdict) for one in found.confirmed]


def sentences(found: Tuned) -> Iterator[str]:
    """What the reader must know of the tables, and what is recommended."""
    shape, lengths = found.shape, found.lengths
    yield (
        f"Usual reply: {shape.drafted:.0f} drafted, {shape.checked:.0f} checked, {shape.continued:.0f} continued; "
        f"prompts of {lengths.prompt} tokens are read" + (f", deep is {lengths.deep} tokens." if lengths.deep else ".")
    )
    yield (
        "Time / present is that of a whole reply, predicted from the parts (of loading, for the load mode); within "
        f"noise, or below {LEAST_GAIN:.0%}, it is no difference. All ways took turns."
    )
    if found.left_out:
        yield "Not measured: " + "; ".join(f"{name} ({why})" for name, why in found.left_out.items()) + "."
    missing = [one for one in found.candidates if one.path is None]
    if missing:
        yield "No draft: " + "; ".join(f"{one.kind} ({one.why})" for one in missing) + "."
    yield from _openings(found)
    if found.predicted is not None:
        yield f"Predicted from the parts with all that is faster: {found.predicted:.2f} of the present time."
    yield recommendation(found)
    yield found.elsewhere.sentence()


def recommendation(found: Tuned) -> str:
    """What follows, in one sentence."""
    if not found.recommended:
        if not found.confirmed:
            return "recommendation: stay with the present settings; no other way is faster beyond noise"
        return "recommendation: stay with the present settings; whole replies confirm no other way beyond noise"
    taken = min((one for one in found.confirmed if one.ratio.verdict == "faster"), key=lambda one: one.ratio.value)
    return f"recommendation: {_settings(found)}: {_gain(taken)}"


def _gain(one: Confirmed) -> str:
    ratio = one.ratio
    return (
        f"whole replies took {ratio.value:.2f} of the present time ({ratio.low:.2f} to {ratio.high:.2f}, "
        f"{plural(ratio.count, 'reply')})"
    )


def _settings(found: Tuned) -> str:
    return ", ".join(
        f"the draft in {value}" if name == "draft" else f"{spelled(name)} {value}"
        for name, value in found.recommended.items()
    )


def _openings(found: Tuned) -> Iterator[str]:
    for kind, one in found.openings.items():
        where = "" if one.first is None else f", first at token {one.first + 1} (median)"
        judged = "" if one.acceptable else ": too many for it to be recommended"
        changed = f"{one.changed} of {one.compared} greedy openings"
        yield f"{kind} writes {changed} otherwise than the present draft{where}{judged}."
    if found.openings and found.source.is_quantised:
        yield (
            f"These drafts are made of {found.source.kind} weights: quantising again loses more than quantising the "
            "original once; take the original (wsd-local models quantize) where you have it."
        )


def _ratio(ratio: Median) -> tuple[str, str, str]:
    return f"{ratio.value:.3f}", f"{ratio.low:.3f} to {ratio.high:.3f}", str(ratio.count)


def _verdict(one: Finding) -> str:
    return one.ratio.verdict if one.replies else f"{one.ratio.verdict} to load"


def _milliseconds(one: Finding) -> str:
    return ", ".join(
        f"{_NAMES.get(name, name)} {seconds * 1000:.3g} ({one.usual[name] * 1000:.3g})"
        for name, seconds in one.costs.items()
        if name in one.usual
    )
