"""What follows from rows of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.llama.logits import best_of, log_softmax_at


@given(size=st.sampled_from([1, 5, 64, 65, 700, 5000]), count=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_the_best_tokens_are_those_of_the_whole_row(size: int, count: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, size).astype(np.float32)
    logits[1 :: max(2, size // 7)] = -np.inf
    found = best_of(logits, count)
    order = sorted(range(size), key=lambda token: (-logits[token], token))[:count]
    assert [logits[token] for token, _ in found] == [logits[token] for token in order]
    assert len({token for token, _ in found}) == min(count, size)
    for token, logprob in found:
        assert logprob == pytest.approx(log_softmax_at(logits, token), abs=1e-6)
