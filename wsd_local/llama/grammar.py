"""A GBNF grammar over one vocabulary.

Contract: llama.cpp ends the process when a grammar is fed a token that it does not accept, so nothing is fed here that
was not asked about first. Parsing errors become `UsageError` with llama.cpp's own reason.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from wsd_local.errors import UsageError, WsdError
from wsd_local.llama.logs import captured
from wsd_local.llama.model import Model

CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""llama.cpp's `llama_token_data`."""


class Grammar:
    """Where a text stands in a grammar whose root rule is `root`.

    Raises:
        UsageError: the grammar cannot be parsed.
    """

    def __init__(self, gbnf: str, model: Model) -> None:
        self._model = model
        if not gbnf.strip():
            raise UsageError("the grammar is empty")
        with _standard_error() as said, captured() as logged:
            native = llama_cpp.llama_sampler_init_grammar(model.vocab, gbnf.encode(), b"root")
        if not native:
            lines = [*said, *logged]
            reason = next((line.partition("error parsing grammar: ")[2] for line in said if "error" in line), "")
            raise UsageError(f"the grammar cannot be used: {reason or '; '.join(lines) or 'llama.cpp gave no reason'}")
        self._hold(native)

    def _hold(self, native: Any) -> None:
        self._native = native
        self._free = weakref.finalize(self, llama_cpp.llama_sampler_free, native)

    def allows(self, token: int) -> bool:
        """Whether the text may go on with `token`; for an end-of-generation token, whether it may end."""
        return self._allows(self._native, token)

    def _allows(self, native: Any, token: int) -> bool:
        if b"\0" in self._model.piece(token):
            return False
        candidates = np.array([(token, 0.0, 0.0)], dtype=CANDIDATE)
        apply(native, candidates)
        return bool(candidates["logit"][0] == 0.0)

    def accept(self, token: int) -> None:
        """The text goes on with `token`."""
        if not self.allows(token):
            raise WsdError(f"token {token} does not fit the grammar")
        llama_cpp.llama_sampler_accept(self._native, token)

    def begins_with(self, tokens: Sequence[int]) -> bool:
        """Whether the text may go on with all of `tokens`; if so it does, else nothing changes."""
        trial = llama_cpp.llama_sampler_clone(self._native)
        for token in tokens:
            if self._model.is_eog(token) or not self._allows(trial, token):
                llama_cpp.llama_sampler_free(trial)
                return False
            llama_cpp.llama_sampler_accept(trial, token)
        self._free()
        self._hold(trial)
        return True

    def restrict(self, candidates: npt.NDArray[Any]) -> None:
        """Give every candidate that is not allowed a logit of minus infinity."""
        apply(self._native, candidates)


def apply(native: Any, candidates: npt.NDArray[Any]) -> int:
    """Apply a native sampler to candidates in place; the token it selected, -1 if it selects none."""
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    array = llama_cpp.llama_token_data_array(data, len(candidates), -1, False)
    llama_cpp.llama_sampler_apply(native, ctypes.byref(array))
    return int(array.data[array.selected].id) if array.selected >= 0 else -1


@contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Collect what native code prints to file descriptor 2: the reason for a grammar's refusal comes only there."""
    lines: list[str] = []
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()
