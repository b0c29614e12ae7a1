"""Whole replies in turns: the present way against the one that the parts recommend.

Contract: each round is one prompt, answered by every way from empty caches; the one that begins rotates. All replies
have the same number of tokens. The ways share the weights in memory; each has contexts of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wsd_local.errors import CancelledError
from wsd_local.events import Source
from wsd_local.llama import Model
from wsd_local.prompts.messages import Message
from wsd_local.reports.bench import OVERRIDES
from wsd_local.reports.tune.deciding import Median, Shape, median_of
from wsd_local.reports.tune.rounds import Clock, Deadline
from wsd_local.runtime.loading import LoadedModels, forget
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.settings import LoadSettings, ReplySettings, changed

MOST_REPLIES = 15


@dataclass(frozen=True, slots=True)
class Way:
    """A way of making replies, by a name for people.

    `loading` and `reply` are settings that differ from the present ones, `draft` a draft model in place of the pair's.
    """

    name: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    reply: Mapping[str, Any] = field(default_factory=dict)
    draft: Model | None = None


def opened(pair: Pair, way: Way, ctx: int) -> Pair:
    """The pair in this way, over the same weights; to be closed.

    Raises:
        FitError: llama.cpp cannot make such contexts.
    """
    models = pair.models
    weights: dict[Source, Model] = {"draft": way.draft or models.model("draft"), "base": models.model("base")}
    cache = {} if models.plan is None else {"cache_type_k": models.plan.cache_type_k}
    cache |= {} if models.plan is None else {"cache_type_v": models.plan.cache_type_v}
    flash = models.context("base").flash_attn
    usual: dict[str, Any] = {"ctx": ctx, "flash_attn": flash, "parallel": 1, **cache}
    loading: LoadSettings = replace(models.loading, **{**usual, **way.loading})
    here = LoadedModels(weights["draft"].path, weights["base"].path, loading, base_format=models.base_format)
    here.lent = weights
    try:
        here.load()
    except BaseException:
        here.close()
        raise
    return Pair.over(here, reply=reply_settings(pair.settings, way))


def reply_settings(present: ReplySettings, way: Way) -> ReplySettings:
    """Settings of a reply of fixed length; proposals are as configured unless the way says otherwise."""
    fixed = {**OVERRIDES, "speculation": present.speculation}
    return changed(present, {**fixed, **way.reply})


def answered(
    pair: Pair, messages: Sequence[Message], tokens: int, clock: Clock = time.perf_counter
) -> tuple[float, Reply]:
    """Seconds that a reply of so many tokens takes, and the reply.

    Raises:
        CancelledError: the work was stopped.
    """
    forget(pair.models)
    begun = clock()
    reply = pair.reply(list(messages), max_tokens=tokens, whole=True)
    seconds = clock() - begun
    if reply.finish_reason == "cancelled":
        raise CancelledError("stopped")
    return seconds, reply


def shape_of(reply: Reply, chunk: int) -> Shape:
    """What a reply was made of."""
    counts = reply.counts
    return Shape(counts.drafted_tokens, counts.checked_tokens, reply.draft.tokens, reply.base.tokens, chunk)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A way against the present one, by whole replies."""

    way: Way
    ratio: Median
    seconds: float
    present_s: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        ratio = {"ratio": self.ratio.value, "low": self.ratio.low, "high": self.ratio.high}
        return {
            "way": self.way.name,
            "settings": {**self.way.loading, **self.way.reply},
            **ratio,
            "replies": self.ratio.count,
            "verdict": self.ratio.verdict,
            "seconds": self.seconds,
            "present_seconds": self.present_s,
        }


def confirm(
    ways: Sequence[Way],
    answer: Callable[[Way, int], float],
    deadline: Deadline,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Confirmed]:
    """Answer prompts in every way, in turns, until each way's verdict is clear or the time is over.

    Args:
        ways: the first is the present one.
        answer: seconds that a way takes for the prompt of a round.
        deadline: until when rounds may begin.
        progress: called with what is next.
    """
    rounds: list[dict[str, float]] = []
    last = 0.0
    for number in range(MOST_REPLIES):
        if number and (last > deadline.left or all(one.ratio.settled for one in _compared(ways, rounds))):
            break
        begun, first = deadline.clock(), number % len(ways)
        seconds: dict[str, float] = {}
        for way in [*ways[first:], *ways[:first]]:
            progress(f"whole replies, round {number + 1}: {way.name}")
            seconds[way.name] = answer(way, number)
        rounds.append(seconds)
        last = deadline.clock() - begun
    return _compared(ways, rounds)


def _compared(ways: Sequence[Way], rounds: Sequence[Mapping[str, float]]) -> list[Confirmed]:
    present = ways[0].name
    return [
        Confirmed(
            way,
            median_of([one[way.name] / one[present] for one in rounds]),
            median_of([one[way.name] for one in rounds]).value,
            median_of([one[present] for one in rounds]).value,
        )
        for way in ways[1:]
    ]


def chosen(found: Sequence[Confirmed]) -> Confirmed | None:
    """The way that whole replies confirm: the fastest of those that are faster beyond noise; None: stay."""
    faster = [one for one in found if one.ratio.verdict == "faster"]
    return min(faster, key=lambda one: one.ratio.value, default=None)
