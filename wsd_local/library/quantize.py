"""A GGUF file becomes one of fewer bits, by llama.cpp's own quantisation.

Contract: it works in a child process that is killed when it is to stop. What is made appears under its name only when
it is complete, and never in place of another file unless that was asked for.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wsd_local.errors import ModelError, UsageError
from wsd_local.files import check_disk, check_free, replaced
from wsd_local.settings import require_threads
from wsd_local.system.child import Progress, Stoppable, cause, nothing, run
from wsd_local.units import MIB

_TENSOR_LINE = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_QUANT_SIZE = re.compile(r"quant size += +([\d.]+) MiB \(([\d.]+) BPW\)")
_QUANT_COMPLAINT = re.compile(r"failed to quantize: (?P<what>.+)|.*(?P<abort>GGML_ASSERT\(.*|fatal error.*)")
_PLAIN_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Quantized:
    """What quantising gave: sizes in bytes before and after, and bits per weight."""

    path: Path
    before: int
    after: int
    bits: float


def quantize(
    source: Path,
    output: Path,
    kind: str,
    *,
    threads: int | None = None,
    allow_requantize: bool = False,
    imatrix: Path | None = None,
    force: bool = False,
    progress: Progress = nothing,
    stoppable: Stoppable = nothing,
) -> Quantized:
    """Make a GGUF file of fewer bits. The parts of a split model become one file.

    Args:
        source: the file, or the first part.
        output: the file to make.
        kind: one of `wsd_local.llama.quantize.file_types()`.
        threads: CPU threads; all, if None.
        allow_requantize: take a source that is quantised already.
        imatrix: importance matrix, a GGUF file; types of less than 3 bits need one.
        force: replace a file of that name.
        progress: called for each tensor.
        stoppable: called with a function that ends the work.

    Raises:
        UsageError: there is no such type, the output exists or is the source, the source is quantised already, or the
            type needs an importance matrix.
        ModelError: a file is missing, damaged, or refused by llama.cpp.
        CancelledError: it was stopped.
        WsdError: the disk is full.
    """
    from wsd_local.library.adapters import check_imatrix
    from wsd_local.library.description import quantization
    from wsd_local.library.gguf import read_header, read_model
    from wsd_local.llama.quantize import Job, file_type

    kind = file_type(kind)
    require_threads(threads)
    headers = read_model(source)
    if output.exists() and any(output.samefile(header.path) for header in headers):
        raise UsageError(f"{output}: is the file that is to be quantised; choose another --output")
    check_free(output, force)
    types: Counter[str] = Counter()
    for tensor in (tensor for header in headers for tensor in header.tensors if len(tensor.shape) > 1):
        types[tensor.type] += tensor.size
    if set(types) - {*_PLAIN_TYPES} and not allow_requantize:
        raise UsageError(
            f"{source}: is quantised already ({quantization(headers[0], types)}), and quantising again loses more; "
            "take the unquantised model, or add --allow-requantize"
        )
    if imatrix is not None:
        check_imatrix(read_header(imatrix), headers)
    job = Job(
        str(source.absolute()),
        str(output.absolute()),
        kind,
        threads or 0,
        allow_requantize,
        str(imatrix.absolute()) if imatrix else None,
        plan=True,
    )
    program = "wsd_local.llama.quantize"
    code, said = run([program, job.as_json()], nothing, stoppable)
    _expect(source, code, said)
    if imatrix is None and any("will require an imatrix" in line for line in said):
        raise UsageError(f"{kind} needs an importance matrix (--imatrix); types from IQ3_S and Q3_K_S up need none")
    planned, _ = _quantized_size(said)
    check_disk(output, int(planned) + sum(header.size for header in headers))

    def heard(line: str) -> None:
        if found := _TENSOR_LINE.match(line):
            progress("quantising", (int(found[1]) - 1) / int(found[2]))

    with replaced(output) as part:
        job = Job(job.source, str(part.absolute()), kind, job.threads, allow_requantize, job.imatrix)
        code, said = run([program, job.as_json()], heard, stoppable)
        _expect(source, code, said)
    _, bits = _quantized_size(said)
    return Quantized(output, sum(header.file_size for header in headers), output.stat().st_size, bits)


def _quantized_size(said: list[str]) -> tuple[float, float]:
    """Bytes of all tensors and bits per weight, in llama.cpp's words."""
    found = next(match for line in reversed(said) if (match := _QUANT_SIZE.search(line)))
    return float(found[1]) * MIB, float(found[2])


def _expect(source: Path, code: int, said: list[str]) -> None:
    if code != 0:
        raise ModelError(f"{source}: cannot be quantised: {cause(code, said, _QUANT_COMPLAINT)}")
