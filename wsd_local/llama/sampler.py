"""How the next token is chosen: llama.cpp's native samplers.

Contract: a `Sampler` is the native chain of a `Sampling` over one vocabulary. The same seed and the same logits
give the same tokens.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any

import llama_cpp

from wsd_local.sampling import Sampling


class Sampler:
    """A native sampler chain, freed with the object. A missing seed counts as 0.

    Args:
        sampling: the settings.
        n_vocab: size of the vocabulary.
        forbidden: tokens that are never chosen.
    """

    def __init__(self, sampling: Sampling, n_vocab: int, forbidden: Sequence[int] = ()) -> None:
        self.chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        weakref.finalize(self, llama_cpp.llama_sampler_free, self.chain)
        if forbidden:
            bias = (llama_cpp.llama_logit_bias * len(forbidden))(*[(token, float("-inf")) for token in forbidden])
            self._add(llama_cpp.llama_sampler_init_logit_bias(n_vocab, len(forbidden), bias))
        if sampling.temperature == 0:
            self._add(llama_cpp.llama_sampler_init_greedy())
            return
        self._add(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
        self._add(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
        self._add(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(llama_cpp.llama_sampler_init_temp(sampling.temperature))
        self._add(llama_cpp.llama_sampler_init_dist(sampling.seed or 0))

    def _add(self, sampler: Any) -> None:
        llama_cpp.llama_sampler_chain_add(self.chain, sampler)

    def sample(self, context: ctypes.c_void_p, row: int) -> int:
        """Choose a token from output `row` of the context's last evaluation."""
        return int(llama_cpp.llama_sampler_sample(self.chain, context, row))
