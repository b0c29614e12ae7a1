"""llama.cpp called as llama-bench calls it, beside our own contexts, step by step in turns.

Contract: the calls, the order of work and the context's parameters are llama-bench's, but for its thread pool. Both
work on the same weights in one process, so that what else the machine does meets both alike, and a difference of a
percent shows where two programs one after the other show only the machine. Nothing is chosen in the native loop; our
step chooses a token. Rates are tokens per second, those of writing by the median step.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llama_cpp
from bench.peers import PeerError

from wsd_local.llama import Context, Model, Question, Sampler
from wsd_local.sampling import Sampling


class NativeLoop:
    """A second context over a model, with llama-bench's defaults."""

    def __init__(self, model: Model, n_ctx: int, threads: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, 2048, 512
        params.n_threads = params.n_threads_batch = threads
        params.swa_full = False
        self._context: Any = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._context:
            raise PeerError(f"{model.path}: no second context of {n_ctx} tokens")

    def forget(self) -> None:
        """Back to no token."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)

    def evaluate(self, tokens: Sequence[int]) -> None:
        """All of them in one call."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(ctypes.cast(array, ctypes.POINTER(llama_cpp.llama_token)), len(tokens))
        if llama_cpp.llama_decode(self._context, batch):
            raise PeerError("llama_decode failed")
        llama_cpp.llama_synchronize(self._context)

    def close(self) -> None:
        """Free the KV cache."""
        llama_cpp.llama_free(self._context)


@contextmanager
def native_loop(model: Model, n_ctx: int, threads: int) -> Iterator[NativeLoop]:
    """Freed at the end."""
    loop = NativeLoop(model, n_ctx, threads)
    try:
        yield loop
    finally:
        loop.close()


def beside(
    context: Context, loop: NativeLoop, prompt: Sequence[int], steps: int, clock: Callable[[], float], *, turned: bool
) -> dict[str, float]:
    """A prompt read, and `steps` tokens written from an empty context; `turned`: the native loop goes first."""
    sampler = Sampler(Sampling(), context.model, ignore_eos=True)
    text, chosen = list(prompt), list[int]()
    order = [1, 0] if turned else [0, 1]

    def own() -> None:
        context.ask(Question(0, text, len(text) - 1, lambda _, row: chosen.append(context.sample(row, sampler))))

    def timed(work: Callable[[], None]) -> float:
        begun = clock()
        work()
        return clock() - begun

    def forget() -> None:
        context.forget(0)
        loop.forget()

    reading = (own, lambda: loop.evaluate(text))
    for _ in range(2):  # the first time touches memory that is new
        forget()
        read = {who: timed(reading[who]) for who in order}
    forget()
    text = [prompt[0] if context.model.bos is None else context.model.bos]
    writing = (own, lambda: loop.evaluate(text[-1:]))
    written: tuple[list[float], list[float]] = ([], [])
    for _ in range(steps):
        for who in order:
            written[who].append(timed(writing[who]))
        text.append(chosen[-1])
        order.reverse()
    return {
        "own_pp_rate": len(prompt) / read[0],
        "loop_pp_rate": len(prompt) / read[1],
        "own_tg_rate": 1 / statistics.median(written[0]),
        "loop_tg_rate": 1 / statistics.median(written[1]),
    }
