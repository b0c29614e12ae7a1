"""Sequences of one model: the questions that can be asked about them, wherever they are evaluated.

Contract: every question names the whole token list of its sequence. The mirrors say what the KV cache holds, the rows
which logits of the last evaluation are at hand; both are kept in this process. How an evaluation is made, and how a
row is read, is the matter of `wsd_local.llama.context` (here) and `wsd_local.workers.apart` (in another process).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wsd_local.core.alignment import common_prefix
from wsd_local.core.contexts import Question
from wsd_local.core.resources import FlashAttention
from wsd_local.core.rules import Score
from wsd_local.errors import FitError, room_advice
from wsd_local.llama.logits import best_of, distribution_of, log_softmax_at, probabilities_of
from wsd_local.llama.model import Model
from wsd_local.llama.options import ContextOptions
from wsd_local.llama.states import KeptStates, ReadingSpeed


class Sequences(ABC):
    """The sequences of `model`, made as `options` say."""

    cells: int
    """Tokens that all sequences can hold together."""
    streams: int
    """KV caches that they are divided among."""
    piece: int
    """Tokens that a graph evaluates at once."""
    flash_attn: FlashAttention
    """Whether flash attention is used: on, off or auto."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        self.model = model
        self.options = options
        self.evaluated = 0
        self.n_ctx, self.n_seq, self.n_rows = options.n_ctx, options.n_seq, options.n_rows
        self.kept: KeptStates | None = None
        """What sequences may begin with instead of an evaluation."""
        self.speed = ReadingSpeed()
        self.read_to = [0] * options.n_seq
        """The end of what each sequence has read in long pieces: about that of its prompt."""
        self._mirrors: list[list[int]] = [[] for _ in range(options.n_seq)]
        self._rows: list[dict[int, int]] = [{} for _ in range(options.n_seq)]

    @abstractmethod
    def close(self) -> None:
        """Free the KV cache."""

    @abstractmethod
    def sample(self, row: int, sampler: Any) -> int:
        """The token that a `Sampler` of this model chooses from a row of the last evaluation."""

    @abstractmethod
    def _require_open(self) -> None:
        """Raise an error if the context can evaluate nothing more."""

    @abstractmethod
    def _evaluate(self, questions: Sequence[Question]) -> Sequence[Question]:
        """Evaluate one batch for the questions; those that it was about."""

    @abstractmethod
    def _truncate(self, seq: int, length: int) -> int:
        """Remove positions from `length` on; return the number of tokens that are left, which may be fewer."""

    @abstractmethod
    def _logits(self, row: int) -> npt.NDArray[np.float32]:
        """The logits of a row of the last evaluation."""

    @property
    def elsewhere_s(self) -> float:
        """Seconds that another process has worked for both models so far; 0 where there is none."""
        return 0.0

    def logprobs(self, seq: int, tokens: Sequence[int], start: int) -> list[float]:
        """Natural log-probabilities (temperature 1) of `tokens[start:]`, each given all tokens before it."""
        found: list[float] = []

        def answer(position: int, row: int) -> None:
            if position + 1 < len(tokens):
                found.append(self.score(row, tokens[position + 1]).logprob)

        self.ask(Question(seq, tokens, start - 1, answer))
        return found

    def favourites(self, seq: int, tokens: Sequence[int], start: int) -> list[tuple[int, float]]:
        """The most probable token and its probability (temperature 1) at the position of each of `tokens[start:]`."""
        found: list[tuple[int, float]] = []

        def answer(position: int, row: int) -> None:
            if position + 1 < len(tokens):
                logits = self._logits(row)
                best = int(logits.argmax())
                found.append((best, math.exp(log_softmax_at(logits, best))))

        self.ask(Question(seq, tokens, start - 1, answer))
        return found

    def read(self, seq: int, tokens: Sequence[int]) -> None:
        """Evaluate `tokens` for a later question that begins with them."""
        self.ask(Question(seq, tokens, len(tokens) - 1, lambda position, row: None))

    def ask(self, question: Question) -> None:
        """Answer one question completely."""
        while not question.done:
            self.step([question])

    def score(self, row: int, token: int, *, distribution: bool = False, top: int = 0) -> Score:
        """The score of `token` in a row of the last evaluation.

        `distribution` adds top-1 probability and entropy, `top` so many of the most probable tokens.
        """
        logits = self._logits(row)
        top1, entropy = distribution_of(logits) if distribution else (None, None)
        return Score(log_softmax_at(logits, token), top1, entropy, best_of(logits, top) if top else ())

    def best(self, row: int) -> int:
        """The most probable token in a row of the last evaluation."""
        return int(self._logits(row).argmax())

    def distribution(self, row: int) -> npt.NDArray[np.float64]:
        """The probabilities of all tokens in a row of the last evaluation."""
        return probabilities_of(self._logits(row))

    def live(self, seq: int, tokens: Sequence[int], row: int) -> int:
        """Number of consecutive positions of `tokens`, from `row` on, whose logits are available."""
        rows, same = self._rows[seq], common_prefix(self._mirrors[seq], tokens)
        return next((place - row for place in range(row, same) if place not in rows), max(0, same - row))

    def held(self, seq: int) -> Sequence[int]:
        """The tokens that a sequence holds."""
        return self._mirrors[seq]

    def pause(self, seq: int) -> None:  # noqa: B027 - not abstract
        """Nothing more is wanted of a sequence for now: nothing runs on its own here."""

    def forget(self, seq: int) -> None:
        """Free a sequence."""
        self._truncate(seq, 0)

    def step(self, questions: Sequence[Question]) -> None:
        """Answer what the rows at hand can answer; if that is nothing, evaluate one batch for all questions.

        Each question must have a sequence of its own, and all together must fit into the cells.

        Raises:
            CancelledError: the work was stopped; what was evaluated stays.
            ModelError: the model's file became shorter, or unreadable.
            FitError: the tokens of a question do not fit into its sequence.
            WorkerError: a worker on another machine was lost.
        """
        self._require_open()
        for question in questions:
            if question.end > self.n_ctx:
                advice = room_advice(self.n_ctx, self.model.n_ctx_train)
                raise FitError(f"{question.end} tokens do not fit into a context of {self.n_ctx}; {advice}")
        answered = [self._answer(question) for question in questions]
        if any(answered):
            return
        for question in self._evaluate(questions):
            self._answer(question)

    def _answer(self, question: Question) -> bool:
        """Answer from the rows at hand; whether there was one."""
        rows = self._rows[question.seq]
        if question.row not in rows:
            return False
        same = common_prefix(self._mirrors[question.seq], question.tokens[: question.end])
        before = question.row
        while question.row < same and (row := rows.get(question.row)) is not None:
            position, question.row = question.row, question.row + 1
            question.answer(position, row)
        return question.row > before
