"""What a model file is, from its header alone.

Contract: pure; reads nothing but the headers it is given, so that a file of any size is described at once.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGUFValueType

from wsd_local.errors import cut
from wsd_local.library.gguf import Array, Header, Value, damage
from wsd_local.library.naming import readable_name

_FINGERPRINT_KEYS = ("model", "pre", "tokens", "token_type", "merges", "scores")
_MOST_LAYERS = 1 << 14
_LONGEST_SHOWN = 60
"""Characters of a metadata value in a description."""


@dataclass(frozen=True, slots=True)
class Description:
    """One model.

    `size` is in bytes, `parameters` counts numbers, `bits` is bits per parameter. `types` counts bytes by tensor type,
    `per_layer` by layer (None: outside of layers) as (tensors, bytes). `fingerprint` is the same for two models whose
    vocabularies are the same.
    """

    path: str
    parts: int
    name: str
    architecture: str
    size: int
    parameters: int
    bits: float
    quantization: str
    types: dict[str, int]
    per_layer: dict[int | None, tuple[int, int]]
    n_layers: int
    n_ctx_train: int
    n_embd: int
    vocabulary: str
    n_vocab: int
    fingerprint: str
    template: str | None
    licence: str | None
    metadata: dict[str, str]

    @property
    def is_adapter(self) -> bool:
        """Whether it is no model, but a LoRA adapter for one."""
        return self.metadata.get("general.type") == "adapter"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        layers = [{"layer": layer, "tensors": n, "bytes": size} for layer, (n, size) in self.per_layer.items()]
        return asdict(self) | {"per_layer": layers}


def describe(headers: Sequence[Header]) -> Description:
    """Describe a model from the headers of all its parts.

    Raises:
        ModelError: the header states what no model has.
    """
    first = headers[0]
    tensors = [tensor for header in headers for tensor in header.tensors]
    weights = sum(tensor.size for tensor in tensors)
    parameters = sum(tensor.elements for tensor in tensors)
    types: Counter[str] = Counter()
    layers: dict[int | None, tuple[int, int]] = {}
    for tensor in sorted(tensors, key=lambda tensor: -1 if tensor.layer is None else tensor.layer):
        types[tensor.type] += tensor.size
        count, size = layers.get(tensor.layer, (0, 0))
        layers[tensor.layer] = count + 1, size + tensor.size
    return Description(
        path=str(first.path),
        parts=len(headers),
        name=readable_name(first.path, first.text("general.name")),
        architecture=first.architecture,
        size=sum(header.file_size for header in headers),
        parameters=parameters,
        bits=8 * weights / parameters if parameters else 0.0,
        quantization=quantization(first, types),
        types=dict(types.most_common()),
        per_layer=layers,
        n_layers=block_count(headers),
        n_ctx_train=hyperparameter(first, "context_length"),
        n_embd=hyperparameter(first, "embedding_length"),
        vocabulary="/".join(filter(None, (first.text("tokenizer.ggml.model"), first.text("tokenizer.ggml.pre")))),
        n_vocab=n_vocab(first),
        fingerprint=fingerprint(first),
        template=first.text("tokenizer.chat_template"),
        licence=first.text("general.license"),
        metadata={key: _shown(value) for key, value in first.metadata.items()},
    )


def block_count(headers: Sequence[Header]) -> int:
    """The number of layers, from the names of the tensors.

    Raises:
        ModelError: there are more than any model has.
    """
    layers = (tensor.layer for header in headers for tensor in header.tensors if tensor.layer is not None)
    count = 1 + max(layers, default=-1)
    if count > _MOST_LAYERS:
        raise damage(headers[0].path, f"it says that it has {count} layers")
    return count


def n_vocab(header: Header) -> int:
    """The number of tokens in the vocabulary, 0 if there is none."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    return tokens.count if isinstance(tokens, Array) else 0


def hyperparameter(header: Header, name: str, layer: int = 0) -> int:
    """A whole number of the architecture, such as `context_length`, or that of one layer; 0 if it is not there.

    Raises:
        ModelError: it is no whole number.
    """
    value = header.metadata.get(f"{header.architecture}.{name}", 0)
    if isinstance(value, Array):
        numbers = value.numbers() if value.kind is not GGUFValueType.STRING else None
        if numbers is None or numbers.dtype.kind not in "iu":
            raise damage(header.path, f"{header.architecture}.{name} is a list of {value.kind.name.lower()}")
        value = int(numbers[layer]) if layer < len(numbers) else 0
    if isinstance(value, bool | float | str):
        raise damage(header.path, f"{header.architecture}.{name} is {value!r} and must be a whole number")
    return int(value)


def quantization(header: Header, types: Counter[str]) -> str:
    """The name of the mix, as in `general.file_type`; else the type of most bytes."""
    from gguf.constants import LlamaFileType

    kind = header.integer("general.file_type")
    if kind is not None and kind in LlamaFileType.__members__.values():
        return str(LlamaFileType(kind).name).removeprefix("MOSTLY_").removeprefix("ALL_")
    return types.most_common(1)[0][0] if types else "none"


def fingerprint(header: Header) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the vocabulary: tokens, types, merges, scores."""
    digest = hashlib.sha256()
    for key in _FINGERPRINT_KEYS:
        value = header.metadata.get(f"tokenizer.ggml.{key}", "")
        digest.update(key.encode() + (value.data if isinstance(value, Array) else str(value).encode()))
    return digest.hexdigest()[:12]


def _shown(value: Value) -> str:
    if isinstance(value, Array):
        return f"{value.kind.name.lower()}[{value.count}]"
    return cut(" ".join(str(value).split()), _LONGEST_SHOWN)


def gguf_files(folder: Path) -> list[Path]:
    """GGUF files in a folder and below, by name; of a split model the first part only."""
    found = (path for path in sorted(folder.rglob("*.gguf")) if path.is_file())
    return [path for path in found if "-of-" not in path.stem or path.stem.split("-of-")[0].endswith("-00001")]
