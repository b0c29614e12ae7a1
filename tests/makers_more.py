"""More makers of small GGUF files: models that do not keep a key for every token, and a LoRA adapter.

`random_mamba` and `random_lfm2` cannot forget their last tokens, `random_sliding` sees few of them in every
second layer. `merged` writes an adapter's effect into a model's weights, as an oracle for `random_lora`. `random_qwen3`
has a head that ranks texts.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.constants import LlamaFileType
from gguf.quants import dequantize
from makers import (
    BASE_LIKE_TEMPLATE,
    Floats,
    _add_vocab,
    _File,
    _llama_tensors,
    _Weights,
    random_llama,
    raw_entries,
)

_ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")


def _filled(value: float, size: int) -> Floats:
    return np.full(size, value, dtype=np.float32)


def _outer_tensors(
    weights: _Weights, loudness: Floats, *, n_embd: int, scale: float, norm: str = "output_norm"
) -> Iterator[tuple[str, Floats]]:
    """What stands around the layers."""
    n_vocab = len(loudness)
    yield "token_embd.weight", weights.matrix(n_vocab, n_embd, 1.0)
    yield f"{norm}.weight", _filled(1.0, n_embd)
    yield "output.weight", weights.matrix(n_vocab, n_embd, scale / math.sqrt(n_embd)) * loudness[:, None]


def _attention_tensors(
    weights: _Weights, block: str, *, n_embd: int, n_norm: int, sharpness: float
) -> Iterator[tuple[str, Floats]]:
    """Attention with normed queries and keys: `sharpness` alone decides how far it is from an average."""
    unit = 1.0 / math.sqrt(n_embd)
    for name, deviation in zip(_ATTENTION, (unit, unit, unit, 1.5 * unit), strict=True):
        yield f"{block}.{name}.weight", weights.matrix(n_embd, n_embd, deviation)
    for name in ("attn_q_norm", "attn_k_norm"):
        yield f"{block}.{name}.weight", _filled(math.sqrt(sharpness), n_norm)


def _ffn_tensors(
    weights: _Weights, block: str, *, n_embd: int, n_ff: int, norm: str = "ffn_norm"
) -> Iterator[tuple[str, Floats]]:
    yield f"{block}.{norm}.weight", _filled(1.0, n_embd)
    yield f"{block}.ffn_gate.weight", weights.matrix(n_ff, n_embd, 1.0 / math.sqrt(n_embd))
    yield f"{block}.ffn_up.weight", weights.matrix(n_ff, n_embd, 1.0 / math.sqrt(n_embd))
    yield f"{block}.ffn_down.weight", weights.matrix(n_embd, n_ff, 1.0 / math.sqrt(n_ff))


def _new_file(
    arch: str, *, seed: int, n_embd: int, n_layer: int, chat_template: str | None, **values: int | float | list[int]
) -> tuple[_File, Floats]:
    """A file with the built-in vocabulary and the metadata that every model has; `values` belong to `arch`."""
    file = _File()
    file.add(
        general__architecture=arch,
        general__name=f"random-{arch}-{seed}",
        general__file_type=int(LlamaFileType.ALL_F32),
    )
    loudness = _add_vocab(file, None, chat_template, None)
    common = {
        "context_length": 2048,
        "embedding_length": n_embd,
        "block_count": n_layer,
        "attention__layer_norm_rms_epsilon": 1e-5,
        "vocab_size": len(loudness),
    }
    file.add(**{f"{arch}__{name}": value for name, value in (common | values).items()})
    return file, loudness


# --- Mamba ----------------------------------------------------------------------------------------------

_CONV, _STATE = 4, 16


def _mamba_layer(weights: _Weights, block: str, *, n_embd: int, rank: int) -> Iterator[tuple[str, Floats]]:
    inner = 2 * n_embd
    yield f"{block}.attn_norm.weight", _filled(1.0, n_embd)
    yield f"{block}.ssm_in.weight", weights.matrix(2 * inner, n_embd, 1.5 / math.sqrt(n_embd))
    yield f"{block}.ssm_conv1d.weight", weights.matrix(inner, _CONV, 1.0 / math.sqrt(_CONV))
    yield f"{block}.ssm_conv1d.bias", _filled(0.0, inner)
    yield f"{block}.ssm_x.weight", weights.matrix(rank + 2 * _STATE, inner, 1.5 / math.sqrt(inner))
    yield f"{block}.ssm_dt.weight", weights.matrix(inner, rank, 1.0 / math.sqrt(rank))
    yield f"{block}.ssm_dt.bias", _filled(-1.0, inner)
    # All below zero, so that no state can grow; some near it, so that a token is remembered for long.
    yield f"{block}.ssm_a", np.tile(-np.geomspace(0.02, 2.0, _STATE, dtype=np.float32), (inner, 1))
    yield f"{block}.ssm_d", _filled(1.0, inner)
    yield f"{block}.ssm_out.weight", weights.matrix(n_embd, inner, 1.5 / math.sqrt(inner))


def random_mamba(
    dst: Path,
    *,
    seed: int = 0,
    scale: float = 5.0,
    n_embd: int = 32,
    n_layer: int = 2,
    kin: tuple[int, float] | None = None,
    chat_template: str | None = None,
) -> Path:
    """Write a random Mamba in F32: one state for all tokens read, no way back. Parameters as in `random_llama`."""
    rank = max(1, n_embd // 16)
    file, loudness = _new_file(
        "mamba",
        seed=seed,
        n_embd=n_embd,
        n_layer=n_layer,
        chat_template=chat_template,
        feed_forward_length=0,
        attention__head_count=0,
        ssm__conv_kernel=_CONV,
        ssm__inner_size=2 * n_embd,
        ssm__state_size=_STATE,
        ssm__time_step_rank=rank,
    )
    weights = _Weights(seed, kin)
    file.tensors |= dict(_outer_tensors(weights, loudness, n_embd=n_embd, scale=scale))
    for layer in range(n_layer):
        file.tensors |= dict(_mamba_layer(weights, f"blk.{layer}", n_embd=n_embd, rank=rank))
    return file.write(dst)


# --- LFM2 -----------------------------------------------------------------------------------------------

_CACHE = 3


def _shortconv_tensors(weights: _Weights, block: str, *, n_embd: int) -> Iterator[tuple[str, Floats]]:
    unit = 1.0 / math.sqrt(n_embd)
    yield f"{block}.shortconv.conv.weight", weights.matrix(n_embd, _CACHE, 1.0 / math.sqrt(_CACHE))
    yield f"{block}.shortconv.in_proj.weight", weights.matrix(3 * n_embd, n_embd, unit)
    yield f"{block}.shortconv.out_proj.weight", weights.matrix(n_embd, n_embd, 1.5 * unit)


def random_lfm2(
    dst: Path,
    *,
    seed: int = 0,
    scale: float = 5.0,
    n_embd: int = 32,
    n_layer: int = 2,
    kin: tuple[int, float] | None = None,
    chat_template: str | None = None,
) -> Path:
    """Write a random LFM2 in F32: layers of short convolution, every second one and the last of attention."""
    if n_layer < 2:
        raise ValueError("without a layer of each kind, llama.cpp ends the process")
    n_head, n_ff = 4, 2 * n_embd
    attends = [layer % 2 == 1 or layer == n_layer - 1 for layer in range(n_layer)]
    file, loudness = _new_file(
        "lfm2",
        seed=seed,
        n_embd=n_embd,
        n_layer=n_layer,
        chat_template=chat_template,
        feed_forward_length=n_ff,
        attention__head_count=n_head,
        attention__head_count_kv=[n_head if attention else 0 for attention in attends],
        shortconv__l_cache=_CACHE,
    )
    weights = _Weights(seed, kin)
    file.tensors |= dict(_outer_tensors(weights, loudness, n_embd=n_embd, scale=scale, norm="token_embd_norm"))
    for layer, attention in enumerate(attends):
        block = f"blk.{layer}"
        file.tensors[f"{block}.attn_norm.weight"] = _filled(1.0, n_embd)
        if attention:
            file.tensors |= dict(
                _attention_tensors(weights, block, n_embd=n_embd, n_norm=n_embd // n_head, sharpness=2.0)
            )
        else:
            file.tensors |= dict(_shortconv_tensors(weights, block, n_embd=n_embd))
        file.tensors |= dict(_ffn_tensors(weights, block, n_embd=n_embd, n_ff=n_ff))
    return file.write(dst)


# --- a sliding window -----------------------------------------------------------------------------------


def random_sliding(
    dst: Path,
    *,
    seed: int = 0,
    scale: float = 5.0,
    n_embd: int = 32,
    n_layer: int = 2,
    window: int = 16,
    kin: tuple[int, float] | None = None,
    chat_template: str | None = None,
) -> Path:
    """Write a random Olmo 2 in F32: the first of every two layers sees `window` tokens, the other sees all.

    Not a Gemma, the best known of its kind: llama.cpp looks a Gemma's activation up in a table of half precision,
    where a rounding error of 1e-7 can become one of 1e-3.
    """
    n_head, n_ff = 4, 2 * n_embd
    file, loudness = _new_file(
        "olmo2",
        seed=seed,
        n_embd=n_embd,
        n_layer=n_layer,
        chat_template=chat_template,
        feed_forward_length=n_ff,
        attention__head_count=n_head,
        attention__head_count_kv=n_head,
        attention__sliding_window=window,
        attention__sliding_window_pattern=2,
    )
    weights = _Weights(seed, kin)
    file.tensors |= dict(_outer_tensors(weights, loudness, n_embd=n_embd, scale=scale))
    for layer in range(n_layer):
        block = f"blk.{layer}"
        file.tensors |= dict(_attention_tensors(weights, block, n_embd=n_embd, n_norm=n_embd, sharpness=3.0))
        file.tensors[f"{block}.post_attention_norm.weight"] = _filled(2.0, n_embd)
        file.tensors |= dict(_ffn_tensors(weights, block, n_embd=n_embd, n_ff=n_ff, norm="post_ffw_norm"))
    return file.write(dst)


# --- LoRA -----------------------------------------------------------------------------------------------


def random_lora(dst: Path, model: Path, *, rank: int = 4, seed: int = 0, alpha: float = 8.0) -> Path:
    """Write a random adapter for the attention matrices of `model`, at the defaults as loud as they are."""
    file = _File()
    file.entries["general.architecture"] = raw_entries(model)["general.architecture"]
    file.add(
        general__type="adapter",
        general__name=f"random-lora-{seed}",
        general__file_type=int(LlamaFileType.ALL_F32),
        adapter__type="lora",
        adapter__lora__alpha=float(alpha),
    )
    weights = _Weights(seed, None)
    for tensor in GGUFReader(model).tensors:
        if tensor.name.split(".")[-2] in _ATTENTION:
            columns, rows = (int(size) for size in tensor.shape)
            file.tensors[f"{tensor.name}.lora_a"] = weights.matrix(rank, columns, 1.0 / math.sqrt(columns))
            file.tensors[f"{tensor.name}.lora_b"] = weights.matrix(rows, rank, 0.5 / math.sqrt(rank))
    return file.write(dst)


def merged(dst: Path, model: Path, lora: Path) -> Path:
    """Write `model` (in F32) with `lora` added to its weights: W + alpha / rank * B A."""
    (alpha,) = struct.unpack("<f", raw_entries(lora)["adapter.lora.alpha"][-4:])
    factors = {tensor.name: np.array(tensor.data, dtype=np.float64) for tensor in GGUFReader(lora).tensors}
    file = _File()
    file.entries = {key: entry for key, entry in raw_entries(model).items() if key != "general.alignment"}
    file.add(general__file_type=int(LlamaFileType.ALL_F32))
    for tensor in GGUFReader(model).tensors:
        whole = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        if f"{tensor.name}.lora_a" in factors:
            down, up = factors.pop(f"{tensor.name}.lora_a"), factors.pop(f"{tensor.name}.lora_b")
            whole = (whole + alpha / len(down) * (up @ down)).astype(np.float32)
        file.tensors[tensor.name] = whole
    if factors:
        raise ValueError(f"{model.name} has no tensors for {', '.join(sorted(factors))}")
    return file.write(dst)


MAKERS: dict[str, Callable[..., Path]] = {
    "mamba": random_mamba,
    "lfm2": random_lfm2,
    "sliding": random_sliding,
    "llama": random_llama,
}


def paths_of_kinds(folder: Path, kinds: tuple[str, str]) -> tuple[Path, Path]:
    """A draft and a base that agree often where they are of one kind."""
    draft, base = kinds
    kin = {"kin": (1, 0.999)} if draft == base else {}
    return (
        MAKERS[draft](folder / "draft.gguf", seed=2, chat_template=BASE_LIKE_TEMPLATE, **kin),
        MAKERS[base](folder / "base.gguf", seed=1),
    )


def random_qwen3(
    dst: Path, *, labels: tuple[str, ...] = ("yes", "no"), head: bool = True, rerank: str | None = None, seed: int = 0
) -> Path:
    """Write a random Qwen3 with a head that gives a text a score for each label, as Qwen3's rerankers have.

    Args:
        dst: where to.
        labels: of the head's outputs; one is not named in the file.
        head: whether the head is there.
        rerank: a template for a query and a document beside the chat template.
        seed: of the weights.
    """
    file, n_embd, n_head = _File(), 64, 4
    file.add(
        general__architecture="qwen3",
        general__name=f"random-qwen3-{seed}",
        general__file_type=int(LlamaFileType.ALL_F32),
        qwen3__context_length=512,
        qwen3__embedding_length=n_embd,
        qwen3__block_count=2,
        qwen3__feed_forward_length=128,
        qwen3__attention__head_count=n_head,
        qwen3__attention__head_count_kv=n_head,
        qwen3__attention__key_length=n_embd // n_head,
        qwen3__attention__value_length=n_embd // n_head,
        qwen3__attention__layer_norm_rms_epsilon=1e-6,
        qwen3__pooling_type=4,
    )
    if len(labels) > 1:
        file.add(**{"qwen3__classifier__output_labels": list(labels)})
    weights, loudness = _Weights(seed, None), _add_vocab(file, None, None, None)
    if rerank is not None:
        file.add(tokenizer__chat_template__rerank=rerank)
    file.tensors = dict(_llama_tensors(weights, loudness, n_embd=n_embd, n_layer=2, n_ff=128, scale=5.0))
    for layer in range(2):
        for name in ("attn_q_norm", "attn_k_norm"):
            file.tensors[f"blk.{layer}.{name}.weight"] = _filled(1.0, n_embd // n_head)
    if head:
        file.tensors["cls.output.weight"] = weights.matrix(len(labels), n_embd, 0.1)
    return file.write(dst)
