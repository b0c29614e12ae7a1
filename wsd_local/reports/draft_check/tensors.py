"""What can be read off a GGUF file's tensors without llama.cpp: bits, factors of positions, an output of its own.

Contract: reads what it needs of the file, a few rows of large tensors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from wsd_local.library.gguf import Header, Tensor

EMBEDDING, OUTPUT, FACTORS = "token_embd.weight", "output.weight", "rope_freqs.weight"
_ROWS = 64
"""Rows of a matrix that are compared."""


def found(headers: tuple[Header, ...], name: str) -> tuple[Header, Tensor] | None:
    """The tensor of a name, and the header of the file that holds it."""
    return next(((header, tensor) for header in headers for tensor in header.tensors if tensor.name == name), None)


def bits(headers: tuple[Header, ...]) -> float:
    """Bits of a weight, on average over the matrices."""
    matrices = [tensor for header in headers for tensor in header.tensors if len(tensor.shape) > 1]
    return 8 * sum(tensor.size for tensor in matrices) / max(1, sum(tensor.elements for tensor in matrices))


def factors(headers: tuple[Header, ...]) -> npt.NDArray[np.float32]:
    """The factors of the angles of positions; none if the file has none."""
    place = found(headers, FACTORS)
    return np.empty(0, dtype=np.float32) if place is None else _rows(*place, [0])[0]


def output_difference(headers: tuple[Header, ...]) -> float | None:
    """How far the output is from the input embeddings: root mean square by theirs; None if there is none to compare."""
    inputs, outputs = found(headers, EMBEDDING), found(headers, OUTPUT)
    if inputs is None or outputs is None:
        return None
    if inputs[1].shape != outputs[1].shape:
        return float("inf")
    indices = np.unique(np.linspace(0, inputs[1].shape[1] - 1, _ROWS).astype(int)).tolist()
    one, other = (_rows(*place, indices).astype(np.float64) for place in (inputs, outputs))
    return float(np.sqrt(np.mean((one - other) ** 2) / max(float(np.mean(one**2)), 1e-30)))


def _rows(header: Header, tensor: Tensor, indices: list[int]) -> npt.NDArray[np.float32]:
    """Some rows of a tensor, in 32 bits."""
    size = tensor.size // (tensor.elements // tensor.shape[0])
    start = -(-header.size // header.alignment) * header.alignment + tensor.offset
    with header.path.open("rb") as file:
        read = []
        for index in indices:
            file.seek(start + index * size)
            read.append(np.frombuffer(file.read(size), dtype=np.uint8))
    rows: npt.NDArray[np.float32] = dequantize(np.stack(read), GGMLQuantizationType[tensor.type]).astype(np.float32)
    return rows
