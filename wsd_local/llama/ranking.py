"""A model with a head that ranks texts: a reward model, or a reranker.

Contract: `Ranker` evaluates one text at a time, without a cache, and reads the score that llama.cpp's rank pooling
gives: the one output of an encoder's head, or the probability of "yes" where a decoder's head has the labels yes and
no. It owns its context and leaves the model to its caller.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Sequence

import llama_cpp

from wsd_local.core.contexts import Question
from wsd_local.errors import CancelledError, FitError, ModelError, WsdError, room_advice
from wsd_local.llama.abort import Cancellation, native_callback
from wsd_local.llama.batch import Batch, Part
from wsd_local.llama.logs import captured, cause
from wsd_local.llama.model import Model
from wsd_local.llama.options import default_threads

RANK = int(llama_cpp.LLAMA_POOLING_TYPE_RANK)
"""The pooling type of a ranking head, as headers name it."""
HEADS = ("cls.weight", "cls.output.weight")
"""Tensors of a ranking head, at least one of which a file has."""
_QUERY, _TEXT = "{query}", "{document}"
_SOFTMAX = ("qwen3", "qwen3vl")
"""Architectures whose outputs llama.cpp turns into probabilities."""


class Ranker:
    """A context of a model with a ranking head (`Model.ranks`); `n_ctx` tokens at most, all in one evaluation.

    Raises:
        ModelError: the head gives several scores, or llama.cpp makes the same one of every text.
        FitError: llama.cpp could not make the context.
    """

    def __init__(self, model: Model, n_ctx: int, threads: int | None, cancellation: Cancellation) -> None:
        self._handle: ctypes.c_void_p | None = None
        self._output = _output(model)
        self.model, self.n_ctx = model, n_ctx
        self._cancellation = cancellation
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = n_ctx
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads or default_threads()
        params.embeddings = True
        params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_RANK
        self._abort = native_callback(llama_cpp.ggml_abort_callback)
        with captured() as lines:
            self._handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise FitError(f"{model.path}: no context of {n_ctx} tokens: {cause(lines)}")
        llama_cpp.llama_set_abort_callback(self._handle, self._abort, ctypes.addressof(cancellation.flag))
        self._batch = Batch(n_ctx)

    def close(self) -> None:
        """Free the context."""
        if self._handle is not None:
            self._batch.close()
            llama_cpp.llama_free(self._handle)
            self._handle = None

    def score(self, tokens: Sequence[int]) -> float:
        """The score of a text.

        Raises:
            FitError: it does not fit.
            CancelledError: it was stopped.
        """
        if self._handle is None:
            raise RuntimeError(f"the context of {self.model.path} is closed")
        if not 0 < len(tokens) <= self.n_ctx:
            advice = room_advice(self.n_ctx, self.model.n_ctx_train)
            raise FitError(f"{len(tokens)} tokens do not fit into a context of {self.n_ctx}; {advice}")
        self._cancellation.check()
        memory = llama_cpp.llama_get_memory(self._handle)
        if memory:
            llama_cpp.llama_memory_clear(memory, True)
        self._batch.fill([Part(Question(0, tokens, 0, lambda _position, _row: None), 0, len(tokens))])
        work = llama_cpp.llama_decode if memory else llama_cpp.llama_encode
        status = work(self._handle, self._batch.native)
        if self._cancellation.is_set:
            raise CancelledError("stopped")
        if status != 0:
            raise WsdError(f"{self.model.path}: llama.cpp failed with status {status}; --verbose shows its log")
        found = llama_cpp.llama_get_embeddings_seq(self._handle, 0)
        score = float(found[self._output]) if found else math.nan
        if not math.isfinite(score):
            raise WsdError(f"{self.model.path}: gives no number as the score of a text; the model is damaged")
        return score


def _output(model: Model) -> int:
    """Which of the head's outputs is the score.

    Raises:
        ModelError: none is.
    """
    count, is_softmax = int(llama_cpp.llama_model_n_cls_out(model.handle)), model.architecture in _SOFTMAX
    if count == 1 and not is_softmax:
        return 0
    if count == 1:
        raise ModelError(
            f"{model.path}: has one output, and llama.cpp makes 1 of it for every text of the architecture "
            f"{model.architecture}; choose a model whose head has the labels yes and no"
        )
    labels = [
        (llama_cpp.llama_model_cls_label(model.handle, number) or b"").decode().lower() for number in range(count)
    ]
    if is_softmax and sorted(labels) == ["no", "yes"]:
        return labels.index("yes")
    raise ModelError(f"{model.path}: gives {count} scores for a text, and one is needed; choose another model")


def asked(model: Model, query: str, text: str) -> list[int] | None:
    """A query and a text in the model's own template for that; None if the file has none.

    Control tokens count in the template alone.
    """
    found = llama_cpp.llama_model_chat_template(model.handle, b"rerank")
    if not found:
        return None
    mask = next(chr(code) for code in range(0xFDD0, 0x10FFFF) if chr(code) not in query + text)
    masked = {_QUERY: model.mask_controls(query, mask), _TEXT: model.mask_controls(text, mask)}
    parts = re.split(f"({re.escape(_QUERY)}|{re.escape(_TEXT)})", found.decode(errors="replace"))
    written = (masked.get(part, part) for part in parts)
    return model.tokenize_template("".join(written), mask)


def ended(model: Model, tokens: Sequence[int]) -> list[int]:
    """A conversation's tokens with the end of its last turn, whose place is where a reward model's head reads."""
    end = int(llama_cpp.llama_vocab_eot(model.vocab))
    end = end if end >= 0 else int(llama_cpp.llama_vocab_eos(model.vocab))
    return [*tokens, end] if end >= 0 else list(tokens)


def paired(model: Model, query: str, text: str) -> list[int]:
    """A query and a text as rerankers without a template read them: begin, query, end, separator, text, end.

    BERT's vocabulary has no end token, and its separator stands in both places.
    """
    vocab = model.vocab
    begin = [] if model.bos is None else [model.bos]
    end, separator = int(llama_cpp.llama_vocab_eos(vocab)), int(llama_cpp.llama_vocab_sep(vocab))
    ends = [end] if end >= 0 and llama_cpp.llama_vocab_get_add_eos(vocab) else []
    between = [separator] if separator >= 0 and llama_cpp.llama_vocab_get_add_sep(vocab) else []
    return [
        *begin,
        *model.tokenize_text(query),
        *ends,
        *between,
        *model.tokenize_text(text),
        *(ends or between),
    ]
