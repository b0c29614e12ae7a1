"""What must be true of a LoRA adapter or an importance matrix before llama.cpp reads it.

Contract: looks at headers alone, and raises `ModelError` in one line for what llama.cpp would end the process over,
what it would leave out, or what belongs to another model. Values are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from gguf.constants import GGUFValueType

from wsd_local.errors import ModelError, printable
from wsd_local.library.gguf import Array, Header, Tensor, damage
from wsd_local.library.naming import readable_name

SUMS, COUNTS = ".in_sum2", ".counts"
_DOWN, _UP, _NORM = ".lora_a", ".lora_b", "_norm.weight"
_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"
_ALPHA, _INVOCATION = "adapter.lora.alpha", "adapter.alora.invocation_tokens"
_MOST_VALUES = 1 << 29
"""Numbers of an importance matrix; 61 layers of 256 experts have a quarter of a billion."""


def check_adapter(adapter: Header, model: Sequence[Header]) -> None:
    """Raise `ModelError` unless the adapter is one for this model; `model` is the headers of its parts."""
    name = readable_name(model[0].path, model[0].text("general.name"))
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if key in adapter.metadata and adapter.kinds[key] is not GGUFValueType.STRING:
            raise damage(adapter.path, f"{key} is no text")
        if adapter.text(key) != wanted:
            raise _foreign(adapter.path, name, f"it is no LoRA adapter ({key} is {adapter.text(key)!r})")
    if (adapter.integer("split.count") or 1) != 1 or "split.count" in adapter.metadata:
        raise _foreign(adapter.path, name, "it is a part of a split file; join the parts first")
    if adapter.text("general.architecture") != model[0].text("general.architecture"):
        raise _foreign(adapter.path, name, f"it is for the architecture {adapter.architecture!r}")
    alpha = adapter.metadata.get(_ALPHA, 0.0)
    if adapter.kinds.get(_ALPHA, GGUFValueType.FLOAT32) is not GGUFValueType.FLOAT32:
        raise damage(adapter.path, f"{_ALPHA} is {alpha!r} and must be a 32-bit number with a fraction")
    if not isinstance(alpha, float) or not math.isfinite(alpha):
        raise damage(adapter.path, f"{_ALPHA} is {alpha!r}")
    tokens = adapter.metadata.get(_INVOCATION)
    if tokens is not None and not (isinstance(tokens, Array) and tokens.kind is GGUFValueType.UINT32):
        raise damage(adapter.path, f"{_INVOCATION} is no list of tokens")
    if tokens is not None:
        raise _unusable(adapter.path, "it is made to begin after certain tokens (aLoRA), and would change every token")
    _check_factors(adapter, {tensor.name: tensor for header in model for tensor in header.tensors}, name)


def check_read(adapter: Header, read: Collection[str], model: Sequence[Header]) -> None:
    """Raise `ModelError` if an evaluation with the adapter read only some of its tensors, those in `read`."""
    for tensor in adapter.tensors:
        if tensor.name not in read:
            whole, architecture = tensor.name.removesuffix(_DOWN).removesuffix(_UP), model[0].architecture
            raise _unusable(adapter.path, f"it changes {whole!r}, and llama.cpp leaves that out for {architecture}")


def _check_factors(adapter: Header, weights: dict[str, Tensor], model: str) -> None:
    tensors = {tensor.name: tensor for tensor in adapter.tensors}
    if not tensors:
        raise _foreign(adapter.path, model, "it changes no weights")
    for name in tensors:
        whole = name.removesuffix(_DOWN).removesuffix(_UP)
        if name.endswith(_NORM):
            raise _unusable(adapter.path, f"it replaces {name!r}, which llama.cpp leaves out")
        if whole == name:
            raise damage(adapter.path, f"tensor {name!r} is no factor of a LoRA adapter")
        down, up, weight = tensors.get(whole + _DOWN), tensors.get(whole + _UP), weights.get(whole)
        if down is None or up is None:
            raise damage(adapter.path, f"tensor {name!r} has no counterpart")
        factors = f"the factors are {list(down.shape)} and {list(up.shape)}"
        if weight is None:
            raise _foreign(adapter.path, model, f"the model has no {whole!r}, which the adapter changes ({factors})")
        if not _fits(weight, down, up):
            what = f"{whole!r} is {list(weight.shape)} in the model, and {_change(weight, down, up)} in the adapter"
            raise _foreign(adapter.path, model, f"{what} ({factors})")
        if whole == _EMBEDDINGS and _OUTPUT not in weights:
            raise _unusable(adapter.path, f"it changes {whole!r}, which is the output layer of {model} too")


def _fits(weight: Tensor, down: Tensor, up: Tensor) -> bool:
    """Whether two factors make a change of this weight, as llama.cpp multiplies them."""
    if not len(weight.shape) == len(down.shape) == len(up.shape) >= 2 or down.shape[2:] != up.shape[2:]:
        return False
    if weight.name == _EMBEDDINGS:  # rows are looked up, so the factors change places
        return (weight.shape[0], weight.shape[1], down.shape[0]) == (up.shape[1], down.shape[1], up.shape[0])
    return (*weight.shape, down.shape[1]) == (down.shape[0], up.shape[1], *down.shape[2:], up.shape[0])


def _change(weight: Tensor, down: Tensor, up: Tensor) -> str:
    """The shape of the weights that two factors change; nothing that could be multiplied has none."""
    if not len(down.shape) == len(up.shape) >= 2 or down.shape[2:] != up.shape[2:]:
        return "no matrix"
    if weight.name == _EMBEDDINGS:
        return str([up.shape[1], down.shape[1], *up.shape[2:]])
    return str([down.shape[0], up.shape[1], *up.shape[2:]])


def _foreign(path: Path, model: str, what: str) -> ModelError:
    return ModelError(f"{path}: is no adapter for {model}: {_shown(what)}")


def _unusable(path: Path, what: str) -> ModelError:
    merge = "merge it into its model and convert that"
    return ModelError(f"{path}: cannot be used as an adapter: {_shown(what)}; {merge}")


def check_imatrix(matrix: Header, model: Sequence[Header]) -> None:
    """Raise `ModelError` unless it is an importance matrix of this model, complete and no longer than one can be."""
    kind = matrix.text("general.type")
    if "general.type" in matrix.metadata and kind != "imatrix":
        raise _no_matrix(matrix.path)
    pairs = matrix_pairs(matrix)
    if sum(sums.elements for sums, _ in pairs.values()) > _MOST_VALUES:
        raise damage(matrix.path, f"it holds more than {_MOST_VALUES} numbers")
    weights = {tensor.name: tensor for header in model for tensor in header.tensors}
    if not pairs.keys() & weights.keys():
        raise ModelError(f"{matrix.path}: is an importance matrix of another model: it names no tensor of this one")
    for name in pairs.keys() & weights.keys():
        sums, weight = pairs[name][0], weights[name]
        if sums.elements != weight.shape[0] * math.prod(weight.shape[2:]):
            raise ModelError(
                f"{matrix.path}: is an importance matrix of another model: {_shown(name)} has {sums.elements} inputs "
                f"there, and {weight.shape[0] * math.prod(weight.shape[2:])} here"
            )


def matrix_pairs(matrix: Header) -> dict[str, tuple[Tensor, Tensor]]:
    """The sums and the counts that an importance matrix has for each tensor of a model.

    Raises:
        ModelError: it has none, or they cannot belong together.
    """
    tensors = {tensor.name: tensor for tensor in matrix.tensors}
    pairs: dict[str, tuple[Tensor, Tensor]] = {}
    for name, tensor in tensors.items():
        whole = name.removesuffix(SUMS).removesuffix(COUNTS)
        if whole == name:
            continue
        sums, counts = tensors.get(whole + SUMS), tensors.get(whole + COUNTS)
        if sums is None or counts is None:
            raise damage(matrix.path, f"tensor {name!r} has no counterpart")
        if sums.type != "F32" or counts.type != "F32":
            raise damage(matrix.path, f"tensor {name!r} is {tensor.type} and must be F32")
        if not counts.elements or sums.elements % counts.elements:
            raise damage(matrix.path, f"tensor {name!r} has {sums.elements} sums for {counts.elements} counts")
        pairs[whole] = sums, counts
    if not pairs:
        raise _no_matrix(matrix.path)
    return pairs


def _no_matrix(path: Path) -> ModelError:
    return ModelError(f"{path}: holds no importance matrix; make one with llama.cpp's llama-imatrix")


def _shown(text: str) -> str:
    """Names out of a file may be anything."""
    return printable(text)[:300]
