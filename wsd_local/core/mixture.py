"""The mixture of two distributions over one vocabulary, and how a token is drawn from it.

Contract: pure; rows are arrays of probabilities of the same length, and none is changed. `p` is the base's, `q` the
draft's. A token is deferred to the draft where its probability `p` is too small by the rule; the mixture is
`m = (1 - d) p + q Σ d p` (KAD, arXiv 2510.27017).

What is drawn depends on the seed and on the place in the reply, not on how many tokens were proposed in vain: each
place has random numbers of its own. A proposal is drawn from `q`, stands with probability `min(1, m / q)`, and is else
replaced by a token drawn from `max(0, m - q)`: so the result is distributed as `m` (speculative sampling, arXiv
2211.17192). The temperature and its companions reshape `m`, and `q` for the proposals.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsd_local.core.rules_veto import Veto
from wsd_local.core.sampling import Sampling

Row = npt.NDArray[np.float64]


def distances(rule: Veto, p: Row, q: Row) -> Row:
    """How far each token's probability is below what the draft claims."""
    far: Row = (float(q.max()) if rule.needs_claims else 1.0) - p
    return far


def mixture(rule: Veto, p: Row, q: Row) -> Row:
    """The distribution of the next token."""
    deferred = distances(rule, p, q) > rule.threshold
    mixed: Row = np.where(deferred, 0.0, p) + q * p[deferred].sum()
    return mixed


def reshaped(row: Row, sampling: Sampling) -> Row:
    """The distribution that sampling settings make of a row; with temperature 0 all is at its largest value."""
    if sampling.temperature == 0:
        greedy = np.zeros_like(row)
        greedy[row.argmax()] = 1.0
        return greedy
    kept = np.ones(len(row), dtype=bool)
    if 0 < sampling.top_k < len(row):
        kept &= _leading(row, sampling.top_k)
    if sampling.top_p < 1:
        inside = np.where(kept, row, 0.0)
        largest_first = np.argsort(-inside, kind="stable")
        before = np.cumsum(inside[largest_first]) - inside[largest_first]
        kept &= _leading(row, max(1, int((before < sampling.top_p * inside.sum()).sum())))
    kept &= row >= sampling.min_p * row.max()
    with np.errstate(divide="ignore"):
        logs = np.where(kept, np.log(row), -np.inf)
    powers: Row = np.exp((logs - logs.max()) / sampling.temperature)
    powers /= powers.sum()
    return powers


def _leading(row: Row, count: int) -> npt.NDArray[np.bool_]:
    """Where the `count` largest values are; of equal ones the first."""
    marks = np.zeros(len(row), dtype=bool)
    marks[np.argsort(-row, kind="stable")[:count]] = True
    return marks


def best(row: Row, count: int) -> tuple[tuple[int, float], ...]:
    """The `count` most probable tokens, best first, and the natural logs of their probabilities."""
    if not count:
        return ()
    found = np.argsort(-row, kind="stable")[:count]
    return tuple((int(token), float(np.log(max(row[token], np.finfo(float).tiny)))) for token in found)


@dataclass(frozen=True, slots=True)
class Draws:
    """Choices in one place of a reply, by random numbers of that place."""

    sampling: Sampling
    place: int

    def propose(self, q: Row) -> int:
        """The draft's token."""
        if self.sampling.temperature == 0:
            return int(q.argmax())
        return _drawn(reshaped(q, self.sampling), self._numbers()[0])

    def choose(self, m: Row, q: Row, proposed: int) -> int:
        """The token of the mixture: the proposed one if it stands, or another."""
        if self.sampling.temperature == 0:
            return int(m.argmax())
        wanted, offered = reshaped(m, self.sampling), reshaped(q, self.sampling)
        _, chance, number = self._numbers()
        if chance * offered[proposed] < wanted[proposed]:
            return proposed
        left = np.maximum(0.0, wanted - offered)
        return _drawn(left / left.sum(), number) if left.any() else proposed

    def _numbers(self) -> tuple[float, float, float]:
        """Three numbers from 0 up to 1."""
        source = random.Random(f"{self.sampling.seed or 0} {self.place}")
        return source.random(), source.random(), source.random()


def _drawn(row: Row, number: float) -> int:
    """The token in whose share of the distribution a number falls."""
    sums = np.cumsum(row)
    return int(np.searchsorted(sums, number * sums[-1], side="right"))
