"""The program that quantises one file: `python -m wsd_local.library.quantizer JOB`.

Contract: `JOB` is JSON with the fields of `QuantizeJob`. It writes llama.cpp's log to standard output, and exits with 0
if the file is complete. It is a program of its own because llama.cpp cannot be stopped while it quantises.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wsd_local.errors import ModelError, WsdError
from wsd_local.library.adapters import matrix_pairs
from wsd_local.library.gguf import Header, read_header
from wsd_local.llama.quantize import Floats, quantize, send_log


@dataclass(frozen=True, slots=True)
class QuantizeJob:
    """One quantisation. `plan` only computes how large the file would be, and writes nothing."""

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

    def run(self) -> bool:
        """Do it, in this process; whether the file is complete.

        Raises:
            UsageError: there is no such type.
            ModelError: the importance matrix cannot be used.
        """
        return quantize(
            Path(self.source),
            Path(self.destination),
            self.kind,
            threads=self.threads,
            allow_requantize=self.allow_requantize,
            imatrix=read_imatrix(Path(self.imatrix)) if self.imatrix is not None else None,
            plan=self.plan,
        )


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
        # An expert that was never used counts like all others.
        means = np.where(count[:, None] > 0, rows / np.maximum(count[:, None], 1), 1)
        found[name] = np.ascontiguousarray(means, dtype=np.float32).ravel()
    return found


def _floats(header: Header, offset: int, count: int) -> Floats:
    alignment = header.integer("general.alignment") or 32
    start = -(-header.size // alignment) * alignment
    return np.fromfile(header.path, dtype="<f4", count=count, offset=start + offset)


def _write(text: bytes) -> None:
    try:
        os.write(1, text)
    except OSError:  # the parent is gone
        os._exit(1)


def main() -> int:
    """Entry point."""
    kept = send_log(_write)
    try:
        return 0 if QuantizeJob(**json.loads(sys.argv[1])).run() else 1
    except WsdError as error:
        with contextlib.suppress(OSError):
            os.write(1, f"failed to quantize: {error}\n".encode())
        return 1
    finally:
        del kept


if __name__ == "__main__":
    sys.exit(main())
