"""How often a model finds the preferred reply of a pair more probable than the other one.

Contract: arithmetic over natural log-probabilities, but for `scores_of`, which has a model read both replies. A reply's
log-probability is the sum over its tokens and the end of its turn, after the conversation in the model's chat template:
what DPO (arXiv 2305.18290) compares. Intervals are the bootstrap's over the pairs, of differences of shares Tango's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsd_local.core.alignment import common_prefix
from wsd_local.llama.ranking import ended
from wsd_local.prompts.messages import Message
from wsd_local.reports.statistics import TIE, Estimate, McNemar, mcnemar, mean, rate, rate_difference
from wsd_local.runtime.loading import LoadedModels
from wsd_local.training.pairs import PreferencePair


@dataclass(frozen=True, slots=True)
class PairScores:
    """Log-probabilities of the two replies of a pair, in nats, and their numbers of tokens."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def margin(self) -> float:
        """By how much the preferred reply is the more probable one."""
        return self.chosen - self.rejected

    @property
    def per_token(self) -> float:
        """The same of the means over the tokens, so that length does not count."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


@dataclass(frozen=True, slots=True)
class Preference:
    """What one model prefers: shares of the pairs, ties as half of one, and the mean margin in nats."""

    model: str
    prefers: Estimate
    prefers_per_token: Estimate
    margin: Estimate


@dataclass(frozen=True, slots=True)
class Change:
    """A second model against a first one on the same pairs.

    `prefers` and `prefers_per_token` are differences of shares; `moved` is the share of the pairs whose margin grew
    with the second model, which is DPO's accuracy with the first one as the reference; `margin` is the mean difference.
    """

    prefers: Estimate
    prefers_per_token: Estimate
    moved: Estimate
    margin: Estimate
    test: McNemar


@dataclass(frozen=True, slots=True)
class PreferenceResults:
    """One model's figures, or those of two and the change between them."""

    models: Sequence[Preference]
    change: Change | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def scores_of(models: LoadedModels, pair: PreferencePair) -> PairScores:
    """What the draft of `models` gives the two replies of a pair.

    Raises:
        FitError: they do not fit into the context.
        CancelledError: the work was stopped.
    """
    write, context = models.draft_format.prompt, models.context("draft")
    before = write(pair.prompt).tokens
    wholes = [
        ended(models.model("draft"), write([*pair.prompt, Message(role="assistant", content=reply.strip())]).tokens)
        for reply in (pair.chosen, pair.rejected)
    ]
    start = min(common_prefix(before, whole) for whole in wholes)
    with models.queue.held():
        chosen, rejected = (math.fsum(context.logprobs(0, whole, start)) for whole in wholes)
    return PairScores(chosen, rejected, *(len(whole) - start for whole in wholes))


def preferences(names: Sequence[str], scores: Sequence[Sequence[PairScores]]) -> PreferenceResults:
    """The figures of one model, or of two on the same pairs in the same order.

    Args:
        names: the models' names.
        scores: those of each model, a pair each.

    Raises:
        ValueError: there is no pair, or the numbers of pairs differ.
    """
    models = [_preference(name, found) for name, found in zip(names, scores, strict=True)]
    return PreferenceResults(models, _change(*scores) if len(scores) == 2 else None)


def _preference(name: str, scores: Sequence[PairScores]) -> Preference:
    margins = [one.margin for one in scores]
    per_token = [one.per_token for one in scores]
    return Preference(name, rate(_wins(margins)), rate(_wins(per_token)), mean(margins))


def _change(first: Sequence[PairScores], second: Sequence[PairScores]) -> Change:
    moved = [b.margin - a.margin for a, b in zip(first, second, strict=True)]
    sides = [[one.margin for one in scores] for scores in (first, second)]
    rates = [[one.per_token for one in scores] for scores in (first, second)]
    return Change(
        rate_difference(*map(_wins, sides)),
        rate_difference(*map(_wins, rates)),
        rate(_wins(moved)),
        mean(moved),
        mcnemar(*([value > 0 for value in margins] for margins in sides)),
    )


def _wins(margins: Sequence[float]) -> list[float]:
    return [TIE if margin == 0 else float(margin > 0) for margin in margins]
