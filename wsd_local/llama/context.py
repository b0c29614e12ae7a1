"""Sequences of one model in a KV cache.

Contract: a context keeps a mirror of what its KV cache holds, evaluates what is missing, removes what is too much, and
reuses the rest; so questions (see `Sequences`) can come in any order and cost only what is new. Questions of several
sequences share evaluations (`step`), and what two sequences begin with is evaluated once. Rows of logits live in
llama.cpp's buffer until the next evaluation and are never copied. A memory that refuses to remove its newest tokens
goes back to a snapshot and evaluates the rest again; that is logged to `wsd_local.llama`.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from wsd_local.core.alignment import common_prefix
from wsd_local.core.contexts import Question
from wsd_local.core.resources import cpu_ubatch
from wsd_local.errors import CancelledError, FitError, WsdError, room_advice
from wsd_local.llama.abort import Cancellation, native_callback
from wsd_local.llama.batch import Batch, Part
from wsd_local.llama.graph import Reading
from wsd_local.llama.logits import logits_of
from wsd_local.llama.logs import LOGGER, captured, cause
from wsd_local.llama.model import Model
from wsd_local.llama.options import FLASH_ATTENTION, ContextOptions, default_threads, flash_of, type_name
from wsd_local.llama.sequences import Sequences
from wsd_local.llama.snapshots import STRIDE, Snapshots
from wsd_local.llama.states import LONG, KeptStates, SequenceStates

SHORT = 16
"""Tokens that a question needs at most while a text is written or checked."""
SHARED = 16
"""Tokens that two sequences must have in common for one to wait until the other has evaluated them."""


class Context(Sequences):
    """The sequences of `model` in one KV cache; `cancellation` stops its evaluations, `reading` follows them.

    Raises:
        FitError: llama.cpp could not make it; the reason is its own.
        ModelError: the adapter cannot be used with this model.
    """

    def __init__(
        self, model: Model, options: ContextOptions, cancellation: Cancellation, reading: Reading | None = None
    ) -> None:
        super().__init__(model, options)
        self._handle: ctypes.c_void_p | None = None
        self._cancellation = cancellation
        params = llama_cpp.llama_context_default_params()
        # Cells that a sliding window has left are reused, although another sequence may share them.
        self._shares = model.n_swa == 0 and not model.is_recurrent
        params.kv_unified = model.n_swa == 0
        params.n_ctx = max(options.n_ctx, options.cells or 0) if params.kv_unified else options.n_ctx * options.n_seq
        threads = options.threads or default_threads()
        params.n_batch = min(options.n_batch, params.n_ctx)
        params.n_ubatch = min(
            params.n_batch,
            options.n_ubatch or (params.n_batch if model.may_offload else cpu_ubatch(model.n_embd, threads)),
        )
        params.n_seq_max = options.n_seq
        params.n_outputs_max = options.n_rows
        self.piece = int(params.n_ubatch)
        params.n_threads = params.n_threads_batch = threads
        params.type_k = getattr(llama_cpp, f"GGML_TYPE_{type_name(options.cache_type_k)}")
        params.type_v = getattr(llama_cpp, f"GGML_TYPE_{type_name(options.cache_type_v)}")
        self.flash_attn = flash_of(model, options)
        params.flash_attn_type = FLASH_ATTENTION[self.flash_attn]
        params.swa_full = True
        self._reading = reading
        if reading is not None:
            params.cb_eval = reading.callback
        self._abort = native_callback(llama_cpp.ggml_abort_callback)
        adapter = None if options.lora is None else model.adapter(options.lora[0])
        with captured() as lines:
            self._handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise FitError(f"{model.path}: no context of {params.n_ctx} tokens: {cause(lines)}")
        if options.lora is not None:
            adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
            llama_cpp.llama_set_adapters_lora(self._handle, adapters, 1, (ctypes.c_float * 1)(options.lora[1]))
        llama_cpp.llama_set_abort_callback(self._handle, self._abort, ctypes.addressof(cancellation.flag))
        self.cells = int(llama_cpp.llama_n_ctx(self._handle))
        self._memory = llama_cpp.llama_get_memory(self._handle)
        self.streams = 1 if params.kv_unified else options.n_seq
        self.states = SequenceStates(
            self._handle, n_seq=options.n_seq, n_swa=model.n_swa, is_recurrent=model.is_recurrent
        )
        self._batch = Batch(params.n_batch)
        self._snapshots: dict[int, Snapshots] = {}
        if model.is_recurrent:
            LOGGER.info("%s: its memory cannot remove single tokens: snapshots are taken to go back to", model.name)

    def close(self) -> None:
        """Free the KV cache."""
        if self._handle is not None:
            self._batch.close()
            llama_cpp.llama_free(self._handle)
            self._handle = None

    def sample(self, row: int, sampler: Any) -> int:
        """The token that a `Sampler` of this model chooses from a row of the last evaluation."""
        assert self._handle is not None
        return int(sampler.sample(self._handle, row))

    @property
    def at_hand(self) -> Sequence[Mapping[int, int]]:
        """The rows at hand, by their positions, of each sequence."""
        return self._rows

    def truncate(self, seq: int, length: int) -> int:
        """Remove positions from `length` on; return the number of tokens that are left, which may be fewer."""
        return self._truncate(seq, length)

    def logits(self, row: int) -> npt.NDArray[np.float32]:
        """The logits of a row, valid until the next evaluation."""
        return self._logits(row)

    def use_threads(self, threads: int) -> None:
        """Evaluate with so many CPU threads from now on."""
        llama_cpp.llama_set_n_threads(self._handle, threads, threads)

    # -- evaluation ------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if self._handle is None:
            raise RuntimeError(f"the context of {self.model.path} is closed")

    def _evaluate(self, questions: Sequence[Question]) -> Sequence[Question]:
        parts = self._parts(questions)
        self._decode(parts)
        if not any(part.rows for part in parts):  # else reading a row waits for the device
            llama_cpp.llama_synchronize(self._handle)
        return [part.question for part in parts]

    def _parts(self, questions: Sequence[Question]) -> list[Part]:
        """The parts of questions for the next batch, the shortest first: a long prompt delays no other question.

        While a text is written, each prompt is read in pieces of a size that a graph evaluates at once: not slower on a
        CPU, and the writer waits for one piece of each, not for a batch.
        """
        starts = {id(question): self._start(question) for question in questions}
        lengths = [question.end - start for question, start in zip(questions, starts.values(), strict=True)]
        room, rows = self._batch.size, self.n_rows
        prompts = sum(length > SHORT for length in lengths)
        if 0 < prompts < len(questions):
            room = min(room, prompts * self.piece + len(questions))
        parts: list[Part] = []
        for question in sorted(questions, key=lambda question: question.end - starts[id(question)]):
            start = starts[id(question)]
            if self._waits(question, start, parts):
                continue
            end = min(start + room, question.end, max(start, question.row) + rows)
            if self.model.is_recurrent and end > start:
                end = self._snapshot(question.seq, start, end, question.row)
            if end > start:
                part = Part(question, start, end)
                parts.append(part)
                room -= end - start
                rows -= len(part.rows)
        # llama.cpp evaluates streams together only where their numbers follow one another.
        return sorted(parts, key=lambda part: part.question.seq)

    def _start(self, question: Question) -> int:
        """Remove what the question does not begin with; return the position where its evaluation goes on."""
        mirror = self._mirrors[question.seq]
        keep = min(common_prefix(mirror, question.tokens[: question.end]), question.row)
        if keep < len(mirror):
            keep = self._truncate(question.seq, keep)
        if question.begun is None:
            if self._shares and self.n_seq > 1 and question.row - keep >= SHARED:
                keep = self._copied(question, keep)
            if self.kept is not None and question.row - keep >= SHARED:
                keep = self._restored(self.kept, question, keep)
            question.begun = keep
        return keep

    def _restored(self, kept: KeptStates, question: Question, keep: int) -> int:
        """Take over what a kept state begins with, if that pays; return the length that is there then."""
        seq, tokens = question.seq, question.tokens[: question.row]
        room = self.cells - sum(len(mirror) for other, mirror in enumerate(self._mirrors) if other != seq)
        held = kept.restore(tokens, keep, room, partial(self.states.load, seq))
        if held is None:
            return keep
        self._rows[seq].clear()
        self._mirrors[seq], self.read_to[seq] = list(held), len(held)
        return self._truncate(seq, common_prefix(held, tokens))

    def _copied(self, question: Question, keep: int) -> int:
        """Take over what another sequence begins with, if it is more; return the length that is there then."""
        longest, source = max(
            (common_prefix(mirror, question.tokens), seq)
            for seq, mirror in enumerate(self._mirrors)
            if seq != question.seq
        )
        longest = min(longest, question.row)
        if longest - keep < SHARED:
            return keep
        llama_cpp.llama_memory_seq_cp(self._memory, source, question.seq, keep, longest)
        self._mirrors[question.seq] = list(question.tokens[:longest])
        self.read_to[question.seq] = longest
        return longest

    def _waits(self, question: Question, start: int, parts: Sequence[Part]) -> bool:
        """Whether another question of this batch evaluates what this one begins with."""
        if not self._shares or question.row - start < SHARED:
            return False
        for part in parts:
            same = common_prefix(part.question.tokens, question.tokens)
            if min(same, question.row, part.question.row) - start >= SHARED:
                question.begun = None
                return True
        return False

    def _snapshot(self, seq: int, start: int, end: int, first_row: int) -> int:
        """Keep the state before tokens that may be taken back; return where the evaluation must end to keep the next.

        Tokens that may be removed later: those of one batch after its first row, and those after a prompt.
        """
        snapshots = self._snapshots.setdefault(seq, Snapshots(self._handle, seq))
        wanted = start >= first_row and (end - start > 1 or snapshots.newest == 0)
        if wanted or start - snapshots.newest >= STRIDE:
            snapshots.take(start)
        return min(end, first_row) if start < first_row else end

    def _decode(self, parts: Sequence[Part]) -> None:
        self._cancellation.check()
        self.model.check_file()
        for rows in self._rows:
            rows.clear()
        self._batch.fill(parts)
        begun = time.perf_counter()
        try:
            status = llama_cpp.llama_decode(self._handle, self._batch.native)
            for part in parts:
                self._mirrors[part.question.seq] += part.question.tokens[part.start : part.end]
            self.model.check_file()
        except BaseException:  # a KeyboardInterrupt is raised here, when the tokens are in the cache already
            self._take_back(parts)
            raise
        if status != 0:
            self._take_back(parts)
            if self._cancellation.is_set:
                raise CancelledError("stopped")
            if status == 1:
                advice = room_advice(self.n_ctx, self.model.n_ctx_train)
                raise FitError(f"{self.model.path}: its context of {self.cells} tokens is full; {advice}")
            raise WsdError(f"{self.model.path}: llama.cpp failed with status {status}; --verbose shows its log")
        if max(part.end - part.start for part in parts) >= LONG:
            llama_cpp.llama_synchronize(self._handle)
            self.speed.add(sum(part.end - part.start for part in parts), time.perf_counter() - begun)
        at = 0
        for part in parts:
            count = part.end - part.start
            if count >= LONG:
                self.read_to[part.question.seq] = part.end
            self.evaluated += count
            part.question.evaluated += count
            self._rows[part.question.seq] = {position: at + position - part.start for position in part.rows}
            at += count

    def _take_back(self, parts: Sequence[Part]) -> None:
        """Remove what a broken evaluation was to add; beyond a sliding window, what came before may be lost too."""
        for part in parts:
            beyond = 0 < self.model.n_swa < part.end
            self._truncate(part.question.seq, 0 if beyond else part.start)

    def _truncate(self, seq: int, length: int) -> int:
        if length > 0 and llama_cpp.llama_memory_seq_rm(self._memory, seq, length, -1):
            kept = length
        else:
            kept = self._go_back(seq, length)
        del self._mirrors[seq][kept:]
        self.read_to[seq] = min(self.read_to[seq], kept)
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
        return logits_of(self._handle, row, self.model.n_vocab)
