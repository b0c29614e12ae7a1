"""Converting a LoRA adapter: PEFT's becomes a GGUF adapter, by llama.cpp's own converter.

Contract: as `convert` for checkpoints. The converter sees the factors and their alpha, nothing else of the adapter, and
of the model that the adapter changes its configuration. What it has written is compared with what the adapter changes:
a part that was left out is an error.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import get_args

from wsd_local.errors import ModelError, UsageError
from wsd_local.files import check_disk, check_free, replaced
from wsd_local.library.checkpoint import ADAPTER_CONFIG, WeightType
from wsd_local.library.convert import ADAPTER_SCRIPT, BITS, converter, require_extra, run_converter
from wsd_local.library.gguf import Header, read_header
from wsd_local.library.peft import WEIGHTS, PeftAdapter, cannot
from wsd_local.system.child import UNOBSERVED, Observer
from wsd_local.system.inputs import read_json

_DOWN, _UP = ".lora_a", ".lora_b"


def convert_adapter(
    adapter: PeftAdapter,
    base: Path,
    output: Path,
    kind: WeightType = "auto",
    *,
    name: str,
    force: bool = False,
    observer: Observer = UNOBSERVED,
) -> Path:
    """Make a GGUF adapter of PEFT's.

    Args:
        adapter: what `read_adapter` found.
        base: folder with the `config.json` of the model that it changes.
        output: the file to make.
        kind: type of the factors in it; auto: F32, as small changes need.
        name: of the adapter, for its header.
        force: replace a file of that name.
        observer: sees the progress of writing, and can stop the work.

    Raises:
        UsageError: there is such a file, or no such type.
        ModelError: llama.cpp does not know how to convert it, or leaves a part of it out.
        CancelledError: it was stopped.
        WsdError: torch or transformers are missing, the converter cannot be fetched, the disk is full.
    """
    if kind not in get_args(WeightType):
        raise UsageError(f"there is no type {kind!r}; known are {', '.join(get_args(WeightType))}")
    kind = "f32" if kind == "auto" else kind
    require_extra()
    check_free(output, force)
    check_disk(output, int(adapter.size * BITS[kind] / 8))
    script = converter(observer.progress, ADAPTER_SCRIPT) / ADAPTER_SCRIPT
    observer.progress("reading the adapter", 0)
    with tempfile.TemporaryDirectory() as made, replaced(output) as part:
        seen, model = _seen(adapter, Path(made) / "adapter" / name), _seen_base(base, Path(made) / "model")
        options = ["--outtype", kind, "--base", str(model), str(seen)]
        if (complaint := run_converter(script, part, options, observer)) is not None:
            raise ModelError(f"{adapter.folder}: cannot be converted for the model of {base}: {complaint}")
        _check_complete(adapter, read_header(part))
    return output


def _seen(adapter: PeftAdapter, folder: Path) -> Path:
    """What the converter sees of an adapter."""
    folder.mkdir(parents=True)
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"peft_type": "LORA", "lora_alpha": adapter.alpha}))
    weights = (adapter.folder / WEIGHTS).resolve()
    try:
        (folder / WEIGHTS).symlink_to(weights)
    except OSError:  # a system on which links need rights
        shutil.copyfile(weights, folder / WEIGHTS)
    return folder


def _seen_base(base: Path, folder: Path) -> Path:
    """What the converter sees of the model; how that was quantised while the adapter was trained is no matter."""
    path = base / "config.json"
    try:
        config = read_json(path)
    except UsageError as error:
        raise ModelError(str(error)) from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: is damaged: it holds no object; fetch or copy it again")
    folder.mkdir()
    kept = {name: value for name, value in config.items() if name != "quantization_config"}
    (folder / path.name).write_text(json.dumps(kept))
    return folder


def _check_complete(adapter: PeftAdapter, header: Header) -> None:
    """Raise `ModelError` unless all that the adapter changes is in the file that was made, and nothing else."""
    tensors = {tensor.name: tensor.shape for tensor in header.tensors}
    changed = 0
    for name, shape in tensors.items():
        whole = name.removesuffix(_DOWN).removesuffix(_UP)
        if whole == name or whole in ("token_embd.weight", "output.weight"):
            raise cannot(adapter.folder, f"it changes {whole!r}")
        if name.endswith(_DOWN):
            up = tensors.get(whole + _UP, (0, 0))
            changed += shape[0] * up[1] * math.prod(shape[2:])
    if changed != adapter.changed:
        left = 1 - changed / adapter.changed
        raise cannot(adapter.folder, f"llama.cpp's converter leaves out {left:.1%} of the weights that it changes")
