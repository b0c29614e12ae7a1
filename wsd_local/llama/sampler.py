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
import numpy as np
import numpy.typing as npt

from wsd_local.errors import WsdError
from wsd_local.llama.grammar import CANDIDATE, Grammar, apply
from wsd_local.llama.model import Model
from wsd_local.sampling import Sampling


class Sampler:
    """A native sampler chain, freed with the object. A missing seed counts as 0.

    Args:
        sampling: the settings.
        model: whose vocabulary is sampled from.
        ignore_eos: never choose a token that ends the generation.
        grammar: what the text must follow.
    """

    def __init__(
        self, sampling: Sampling, model: Model, *, ignore_eos: bool = False, grammar: Grammar | None = None
    ) -> None:
        self._sampling = sampling
        self._grammar = grammar
        self.begun = False
        self._n_vocab = model.n_vocab
        self._plain = sampling.temperature == 0 and not sampling.penalises and grammar is None
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        weakref.finalize(self, llama_cpp.llama_sampler_free, self._chain)
        forbidden = model.eog_tokens if ignore_eos else ()
        self._forbidden = frozenset(forbidden)
        if grammar is not None:  # to a grammar their spelling is text, which they do not stand for
            forbidden += model.control_tokens
        if forbidden:
            bias = (llama_cpp.llama_logit_bias * len(forbidden))(*[(token, float("-inf")) for token in forbidden])
            self._add(llama_cpp.llama_sampler_init_logit_bias(self._n_vocab, len(forbidden), bias))
        if sampling.penalises:
            self._add(
                llama_cpp.llama_sampler_init_penalties(
                    self._n_vocab,
                    sampling.repeat_last_n,
                    sampling.repeat_penalty,
                    sampling.frequency_penalty,
                    sampling.presence_penalty,
                )
            )
        if sampling.temperature == 0:
            self._add(llama_cpp.llama_sampler_init_greedy())
            return
        self._add(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
        self._add(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
        self._add(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(llama_cpp.llama_sampler_init_temp(sampling.temperature))
        self._add(llama_cpp.llama_sampler_init_dist(sampling.seed or 0))

    def _add(self, sampler: Any) -> None:
        llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def begin(self, prompt: Sequence[int], opening: Sequence[int] = ()) -> bool:
        """What stands before the first token: penalties look at all of it, the grammar at the opening.

        Returns False if the opening is not the beginning of a text that the grammar allows: then the grammar begins
        behind it. Only the first call counts.
        """
        if self.begun:
            return True
        self.begun = True
        if self._sampling.penalises:
            for token in [*prompt, *opening][-self._sampling.repeat_last_n :]:
                llama_cpp.llama_sampler_accept(self._chain, token)
        return self._grammar is None or self._grammar.begins_with(opening)

    def sample(self, context: ctypes.c_void_p, row: int) -> int:
        """Choose a token from output `row` of the context's last evaluation."""
        if self._plain:  # the native chain first copies the whole row into candidates, twenty times as slow
            token = int(logits_of(context, row, self._n_vocab).argmax())
            if token not in self._forbidden:
                return token
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, context, row))
        token = apply(self._chain, self._candidates(context, row))
        if not self._grammar.allows(token):  # asking about every token costs more: only where it must be
            candidates = self._candidates(context, row)
            self._grammar.restrict(candidates)
            allowed = bool(np.isfinite(candidates["logit"]).any())
            token = apply(self._chain, candidates) if allowed else -1
            if not allowed or not self._grammar.allows(token):
                raise WsdError("the grammar allows nothing that the model's vocabulary can write here")
        llama_cpp.llama_sampler_accept(self._chain, token)
        self._grammar.accept(token)
        return token

    def _candidates(self, context: ctypes.c_void_p, row: int) -> Any:
        candidates = np.zeros(self._n_vocab, dtype=CANDIDATE)
        candidates["id"] = np.arange(self._n_vocab)
        candidates["logit"] = logits_of(context, row, self._n_vocab)
        return candidates


def logits_of(context: ctypes.c_void_p | None, row: int, n_vocab: int) -> npt.NDArray[np.float32]:
    """A row of the context's last evaluation, `n_vocab` logits in llama.cpp's own memory."""
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, row), shape=(n_vocab,))
