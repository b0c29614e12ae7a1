"""GGUF files with something changed in them, for tests of what finds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from makers import Floats, _File, raw_entries

Entry = bool | int | float | str | Sequence[str] | Sequence[int]


def altered(
    src: Path, dst: Path, entries: Mapping[str, Entry | None] | None = None, tensors: Mapping[str, Floats] | None = None
) -> Path:
    """Write `src` in F32 with other metadata entries (None: left out) and other, or more, tensors."""
    file = _File()
    file.entries = {key: entry for key, entry in raw_entries(src).items() if key != "general.alignment"}
    for key, value in (entries or {}).items():
        file.entries.pop(key, None)
        if value is not None:
            file.add(**{key.replace(".", "__"): value})
    for tensor in GGUFReader(src).tensors:
        file.tensors[tensor.name] = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    file.tensors |= tensors or {}
    return file.write(dst)


def weights_of(src: Path, name: str) -> Floats:
    """One tensor in F32."""
    (found,) = (tensor for tensor in GGUFReader(src).tensors if tensor.name == name)
    return np.array(dequantize(found.data, found.tensor_type), dtype=np.float32)
