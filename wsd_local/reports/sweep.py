"""Threshold by window: what each setting of a grid would have done, derived from one recording.

Contract: pure, but for `checked`, which lets the pair answer. Figures have 95% intervals by the bootstrap over the
prompts; the same records give the same figures. Nothing is recommended: `recommending` does that.

The time is relative to that of the base alone writing as many tokens as the whole draft has, both by what tokens cost
in the recording and without the prompts: the sum over all prompts by that of the base alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from wsd_local.calibration import Costs, Derived, Record, Setting, derived
from wsd_local.core.rules import geometric_mean
from wsd_local.errors import UsageError
from wsd_local.prompts.messages import Message
from wsd_local.reports.statistics import Estimate, Floats, Resampled, estimates, uncertain
from wsd_local.runtime.loading import forget
from wsd_local.runtime.pair import Pair

THRESHOLDS = "0.3,0.5,0.6,0.7,0.8,0.9,0.95"
WINDOWS = "2,3,4,6,8,10,12"
"""The usual grid; the paper's setting, 0.8 and 6, is in it, and so is all that `calibrate` compares."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting over all records.

    Args:
        threshold: its threshold.
        window: its window.
        kept: mean tokens of the draft that are kept.
        kept_median: their median.
        without_switch: share of the replies in which the base never takes over.
        time: time relative to the base alone; None where costs are not known.
        seconds: mean estimated time of a reply.
        draft_logprob: the base's mean log-probability of the draft's tokens after the switch.
        own_logprob: that of its own tokens there.
        gap: the second minus the first, in nats per token.
        agreement: share of these draft tokens that are the base's own choice.

    The last four are means over the replies in which both log-probabilities are known, which their `count` says.
    """

    threshold: float
    window: int
    kept: Estimate
    kept_median: float
    without_switch: Estimate
    time: Estimate | None
    seconds: Estimate | None
    draft_logprob: Estimate | None
    own_logprob: Estimate | None
    gap: Estimate | None
    agreement: Estimate | None


@dataclass(frozen=True, slots=True)
class CheckedReply:
    """A real reply held against what was derived; `index` is null where no window passes.

    `differs` names the first thing that is not equal: the `draft`'s kept tokens, the `switch` point, or the base's
    `continuation`; None if all are. `near` is how near to the threshold the recorded confidence was where the first of
    two switch points is.
    """

    prompt: str
    threshold: float
    window: int
    derived_index: int | None
    index: int | None
    differs: Literal["draft", "switch", "continuation"] | None
    near: float | None


@dataclass(frozen=True, slots=True)
class SweepResults:
    """A grid of settings over `prompts` records, the costs that times rest on, and the replies that were checked."""

    prompts: int
    costs: Costs
    cells: tuple[Cell, ...]
    replies: tuple[CheckedReply, ...] = ()

    @property
    def different(self) -> list[CheckedReply]:
        """Replies that are decided otherwise than was derived."""
        return [one for one in self.replies if one.differs in ("draft", "switch")]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def grid_of(thresholds: str, windows: str) -> list[Setting]:
    """Every threshold with every window, both numbers by commas; rising.

    Raises:
        UsageError: there is none, one is no number, is outside its range, or stands twice.
    """
    above = _numbers("thresholds", thresholds, float, "0.5,0.8")
    lengths = _numbers("windows", windows, int, "3,6,12")
    return [Setting(threshold, window) for threshold in above for window in lengths]


def _numbers(name: str, given: str, kind: Callable[[str], Any], example: str) -> list[Any]:
    parts = [part.strip() for part in given.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{name}: there is no number in {given!r}; write some by commas, such as {example}")
    found = []
    for part in parts:
        try:
            value = kind(part)
            Setting(value if name == "thresholds" else 0.5, value if name == "windows" else 1)
        except ValueError:
            whole = "whole number" if kind is int else "number"
            raise UsageError(f"{name}: {part!r} is no {whole}; write some by commas, such as {example}") from None
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
        if value in found:
            raise UsageError(f"{name}: {part} is there twice; leave one out")
        found.append(value)
    return sorted(found)


def swept(records: Sequence[Record], settings: Sequence[Setting], *, check_chunk: int, compared: int) -> SweepResults:
    """The grid.

    Args:
        records: at least one.
        settings: those of the grid.
        check_chunk: as in `ReplySettings`.
        compared: tokens after a switch that are compared, at most.
    """
    costs, resampled = Costs.of(records), Resampled(len(records))
    outcomes = [
        [derived(record, setting, costs, check_chunk=check_chunk, compared=compared) for record in records]
        for setting in settings
    ]

    def table(value: Callable[[Derived], float | None]) -> Floats:
        rows = [[math.nan if (one := value(found)) is None else float(one) for found in row] for row in outcomes]
        return np.array(rows, dtype=np.float64).T

    def means(value: Callable[[Derived], float | None]) -> list[Estimate | None]:
        values = table(value)
        return estimates(resampled.means(values), values)

    alone = [costs.seconds(0, 0, len(record.logprobs)) for record in records]
    divisors = np.array([[math.nan if one is None else one] * len(settings) for one in alone], dtype=np.float64)
    seconds = table(lambda one: one.seconds)
    figures = {
        "kept": means(lambda one: one.kept),
        "without_switch": means(lambda one: one.index is None),
        "time": estimates(resampled.ratios(seconds, divisors), seconds),
        "seconds": estimates(resampled.means(seconds), seconds),
        "draft_logprob": means(lambda one: None if one.gap is None else one.draft_logprob),
        "own_logprob": means(lambda one: None if one.gap is None else one.own_logprob),
        "gap": means(lambda one: one.gap),
        "agreement": means(lambda one: None if one.gap is None else one.agreement),
    }
    cells = [
        _cell(setting, outcomes[number], {name: found[number] for name, found in figures.items()})
        for number, setting in enumerate(settings)
    ]
    return SweepResults(len(records), costs, tuple(cells))


def _cell(setting: Setting, outcomes: Sequence[Derived], figures: dict[str, Any]) -> Cell:
    figures["without_switch"] = uncertain(figures["without_switch"])
    median = statistics.median(one.kept for one in outcomes)
    return Cell(threshold=setting.threshold, window=setting.window, kept_median=median, **figures)


def chosen(count: int, prompts: int, cells: int) -> list[tuple[int, int]]:
    """Which replies to check: places of prompts and of cells, drawn without repetition, always the same ones.

    Raises:
        UsageError: there are not so many.
    """
    if not 0 <= count <= prompts * cells:
        raise UsageError(f"replies is {count}: {prompts} prompts by {cells} settings are {prompts * cells} replies")
    drawn = np.random.default_rng(0).permutation(prompts * cells)[:count]
    return [(int(one) // cells, int(one) % cells) for one in drawn]


def checked(
    pair: Pair, record: Record, messages: Sequence[Message], setting: Setting, *, compared: int
) -> CheckedReply:
    """Let the pair answer from empty caches, and compare: kept tokens, switch point, and how the base goes on.

    Args:
        pair: the one that was recorded, with the same settings.
        record: the prompt's.
        messages: its conversation.
        setting: threshold and window of the reply.
        compared: tokens after the switch.

    Raises:
        CancelledError: the pair was cancelled.
        WsdError: the reply cannot be made.
    """
    forget(pair.models)
    wanted = derived(record, setting, Costs(), check_chunk=pair.settings.check_chunk, compared=compared)
    found = pair.reply(
        list(messages),
        whole=True,
        threshold=setting.threshold,
        window=setting.window,
        max_tokens=max(1, wanted.kept + compared),
    )
    kept = tuple(token.id for token in found.tokens if token.source == "draft")
    written = tuple(token.id for token in found.tokens if token.source == "base")
    own = next((one.tokens for one in record.continuations if one.start == wanted.kept), ())
    differs: Literal["draft", "switch", "continuation"] | None = None
    if kept != record.tokens[: len(kept)]:
        differs = "draft"
    elif found.switch.index != wanted.index or (wanted.index is not None and len(kept) != wanted.kept):
        differs = "switch"
    elif any(one != other for one, other in zip(written, own, strict=False)):
        differs = "continuation"
    near = _near(record, setting, (wanted.index, found.switch.index)) if differs == "switch" else None
    return CheckedReply(record.id, setting.threshold, setting.window, wanted.index, found.switch.index, differs, near)


def _near(record: Record, setting: Setting, places: Sequence[int | None]) -> float | None:
    """The distance of the recorded confidence from the threshold at the first of the places; None without a window."""
    end = min((place + 1 for place in places if place is not None), default=0)
    if not setting.window <= end <= len(record.logprobs):
        return None
    return abs(geometric_mean(record.logprobs[end - setting.window : end]) - setting.threshold)
