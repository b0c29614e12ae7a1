"""What goes into one evaluation: parts of questions, in llama.cpp's batch.

Contract: positions are those in a part's sequence; a batch holds at most `size` tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from wsd_local.core.contexts import Question


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of a question that go into one evaluation."""

    question: Question
    start: int
    end: int

    @property
    def rows(self) -> range:
        """Positions of which logits are wanted."""
        return range(max(self.start, self.question.row), self.end)


class Batch:
    """llama.cpp's batch, filled through numpy views."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.native = llama_cpp.llama_batch_init(size, 0, 1)
        self._token = _view(self.native.token, size)
        self._pos = _view(self.native.pos, size)
        self._logits = _view(self.native.logits, size)
        _view(self.native.n_seq_id, size)[:] = 1

    def fill(self, parts: Sequence[Part]) -> None:
        """Put the parts into the batch, one after the other."""
        at = 0
        for part in parts:
            end = at + part.end - part.start
            self._token[at:end] = part.question.tokens[part.start : part.end]
            self._pos[at:end] = np.arange(part.start, part.end)
            self._logits[at:end] = self._pos[at:end] >= part.question.row
            for i in range(at, end):
                self.native.seq_id[i][0] = part.question.seq
            at = end
        self.native.n_tokens = at

    def close(self) -> None:
        """Free it."""
        llama_cpp.llama_batch_free(self.native)


def _view(pointer: Any, size: int) -> npt.NDArray[Any]:
    return np.ctypeslib.as_array(pointer, shape=(size,))
