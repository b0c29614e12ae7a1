"""llama.cpp's quantisation: which types there are, and one file made into one of them.

Contract: `quantize` cannot be stopped, and llama.cpp ends the process on what it does not expect, so it is called in
a process of its own. llama.cpp's reasons go to its log.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from wsd_local.errors import UsageError, nearest

_PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")
_READ_ONLY = ("NVFP4",)
"""Types that llama.cpp runs and cannot make."""

Floats = npt.NDArray[np.float32]


def file_types() -> dict[str, int]:
    """All types that llama.cpp can make, by the names people write, with llama.cpp's numbers."""
    found = {
        name.removeprefix(prefix): int(getattr(llama_cpp, name))
        for prefix in _PREFIXES
        for name in dir(llama_cpp)
        if name.startswith(prefix)
    }
    return {name: number for name, number in sorted(found.items()) if name not in _READ_ONLY}


def file_type(name: str) -> str:
    """The type that somebody means: any case; Q4_K is Q4_K_M.

    Raises:
        UsageError: there is no such type; the nearest one and all of them are named.
    """
    types = file_types()
    wanted = name.upper().replace("-", "_")
    if wanted not in types and f"{wanted}_M" in types and wanted.endswith("_K"):
        return f"{wanted}_M"
    if wanted not in types:
        close = nearest(wanted, list(types))
        known = "" if close.startswith("; known") else f"; known are {', '.join(types)}"
        raise UsageError(f"there is no type {name!r}{close}{known}")
    return wanted


def quantize(
    source: Path,
    destination: Path,
    kind: str,
    *,
    threads: int = 0,
    allow_requantize: bool = False,
    imatrix: Mapping[str, Floats] | None = None,
    plan: bool = False,
) -> bool:
    """Quantise one file; whether the result is complete.

    Args:
        source, destination: GGUF files.
        kind: a type, as `file_type` knows it.
        threads: 0 leaves the number to llama.cpp.
        allow_requantize: take a source that is quantised already.
        imatrix: mean squared activations of tensors' inputs, by the tensors' names.
        plan: write nothing; llama.cpp's log says how large the file would be.

    Raises:
        UsageError: there is no such type.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_types()[file_type(kind)]
    params.nthread = threads
    params.allow_requantize = allow_requantize
    params.dry_run = plan
    if imatrix:
        rows = (llama_cpp.llama_model_imatrix_data * (len(imatrix) + 1))()
        for row, (name, values) in zip(rows, imatrix.items(), strict=False):
            row.name, row.size = name.encode(), len(values)
            row.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = rows
    paths = os.fsencode(source), os.fsencode(destination)
    return int(llama_cpp.llama_model_quantize(*paths, ctypes.byref(params))) == 0


def send_log(write: Callable[[bytes], None]) -> Any:
    """Let `write` receive all that llama.cpp logs from now on; as long as the returned object lives."""

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
    def callback(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        write(text)

    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    return callback
