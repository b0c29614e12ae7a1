"""llama.cpp's quantisation: which types there are, and the program that makes a file of one of them.

Contract: `python -m wsd_local.llama.quantize JOB` quantises one file and ends; `JOB` is JSON with the fields of `Job`.
It says on standard output what llama.cpp says, and exits with 0 if the file is complete. It is a program because
llama.cpp cannot be stopped while it quantises, and ends the process over what it does not expect.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from wsd_local.errors import ModelError, UsageError, WsdError, nearest
from wsd_local.library.adapters import matrix_pairs
from wsd_local.library.gguf import Header, read_header

_PREFIXES = ("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_")
_READ_ONLY = ("NVFP4",)
"""Types that llama.cpp runs and cannot make."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Job:
    """One quantisation. `plan` only says how large the file would be, and writes nothing."""

    source: str
    destination: str
    kind: str
    threads: int = 0
    allow_requantize: bool = False
    imatrix: str | None = None
    plan: bool = False

    def as_json(self) -> str:
        """The argument of the program."""
        return json.dumps(asdict(self))


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


def read_imatrix(path: Path) -> dict[str, Floats]:
    """Mean squared activations of each tensor's inputs, from a GGUF file that `llama-imatrix` wrote.

    Raises:
        ModelError: the file cannot be read, or holds no importance matrix.
    """
    header = read_header(path)
    found = {}
    for name, pair in matrix_pairs(header).items():
        total, count = (_floats(header, entry.offset, entry.elements) for entry in pair)
        if not (np.isfinite(total).all() and np.isfinite(count).all() and total.min() >= 0 and count.min() >= 0):
            raise ModelError(f"{path}: is damaged: {name!r} holds numbers that cannot be; make it again")
        rows = total.reshape(len(count), -1)
        # An expert that was never asked counts like all others.
        means = np.where(count[:, None] > 0, rows / np.maximum(count[:, None], 1), 1)
        found[name] = np.ascontiguousarray(means, dtype=np.float32).ravel()
    return found


def _floats(header: Header, offset: int, count: int) -> Floats:
    alignment = header.integer("general.alignment") or 32
    start = -(-header.size // alignment) * alignment
    return np.fromfile(header.path, dtype="<f4", count=count, offset=start + offset)


def quantize(job: Job) -> bool:
    """Do it, in this process; whether the file is complete. llama.cpp's reasons go to its log.

    Raises:
        UsageError: there is no such type.
        ModelError: the importance matrix cannot be used.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = file_types()[file_type(job.kind)]
    params.nthread = job.threads
    params.allow_requantize = job.allow_requantize
    params.dry_run = job.plan
    matrix = read_imatrix(Path(job.imatrix)) if job.imatrix is not None else {}
    if matrix:
        rows = (llama_cpp.llama_model_imatrix_data * (len(matrix) + 1))()
        for row, (name, values) in zip(rows, matrix.items(), strict=False):
            row.name, row.size = name.encode(), len(values)
            row.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = rows
    source, destination = os.fsencode(job.source), os.fsencode(job.destination)
    return int(llama_cpp.llama_model_quantize(source, destination, ctypes.byref(params))) == 0


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _say(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    try:
        os.write(1, text)
    except OSError:  # nobody listens any more: the parent is gone
        os._exit(1)


def main() -> int:
    """The program."""
    llama_cpp.llama_log_set(_say, ctypes.c_void_p(0))
    try:
        return 0 if quantize(Job(**json.loads(sys.argv[1]))) else 1
    except WsdError as error:
        with contextlib.suppress(OSError):
            os.write(1, f"failed to quantize: {error}\n".encode())
        return 1


if __name__ == "__main__":
    sys.exit(main())
