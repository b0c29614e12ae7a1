"""GGUF files of real shapes with random quantised weights, to measure memory and time. Made when needed, never kept.

A file has the sizes, types and vocabulary of the real model; what it writes is noise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type
from makers import packed, packed_string, raw_entries

_ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama: width, layers, heads, KV heads, head size, feed-forward width."""

    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    head: int
    n_ff: int

    def metadata(self) -> dict[str, int]:
        """As a Llama's file has them."""
        return {
            "llama.embedding_length": self.n_embd,
            "llama.block_count": self.n_layer,
            "llama.feed_forward_length": self.n_ff,
            "llama.attention.head_count": self.n_head,
            "llama.attention.head_count_kv": self.n_head_kv,
            "llama.attention.key_length": self.head,
            "llama.attention.value_length": self.head,
            "llama.rope.dimension_count": self.head,
        }


LLAMA_1B = Shape(2048, 16, 32, 8, 64, 8192)
LLAMA_3B = Shape(3072, 28, 24, 8, 128, 8192)


def _tensors(shape: Shape, n_vocab: int, kind: Type, large: Type) -> Iterator[tuple[str, tuple[int, ...], Type]]:
    yield "token_embd.weight", (shape.n_embd, n_vocab), large
    yield "output_norm.weight", (shape.n_embd,), Type.F32
    kv = shape.n_head_kv * shape.head
    for layer in range(shape.n_layer):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", (shape.n_embd,), Type.F32
        yield f"{block}.attn_q.weight", (shape.n_embd, shape.n_head * shape.head), kind
        yield f"{block}.attn_k.weight", (shape.n_embd, kv), kind
        yield f"{block}.attn_v.weight", (shape.n_embd, kv), large if layer % 2 else kind
        yield f"{block}.attn_output.weight", (shape.n_head * shape.head, shape.n_embd), kind
        yield f"{block}.ffn_norm.weight", (shape.n_embd,), Type.F32
        yield f"{block}.ffn_gate.weight", (shape.n_embd, shape.n_ff), kind
        yield f"{block}.ffn_up.weight", (shape.n_embd, shape.n_ff), kind
        yield f"{block}.ffn_down.weight", (shape.n_ff, shape.n_embd), large if layer % 2 else kind


def _bytes(kind: Type, elements: int, random: np.random.Generator) -> Iterator[bytes]:
    block, size = GGML_QUANT_SIZES[kind]
    blocks = elements // block
    if kind is Type.F32:
        yield np.ones(elements, dtype=np.float32).tobytes()
        return
    some = min(blocks, 1 << 15)
    data = random.integers(0, 256, (some, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.001).tobytes(), dtype=np.uint8)
    places = {Type.Q6_K: [size - 2], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2]}.get(kind, [0])
    for place in places:
        data[:, place : place + 2] = scale
    piece = data.tobytes()
    for _ in range(blocks // some):
        yield piece
    yield piece[: blocks % some * size]


def shaped_llama(dst: Path, shape: Shape, vocab: Path, kind: Type = Type.Q4_0, large: Type = Type.Q6_K) -> Path:
    """Write a Llama of a real shape around a real vocabulary: `kind` for most tensors, `large` for delicate ones."""
    entries = {key: entry for key, entry in raw_entries(vocab).items() if key.startswith("tokenizer.")}
    n_vocab = struct.unpack_from("<Q", entries["tokenizer.ggml.tokens"], 8 + len("tokenizer.ggml.tokens") + 8)[0]
    values: dict[str, str | int | float] = {
        "general.architecture": "llama",
        "general.name": dst.stem,
        "llama.context_length": 131072,
        **shape.metadata(),
        "llama.rope.freq_base": 500000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    tensors = list(_tensors(shape, n_vocab, kind, large))
    random = np.random.default_rng(0)
    with dst.open("wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values) + len(entries)))
        out.writelines(packed_string(key) + packed(value) for key, value in values.items())
        out.writelines(entries.values())
        offset = 0
        for name, lengths, type_ in tensors:
            out.write(packed_string(name) + struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths))
            out.write(struct.pack("<IQ", type_, offset))
            block, size = GGML_QUANT_SIZES[type_]
            offset += -(-int(np.prod(lengths)) // block * size // _ALIGNMENT) * _ALIGNMENT
        for _, lengths, type_ in tensors:
            out.write(bytes(-out.tell() % _ALIGNMENT))
            out.writelines(_bytes(type_, int(np.prod(lengths)), random))
        out.write(bytes(-out.tell() % _ALIGNMENT))
    return dst
