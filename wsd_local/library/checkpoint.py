"""A checkpoint in a folder on this machine: whether it is one, its weights, and the type to convert them to.

Contract: reads a configuration's presence and the headers of weights; nothing is fetched, written or run.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsd_local.errors import ModelError, UsageError, reason
from wsd_local.paths import expanded
from wsd_local.system.inputs import json_value, read_json

WeightType = Literal["auto", "f32", "f16", "bf16", "q8_0"]
"""Types that llama.cpp's converter writes."""
ADAPTER_CONFIG = "adapter_config.json"
_LARGEST_HEADER = 1 << 26
"""Bytes. A tensor takes about 150."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder on this machine; `repo` and `revision` if it came from the Hub."""

    folder: Path
    repo: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """Its name for people."""
        return (self.repo or self.folder.resolve().name).rpartition("/")[2]


def local_checkpoint(source: str) -> Checkpoint:
    """A checkpoint folder on this machine.

    Raises:
        ModelError: there is no such folder, or it holds no configuration, or an adapter.
    """
    folder = expanded(source)
    if folder.is_file():
        raise ModelError(f"{folder}: is a file; name the checkpoint's folder (models quantize takes GGUF files)")
    if not folder.exists():
        raise ModelError(f"{folder}: no such folder; name one, or a repository of the Hub (OWNER/NAME)")
    if (folder / ADAPTER_CONFIG).is_file():
        raise ModelError(
            f"{folder}: holds a LoRA adapter, and a whole model is wanted; merge the adapter into its model (PEFT's "
            "merge_and_unload), or name the model"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: holds no config.json; name the folder of a Hugging Face checkpoint")
    return Checkpoint(folder)


def weights(folder: Path) -> Counter[str]:
    """How many numbers of each type the weights of a checkpoint are, by safetensors' names of the types.

    Raises:
        ModelError: there are no weights, a part of them is missing, or a file is damaged.
    """
    index = folder / "model.safetensors.index.json"
    names = {path.name for path in folder.glob("*.safetensors")}
    if index.is_file():
        try:
            wanted = set(read_json(index)["weight_map"].values())
        except (UsageError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{index}: is damaged; fetch or copy it again") from error
        if missing := sorted(map(str, wanted - names)):
            raise ModelError(f"{folder}: {len(missing)} parts of the weights are missing: {', '.join(missing[:3])}")
    total: Counter[str] = Counter()
    for name in names:
        total.update(_safetensors(folder / name))
    if not names:
        size = sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin"))
        total["F16"] = size // 2
    if not total.total():
        raise ModelError(f"{folder}: holds no weights (*.safetensors); fetch or copy them beside config.json")
    return total


def _safetensors(path: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for dtype, shape in safetensors(path).values():
        found[dtype] += math.prod(shape)
    return found


def safetensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each tensor in a file of weights, by its name.

    Raises:
        ModelError: the file cannot be read, or its header is damaged.
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            length = int.from_bytes(file.read(8), "little")
            if length > _LARGEST_HEADER:
                raise ModelError(
                    f"{path}: is damaged: its header says that it is {length} bytes long, and {_LARGEST_HEADER} can be "
                    "read; fetch or copy it again"
                )
            header: dict[str, Any] = json_value(file.read(length)) if length <= size - 8 else {}
        end = 0
        for name, tensor in header.items():
            if name != "__metadata__":
                first, last = map(_whole, tensor["data_offsets"])
                shape = tuple(map(_whole, tensor.get("shape", ())))
                end = max(end, last)
                _whole(math.prod(shape), 8 * (last - first))
                found[name] = str(tensor.get("dtype", "")), shape
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {reason(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"{path}: is damaged: its header cannot be read; fetch or copy it again") from error
    if 8 + length + end > size:
        raise ModelError(f"{path}: is damaged: the end is missing; fetch or copy it again")
    return found


def _whole(value: Any, most: int = 1 << 62) -> int:
    """A length or an offset.

    Raises:
        ValueError: it is none, or more than `most`.
    """
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError("no length")
    return value


def chosen_kind(kind: WeightType, numbers: Counter[str]) -> WeightType:
    """The type to convert to: `auto` is the 16-bit type of most weights, f16 if they have none, as in llama.cpp."""
    if kind != "auto":
        return kind
    return "bf16" if numbers.most_common(1)[0][0] == "BF16" else "f16"
