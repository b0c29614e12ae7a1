"""The embedded pair in real sizes: models that cost what real ones cost and answer what the embedded pair answers.

    python tests/bench/inflate.py --out DIR [--shapes draft-1b base-3b …] [--types Q4_0 …]

Contract: an inflated model computes the small one's logits, in its own shape. The files are made when needed and never
kept with the program; one that is there already is left as it is. llama.cpp skips no zeros, so speed and memory are
those of a real model of the shape.

How (E, D are the small model's width and head size, E' and D' the large one's):

- **Copies.** Each dimension of the residual stream stands twice in the large one: x, and s·x with s = SMALL. So does
  each feed-forward unit, and each attention head where a group of query heads has room. All other dimensions are zero.
- **Norms.** With G = (1 + s²) E / E' the mean square is G times the small model's, so weights are multiplied by √G (by
  √G / s for the second copy) and epsilon by G: the normed values are those of the small model, in both copies.
- **Attention.** A KV head of the small model is one of the large one, or several; its query head is one of the same
  group, or two. Queries are multiplied by √(D'/D), because scores are divided by √D'. Rotary pairs are llama.cpp's
  neighbours (2i, 2i+1); the pair of frequency b^(-2i/D) goes to pair j, and `rope_freqs.weight` holds the quotient of
  j's own frequency and that one. Added layers have a zero `attn_output` and `ffn_down`.
- **Quantising.** A matrix W is read as A·x + B·x over the two copies: A is (1 - s)·W as the wanted type rounds it, and
  B is W minus that, so a second rounding acts on what the first one left. Token embeddings cannot be split like that;
  the second copy of an embedding is what makes A and B together read the exact one. Few used columns share a block.
  llama.cpp's own function quantises, with its own choice of a type for each tensor.
- **Vocabulary.** Padding tokens are `<|pad_N|>`, of the type "unused", which no text is ever tokenised to. One more
  dimension of the residual stream is constant, and epsilon is smaller by its share in the mean square: nothing else
  sees it. Padding tokens alone read it, with a large negative weight, so their probabilities are zero.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import re
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader
from gguf.constants import GGML_QUANT_SIZES, LlamaFileType, TokenType
from gguf.constants import GGMLQuantizationType as Type
from gguf.quants import dequantize
from llama_cpp._ggml import libggml

sys.path.insert(0, str(Path(__file__).parents[1]))

from makers import packed, packed_string, raw_entries, strings
from shapes import LLAMA_1B, LLAMA_3B, Shape

from wsd_local.files import replaced
from wsd_local.library.gguf import Array, Header, read_header
from wsd_local.library.quantize import quantize
from wsd_local.library.quantizer import QuantizeJob
from wsd_local.paths import demo_dir
from wsd_local.system.child import Observer, StepProgress, nothing, run

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

LLAMA_8B = Shape(4096, 32, 32, 8, 128, 14336)
LLAMA_160M = Shape(768, 12, 12, 12, 64, 3072)

SMALL = 1 / 8
"""The second copy of the residual stream, over the first: a power of two, so that it adds no rounding of its own."""
CONSTANT, PADDING_WEIGHT = 32.0, -128.0
"""The constant after the final norm, times the root mean square before it; what padding tokens read it with."""
CONTEXT = 131_072
_ALIGNMENT = 32
_APART = 256
"""Columns at the end of a row that hold the constant alone: the largest block in which llama.cpp rounds together."""
_PLANNED = re.compile(r"\[ *\d+/ *\d+\] +(?P<name>\S+) .*-> .*\((?P<type>\w+)\)")


@dataclass(frozen=True, slots=True)
class Kind:
    """A real model: its shape, its vocabulary, and whether its output matrix is that of the token embeddings.

    `role` says which of the embedded pair it is made of.
    """

    role: str
    shape: Shape
    vocab: int
    tied: bool


KINDS = {
    "draft-160m": Kind("draft", LLAMA_160M, 32_000, False),
    "draft-1b": Kind("draft", LLAMA_1B, 128_256, True),
    "draft-3b": Kind("draft", LLAMA_3B, 128_256, True),
    "base-1b": Kind("base", LLAMA_1B, 128_256, True),
    "base-3b": Kind("base", LLAMA_3B, 128_256, True),
    "base-8b": Kind("base", LLAMA_8B, 128_256, False),
}


# --- the small model ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Small:
    """A small Llama, dequantised."""

    path: Path
    header: Header
    tensors: Mapping[str, Floats]

    @classmethod
    def read(cls, path: Path) -> Small:
        tensors = {t.name: np.asarray(dequantize(t.data, t.tensor_type)) for t in GGUFReader(path).tensors}
        return cls(path, read_header(path), tensors)

    def number(self, key: str) -> float:
        value = self.header.metadata[f"llama.{key}"]
        assert isinstance(value, int | float)
        return value

    @cached_property
    def shape(self) -> Shape:
        """Its sizes; heads and KV heads must be as many."""
        n_embd, n_head = int(self.number("embedding_length")), int(self.number("attention.head_count"))
        n_layer, n_ff = int(self.number("block_count")), int(self.number("feed_forward_length"))
        assert self.number("attention.head_count_kv") == n_head, f"{self.path}: has query heads that share KV heads"
        return Shape(n_embd, n_layer, n_head, n_head, n_embd // n_head, n_ff)

    @property
    def n_vocab(self) -> int:
        return len(self.tensors["token_embd.weight"])


# --- where its parts go ---------------------------------------------------------------------------------


def spread(count: int, start: int, end: int) -> Places:
    """`count` places from `start` to before `end`, evenly."""
    assert count <= end - start, f"{count} dimensions do not fit into {end - start}"
    return start + np.arange(count) * (end - start) // count


@dataclass(frozen=True)
class Layout:
    """Places of the small model's dimensions in the large one; a pair is the first and the second copy."""

    width: tuple[Places, Places]
    units: tuple[Places, Places]
    heads: tuple[tuple[int, int], ...]
    """For each head its two query heads in the large model, maybe the same one."""
    dims: Places
    """Dimensions inside of a head."""
    pairs: Places
    """Rotary pairs inside of a head."""
    constant: int

    @classmethod
    def of(cls, small: Shape, large: Shape) -> Layout:
        half, units = (large.n_embd - _APART) // 2, large.n_ff // 2
        width, unit = spread(small.n_embd, 0, half), spread(small.n_ff, 0, units)
        pairs = spread(small.head // 2, 0, large.head // 2)
        group = large.n_head // large.n_head_kv
        assert small.n_head_kv <= large.n_head_kv, f"{small.n_head_kv} KV heads do not fit into {large.n_head_kv}"
        heads = []
        for head in range(small.n_head):
            last = max(range(head, large.n_head_kv, small.n_head_kv))
            heads.append((head * group, last * group + group - 1))
        return cls(
            width=(width, half + width),
            units=(unit, units + unit),
            heads=tuple(heads),
            dims=np.stack([2 * pairs, 2 * pairs + 1], axis=1).ravel(),
            pairs=pairs,
            constant=large.n_embd - 1,
        )

    def head_dims(self, copy: int, size: int, group: int = 1) -> Places:
        """Rows of all heads, or with `group` query heads to a KV head those of the KV heads."""
        return np.concatenate([head[copy] // group * size + self.dims for head in self.heads])


# --- tensors of the large model -------------------------------------------------------------------------


@dataclass
class Tensor:
    """A matrix that is zero but for the values put into it, row by row; or a vector."""

    name: str
    rows: int
    columns: int
    parts: list[tuple[Places, Places, Floats]] = field(default_factory=list)

    def put(self, rows: Places, columns: Places, values: npt.ArrayLike) -> None:
        """`values` at the crossings of rows and columns, which nothing else is put at."""
        full = np.broadcast_to(np.asarray(values, dtype=np.float32), (len(rows), len(columns)))
        self.parts.append((rows, columns, full))

    def blocks(self, most: int = 1 << 10) -> Iterator[tuple[int, Floats]]:
        """First row and values of each stretch of up to `most` rows that are not all zero."""
        for start in range(0, self.rows, most):
            block = np.zeros((min(most, self.rows - start), self.columns), dtype=np.float32)
            for rows, columns, values in self.parts:
                inside = (rows >= start) & (rows < start + len(block))
                block[np.ix_(rows[inside] - start, columns)] = values[inside]
            used = np.flatnonzero(block.any(axis=1))
            for stretch in np.split(used, np.flatnonzero(np.diff(used) > 1) + 1):
                if len(stretch):
                    yield start + int(stretch[0]), block[stretch[0] : stretch[-1] + 1]


def rounded(rows: Floats, kind: Type) -> Floats:
    """What is left of `rows` when llama.cpp quantises them."""
    if kind is Type.F32:
        return rows
    if kind is Type.F16:
        return rows.astype(np.float16).astype(np.float32)
    block, size = GGML_QUANT_SIZES[kind]
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    data = np.zeros((len(rows), rows.shape[1] // block * size), dtype=np.uint8)
    made = libggml.ggml_quantize_chunk
    made.restype = ctypes.c_size_t
    made(
        ctypes.c_int(kind),
        ctypes.c_void_p(rows.ctypes.data),
        ctypes.c_void_p(data.ctypes.data),
        ctypes.c_int64(0),
        ctypes.c_int64(len(rows)),
        ctypes.c_int64(rows.shape[1]),
        None,
    )
    return np.asarray(dequantize(data, kind), dtype=np.float32)


class Inflated:
    """The tensors of one model in a large shape, made one after the other."""

    def __init__(self, small: Small, shape: Shape, n_vocab: int, tied: bool) -> None:
        self._small, self._shape, self._n_vocab, self._tied = small, shape, n_vocab, tied
        self._layout = Layout.of(small.shape, shape)
        self._growth = (1 + SMALL**2) * small.shape.n_embd / shape.n_embd
        epsilon = small.shape.n_embd * small.number("attention.layer_norm_rms_epsilon")
        self._constant = 2.0 ** math.floor(math.log2(math.sqrt(epsilon / 2)))
        assert n_vocab >= small.n_vocab, f"{n_vocab} tokens are fewer than {small.n_vocab}"

    def entries(self, name: str, kind: Type) -> dict[str, bytes]:
        """Metadata."""
        shape, small = self._shape, self._small
        growth, epsilon = self._growth, small.number("attention.layer_norm_rms_epsilon")
        values: dict[str, Any] = {
            "general.name": name,
            "general.file_type": int(LlamaFileType.MOSTLY_F16 if kind is Type.F16 else LlamaFileType.ALL_F32),
            "llama.context_length": CONTEXT,
            **shape.metadata(),
            "llama.attention.layer_norm_rms_epsilon": growth * epsilon - self._constant**2 / shape.n_embd,
            "llama.vocab_size": self._n_vocab,
        }
        tokens, types = (small.header.metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
        assert isinstance(tokens, Array) and isinstance(types, Array)
        added = range(small.n_vocab, self._n_vocab)
        values["tokenizer.ggml.tokens"] = [*strings(tokens), *(f"<|pad_{token}|>" for token in added)]
        values["tokenizer.ggml.token_type"] = [*map(int, types.numbers().tolist()), *(TokenType.UNUSED for _ in added)]
        entries = {key: entry for key, entry in raw_entries(small.path).items() if key != "general.alignment"}
        return entries | {key: packed_string(key) + packed(value) for key, value in values.items()}

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each tensor, in the file's order; a vector is one row."""
        shape, found = self._shape, {"output_norm.weight": (1, self._shape.n_embd)}
        for name in ("token_embd.weight",) if self._tied else ("token_embd.weight", "output.weight"):
            found[name] = (self._n_vocab, shape.n_embd)
        found["rope_freqs.weight"] = (1, shape.head // 2)
        queries, keys = shape.n_head * shape.head, shape.n_head_kv * shape.head
        for layer in range(shape.n_layer):
            for name, rows, columns in (
                ("attn_norm", 1, shape.n_embd),
                ("attn_q", queries, shape.n_embd),
                ("attn_k", keys, shape.n_embd),
                ("attn_v", keys, shape.n_embd),
                ("attn_output", shape.n_embd, queries),
                ("ffn_norm", 1, shape.n_embd),
                ("ffn_gate", shape.n_ff, shape.n_embd),
                ("ffn_up", shape.n_ff, shape.n_embd),
                ("ffn_down", shape.n_embd, shape.n_ff),
            ):
                found[f"blk.{layer}.{name}.weight"] = (rows, columns)
        return found

    def tensors(self, kinds: Mapping[str, Type]) -> Iterator[Tensor]:
        """Each tensor that is not zero; `kinds` says how it will be quantised."""
        shapes = self.shapes()
        for name in shapes:
            tensor = Tensor(name, *shapes[name])
            self._fill(tensor, kinds.get(name, Type.F32))
            yield tensor

    def _fill(self, tensor: Tensor, kind: Type) -> None:
        found = re.fullmatch(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.weight", tensor.name)
        assert found is not None
        part, layer = found["part"], int(found["layer"] or 0)
        if part.endswith("norm"):
            self._fill_norm(tensor, layer)
        elif part == "rope_freqs":
            self._fill_frequencies(tensor)
        elif part == "token_embd":
            self._fill_embeddings(tensor, kind)
        elif part == "output":
            values = self._small.tensors.get(tensor.name, self._small.tensors["token_embd.weight"])
            self._read(tensor, np.arange(len(values)), self._layout.width, values, kind)
            self._fill_padding(tensor)
        elif layer < self._small.shape.n_layer:
            self._fill_matrix(tensor, part, self._small.tensors[tensor.name], kind)

    def _fill_norm(self, tensor: Tensor, layer: int) -> None:
        first, second = self._layout.width
        row = np.zeros(1, dtype=np.int64)
        if layer >= self._small.shape.n_layer:
            tensor.put(row, np.arange(tensor.columns), 1.0)
            return
        weights = self._small.tensors[tensor.name] * math.sqrt(self._growth)
        split = tensor.name == "output_norm.weight" and self._tied
        tensor.put(row, first, weights * ((1 - SMALL) if split else 1))
        tensor.put(row, second, weights / SMALL)
        if tensor.name == "output_norm.weight":
            tensor.put(row, np.array([self._layout.constant]), CONSTANT * math.sqrt(self._growth) / self._constant)

    def _fill_frequencies(self, tensor: Tensor) -> None:
        """The quotient of each pair's own frequency and that of the small model's pair which stands there."""
        base, small, large = self._small.number("rope.freq_base"), self._small.shape.head, self._shape.head
        factors = np.ones(tensor.columns)
        exponents = 2 * np.arange(small // 2) / small - 2 * self._layout.pairs / large
        factors[self._layout.pairs] = base**exponents
        tensor.put(np.zeros(1, dtype=np.int64), np.arange(tensor.columns), factors)

    def _fill_embeddings(self, tensor: Tensor, kind: Type) -> None:
        """Two copies that are read as one: (1 - s) of the first and s of what the second is of s."""
        values = self._small.tensors[tensor.name]
        rows, (first, second) = np.arange(len(values)), self._layout.width
        whole = Tensor(tensor.name, len(values), tensor.columns)
        for part in (tensor, whole):
            part.put(rows, first, values)
            part.put(rows, np.array([self._layout.constant]), self._constant)
        error = self._rounded(whole, kind)[:, first] - values
        tensor.put(rows, second, SMALL * values - (1 - SMALL) * error)
        if self._tied:
            self._fill_padding(tensor)

    def _fill_padding(self, tensor: Tensor) -> None:
        tensor.put(np.arange(self._small.n_vocab, tensor.rows), np.array([self._layout.constant]), PADDING_WEIGHT)

    def _fill_matrix(self, tensor: Tensor, part: str, values: Floats, kind: Type) -> None:
        """One matrix of a layer: which rows it writes, which columns it reads."""
        layout, head = self._layout, self._shape.head
        group = self._shape.n_head // self._shape.n_head_kv
        if part in ("attn_output", "ffn_down"):
            queries = (layout.head_dims(0, head), layout.head_dims(1, head))
            read = queries if part == "attn_output" else layout.units
            self._read(tensor, layout.width[0], read, values, kind)
            self._read(tensor, layout.width[1], read, SMALL * values, kind)
            return
        if part == "attn_q":
            values = values * math.sqrt(head / self._small.shape.head)
            written = (layout.head_dims(0, head), layout.head_dims(1, head))
        elif part in ("attn_k", "attn_v"):
            written = (layout.head_dims(0, head, group), layout.head_dims(1, head, group))
        else:
            written = layout.units
        for rows in written:
            self._read(tensor, rows, layout.width, values, kind)

    def _read(self, tensor: Tensor, rows: Places, columns: tuple[Places, Places], values: Floats, kind: Type) -> None:
        """A matrix that reads both copies: the second what is left by rounding the first."""
        first, second = columns
        twice = first != second
        most = np.where(twice, 1 - SMALL, 1) * values
        whole = Tensor(tensor.name, len(values), tensor.columns)
        whole.put(np.arange(len(values)), first, most)
        left = values - self._rounded(whole, kind)[:, first]
        tensor.put(rows, first, most)
        tensor.put(rows, second[twice], left[:, twice])

    @staticmethod
    def _rounded(tensor: Tensor, kind: Type) -> Floats:
        block = np.zeros((tensor.rows, tensor.columns), dtype=np.float32)
        for start, values in tensor.blocks():
            block[start : start + len(values)] = values
        return rounded(block, kind)


# --- files ----------------------------------------------------------------------------------------------


def _write(
    path: Path, model: Inflated, entries: Mapping[str, bytes], kinds: Mapping[str, Type] | None, kind: Type
) -> None:
    """A file with matrices of the type `kind`, F32 or F16; what is zero is a hole. No values if `kinds` is None."""
    shapes = model.shapes()
    stored = {name: Type.F32 if rows == 1 else kind for name, (rows, _) in shapes.items()}
    offsets, end = {}, 0
    with path.open("wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(shapes), len(entries)))
        out.writelines(entries.values())
        for name, (rows, columns) in shapes.items():
            lengths = (columns,) if rows == 1 else (columns, rows)
            out.write(packed_string(name) + struct.pack(f"<I{len(lengths)}Q", len(lengths), *lengths))
            out.write(struct.pack("<IQ", stored[name], end))
            offsets[name] = end
            end += -(-rows * columns * GGML_QUANT_SIZES[stored[name]][1] // _ALIGNMENT) * _ALIGNMENT
        start = -(-out.tell() // _ALIGNMENT) * _ALIGNMENT
        for tensor in () if kinds is None else model.tensors(kinds):
            _write_tensor(out, start + offsets[tensor.name], tensor, stored[tensor.name])
        out.truncate(start + end)


def _write_tensor(out: BinaryIO, start: int, tensor: Tensor, kind: Type) -> None:
    for row, values in tensor.blocks():
        out.seek(start + row * tensor.columns * GGML_QUANT_SIZES[kind][1])
        out.write(values.astype(np.float16 if kind is Type.F16 else np.float32).tobytes())


def planned(path: Path, kind: str) -> dict[str, Type]:
    """The type that llama.cpp would give each tensor that it quantises."""
    found = {}

    def heard(line: str) -> None:
        if match := _PLANNED.match(line):
            found[match["name"]] = Type[match["type"].upper()]

    job = QuantizeJob(str(path.absolute()), str(path.absolute()), kind, plan=True)
    code, said = run(["wsd_local.library.quantizer", job.as_json()], heard, nothing)
    assert code == 0, said[-1]
    return found


def inflate(
    source: Path,
    target: Path,
    shape: Shape,
    type: str = "Q4_0",
    vocab: int | None = None,
    *,
    tied: bool = True,
    progress: StepProgress = nothing,
) -> Path:
    """Write the small Llama `source` in a large shape to `target`; both may be more than memory holds.

    Args:
        source: a Llama with as many KV heads as heads, tied embeddings, and no rotary factors.
        target: the file to make; it appears when it is complete.
        shape: at least twice as wide as the source and 256 more, with at least as many KV heads.
        type: F32, F16, or one that llama.cpp quantises to.
        vocab: tokens; None: those of the source.
        tied: whether the output matrix is that of the token embeddings.
        progress: called with what is being done and how much of it.
    """
    small = Small.read(source)
    model = Inflated(small, shape, vocab or small.n_vocab, tied)
    plain = Type[type] if type in ("F32", "F16") else Type.F32
    entries = model.entries(f"{small.header.text('general.name')}, inflated", plain)
    if type in ("F32", "F16"):
        with replaced(target) as part:
            _write(part, model, entries, dict.fromkeys(model.shapes(), plain), plain)
        return target
    whole = target.with_name(f".{target.name}.f32")
    try:
        progress("writing", 0.0)
        _write(whole, model, entries, None, plain)
        _write(whole, model, entries, planned(whole, type), plain)
        quantize(whole, target, type, force=True, observer=Observer(progress))
    finally:
        whole.unlink(missing_ok=True)
    return target


def main() -> None:
    """Make what is not there yet, and print a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--types", nargs="+", default=["Q4_0"], help="Q4_0 (usual), Q4_K_M, Q8_0, F16, …")
    parser.add_argument("--shapes", nargs="+", choices=KINDS, default=["draft-1b", "base-3b"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.shapes:
        for type in options.types:
            target = options.out / f"{name}-{type.lower()}.gguf"
            begun = time.monotonic()
            if not target.exists():
                kind = KINDS[name]
                source = demo_dir() / f"{kind.role}-q8_0.gguf"
                inflate(source, target, kind.shape, type, kind.vocab, tied=kind.tied, progress=_Line(target.name))
                print(f"\r{target}: {target.stat().st_size / 1e9:.2f} GB, {time.monotonic() - begun:.0f} s", flush=True)
            else:
                print(f"{target}: is there", flush=True)


class _Line:
    """Progress on one line of a terminal, and in tenths elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tenths = -1

    def __call__(self, what: str, share: float) -> None:
        if sys.stdout.isatty():
            print(f"\r{self._name}: {what} {share:4.0%}", end="", flush=True)
        elif int(share * 10) != self._tenths:
            self._tenths = int(share * 10)
            print(f"{self._name}: {what} {share:4.0%}", flush=True)


if __name__ == "__main__":
    main()
