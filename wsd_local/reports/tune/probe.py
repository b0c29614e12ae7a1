"""One model in a context of its own, to measure what its evaluations take.

Contract: a probe's context is small, has one sequence, and differs from the loaded pair's in what was asked for alone.
A prompt is always evaluated anew. Seconds come from the clock that is given. Whoever makes a probe closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from wsd_local.core.sampling import Sampling
from wsd_local.llama import Cancellation, Context, ContextOptions, Model, Sampler, Sequences
from wsd_local.reports.bench import cycled, next_token

STEPS = 8
"""Tokens that are written to measure one."""
CHECKED = 16
"""Tokens that are checked to measure one, or one chunk if that is more."""


class Probe:
    """A context over `model`.

    Args:
        model: loaded; it stays open.
        options: those of the context.
        cancellation: stops an evaluation.
        prompt: tokens that are read.
        clock: seconds.

    Raises:
        FitError: llama.cpp cannot make such a context.
    """

    def __init__(
        self,
        model: Model,
        options: ContextOptions,
        cancellation: Cancellation,
        prompt: Sequence[int],
        clock: Callable[[], float],
    ) -> None:
        self.context = Context(model, options, cancellation)
        self.prompt = list(prompt)
        self._clock = clock
        self._sampler = Sampler(Sampling(), model, ignore_eos=True)

    def close(self) -> None:
        """Free the context."""
        self.context.close()

    def read(self) -> float:
        """Seconds to read the prompt and choose a token."""
        self.context.forget(0)
        begun = self._clock()
        next_token(self.context, self.prompt, self._sampler)
        return self._clock() - begun

    def token(self, depth: int | None = None) -> float:
        """Seconds to write a token after `depth` tokens; None: after the prompt."""
        tokens = cycled(self.prompt, depth or len(self.prompt))
        tokens.append(next_token(self.context, tokens, self._sampler))
        begun = self._clock()
        for _ in range(STEPS):
            tokens.append(next_token(self.context, tokens, self._sampler))
        return (self._clock() - begun) / STEPS

    def check(self, chunk: int) -> float:
        """Seconds for a token of a chunk that is checked after the prompt."""
        start, count = len(self.prompt), max(1, CHECKED // chunk)
        tokens = cycled(self.prompt, start + 1 + chunk * count)
        next_token(self.context, tokens[: start + 1], self._sampler)
        begun = self._clock()
        for at in range(start + 1, len(tokens), chunk):
            self.context.logprobs(0, tokens[: at + chunk], at)
        return (self._clock() - begun) / (chunk * count)

    def opening(self, prompt: Sequence[int], length: int) -> list[int]:
        """The greedy tokens after another prompt, up to the end of the text."""
        sampler = Sampler(Sampling(), self.context.model)
        self.context.forget(0)
        tokens = list(prompt)
        while len(tokens) < len(prompt) + length:
            token = next_token(self.context, tokens, sampler)
            tokens.append(token)
            if self.context.model.is_eog(token):
                break
        return tokens[len(prompt) :]


def options_of(context: Sequences, size: int, **changes: Any) -> ContextOptions:
    """The options of a loaded context for a probe of `size` tokens, with `changes`."""
    same = replace(context.options, n_ctx=size, n_seq=1, cells=None, flash_attn=context.flash_attn)
    return replace(same, **changes)
