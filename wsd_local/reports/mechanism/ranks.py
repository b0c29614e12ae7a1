"""An aligned opening among openings that the base samples itself, ranked by a score: a likelihood, or a grade.

Contract: pure. The larger score is the better one, and rank 1 is the best; of equal scores each counts as a half.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from wsd_local.reports.statistics import Estimate, difference, mean, share, uncertain

Scored = tuple[float, Sequence[float]]
"""The score of one prompt's aligned opening, and those of the base's own."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranks of aligned openings over prompts.

    Args:
        prompts: those with an aligned opening and at least one of the base's own.
        openings: those that are ranked for a prompt, the aligned one among them, at most.
        ranks: a rank, rounded up where it is halved, and its number of prompts.
        rank: the mean rank.
        beats: the mean share of the base's own openings that the aligned one beats; 0.5 if they do not differ.
        best: the share of prompts whose aligned opening beats all others.
        worst: the share of prompts in which all others beat it.
        aligned: the mean score of aligned openings.
        own: the mean score of the base's own, first over a prompt's openings.
        difference: of the first to the second.
    """

    prompts: int
    openings: int
    ranks: tuple[tuple[int, int], ...]
    rank: Estimate
    beats: Estimate
    best: Estimate
    worst: Estimate
    aligned: Estimate
    own: Estimate
    difference: Estimate


def beaten(aligned: float, own: Sequence[float]) -> float:
    """Number of scores that `aligned` beats, equal ones as halves."""
    return sum(other < aligned for other in own) + sum(other == aligned for other in own) / 2


def rank(aligned: float, own: Sequence[float]) -> float:
    """The rank among `own`, from 1, which is best, to their number and one."""
    return 1 + len(own) - beaten(aligned, own)


def ranking(scored: Sequence[Scored]) -> Ranking | None:
    """The ranks of prompts that have openings of the base's own; None without any."""
    known = [(aligned, list(own)) for aligned, own in scored if own]
    if not known:
        return None
    ranks = [rank(aligned, own) for aligned, own in known]
    first, second = [aligned for aligned, _ in known], [math.fsum(own) / len(own) for _, own in known]
    return Ranking(
        prompts=len(known),
        openings=1 + max(len(own) for _, own in known),
        ranks=tuple(sorted(Counter(math.ceil(one) for one in ranks).items())),
        rank=mean(ranks),
        beats=uncertain(mean([beaten(aligned, own) / len(own) for aligned, own in known])),
        best=share([aligned > max(own) for aligned, own in known]),
        worst=share([aligned < min(own) for aligned, own in known]),
        aligned=mean(first),
        own=mean(second),
        difference=difference(second, first),
    )
