"""The state of a sequence as bytes, which another context of the same kind can continue.

Contract: `save` copies what a sequence holds; `load` puts it into a sequence, which can then be truncated to any length
and continued as if its tokens had been evaluated there. Both contexts must be of one model, with the same adapter,
cache types, attention and number of KV streams; llama.cpp checks sizes only, so callers vouch for the bytes.

A sequence's state, as llama.cpp writes it, lacks the tokens that a sliding window has left, and could be continued from
its end alone. The state of a whole context has all of them: where a context has one sequence, its bytes are taken
instead, with the head of a sequence's state. There is no state of several sequences with a sliding window, and none of
a recurrent memory, which cannot be truncated.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import llama_cpp

from wsd_local.llama.logs import LOGGER, captured, cause

LONG = 32
"""Tokens of one sequence from which on an evaluation shows how fast a prompt is read."""
_HEAD = 8
"""Bytes before the memory in a sequence's state: a magic number and the sequence."""

Load = Callable[[bytearray, int], bool]
"""Puts a state of so many tokens into a sequence; returns False, and leaves it empty, if llama.cpp refuses it."""


class KeptStates(Protocol):
    """States that were saved before, for one kind of context."""

    def restore(self, tokens: Sequence[int], held: int, room: int, load: Load) -> Sequence[int] | None:
        """Load the state that is worth most to a sequence which is to hold `tokens`, if one is.

        Args:
            tokens: of the text, without its last one.
            held: number of these that the sequence holds already.
            room: number of tokens that it can hold.
            load: puts a state into the sequence.

        Returns:
            The tokens that the sequence holds now; None if nothing was loaded.
        """
        ...


@dataclass(slots=True)
class ReadingSpeed:
    """How fast prompts were read so far."""

    tokens: int = 0
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Record an evaluation."""
        self.tokens += tokens
        self.seconds += seconds

    @property
    def rate(self) -> float | None:
        """Tokens per second; None if no prompt was read."""
        return self.tokens / self.seconds if self.seconds > 0 else None


class SequenceStates:
    """States of the sequences of a native context; `n_swa` as in `Model`."""

    def __init__(self, context: Any, *, n_seq: int, n_swa: int, is_recurrent: bool) -> None:
        self._context, self._n_seq, self._n_swa = context, n_seq, n_swa
        self._memory = llama_cpp.llama_get_memory(context)
        self.possible = not is_recurrent and (n_swa == 0 or n_seq == 1)
        """Whether states can be saved and continued at all."""

    def save(self, seq: int, length: int) -> memoryview | None:
        """The state of a sequence of `length` tokens; None if there is none that can be continued."""
        if not self.possible or not self._holds(seq, length):
            return None
        with captured() as lines:
            found = self._of_context(seq) if self._n_swa else self._of_sequence(seq)
        if found is None:
            LOGGER.info("the state of a sequence cannot be saved: %s", cause(lines))
        return found

    def load(self, seq: int, data: bytearray, length: int) -> bool:
        """Replace what a sequence holds by a state of `length` tokens; False, and it is empty, if that failed."""
        with captured() as lines:
            read = llama_cpp.llama_state_seq_set_data(self._context, _native(data), len(data), seq)
        if self.possible and read == len(data) and self._holds(seq, length):
            return True
        LOGGER.info("a saved state cannot be continued: %s", cause(lines))
        llama_cpp.llama_memory_seq_rm(self._memory, seq, -1, -1)
        return False

    def _holds(self, seq: int, length: int) -> bool:
        """Whether the cache has all positions of a sequence, none of them overwritten."""
        first = llama_cpp.llama_memory_seq_pos_min(self._memory, seq)
        return bool(first == 0 and llama_cpp.llama_memory_seq_pos_max(self._memory, seq) == length - 1)

    def _of_sequence(self, seq: int) -> memoryview | None:
        size = llama_cpp.llama_state_seq_get_size(self._context, seq)
        data = bytearray(size)
        written = llama_cpp.llama_state_seq_get_data(self._context, _native(data), size, seq)
        return memoryview(data) if written == size > _HEAD else None

    def _of_context(self, seq: int) -> memoryview | None:
        head = self._of_sequence(seq)
        size = llama_cpp.llama_state_get_size(self._context)
        whole = memoryview(bytearray(size))
        if head is None or llama_cpp.llama_state_get_data(self._context, _native(whole), size) != size:
            return None
        begin = 4 + struct.unpack_from("<I", whole)[0]  # the memory follows the name of the architecture
        if not _HEAD <= begin < size:
            return None
        whole[begin - _HEAD : begin] = head[:_HEAD]
        return whole[begin - _HEAD :]


def _native(data: bytearray | memoryview) -> Any:
    """Bytes as llama.cpp takes them, without a copy."""
    return (ctypes.c_uint8 * len(data)).from_buffer(data)
