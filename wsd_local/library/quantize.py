"""Quantising: a GGUF file becomes one of fewer bits, by llama.cpp's own program.

Contract: the work is done in a child process, which is killed to stop it. The new file appears under its name only when
it is complete, and replaces another one only with `force`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wsd_local.core.resources import require_threads
from wsd_local.errors import ModelError, UsageError
from wsd_local.files import check_disk, check_free, replaced
from wsd_local.system.child import UNOBSERVED, Observer, cause, nothing, run
from wsd_local.units import MIB

if TYPE_CHECKING:
    from wsd_local.library.gguf import Header
    from wsd_local.library.quantizer import QuantizeJob

_TENSOR_LINE = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_QUANT_SIZE = re.compile(r"quant size += +([\d.]+) MiB \(([\d.]+) BPW\)")
_QUANT_COMPLAINT = re.compile(r"failed to quantize: (?P<what>.+)|.*(?P<abort>GGML_ASSERT\(.*|fatal error.*)")
_PLAIN_TYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Quantized:
    """The result of quantising: sizes in bytes before and after, and bits per weight."""

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
    observer: Observer = UNOBSERVED,
) -> Quantized:
    """Make a GGUF file of fewer bits. The parts of a split model become one file.

    Args:
        source: the file, or the first part.
        output: the file to make.
        kind: one of `wsd_local.llama.quantize.file_types()`.
        threads: CPU threads; all, if None.
        allow_requantize: accept a source that is quantised already.
        imatrix: importance matrix, a GGUF file; types of less than 3 bits need one.
        force: replace a file of that name.
        observer: sees each tensor, and can stop the work.

    Raises:
        UsageError: there is no such type, the output exists or is the source, the source is quantised already, or the
            type needs an importance matrix.
        ModelError: a file is missing, damaged, or refused by llama.cpp.
        CancelledError: it was stopped.
        WsdError: the disk is full.
    """
    from wsd_local.library.adapters import check_imatrix
    from wsd_local.library.gguf import read_header, read_model
    from wsd_local.library.quantizer import QuantizeJob
    from wsd_local.llama.quantize import file_type

    kind = file_type(kind)
    require_threads(threads)
    headers = read_model(source)
    if headers[0].text("general.type") == "adapter":
        raise ModelError(f"{source}: is a LoRA adapter; models convert --type makes one of another type")
    if output.exists() and any(output.samefile(header.path) for header in headers):
        raise UsageError(f"{output}: is the file that is to be quantised; choose another --output")
    check_free(output, force)
    if not allow_requantize:
        _require_unquantized(source, headers)
    if imatrix is not None:
        check_imatrix(read_header(imatrix), headers)
    matrix = str(imatrix.absolute()) if imatrix else None
    job = QuantizeJob(str(source.absolute()), str(output.absolute()), kind, threads or 0, allow_requantize, matrix)
    check_disk(output, _planned_size(source, job, observer) + sum(header.size for header in headers))

    def on_line(line: str) -> None:
        if found := _TENSOR_LINE.match(line):
            observer.progress("quantising", (int(found[1]) - 1) / int(found[2]))

    with replaced(output) as part:
        lines = _run(source, replace(job, destination=str(part.absolute())), on_line, observer)
    _, bits = _quantized_size(lines)
    return Quantized(output, sum(header.file_size for header in headers), output.stat().st_size, bits)


def _require_unquantized(source: Path, headers: Sequence[Header]) -> None:
    """Raise `UsageError` if a matrix of the model is quantised."""
    from wsd_local.library.description import quantization

    types: Counter[str] = Counter()
    for tensor in (tensor for header in headers for tensor in header.tensors if len(tensor.shape) > 1):
        types[tensor.type] += tensor.size
    if set(types) - {*_PLAIN_TYPES}:
        raise UsageError(
            f"{source}: is quantised already ({quantization(headers[0], types)}), and quantising again loses more; "
            "take the unquantised model, or add --allow-requantize"
        )


def _planned_size(source: Path, job: QuantizeJob, observer: Observer) -> int:
    """Bytes of all tensors of the file that a job makes, as llama.cpp computes them without making it."""
    lines = _run(source, replace(job, plan=True), nothing, observer)
    if job.imatrix is None and any("will require an imatrix" in line for line in lines):
        raise UsageError(f"{job.kind} needs an importance matrix (--imatrix); types from IQ3_S and Q3_K_S up need none")
    size, _ = _quantized_size(lines)
    return int(size)


def _run(source: Path, job: QuantizeJob, on_line: Callable[[str], None], observer: Observer) -> list[str]:
    """The lines that llama.cpp printed."""
    code, lines = run(["wsd_local.library.quantizer", job.as_json()], on_line, observer.stoppable)
    if code != 0:
        raise ModelError(f"{source}: cannot be quantised: {cause(code, lines, _QUANT_COMPLAINT)}")
    return lines


def _quantized_size(lines: list[str]) -> tuple[float, float]:
    """Bytes of all tensors and bits per weight, as llama.cpp prints them."""
    found = next(match for line in reversed(lines) if (match := _QUANT_SIZE.search(line)))
    return float(found[1]) * MIB, float(found[2])
