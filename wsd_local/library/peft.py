"""A LoRA adapter in a folder, as PEFT saves it: whether a GGUF adapter can be the same.

Contract: reads `adapter_config.json` and the header of the weights; nothing is fetched, written or run. What a GGUF
adapter cannot hold, what llama.cpp's converter or llama.cpp would leave out, and what is not known here is refused in
one line.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.errors import ModelError, UsageError, printable, short
from wsd_local.library.checkpoint import ADAPTER_CONFIG, safetensors
from wsd_local.paths import expanded
from wsd_local.system.inputs import read_json

WEIGHTS = "adapter_model.safetensors"
_FACTOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_OUTER = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output_layer|embed_tokens|embed_in|word_embeddings|wte|wpe)(?:\.|$)")
"""Names of embeddings and output layers."""
_WHOLE = ("model*.safetensors", "pytorch_model*.bin")
_LARGEST_ALPHA = 3e38

_REFUSED = {
    "use_dora": "it scales whole weights too (DoRA)",
    "modules_to_save": "it replaces whole layers (modules_to_save: {value})",
    "trainable_token_indices": "it replaces embeddings of tokens (trainable_token_indices)",
    "lora_bias": "it changes biases (lora_bias)",
    "fan_in_fan_out": "its factors are for transposed weights (fan_in_fan_out)",
    "layer_replication": "it is for a model with repeated layers (layer_replication)",
    "target_parameters": "it changes parameters that are no layers (target_parameters: {value})",
    "alora_invocation_tokens": "it is to begin after certain tokens (aLoRA), and here it would change every token",
    "use_qalora": "it is for one quantisation of its model (QALoRA)",
    "use_bdlora": "its factors are made of blocks (BD-LoRA)",
    "arrow_config": "it chooses among several adapters (Arrow)",
    "kasa_config": "it has weights between its factors (KaSA)",
    "monteclora_config": "it draws its weights at random (MonteCLoRA)",
    "megatron_config": "it is for layers of Megatron",
}
"""Values of the configuration that a GGUF adapter cannot hold, and why."""
_HARMLESS = re.compile(
    r"""task_type|peft_type|auto_mapping|peft_version|base_model_name_or_path|revision|inference_mode|r
    |lora_alpha|lora_dropout|bias|use_rslora|target_modules|exclude_modules|init_lora_weights
    |layers_to_transform|layers_pattern|rank_pattern|alpha_pattern|megatron_core|loftq_config|eva_config
    |corda_config|lora_ga_config|velora_config|qalora_group_size|runtime_config|ensure_weight_tying""",
    re.VERBOSE,
)
"""What is checked apart, or says how the adapter was made and not what it is."""
_UNCHANGED = (None, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights`, beside flags, that leave the model as it was."""


@dataclass(frozen=True, slots=True)
class PeftAdapter:
    """An adapter that can be converted.

    Args:
        folder: where it is.
        base: name or folder of the model that it changes, as PEFT noted it; None if it did not.
        alpha: the GGUF adapter's: llama.cpp divides it by the rank of each pair of factors.
        changed: numbers in all weights that it changes.
        size: numbers in its factors.
    """

    folder: Path
    base: str | None
    alpha: float
    changed: int
    size: int


def is_adapter(folder: Path, *, fetched: bool = False) -> bool:
    """Whether a folder holds an adapter; of a `fetched` repository only if it holds no whole model.

    Raises:
        ModelError: the folder holds a whole model too.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        return False
    if whole := next((path.name for pattern in _WHOLE for path in sorted(folder.glob(pattern))), None):
        if fetched:
            return False
        raise ModelError(f"{folder}: holds an adapter ({ADAPTER_CONFIG}) and a whole model ({whole}); move one away")
    return True


def base_of(adapter: PeftAdapter) -> Path | str:
    """Where the configuration of the model is that an adapter changes: a folder, or else a repository of the Hub.

    Raises:
        ModelError: the adapter does not say.
    """
    from wsd_local.library.repo_files import names_repository

    for folder in (adapter.folder, *([] if adapter.base is None else [expanded(adapter.base)])):
        if os.path.isfile(folder / "config.json"):  # noqa: PTH113 - the method raises for a name that is too long
            return folder
    if adapter.base is not None and names_repository(adapter.base) and not expanded(adapter.base).is_absolute():
        return adapter.base
    named = "does not say which model it changes" if adapter.base is None else f"changes {printable(adapter.base)!r}"
    here = "" if adapter.base is None else ", which is not here"
    raise ModelError(f"{adapter.folder}: {named}{here}: name the model's checkpoint with --base")


def read_adapter(folder: Path) -> PeftAdapter:
    """The adapter in a folder.

    Raises:
        ModelError: it is damaged, is none of LoRA, or cannot be held by a GGUF file as it is.
    """
    try:
        config = read_json(folder / ADAPTER_CONFIG)
    except UsageError as error:
        raise ModelError(str(error)) from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / ADAPTER_CONFIG}: is damaged: it holds no object; fetch or copy it again")
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{folder}: holds no {WEIGHTS}; save the adapter again with a newer PEFT")
    _check_config(folder, config)
    factors = _factors(folder, safetensors(path))
    ranks = {rank for _, rank, _ in factors.values()}
    base = config.get("base_model_name_or_path")
    return PeftAdapter(
        folder=folder,
        base=base if isinstance(base, str) and base else None,
        alpha=_alpha(folder, config, ranks),
        changed=sum(rows * columns for rows, _, columns in factors.values()),
        size=sum((rows + columns) * rank for rows, rank, columns in factors.values()),
    )


def cannot(folder: Path, why: str) -> ModelError:
    """The error for an adapter that no GGUF file can hold as it is."""
    return ModelError(
        f"{folder}: cannot become a GGUF adapter: {printable(why)[:300]}; merge it into its model (PEFT's "
        "merge_and_unload) and convert that"
    )


def _check_config(folder: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise cannot(folder, f"it is no LoRA adapter (peft_type is {short(kind)})")
    for name, value in config.items():
        if _HARMLESS.fullmatch(name) or value in (None, False) or (isinstance(value, list | dict | str) and not value):
            continue
        if name not in _REFUSED:
            raise cannot(folder, f"its configuration has {name!r}, which is not known here")
        raise cannot(folder, _REFUSED[name].format(value=_listed(value)))
    if config.get("bias", "none") != "none":
        raise cannot(folder, f"it changes biases (bias is {short(config['bias'])})")
    began = config.get("init_lora_weights")
    if not (isinstance(began, bool) or began in _UNCHANGED):
        raise cannot(folder, f"it may belong to changed weights (init_lora_weights is {short(began)})")


def _factors(folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, tuple[int, int, int]]:
    """Rows, rank and columns of each layer that is changed.

    Raises:
        ModelError: something else is changed too, or factors do not belong together.
    """
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, (_, shape) in tensors.items():
        found = _FACTOR.fullmatch(name)
        if found is None or _OUTER.search(name):
            raise cannot(folder, _what(name))
        sides.setdefault(found["module"], {})[found["side"]] = shape
    factors: dict[str, tuple[int, int, int]] = {}
    for module, shapes in sides.items():
        down, up = shapes.get("A", ()), shapes.get("B", ())
        if not len(down) == len(up) == 2:
            raise cannot(folder, f"it changes {module!r} by factors of shape {list(down)} and {list(up)}")
        if down[0] != up[1] or not (down[0] and down[1] and up[0]):
            raise ModelError(
                f"{folder / WEIGHTS}: is damaged: the factors of {printable(module)[:200]!r} are {list(down)} and "
                f"{list(up)}; fetch or copy it again"
            )
        factors[module] = up[0], down[0], down[1]
    if not factors:
        raise cannot(folder, "it changes no weights")
    return factors


def _what(name: str) -> str:
    """What a tensor changes that is not a usual layer."""
    if _OUTER.search(name) or "lora_embedding_" in name:
        return f"it changes embeddings or the output layer ({name!r}), which llama.cpp leaves out where they are one"
    if "lora_magnitude_vector" in name:
        return f"it scales whole weights too (DoRA, {name!r})"
    if name.endswith("bias"):
        return f"it changes biases ({name!r})"
    return f"it replaces {name!r} as a whole"


def _alpha(folder: Path, config: Mapping[str, Any], ranks: set[int]) -> float:
    """What the GGUF adapter's alpha must be for the same scale.

    Raises:
        ModelError: there is none that suits all layers.
    """
    alpha = config.get("lora_alpha")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < _LARGEST_ALPHA:
        raise ModelError(f"{folder / ADAPTER_CONFIG}: is damaged: lora_alpha is {short(alpha)}; fetch or copy it again")
    if not alpha:
        raise cannot(folder, "lora_alpha is 0, which llama.cpp takes for 1 times the rank")
    pattern = config.get("alpha_pattern")
    if pattern and not (isinstance(pattern, dict) and all(value == alpha for value in pattern.values())):
        raise cannot(folder, "some of its layers have an alpha of their own (alpha_pattern)")
    if not config.get("use_rslora"):
        return float(alpha)
    if len(ranks) > 1:
        raise cannot(folder, f"its layers have the ranks {_listed(sorted(ranks))}, and scales by their roots (rsLoRA)")
    return alpha * math.sqrt(next(iter(ranks)))


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
