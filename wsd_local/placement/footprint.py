"""How much memory a model takes, from its header alone.

Contract: pure arithmetic in bytes. Weights are counted per layer as llama.cpp places them, the KV cache per layer from
the shapes of the key and value projections, the rest (logits, activations, attention, vocabulary) as estimates that
`tests/placement/test_estimates.py` checks against the growth of a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wsd_local.library.catalog import Shape
from wsd_local.library.description import block_count, hyperparameter, n_vocab
from wsd_local.library.gguf import MAPPABLE, Header, Tensor, types

_INPUTS = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")
_STATES = ("ssm_", "shortconv.", "time_mix_", "attn_x_")
_VOCABULARY_FACTOR = 8
"""Bytes of memory per byte of header: llama.cpp keeps each token and each merge in several tables (measured)."""
_CTX_STEP = 256


@dataclass(frozen=True, slots=True)
class Layer:
    """One block: bytes of its weights, of what the CPU back end would repack of them, numbers of a cached token's
    key and value, and bytes of its recurrent state."""

    weights: int
    repacked: int
    key: int
    value: int
    state: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes, by part, in bytes unless stated otherwise.

    `embeddings` stay in the machine's own memory. `output` is the head after the last layer, of which `tied` bytes are
    the embeddings again: a copy of them on a device, or where they are repacked. The repacked bytes are included in
    the weights. `head` numbers make one attention head's key. A file that is not
    `mappable` must be read; layers with a `sliding` window share no cells among sequences.
    """

    layers: tuple[Layer, ...]
    embeddings: int
    output: int
    output_repacked: int
    tied: int
    vocabulary: int
    n_vocab: int
    n_embd: int
    n_ff: int
    n_head: int
    head: int
    n_ctx_train: int
    mappable: bool = True
    sliding: bool = False

    @property
    def weights(self) -> int:
        """All weights, once."""
        return sum(layer.weights for layer in self.layers) + self.embeddings + self.output - self.tied

    def cache(self, layer: Layer, ctx: int, type_k: str, type_v: str) -> int:
        """Bytes of one layer's KV cache for `ctx` tokens, and of its recurrent state."""
        cells = -(-ctx // _CTX_STEP) * _CTX_STEP
        return cells * (row_bytes(layer.key, type_k) + row_bytes(layer.value, type_v)) + layer.state

    def caches(self, ctx: int, type_k: str, type_v: str) -> int:
        """Bytes of all layers' caches."""
        return sum(self.cache(layer, ctx, type_k, type_v) for layer in self.layers)

    def compute(self, ctx: int, n_ubatch: int, n_rows: int, *, flash: bool) -> int:
        """Bytes of the buffers of one evaluation of `n_ubatch` tokens with `n_rows` rows of logits."""
        rows = min(n_rows, n_ubatch)
        attention = n_ubatch * self.n_embd * 4 + (0 if flash else n_ubatch * ctx * self.n_head * 4)
        widest = max(rows * self.n_vocab * 4, n_ubatch * self.n_ff * 8, attention)
        return widest + n_ubatch * self.n_embd * 8 + n_ubatch * ctx * (2 if flash else 4)

    def logits(self, n_rows: int) -> int:
        """Bytes of the rows of logits that are kept for reading."""
        return n_rows * self.n_vocab * 4


_BITS_OF_EMBEDDINGS = 6.6
_BYTES_PER_TOKEN_OF_VOCABULARY = 480


def estimated(shape: Shape, size: int, n_ctx_train: int) -> Footprint:
    """A footprint before the file is here, from the model's shape and the file's size; some percent off."""
    embeddings = int(shape.vocab * shape.embd * _BITS_OF_EMBEDDINGS / 8)
    weights = (size - embeddings) // shape.layers
    return Footprint(
        layers=(Layer(weights, weights, shape.kv, shape.kv, 0),) * shape.layers,
        embeddings=embeddings,
        output=embeddings,
        output_repacked=0,
        tied=embeddings,
        vocabulary=shape.vocab * _BYTES_PER_TOKEN_OF_VOCABULARY,
        n_vocab=shape.vocab,
        n_embd=shape.embd,
        n_ff=shape.ff,
        n_head=shape.heads,
        head=32 * max(shape.kv // 32, 1),
        n_ctx_train=n_ctx_train,
    )


def row_bytes(count: int, kind: str) -> int:
    """Bytes of `count` numbers of a GGML type."""
    block, size = next((block, size) for name, block, size in types().values() if name == kind.upper())
    return -(-count // block) * size


def footprint(headers: Sequence[Header], features: frozenset[str] = frozenset()) -> Footprint:
    """Count a model's parts. `features` are the CPU's, by llama.cpp's names, and decide what is repacked.

    Raises:
        ModelError: the header states what no model has.
    """
    first = headers[0]
    tensors = [tensor for header in headers for tensor in header.tensors]
    repacks = repacking(features)
    width = hyperparameter(first, "embedding_length")
    blocks = block_count(headers)
    by_layer: list[list[Tensor]] = [[] for _ in range(blocks)]
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for tensor in tensors:
        if tensor.layer is not None:
            by_layer[tensor.layer].append(tensor)
        else:
            (inputs if tensor.name.startswith(_INPUTS) else outputs).append(tensor)
    shared = first.integer(f"{first.architecture}.attention.shared_kv_layers") or 0
    layers = [_layer(first, index, group, repacks) for index, group in enumerate(by_layer)]
    layers[blocks - shared :] = [_without_cache(layer) for layer in layers[blocks - shared :]]
    head = [] if any(tensor.name == "output.weight" for tensor in outputs) else inputs
    tied = [tensor for tensor in head if tensor.name == "token_embd.weight"]
    n_head = max(hyperparameter(first, "attention.head_count", layer) for layer in range(max(blocks, 1)))
    return Footprint(
        layers=tuple(layers),
        embeddings=sum(tensor.size for tensor in inputs),
        output=sum(tensor.size for tensor in outputs + tied),
        output_repacked=sum(tensor.size for tensor in outputs + tied if repacks(tensor)),
        tied=sum(tensor.size for tensor in tied),
        vocabulary=first.size * _VOCABULARY_FACTOR,
        n_vocab=n_vocab(first),
        n_embd=width,
        n_ff=max(hyperparameter(first, "feed_forward_length", layer) for layer in range(max(blocks, 1))),
        n_head=n_head,
        head=first.integer(f"{first.architecture}.attention.key_length") or width // max(n_head, 1),
        n_ctx_train=hyperparameter(first, "context_length"),
        mappable=all(header.alignment % MAPPABLE == 0 for header in headers),
        sliding=bool(first.integer(f"{first.architecture}.attention.sliding_window")),
    )


def _without_cache(layer: Layer) -> Layer:
    return Layer(layer.weights, layer.repacked, 0, 0, layer.state)


# -- one layer -------------------------------------------------------------------------------------------------


def _layer(header: Header, index: int, tensors: list[Tensor], repacks: Callable[[Tensor], bool]) -> Layer:
    shapes = {tensor.name.split(".", 2)[2]: tensor.shape or (1,) for tensor in tensors}
    recurrent = any(name.startswith(_STATES) for name in shapes)
    key, value = _cached(header, index, shapes, recurrent)
    return Layer(
        weights=sum(tensor.size for tensor in tensors),
        repacked=sum(tensor.size for tensor in tensors if repacks(tensor)),
        key=key,
        value=value,
        state=_state(header) if recurrent else 0,
    )


def _cached(header: Header, index: int, shapes: dict[str, tuple[int, ...]], recurrent: bool) -> tuple[int, int]:
    """Numbers per cached token in key and value: from the projections' shapes, so that every architecture counts."""
    if "attn_k.weight" in shapes:
        key = shapes["attn_k.weight"][-1]
        return key, shapes["attn_v.weight"][-1] if "attn_v.weight" in shapes else key
    if "attn_kv_a_mqa.weight" in shapes:
        return shapes["attn_kv_a_mqa.weight"][-1], 0
    if "attn_qkv.weight" in shapes and not recurrent:
        heads = hyperparameter(header, "attention.head_count", index)
        size = header.integer(f"{header.architecture}.attention.key_length")
        size = size or hyperparameter(header, "embedding_length") // max(heads, 1)
        both = max(shapes["attn_qkv.weight"][-1] - heads * size, 0)
        return both // 2, both // 2
    return 0, 0


def _state(header: Header) -> int:
    """Bytes of a recurrent layer's state, float32: that of the convolution and that of the recurrence."""

    def number(name: str) -> int:
        return header.integer(f"{header.architecture}.{name}") or 0

    width, inner, size = number("embedding_length"), number("ssm.inner_size"), number("ssm.state_size")
    convolution = max(number("ssm.conv_kernel") - 1, 0) * (inner + 2 * number("ssm.group_count") * size)
    short = max(number("shortconv.l_cache") - 1, 0) * width
    shift = number("token_shift_count") * width
    return 4 * (convolution + inner * size + short + shift + width * number("wkv.head_size"))


# -- repacking -------------------------------------------------------------------------------------------------


def repacking(features: frozenset[str]) -> Callable[[Tensor], bool]:
    """Whether the CPU back end keeps a tensor in an order of its own, which with a mapped file is a second copy.

    Source: `ggml_repack_get_optimal_repack_type` and the AMX buffer type of llama.cpp.
    """
    steps: dict[str, int] = {}
    if "NEON" in features and features & {"MATMUL_INT8", "DOTPROD"}:
        steps = dict.fromkeys(("Q4_0", "IQ4_NL", "MXFP4", "Q8_0"), 4) | dict.fromkeys(("Q4_K", "Q5_K", "Q6_K"), 8)
    if "AVX2" in features:
        steps = dict.fromkeys(("Q4_0", "Q4_K", "IQ4_NL", "MXFP4"), 8)
    if "AVX512" in features:
        steps["Q2_K"] = 8
    if "AMX_INT8" in features:
        steps |= dict.fromkeys(("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"), 32)

    def repacks(tensor: Tensor) -> bool:
        step = steps.get(tensor.type)
        return step is not None and len(tensor.shape) > 1 and tensor.shape[1] % step == 0

    return repacks
