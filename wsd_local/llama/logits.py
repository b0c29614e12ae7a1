"""Rows of logits, and what follows from them at temperature 1.

Contract: a row is llama.cpp's own memory and lives until the next evaluation; nothing here changes or copies it for
later.
"""

from __future__ import annotations

import ctypes

import llama_cpp
import numpy as np
import numpy.typing as npt

_BLOCK = 64


def logits_of(context: ctypes.c_void_p | None, row: int, n_vocab: int) -> npt.NDArray[np.float32]:
    """A row of the context's last evaluation, `n_vocab` logits in llama.cpp's own memory."""
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, row), shape=(n_vocab,))


def log_softmax_at(logits: npt.NDArray[np.float32], token: int) -> float:
    """Natural log of the softmax of `logits` (float32) at `token`."""
    top = logits.max()
    return float(logits[token] - top - np.log(np.exp(logits - top).sum(dtype=np.float64)))


def distribution_of(logits: npt.NDArray[np.float32]) -> tuple[float, float]:
    """The largest probability of the softmax of `logits`, and its entropy in nats; computed in float64."""
    shifted = logits.astype(np.float64) - float(logits.max())
    weights = np.exp(shifted)
    total = weights.sum()
    shifted[weights == 0] = 0  # the limit of p log p; -inf times 0 is not a number
    return float(1 / total), float(np.log(total) - weights.dot(shifted) / total)


def probabilities_of(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The softmax of `logits`, computed in float64."""
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    probabilities: npt.NDArray[np.float64] = weights / weights.sum()
    return probabilities


def best_of(logits: npt.NDArray[np.float32], count: int) -> tuple[tuple[int, float], ...]:
    """The `count` tokens of the largest logits, best first, and the natural logs of their softmax."""
    count = min(count, len(logits))
    even = len(logits) - len(logits) % _BLOCK
    maxima = logits[:even].reshape(-1, _BLOCK).max(axis=1)
    if len(maxima) > count:  # the best tokens are in the blocks with the best maxima: far fewer to compare
        blocks = np.argpartition(maxima, len(maxima) - count)[len(maxima) - count :]
        found = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        found = np.concatenate([found, np.arange(even, len(logits))])
    else:
        found = np.arange(len(logits))
    best = found[np.lexsort((found, -logits[found]))][:count]
    top = logits.max()
    total = np.log(np.exp(logits - top).sum(dtype=np.float64))
    return tuple((int(token), float(logits[token] - top - total)) for token in best)
