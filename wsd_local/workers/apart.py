"""A model and its context that live in the process that uses workers.

Contract: the same as `Model` and `Context`, for whoever asks: the vocabulary is read here, from the file's header;
weights, caches and logits are there. Only rows that a sampler needs whole are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsd_local.core.contexts import Question
from wsd_local.core.rules import Score
from wsd_local.errors import WorkerError, WsdError
from wsd_local.llama import Cancellation, ContextOptions, Model
from wsd_local.llama.sequences import Sequences
from wsd_local.workers.process import EngineProcess, Progress
from wsd_local.workers.wire import Message, Tokens


class ApartModel(Model):
    """One loaded GGUF file in another process.

    Args:
        process: where it is loaded.
        role: its name there.
        path: the file, the first one of a split model.
        given: how it is loaded, as `Model` takes it.
        progress: as `Model` takes it.

    Raises:
        ModelError: as `Model`.
        WorkerError: a worker was lost.
    """

    def __init__(
        self, process: EngineProcess, role: str, path: Path, given: dict[str, Any], progress: Progress | None = None
    ) -> None:
        super().__init__(path, n_gpu_layers=0, vocab_only=True)
        self.role = role
        self._given = {**given, "path": str(path), "parts": [str(part) for part in given.get("parts", ())]}
        self._facts: Message = {}
        try:
            self.open(process, progress)
        except BaseException:
            super().close()
            raise

    def open(self, process: EngineProcess, progress: Progress | None = None) -> None:
        """Load the file, in a new process where the one before was lost."""
        self.process = process
        order = {"order": "open", "role": self.role, "given": self._given}
        self._facts = process.order(order, None, progress)[0]
        self.may_offload = self._facts["may_offload"]

    def close(self) -> None:
        """Free the vocabulary here, and the weights there. Contexts over them must be closed before."""
        super().close()
        close(self.process, self.role)

    @property
    def n_swa(self) -> int:
        """Tokens of the sliding window; 0 if no layer has one."""
        return int(self._facts["n_swa"])

    @property
    def n_embd(self) -> int:
        """Width of the residual stream."""
        return int(self._facts["n_embd"])

    @property
    def n_ctx_train(self) -> int:
        """Context length the model was trained for, in tokens."""
        return int(self._facts["n_ctx_train"])

    @cached_property
    def is_recurrent(self) -> bool:
        """Whether the model, or a part of it, keeps one state instead of a cache of tokens."""
        return bool(self._facts["is_recurrent"])


def close(process: EngineProcess, role: str) -> None:
    """Free what a process holds of a model; nothing if it is gone."""
    if not process.lost:
        try:
            process.order({"order": "close", "role": role})
        except WsdError:
            return


class ApartContext(Sequences):
    """The sequences of an `ApartModel`; `cancellation` stops their evaluations.

    Raises:
        FitError: llama.cpp could not make it; the reason is its own.
        WorkerError: a worker was lost.
    """

    def __init__(self, model: ApartModel, options: ContextOptions, cancellation: Cancellation) -> None:
        super().__init__(model, options)
        self._process, self._role, self._cancellation = model.process, model.role, cancellation
        self._sent = Tokens()
        self._copies: dict[int, npt.NDArray[np.float32]] = {}
        wanted = asdict(options)
        if options.lora is not None:
            wanted["lora"] = [str(options.lora[0]), options.lora[1]]
        facts = self._order("context", options=wanted)
        self.cells, self.streams, self.piece = facts["cells"], facts["streams"], facts["piece"]
        self.flash_attn = facts["flash_attn"]

    @property
    def elsewhere_s(self) -> float:
        """Seconds that orders have taken."""
        return self._process.spent_s

    def close(self) -> None:
        """Free the KV cache, and the weights."""
        close(self._process, self._role)

    def sample(self, row: int, sampler: Any) -> int:
        """The token that a `Sampler` of this model chooses from a row of the last evaluation."""
        if sampler.greedy and sampler.takes(best := self.best(row)):
            return best
        return int(sampler.choose(self._logits(row)))

    def score(self, row: int, token: int, *, distribution: bool = False, top: int = 0) -> Score:
        """The score of `token` in a row of the last evaluation, as `Sequences.score`."""
        found = self._order("score", row=row, token=token, distribution=distribution, top=top)["score"]
        logprob, top1, entropy, best = found
        return Score(logprob, top1, entropy, tuple((int(one), float(value)) for one, value in best))

    def best(self, row: int) -> int:
        """The most probable token in a row of the last evaluation."""
        return int(self._order("best", row=row)["best"])

    def _order(self, order: str, **more: Any) -> Message:
        return self._process.order({"order": order, "role": self._role, **more})[0]

    def _require_open(self) -> None:
        if self._process.lost:
            self._order("held")  # raises what happened

    def _evaluate(self, questions: Sequence[Question]) -> Sequence[Question]:
        self._cancellation.check()
        asked = [
            {
                "seq": question.seq,
                "tokens": self._sent.shorten(question.seq, list(question.tokens[: question.end])),
                "row": question.row,
                "begun": question.begun,
            }
            for question in questions
        ]
        self._copies.clear()
        order = {"order": "step", "role": self._role, "questions": asked}
        try:
            found = self._process.order(order, self._cancellation)[0]
        except WorkerError:
            raise
        except WsdError:
            self._take_over(self._order("held"))
            raise
        for question, answer in zip(questions, found["questions"], strict=True):
            question.begun = answer["begun"]
            question.evaluated += answer["evaluated"]
        self._take_over(found, questions)
        return questions

    def _take_over(self, found: Message, questions: Sequence[Question] = ()) -> None:
        """Record what the sequences hold there; for those of questions a length may stand for it."""
        tokens = {question.seq: question.tokens for question in questions}
        for seq, held in found["held"]:
            self._mirrors[seq] = held if isinstance(held, list) else list(tokens[seq][:held])
        self._rows = [dict(rows) for rows in found["rows"]]
        self.evaluated = found["evaluated"]

    def _truncate(self, seq: int, length: int) -> int:
        kept = int(self._order("truncate", seq=seq, length=length)["kept"])
        del self._mirrors[seq][kept:]
        for position in [position for position in self._rows[seq] if position >= kept]:
            del self._rows[seq][position]
        return kept

    def _logits(self, row: int) -> npt.NDArray[np.float32]:
        if row not in self._copies:
            data = self._process.order({"order": "logits", "role": self._role, "row": row})[1]
            self._copies[row] = np.frombuffer(data, dtype=np.float32)
        return self._copies[row]
