"""The win rate that is left when the length of replies is accounted for.

Contract: pure, numpy alone. As in AlpacaEval 2 the preferences are explained by a logistic regression, and the win rate
is what it predicts for replies of equal length:

    P(A better than B) = 1 / (1 + exp(-(θ + φ · tanh(d / s)))),    length-controlled win rate = 1 / (1 + exp(-θ))

where d is the length of A's reply minus that of B's, in characters, and s the root mean square of d over the
prompts. θ and φ maximise Σ y log P + (1 - y) log(1 - P) - RIDGE / 2 · (θ² + φ²); y is the judge's preference for A,
from 0 to 1. The small ridge term keeps them finite where one side always wins, or length alone decides. AlpacaEval's
third term, the difficulty of each instruction, is not there: it needs the verdicts of many models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

RIDGE = 0.01
_STEPS = 100
_CLOSE = 1e-10


def features(differences: Sequence[float] | Floats) -> Floats:
    """A row for each prompt: 1, and the squashed difference of lengths; that is 0 where no lengths differ."""
    found = np.asarray(differences, dtype=float)
    scale = float(np.sqrt(np.mean(found**2))) if len(found) else 0.0
    squashed = np.tanh(found / scale) if scale > 0 else np.zeros_like(found)
    return np.stack([np.ones_like(found), squashed], axis=1)


def fitted(rows: Floats, preferences: Floats) -> Floats:
    """θ and φ, by Newton's method with halved steps; the penalised likelihood is concave, so there is one maximum."""
    weights = np.zeros(rows.shape[1])
    value = _likelihood(rows, preferences, weights)
    for _ in range(_STEPS):
        predicted = sigmoid(rows @ weights)
        slope = rows.T @ (preferences - predicted) - RIDGE * weights
        curvature = (rows * (predicted * (1 - predicted))[:, None]).T @ rows + RIDGE * np.eye(len(weights))
        step = np.linalg.solve(curvature, slope)
        while (after := _likelihood(rows, preferences, weights + step)) < value - _CLOSE:
            step /= 2
        weights, value = weights + step, after
        if np.abs(step).max() < _CLOSE:
            break
    return np.asarray(weights)


def length_controlled(preferences: Sequence[float] | Floats, differences: Sequence[float] | Floats) -> float:
    """A's win rate, from 0 to 1, for replies of equal length."""
    return float(sigmoid(fitted(features(differences), np.asarray(preferences, dtype=float))[:1])[0])


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))


def _likelihood(rows: Floats, preferences: Floats, weights: Floats) -> float:
    scores = rows @ weights
    terms = preferences * np.logaddexp(0, -scores) + (1 - preferences) * np.logaddexp(0, scores)
    return float(-terms.sum() - RIDGE / 2 * (weights @ weights))
