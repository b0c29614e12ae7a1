"""How the next token is chosen: llama.cpp's native samplers.

Contract: a `Sampler` is the native chain of a `Sampling` over one vocabulary. The same seed and the same logits
give the same tokens. With a matcher, only tokens that it allows are candidates, and it follows what is chosen.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import llama_cpp
import numpy as np
import numpy.typing as npt

from wsd_local.core.sampling import Sampling
from wsd_local.errors import WsdError
from wsd_local.llama.logits import logits_of
from wsd_local.llama.model import Model

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama.cpp's `llama_token_data`."""


class Matcher(Protocol):
    """The position of one text in the grammar of its constraint."""

    @property
    def over(self) -> bool:
        """Whether the text is complete and cannot go on."""
        ...

    @property
    def allowed(self) -> npt.NDArray[np.intp]:
        """The tokens that may come next, ascending.

        Raises:
            DeadEndError: there is none.
        """
        ...

    def feed(self, data: bytes) -> bool:
        """Whether the text may go on with `data`; if so it does, else nothing changes."""
        ...

    def accept(self, token: int) -> None:
        """The text goes on with `token`, which must be allowed."""
        ...

    def valid(self, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that may follow the text."""
        ...

    def forced(self) -> list[int]:
        """Tokens that the text must go on with."""
        ...


class Sampler:
    """A native sampler chain, freed with the object. A missing seed counts as 0.

    Args:
        sampling: the settings.
        model: whose vocabulary is sampled from.
        ignore_eos: never choose a token that ends the generation.
        matcher: the position of the text in the constraint that it must follow; None: no constraint.
    """

    def __init__(
        self, sampling: Sampling, model: Model, *, ignore_eos: bool = False, matcher: Matcher | None = None
    ) -> None:
        self.sampling = sampling
        self.ignore_eos = ignore_eos
        self._matcher = matcher
        self.begun = False
        self._n_vocab = model.n_vocab
        self._plain = sampling.temperature == 0 and not sampling.penalises
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        weakref.finalize(self, llama_cpp.llama_sampler_free, self._chain)
        forbidden = model.eog_tokens if ignore_eos else ()
        self._forbidden = frozenset(forbidden)
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

    def begin(self, prompt: Sequence[int], opening: Sequence[int] = (), text: bytes = b"") -> None:
        """Set what precedes the first token: penalties look back on all of it, a constraint on the opening's `text`.

        Only the first call counts.

        Raises:
            WsdError: the constraint does not allow the opening.
        """
        if self.begun:
            return
        self.begun = True
        if self.sampling.penalises:
            for token in [*prompt, *opening][-self.sampling.repeat_last_n :]:
                llama_cpp.llama_sampler_accept(self._chain, token)
        if self._matcher is not None and not self._matcher.feed(text):
            raise WsdError("the vocabulary of the model that continues cannot write what the draft wrote")

    def follow(self, tokens: Sequence[int], text: bytes) -> None:
        """Take in what another writer added to the text: `tokens` of this model, and the `text` that they stand for.

        Raises:
            WsdError: the constraint does not allow it.
        """
        if self.sampling.penalises:
            for token in tokens:
                llama_cpp.llama_sampler_accept(self._chain, token)
        if self._matcher is not None and not self._matcher.feed(text):
            raise WsdError("the vocabulary of the model that continues cannot write what the draft wrote")

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always chosen."""
        return self.sampling.temperature == 0

    @property
    def over(self) -> bool:
        """Whether the constraint lets nothing follow the text."""
        return self._matcher is not None and self._matcher.over

    def valid(self, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that the constraint allows next."""
        return len(tokens) if self._matcher is None else self._matcher.valid(tokens)

    def forced(self) -> list[int]:
        """Tokens that the constraint leaves no choice about."""
        return [] if self._matcher is None else self._matcher.forced()

    def sample(self, context: ctypes.c_void_p, row: int) -> int:
        """Choose a token from output `row` of the context's last evaluation.

        Raises:
            WsdError: the constraint allows none.
        """
        if self._matcher is not None:
            return self._matched(self._matcher, logits_of(context, row, self._n_vocab))
        # The native chain copies the whole row into candidates first, and is twenty times as slow.
        if self._plain and self.takes(token := int(logits_of(context, row, self._n_vocab).argmax())):
            return token
        return int(llama_cpp.llama_sampler_sample(self._chain, context, row))

    def takes(self, token: int) -> bool:
        """Whether this token would be chosen for sure, if it is the most probable one."""
        return self._plain and self._matcher is None and token not in self._forbidden

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """Choose a token from a copy of a row, as `sample` does from the row itself.

        Raises:
            WsdError: the constraint allows none.
        """
        if self._matcher is not None:
            return self._matched(self._matcher, logits)
        candidates = np.zeros(len(logits), dtype=CANDIDATE)
        candidates["id"], candidates["logit"] = np.arange(len(logits)), logits
        token = _apply(self._chain, candidates)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def _matched(self, matcher: Matcher, logits: npt.NDArray[np.float32]) -> int:
        allowed = matcher.allowed
        if self._plain:
            token = int(allowed[logits[allowed].argmax()])
        else:
            candidates = np.zeros(len(allowed), dtype=CANDIDATE)
            candidates["id"], candidates["logit"] = allowed, logits[allowed]
            token = _apply(self._chain, candidates)
            llama_cpp.llama_sampler_accept(self._chain, token)
        matcher.accept(token)
        return token


def _apply(native: Any, candidates: npt.NDArray[Any]) -> int:
    """The token that a native sampler selects from candidates, which it may reorder."""
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    array = llama_cpp.llama_token_data_array(data, len(candidates), -1, False)
    llama_cpp.llama_sampler_apply(native, ctypes.byref(array))
    if array.selected < 0:
        raise WsdError("llama.cpp's samplers chose no token")
    return int(array.data[array.selected].id)
