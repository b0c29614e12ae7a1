"""llama.cpp called as llama-bench calls it, beside our own contexts, step by step in turns.

Contract: the calls, the order of work and the context's parameters are llama-bench's, but for its thread pool and
attention, which is that of our context. Both work on the same weights in one process, so that what else the machine
does meets both alike, and a difference of a percent shows where two programs one after the other show only the
machine. Nothing is chosen in the native loop; our step chooses a token. Rates are tokens per second by the median.
"""

from __future__ import annotations

import ctypes
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import llama_cpp
from bench.peers import PeerError

from wsd_local.core.contexts import Question
from wsd_local.core.resources import FlashAttention
from wsd_local.core.sampling import Sampling
from wsd_local.events import Source
from wsd_local.llama import Model, Sampler, Sequences
from wsd_local.llama.options import FLASH_ATTENTION
from wsd_local.reports.bench import Bench, next_token
from wsd_local.runtime.loading import roles_of
from wsd_local.runtime.pair import Pair

READS = 5
"""How often a prompt is read by both in turns."""


class NativeLoop:
    """A second context over a model, with llama-bench's defaults but for attention, which is that of ours."""

    def __init__(self, model: Model, n_ctx: int, threads: int, flash_attn: FlashAttention) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, 2048, 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = FLASH_ATTENTION[flash_attn]
        params.swa_full = False
        self._context: Any = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._context:
            raise PeerError(f"{model.path}: no second context of {n_ctx} tokens")

    def forget(self) -> None:
        """Back to no token."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)

    def evaluate(self, tokens: Sequence[int], rows: int = 1) -> None:
        """All of them in one call, with logits after the last `rows`."""
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(ctypes.cast(array, ctypes.POINTER(llama_cpp.llama_token)), len(tokens))
        if rows != 1:
            batch.logits = (ctypes.c_int8 * len(tokens))(*[0] * (len(tokens) - rows), *[1] * rows)
        if llama_cpp.llama_decode(self._context, batch):
            raise PeerError("llama_decode failed")
        llama_cpp.llama_synchronize(self._context)

    def follow(self, tokens: Sequence[int], count: int, rows: int) -> None:
        """Hold `tokens`, of which the last `count` are evaluated; what stood in their place is forgotten."""
        memory, start = llama_cpp.llama_get_memory(self._context), len(tokens) - count
        llama_cpp.llama_memory_seq_rm(memory, 0, start, -1)
        self.evaluate(tokens[start:], rows)

    def close(self) -> None:
        """Free the KV cache."""
        llama_cpp.llama_free(self._context)


@contextmanager
def native_loop(context: Sequences, n_ctx: int, threads: int) -> Iterator[NativeLoop]:
    """Beside one of our contexts; freed at the end."""
    loop = NativeLoop(context.model, n_ctx, threads, context.flash_attn)
    try:
        yield loop
    finally:
        loop.close()


def beside(
    context: Sequences, loop: NativeLoop, prompt: Sequence[int], steps: int, clock: Callable[[], float], *, turned: bool
) -> dict[str, float]:
    """A prompt read some times, and `steps` tokens written from an empty context; `turned`: the native loop first."""
    sampler = Sampler(Sampling(), context.model, ignore_eos=True)
    text, chosen = list(prompt), list[int]()
    order = [1, 0] if turned else [0, 1]

    def own() -> None:
        chosen.append(next_token(context, text, sampler))

    def timed(work: Callable[[], None]) -> float:
        begun = clock()
        work()
        return clock() - begun

    def forget() -> None:
        context.forget(0)
        loop.forget()

    reading = (own, lambda: loop.evaluate(text))
    read: tuple[list[float], list[float]] = ([], [])
    for _ in range(READS + 1):
        forget()
        for who in order:
            read[who].append(timed(reading[who]))
        order.reverse()
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
        "own_pp_rate": len(prompt) / statistics.median(read[0][1:]),  # the first time touches memory that is new
        "loop_pp_rate": len(prompt) / statistics.median(read[1][1:]),
        "own_tg_rate": 1 / statistics.median(written[0]),
        "loop_tg_rate": 1 / statistics.median(written[1]),
    }


class Lockstep:
    """A whole reply, and beside each of its evaluations the same one by llama.cpp's calls alone.

    Its `clock` stands still while those work, so that the reply takes its own time.
    """

    def __init__(self, pair: Pair, loops: Mapping[Source, NativeLoop], clock: Callable[[], float]) -> None:
        self._pair, self._loops, self._clock = pair, loops, clock
        self.native: dict[str, float] = {}

    def clock(self) -> float:
        """Seconds, but for those of the native loops."""
        return self._clock() - sum(self.native.values())

    @contextmanager
    def following(self) -> Iterator[None]:
        """Whatever the pair evaluates meanwhile is evaluated natively too."""
        steps = {role: self._pair.models.context(role).step for role in self._loops}
        for role, step in steps.items():
            self._pair.models.context(role).step = partial(self._both, role, step)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for role in steps:
                del self._pair.models.context(role).step

    def _both(self, role: Source, step: Callable[[Sequence[Question]], None], questions: Sequence[Question]) -> None:
        context, (question,) = self._pair.models.context(role), questions
        before, row = context.evaluated, question.row
        step(questions)
        count, held = context.evaluated - before, context.held(0)
        if count:
            begun = self._clock()
            self._loops[role].follow(held, count, max(0, min(count, len(held) - row)))
            kind = f"{role}_{'tokens' if count == 1 else 'batches'}"
            self.native[kind] = self.native.get(kind, 0.0) + self._clock() - begun


def in_lockstep(
    pair: Pair, clock: Callable[[], float], threads: int, *, prompt: int, tokens: int, drafted: int | None
) -> dict[str, float]:
    """Seconds of a whole reply, and of llama.cpp's calls alone in the same evaluations."""
    with ExitStack() as stack:
        loops: dict[Source, NativeLoop] = {
            role: stack.enter_context(native_loop(pair.models.context(role), pair.models.n_ctx(role), threads))
            for role in roles_of("wsd")
        }
        lockstep = Lockstep(pair, loops, clock)
        bench = Bench(pair, prompt_tokens=prompt, tokens=tokens, drafted=drafted, clock=lockstep.clock)
        for role, loop in loops.items():
            loop.evaluate(bench.prompts[role])  # the first time touches memory that is new
            loop.forget()
        with lockstep.following():
            seconds, _ = bench.answer(drafted=drafted)
    parts = {f"lockstep_{kind}_s": taken for kind, taken in lockstep.native.items()}
    return {"lockstep_reply_s": seconds, "lockstep_native_s": sum(lockstep.native.values())} | parts
