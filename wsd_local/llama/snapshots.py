"""States of one sequence, kept so that a memory which cannot remove its newest tokens can go back.

Contract: for models with a recurrent part (Mamba, LFM2, Qwen3.5, …), whose state is overwritten by every token.
A snapshot is llama.cpp's own copy of that part (`LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY`), named by the number of tokens
it stands for; attention layers of a hybrid need none, they are truncated as usual. At most `SNAPSHOTS` are kept.
"""

from __future__ import annotations

import ctypes
from itertools import pairwise
from typing import Any

import llama_cpp

SNAPSHOTS = 8
"""Snapshots kept per sequence. The newest always stays; of the others the one nearest to its predecessor goes first."""

STRIDE = 64
"""Tokens between two snapshots where no other is taken."""

_FLAGS = llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY


class Snapshots:
    """Snapshots of sequence `seq` of a native context."""

    def __init__(self, context: Any, seq: int) -> None:
        self._context = context
        self._seq = seq
        self._kept: dict[int, Any] = {}

    @property
    def newest(self) -> int:
        """Tokens of the longest snapshot; 0 if there is none."""
        return max(self._kept, default=0)

    def take(self, length: int) -> None:
        """Keep the state, which stands for `length` tokens."""
        if length == 0 or length in self._kept:
            return
        size = llama_cpp.llama_state_seq_get_size_ext(self._context, self._seq, _FLAGS)
        data = (ctypes.c_uint8 * size)()
        if llama_cpp.llama_state_seq_get_data_ext(self._context, data, size, self._seq, _FLAGS) == size:
            self._kept[length] = data
        if len(self._kept) > SNAPSHOTS:
            lengths = [0, *sorted(self._kept)]
            _, crowded = min((b - a, b) for a, b in pairwise(lengths[:-1]))
            del self._kept[crowded]

    def restore(self, length: int) -> int:
        """Go back to the longest snapshot of at most `length` tokens; return its length, 0 if there is none.

        Longer ones are forgotten. If 0 is returned, the state is unchanged, and the caller must clear it.
        """
        for other in [other for other in self._kept if other > length]:
            del self._kept[other]
        while newest := self.newest:
            data = self._kept[newest]
            if llama_cpp.llama_state_seq_set_data_ext(self._context, data, len(data), self._seq, _FLAGS):
                return newest
            del self._kept[newest]
        return 0
