"""How long whole replies take in several ways, and how that compares with the base alone.

Contract: pure. A `Round` is one prompt answered once in every way, one after the other, so that load of the machine
hits all of them. Of several rounds of a prompt the median counts. Figures have 95% intervals by the bootstrap over the
prompts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsd_local.reports.contention import QUIET, Elsewhere
from wsd_local.reports.statistics import Estimate, bootstrap, median

BASE = "base"
"""The way that others are compared with."""


@dataclass(frozen=True, slots=True)
class TimedReply:
    """One reply.

    Args:
        text: the reply.
        seconds: from its messages to its end.
        first_text_s: until its first text; None without any.
        tokens: its tokens, in the vocabulary of the model that continues.
        kept: tokens of the draft in it.
        draft_evaluated: tokens that the draft evaluated, its prompt's among them.
        base_evaluated: the same for the base.
        finish_reason: why it ended.
    """

    text: str
    seconds: float
    first_text_s: float | None
    tokens: int
    kept: int
    draft_evaluated: int
    base_evaluated: int
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Round:
    """A prompt, by its place, answered once in every way; `order` is the order in which they took turns."""

    index: int
    order: tuple[str, ...]
    replies: Mapping[str, TimedReply]
    elsewhere: Elsewhere

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the place."""
        values = asdict(self)
        del values["index"]
        return values

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Round:
        """From JSON.

        Raises:
            KeyError, TypeError: a value is missing, or of the wrong kind.
        """
        replies = {name: TimedReply(**reply) for name, reply in values["replies"].items()}
        if any(not isinstance(reply.seconds, int | float) or reply.seconds <= 0 for reply in replies.values()):
            raise TypeError("a reply has no time")
        return cls(values["index"], tuple(values["order"]), replies, Elsewhere(**values["elsewhere"]))


@dataclass(frozen=True, slots=True)
class Way:
    """One way of answering.

    Args:
        name: of its column.
        first_text_s: median seconds until the first text.
        seconds: median seconds of a whole reply.
        token_s: median seconds of a reply by its number of tokens.
        ratio: median, over prompts, of the seconds by those of the base alone.
        sum_ratio: the seconds of all prompts together, by those of the base alone.
        token_ratio: as `ratio`, of the seconds per token.
        tokens: mean tokens of a reply.
        kept: mean tokens of the draft in it.
        cut: share of the replies that ended at their greatest length.
        draft_evaluated: mean tokens that the draft evaluated, its prompt's among them.
        base_evaluated: the same for the base.

    What needs text or tokens leaves out prompts whose reply has none, and is None where every reply has none.
    """

    name: str
    first_text_s: Estimate | None
    seconds: Estimate
    token_s: Estimate | None
    ratio: Estimate
    sum_ratio: Estimate
    token_ratio: Estimate | None
    tokens: float
    kept: float
    cut: float
    draft_evaluated: float
    base_evaluated: float


@dataclass(frozen=True, slots=True)
class TimeResults:
    """All ways over `prompts` prompts.

    `elsewhere` is what else took the processors, by the time of the rounds; of the `rounds`, `busy` had too much of it
    for their figures to be relied on.
    """

    prompts: int
    rounds: int
    busy: int
    elsewhere: Elsewhere
    ways: tuple[Way, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """Whether the machine was busy, for a note."""
        said = [self.elsewhere.sentence()]
        if self.busy:
            said.append(
                f"In {self.busy} of {self.rounds} rounds the machine was busy with other work (above {QUIET:.0%})."
            )
        return said


def timed(rounds: Sequence[Round], names: Sequence[str]) -> TimeResults:
    """The figures of each way.

    Args:
        rounds: at least one; each holds every name.
        names: of the ways, the base alone among them.
    """
    prompts: dict[int, list[Round]] = {}
    for one in rounds:
        prompts.setdefault(one.index, []).append(one)
    by_prompt = list(prompts.values())
    spent = [sum(reply.seconds for reply in one.replies.values()) for one in rounds]
    programs, host = (
        sum(part * seconds for part, seconds in zip(parts, spent, strict=True)) / sum(spent)
        for parts in ([one.elsewhere.programs for one in rounds], [one.elsewhere.host for one in rounds])
    )
    busy = sum(one.elsewhere.share > QUIET for one in rounds)
    ways = tuple(_way(name, by_prompt) for name in names)
    return TimeResults(len(by_prompt), len(rounds), busy, Elsewhere(programs, host), ways)


def _way(name: str, prompts: Sequence[Sequence[Round]]) -> Way:
    replies = [one.replies[name] for rounds in prompts for one in rounds]
    own, base = _per_prompt(prompts, name, _seconds), _per_prompt(prompts, BASE, _seconds)
    both = np.array([own, base], dtype=np.float64)
    return Way(
        name=name,
        first_text_s=_median(_per_prompt(prompts, name, lambda reply: reply.first_text_s)),
        seconds=median([one for one in own if one is not None]),
        token_s=_median(_per_prompt(prompts, name, _token_seconds)),
        ratio=median(_ratios(prompts, name, _seconds)),
        sum_ratio=bootstrap(len(prompts), lambda places: float(both[0, places].sum() / both[1, places].sum())),
        token_ratio=_median(_ratios(prompts, name, _token_seconds)),
        tokens=statistics.fmean(reply.tokens for reply in replies),
        kept=statistics.fmean(reply.kept for reply in replies),
        cut=statistics.fmean(reply.finish_reason == "length" for reply in replies),
        draft_evaluated=statistics.fmean(reply.draft_evaluated for reply in replies),
        base_evaluated=statistics.fmean(reply.base_evaluated for reply in replies),
    )


def _seconds(reply: TimedReply) -> float:
    return reply.seconds


def _token_seconds(reply: TimedReply) -> float | None:
    return reply.seconds / reply.tokens if reply.tokens else None


def _per_prompt(
    prompts: Sequence[Sequence[Round]], name: str, value: Callable[[TimedReply], float | None]
) -> list[float | None]:
    """For each prompt the median of its rounds; None where no round has the value."""
    found: list[float | None] = []
    for rounds in prompts:
        known = [one for one in (value(each.replies[name]) for each in rounds) if one is not None]
        found.append(statistics.median(known) if known else None)
    return found


def _ratios(prompts: Sequence[Sequence[Round]], name: str, value: Callable[[TimedReply], float | None]) -> list[float]:
    """For each prompt the median, over its rounds, of the value by that of the base in the same round."""
    found = []
    for rounds in prompts:
        pairs = ((value(one.replies[name]), value(one.replies[BASE])) for one in rounds)
        known = [own / base for own, base in pairs if own is not None and base]
        if known:
            found.append(statistics.median(known))
    return found


def _median(values: Sequence[float | None]) -> Estimate | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
