"""Sequences of one model in a KV cache.

Contract: every question names the whole token list of its sequence. The context keeps a mirror of what its KV cache
holds, evaluates what is missing, removes what is too much, and reuses the rest; so questions can come in any
order and cost only what is new. Rows of logits live in llama.cpp's buffer until the next evaluation and are
never copied. A memory that refuses to remove its newest tokens goes back to a snapshot and evaluates the rest again;
the logger `wsd_local.llama` says so.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from wsd_local.errors import CancelledError, FitError, WsdError
from wsd_local.llama.abort import Cancellation, native_callback
from wsd_local.llama.logs import LOGGER, captured, cause
from wsd_local.llama.model import Model
from wsd_local.llama.sampler import Sampler
from wsd_local.llama.snapshots import STRIDE, Snapshots
from wsd_local.offload import CPU_UBATCH_PER_THREAD, GPU_UBATCH, ROWS
from wsd_local.settings import CacheType, FlashAttention
from wsd_local.tokens import common_prefix

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
CANCELLABLE = CPU_UBATCH_PER_THREAD
"""Tokens evaluated together by each CPU thread. A stop waits for one matrix product, which took up to 0.5 s for 512
tokens of an 8B shape on two threads and 0.06 s for 64; reading a prompt was as fast either way."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """How a context is made. `n_ctx` and `n_batch` count tokens, `n_rows` rows of logits per evaluation.

    `lora` is an adapter's file and its scale.
    """

    n_ctx: int = 4096
    n_batch: int = GPU_UBATCH
    n_rows: int = ROWS
    threads: int | None = None
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attn: FlashAttention = "auto"
    lora: tuple[Path, float] | None = None


class Context:
    """A KV cache over `model`, stoppable through `cancellation`.

    Raises:
        FitError: llama.cpp could not make it; the reason is its own.
        ModelError: the adapter cannot be used with this model.
    """

    def __init__(self, model: Model, options: ContextOptions, cancellation: Cancellation) -> None:
        self._handle: ctypes.c_void_p | None = None
        self.model = model
        self.options = options
        self.evaluated = 0
        self._cancellation = cancellation
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options.n_ctx
        threads = options.threads or default_threads()
        params.n_batch = min(options.n_batch, options.n_ctx)
        params.n_ubatch = params.n_batch if model.may_offload else min(params.n_batch, CANCELLABLE * threads)
        params.n_seq_max = 1
        params.n_outputs_max = options.n_rows
        params.n_threads = params.n_threads_batch = threads
        params.type_k = getattr(llama_cpp, f"GGML_TYPE_{_named(options.cache_type_k)}")
        params.type_v = getattr(llama_cpp, f"GGML_TYPE_{_named(options.cache_type_v)}")
        params.flash_attn_type = FLASH_ATTENTION[options.flash_attn]
        params.swa_full = True
        self._abort = native_callback(llama_cpp.ggml_abort_callback)
        adapter = None if options.lora is None else model.adapter(options.lora[0])
        with captured() as lines:
            self._handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise FitError(f"{model.path}: no context of {options.n_ctx} tokens: {cause(lines)}")
        if options.lora is not None:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
            llama_cpp.llama_set_adapters_lora(self._handle, adapters, 1, (ctypes.c_float * 1)(options.lora[1]))
        llama_cpp.llama_set_abort_callback(self._handle, self._abort, ctypes.addressof(cancellation.flag))
        self.n_ctx = int(llama_cpp.llama_n_ctx_seq(self._handle))
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self._batch = _Batch(params.n_batch)
        self._mirrors: dict[int, list[int]] = {}
        self._rows: dict[int, dict[int, int]] = {}
        self._snapshots: dict[int, Snapshots] = {}
        if model.is_recurrent:
            LOGGER.info("%s: its memory cannot remove single tokens: snapshots are taken to go back to", model.name)

    def close(self) -> None:
        """Free the KV cache."""
        if self._handle is not None:
            self._batch.close()
            llama_cpp.llama_free(self._handle)
            self._handle = None

    # -- questions -------------------------------------------------------------------------------------------

    def logprobs(self, seq: int, tokens: Sequence[int], start: int, progress: Progress | None = None) -> list[float]:
        """Natural log-probabilities (temperature 1) of `tokens[start:]`, each behind all tokens before it."""
        found: list[float] = []
        for position, row in self._evaluate(seq, tokens, start - 1, progress):
            if position + 1 < len(tokens):
                found.append(log_softmax_at(self._logits(row), tokens[position + 1]))
        return found

    def favourites(self, seq: int, tokens: Sequence[int], start: int) -> list[tuple[int, float]]:
        """The most probable token and its probability (temperature 1) at the place of each of `tokens[start:]`."""
        found: list[tuple[int, float]] = []
        for position, row in self._evaluate(seq, tokens, start - 1, None):
            if position + 1 < len(tokens):
                logits = self._logits(row)
                best = int(logits.argmax())
                found.append((best, math.exp(log_softmax_at(logits, best))))
        return found

    def read(self, seq: int, tokens: Sequence[int], progress: Progress | None = None) -> None:
        """Make the sequence hold `tokens`, for a later question that begins with them."""
        for _ in self._evaluate(seq, tokens, len(tokens) - 1, progress):
            pass

    def sample(
        self, seq: int, tokens: Sequence[int], sampler: Sampler, progress: Progress | None = None
    ) -> tuple[int, int]:
        """The token that `sampler` chooses behind `tokens`, and the row it was chosen from."""
        for _, row in self._evaluate(seq, tokens, len(tokens) - 1, progress):
            assert self._handle is not None
            return sampler.sample(self._handle, row), row
        raise AssertionError("an evaluation without its last row")

    def logprob(self, row: int, token: int) -> float:
        """Natural log-probability of `token` in a row of the last evaluation."""
        return log_softmax_at(self._logits(row), token)

    # -- evaluation ------------------------------------------------------------------------------------------

    def _evaluate(
        self, seq: int, tokens: Sequence[int], first_row: int, progress: Progress | None
    ) -> Iterator[tuple[int, int]]:
        """Make the sequence hold `tokens`; yield (position, row) from `first_row` on, each while its row lives."""
        if self._handle is None:
            raise RuntimeError(f"the context of {self.model.path} is closed")
        if not 0 <= first_row < len(tokens):
            raise ValueError(f"row {first_row} of {len(tokens)} tokens")
        if len(tokens) > self.n_ctx:
            raise FitError(f"{len(tokens)} tokens do not fit into a context of {self.n_ctx}; raise --ctx")
        mirror = self._mirrors.setdefault(seq, [])
        rows = self._rows.setdefault(seq, {})
        keep = common_prefix(mirror, tokens)
        if any(position not in rows for position in range(first_row, keep)):
            keep = first_row
        if keep < len(mirror):
            keep = self._truncate(seq, keep)
        yield from [(position, rows[position]) for position in range(first_row, keep)]
        total = len(tokens) - keep
        while keep < len(tokens):
            end = min(keep + self._batch.size, len(tokens), max(keep, first_row) + self.options.n_rows)
            if self.model.is_recurrent:
                end = self._snapshot(seq, keep, end, first_row)
            self._decode(seq, tokens[keep:end], keep, first_row)
            yield from list(self._rows[seq].items())
            keep = end
            if progress is not None:
                progress(total - (len(tokens) - keep), total)

    def _snapshot(self, seq: int, start: int, end: int, first_row: int) -> int:
        """Keep the state before tokens that may be taken back; return where the evaluation must end to keep the next.

        Taken back are checked tokens behind the switch, and what stands behind a prompt when another turn follows.
        """
        snapshots = self._snapshots.setdefault(seq, Snapshots(self._handle, seq))
        wanted = start >= first_row and (end - start > 1 or snapshots.newest == 0)
        if wanted or start - snapshots.newest >= STRIDE:
            snapshots.take(start)
        return min(end, first_row) if start < first_row else end

    def _decode(self, seq: int, tokens: Sequence[int], start: int, first_row: int) -> None:
        self._cancellation.check()
        for rows in self._rows.values():
            rows.clear()
        self._batch.fill(seq, tokens, start, first_row)
        try:
            status = llama_cpp.llama_decode(self._handle, self._batch.native)
            self._mirrors[seq] += tokens
        except BaseException:  # a KeyboardInterrupt is raised here, when the tokens are in the cache already
            self._truncate(seq, start)
            raise
        if status != 0:
            self._truncate(seq, start)
            if self._cancellation.is_set:
                raise CancelledError("stopped")
            if status == 1:
                raise FitError(f"{self.model.path}: its context of {self.n_ctx} tokens is full; raise --ctx")
            raise WsdError(f"{self.model.path}: llama.cpp failed with status {status}; --verbose shows its log")
        self.evaluated += len(tokens)
        outputs = range(max(0, first_row - start), len(tokens))
        self._rows[seq].update((start + i, i) for i in outputs)

    def _truncate(self, seq: int, length: int) -> int:
        """Remove positions from `length` on; return the number of tokens that are left, which may be fewer."""
        if length > 0 and llama_cpp.llama_memory_seq_rm(self._memory, seq, length, -1):
            kept = length
        else:
            kept = self._go_back(seq, length)
        del self._mirrors[seq][kept:]
        for position in [position for position in self._rows[seq] if position >= kept]:
            del self._rows[seq][position]
        return kept

    def _go_back(self, seq: int, length: int) -> int:
        """Make the sequence hold what a snapshot holds, at most `length` tokens, or nothing; return how many."""
        snapshots = self._snapshots.get(seq)
        kept = snapshots.restore(length) if snapshots is not None else 0
        if kept == 0 or not llama_cpp.llama_memory_seq_rm(self._memory, seq, kept, -1):
            llama_cpp.llama_memory_seq_rm(self._memory, seq, -1, -1)
            kept = 0
        if length > 0:
            way = f"back to a snapshot of {kept} tokens" if kept else "all is evaluated again"
            LOGGER.info("%s: cannot go back to %d tokens: %s", self.model.name, length, way)
        return kept

    def _logits(self, row: int) -> npt.NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self._handle, row)
        return np.ctypeslib.as_array(pointer, shape=(self.model.n_vocab,))


def _named(kind: CacheType) -> str:
    return "F16" if kind == "auto" else kind.upper()


class _Batch:
    """llama.cpp's batch, filled through numpy views."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.native = llama_cpp.llama_batch_init(size, 0, 1)
        self._token = _view(self.native.token, size)
        self._pos = _view(self.native.pos, size)
        self._logits = _view(self.native.logits, size)
        _view(self.native.n_seq_id, size)[:] = 1

    def fill(self, seq: int, tokens: Sequence[int], start: int, first_row: int) -> None:
        count = len(tokens)
        self.native.n_tokens = count
        self._token[:count] = tokens
        self._pos[:count] = np.arange(start, start + count)
        self._logits[:count] = self._pos[:count] >= first_row
        for i in range(count):
            self.native.seq_id[i][0] = seq

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.native)


def _view(pointer: Any, size: int) -> npt.NDArray[Any]:
    return np.ctypeslib.as_array(pointer, shape=(size,))


def log_softmax_at(logits: npt.NDArray[np.float32], token: int) -> float:
    """Natural log of the softmax of `logits` (float32) at `token`."""
    top = logits.max()
    return float(logits[token] - top - np.log(np.exp(logits - top).sum(dtype=np.float64)))


def default_threads() -> int:
    """Threads that pay: all available cores on small machines, half of the logical ones on larger (SMT)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return available if available <= 4 else available // 2
