"""Makers of small GGUF files for tests: seeded, offline, loadable by llama.cpp.

`f32_copy` dequantises a model, so that equality tests are free of quantisation noise. `random_llama` puts
random Llama weights around a real vocabulary or a small built-in one. `embedding_model` is a model that
the program must refuse as a base, `damaged` a set of files that it must refuse to load.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFValueType
from gguf.constants import GGMLQuantizationType, LlamaFileType, TokenType
from gguf.quants import dequantize

from wsd_local.library.gguf import Array

Floats = npt.NDArray[np.float32]

CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: {{ message['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
BASE_LIKE_TEMPLATE = (
    "{% for message in messages %}\n\n[{{ message['role'] | capitalize }}]\n{{ message['content'] | trim }}"
    "{% endfor %}{% if add_generation_prompt %}\n\n[Assistant]\n{% endif %}"
)
"""Writes what the base reads: with it, two models of kin agree often enough for windows to pass."""

_CONTROL_TOKENS = ("<|begin|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = (
    " the", " and", " of", " to", " in", " is", " a", " that", " for", " with", " answer", " answers",
    " user", " System", " User", " Assistant", "ing", "ation", "er", "ed", "ly", "Hello", "The", "\n\n",
    "]\n", "[User", "--", "----", "  ", "    ", "def", "return", " =", "é", "ü", " über", "你", "好", "🙂",
)  # fmt: skip
_ALIGNMENT = 32


# --- reading and writing --------------------------------------------------------------------------------

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = int(GGUFValueType.STRING), int(GGUFValueType.ARRAY)


def _value_end(data: bytes, start: int, kind: int) -> int:
    if kind == _STRING:
        return start + 8 + int.from_bytes(data[start : start + 8], "little")
    if kind != _ARRAY:
        return start + struct.calcsize(_SCALARS[kind])
    item, count = struct.unpack_from("<IQ", data, start)
    end = start + 12
    if item in _SCALARS:
        return end + int(count) * struct.calcsize(_SCALARS[item])
    for _ in range(count):
        end = _value_end(data, end, item)
    return end


def raw_entries(path: Path) -> dict[str, bytes]:
    """Each metadata entry of a GGUF file as the bytes it is stored in (quick even for large vocabularies)."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<Q", data, 16)
    entries, at = {}, 24
    for _ in range(count):
        key_end = _value_end(data, at, _STRING)
        (kind,) = struct.unpack_from("<I", data, key_end)
        end = _value_end(data, key_end + 4, kind)
        entries[data[at + 8 : key_end].decode()] = data[at:end]
        at = end
    return entries


def strings(array: Array) -> Iterator[str]:
    """The elements of a metadata array of strings."""
    at = 0
    for _ in range(array.count):
        (size,) = struct.unpack_from("<Q", array.data, at)
        yield array.data[at + 8 : at + 8 + size].decode(errors="replace")
        at += 8 + size


def packed_string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def packed(value: bool | int | float | str | Sequence[str] | Sequence[int]) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", GGUFValueType.BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", GGUFValueType.UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", GGUFValueType.FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", GGUFValueType.STRING) + packed_string(value)
    texts = [packed_string(item) for item in value if isinstance(item, str)]
    numbers = [struct.pack("<i", item) for item in value if isinstance(item, int)]
    kind = GGUFValueType.STRING if texts else GGUFValueType.INT32
    return struct.pack("<IIQ", GGUFValueType.ARRAY, kind, len(value)) + b"".join(texts or numbers)


class _File:
    """A GGUF file in the making: metadata entries and F32 tensors."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}
        self.tensors: dict[str, Floats] = {}

    def add(self, **values: bool | int | float | str | Sequence[str] | Sequence[int]) -> None:
        """Add metadata; a double underscore in a name stands for the dot in the key."""
        for name, value in values.items():
            key = name.replace("__", ".")
            self.entries[key] = packed_string(key) + packed(value)

    def write(self, path: Path) -> Path:
        with path.open("wb") as out:
            out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(self.tensors), len(self.entries)))
            out.writelines(self.entries.values())
            offset = 0
            for name, tensor in self.tensors.items():
                out.write(packed_string(name) + struct.pack("<I", tensor.ndim))
                out.write(struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape)))
                out.write(struct.pack("<IQ", GGMLQuantizationType.F32, offset))
                offset += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
            for tensor in self.tensors.values():
                out.write(bytes(-out.tell() % _ALIGNMENT))
                tensor.tofile(out)
            out.write(bytes(-out.tell() % _ALIGNMENT))
        return path


def f32_copy(src: Path, dst: Path) -> Path:
    """Write `src` with every tensor as F32; all metadata but the file type stay as they are."""
    file = _File()
    file.entries = {key: entry for key, entry in raw_entries(src).items() if key != "general.alignment"}
    file.add(general__file_type=int(LlamaFileType.ALL_F32))
    for tensor in GGUFReader(src).tensors:
        file.tensors[tensor.name] = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    return file.write(dst)


# --- the built-in vocabulary ----------------------------------------------------------------------------


def _byte_letters() -> dict[int, str]:
    """GPT-2's spelling of the 256 bytes in printable characters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len(letters) - len(printable)))
    return letters


def _spell(text: str, letters: Mapping[int, str]) -> list[str]:
    return [letters[byte] for byte in text.encode()]


def _merges_of(words: tuple[str, ...], letters: Mapping[int, str]) -> Iterator[tuple[str, str]]:
    """Left-to-right merges that build each word, each pair once."""
    seen = set()
    for word in words:
        parts = _spell(word, letters)
        for end in range(1, len(parts)):
            pair = ("".join(parts[:end]), parts[end])
            if pair not in seen:
                seen.add(pair)
                yield pair


def _add_builtin_vocab(file: _File) -> list[str]:
    letters = _byte_letters()
    merges = list(_merges_of(_WORDS, letters))
    normal = [letters[byte] for byte in range(256)] + [left + right for left, right in merges]
    ids = {token: len(normal) + index for index, token in enumerate(_CONTROL_TOKENS)}
    types = [int(TokenType.NORMAL)] * len(normal) + [int(TokenType.CONTROL)] * len(ids)
    file.add(
        tokenizer__ggml__model="gpt2",
        tokenizer__ggml__pre="qwen2",
        tokenizer__ggml__tokens=[*normal, *_CONTROL_TOKENS],
        tokenizer__ggml__token_type=types,
        tokenizer__ggml__merges=[f"{left} {right}" for left, right in merges],
        tokenizer__ggml__bos_token_id=ids["<|begin|>"],
        tokenizer__ggml__eos_token_id=ids["<|endoftext|>"],
        tokenizer__ggml__eot_token_id=ids["<|im_end|>"],
        tokenizer__ggml__add_bos_token=False,
        tokenizer__chat_template=CHATML_TEMPLATE,
    )
    return [*normal, *_CONTROL_TOKENS]


def _array_length(entry: bytes, key: str) -> int:
    (count,) = struct.unpack_from("<Q", entry, 8 + len(key.encode()) + 8)
    return int(count)


def _add_vocab(file: _File, vocab: Path | None, chat_template: str | None, add_bos: bool | None) -> Floats:
    """Add the tokenizer; the result weights each token's logit."""
    if vocab is None:
        loudness = np.array([_loudness(token) for token in _add_builtin_vocab(file)], dtype=np.float32)
    else:
        entries = raw_entries(vocab)
        file.entries |= {key: entry for key, entry in entries.items() if key.startswith("tokenizer.")}
        key = "tokenizer.ggml.tokens"
        loudness = np.ones(_array_length(entries[key], key), dtype=np.float32)
    if chat_template is not None:
        file.add(tokenizer__chat_template=chat_template)
    if add_bos is not None:
        file.add(tokenizer__ggml__add_bos_token=add_bos)
    return loudness


def _loudness(token: str) -> float:
    """Single bytes that are no ASCII text are rarely chosen: output stays readable, now and then broken."""
    return 0.5 if len(token) == 1 and not "!" <= token <= "~" and token not in "\u0120\u010a" else 1.0


# --- random weights -------------------------------------------------------------------------------------


class _Weights:
    """Seeded normal matrices; with a kin, each is blended with the one that the kin's seed gives."""

    def __init__(self, seed: int, kin: tuple[int, float] | None) -> None:
        self._sources = [(np.random.default_rng(seed), 1.0)]
        if kin is not None:
            kin_seed, share = kin
            self._sources = [
                (np.random.default_rng(seed), math.sqrt(1.0 - share * share)),
                (np.random.default_rng(kin_seed), share),
            ]

    def matrix(self, rows: int, columns: int, deviation: float) -> Floats:
        blend = np.zeros((rows, columns), dtype=np.float32)
        for source, share in self._sources:
            blend += np.float32(share * deviation) * source.standard_normal((rows, columns), dtype=np.float32)
        return blend


def _llama_tensors(
    weights: _Weights, loudness: Floats, *, n_embd: int, n_layer: int, n_ff: int, scale: float
) -> Iterator[tuple[str, Floats]]:
    unit, n_vocab = 1.0 / math.sqrt(n_embd), len(loudness)
    yield "token_embd.weight", weights.matrix(n_vocab, n_embd, 1.0)
    yield "output_norm.weight", np.ones(n_embd, dtype=np.float32)
    yield "output.weight", weights.matrix(n_vocab, n_embd, scale * unit) * loudness[:, None]
    for layer in range(n_layer):
        block = f"blk.{layer}"
        yield f"{block}.attn_norm.weight", np.ones(n_embd, dtype=np.float32)
        yield f"{block}.attn_q.weight", weights.matrix(n_embd, n_embd, 1.5 * unit)
        yield f"{block}.attn_k.weight", weights.matrix(n_embd, n_embd, 1.5 * unit)
        yield f"{block}.attn_v.weight", weights.matrix(n_embd, n_embd, unit)
        yield f"{block}.attn_output.weight", weights.matrix(n_embd, n_embd, 1.5 * unit)
        yield f"{block}.ffn_norm.weight", np.ones(n_embd, dtype=np.float32)
        yield f"{block}.ffn_gate.weight", weights.matrix(n_ff, n_embd, unit)
        yield f"{block}.ffn_up.weight", weights.matrix(n_ff, n_embd, unit)
        yield f"{block}.ffn_down.weight", weights.matrix(n_embd, n_ff, 1.0 / math.sqrt(n_ff))


def random_llama(
    dst: Path,
    vocab: Path | None = None,
    *,
    n_embd: int = 64,
    n_layer: int = 2,
    n_head: int = 4,
    n_ff: int = 128,
    seed: int = 0,
    scale: float = 5.0,
    kin: tuple[int, float] | None = None,
    chat_template: str | None = None,
    add_bos: bool | None = None,
    n_ctx_train: int = 2048,
) -> Path:
    """Write a random Llama in F32 around `vocab` (a GGUF's tokenizer) or the built-in byte-level one.

    `scale` is the standard deviation of the logits. `kin=(seed, share)` correlates the weights with those
    of another seed (same shape), so that two models agree often without being equal: try a share of 0.999.
    """
    file = _File()
    file.add(
        general__architecture="llama",
        general__name=f"random-llama-{seed}",
        general__file_type=int(LlamaFileType.ALL_F32),
        llama__context_length=n_ctx_train,
        llama__embedding_length=n_embd,
        llama__block_count=n_layer,
        llama__feed_forward_length=n_ff,
        llama__attention__head_count=n_head,
        llama__attention__head_count_kv=n_head,
        llama__attention__layer_norm_rms_epsilon=1e-5,
        llama__rope__dimension_count=n_embd // n_head,
    )
    loudness = _add_vocab(file, vocab, chat_template, add_bos)
    sizes = {"n_embd": n_embd, "n_layer": n_layer, "n_ff": n_ff}
    file.add(llama__vocab_size=len(loudness))
    file.tensors = dict(_llama_tensors(_Weights(seed, kin), loudness, scale=scale, **sizes))
    return file.write(dst)


def kin_pair(
    folder: Path,
    vocab: Path | None = None,
    *,
    seed: int = 0,
    share: float = 0.999,
    add_bos: bool | None = None,
) -> tuple[Path, Path]:
    """A draft and a base that agree enough for windows to pass between thresholds of 0.3 and 0.9."""
    draft, base = folder / "kin-draft.gguf", folder / "kin-base.gguf"
    random_llama(draft, vocab, seed=seed, chat_template=BASE_LIKE_TEMPLATE, add_bos=add_bos)
    random_llama(base, vocab, seed=seed + 1, kin=(seed, share), add_bos=add_bos)
    return draft, base


# --- files that must be refused -------------------------------------------------------------------------

_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def _bert_tensors(
    weights: _Weights,
    n_vocab: int,
    n_embd: int,
    n_ff: int,
    n_ctx: int,
) -> Iterator[tuple[str, Floats]]:
    def normed(name: str) -> Iterator[tuple[str, Floats]]:
        yield f"{name}.weight", np.ones(n_embd, dtype=np.float32)
        yield f"{name}.bias", np.zeros(n_embd, dtype=np.float32)

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, Floats]]:
        yield f"{name}.weight", weights.matrix(rows, columns, 1.0 / math.sqrt(columns))
        yield f"{name}.bias", np.zeros(rows, dtype=np.float32)

    yield "token_embd.weight", weights.matrix(n_vocab, n_embd, 1.0)
    yield "token_types.weight", weights.matrix(2, n_embd, 0.1)
    yield "position_embd.weight", weights.matrix(n_ctx, n_embd, 0.1)
    yield from normed("token_embd_norm")
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        yield from linear(f"blk.0.{name}", n_embd, n_embd)
    yield from normed("blk.0.attn_output_norm")
    yield from linear("blk.0.ffn_up", n_ff, n_embd)
    yield from linear("blk.0.ffn_down", n_embd, n_ff)
    yield from normed("blk.0.layer_output_norm")


def embedding_model(dst: Path, *, seed: int = 0) -> Path:
    """Write a one-layer BERT: llama.cpp loads it, but it cannot continue a text."""
    return _bert(seed).write(dst)


def ranking_model(dst: Path, *, seed: int = 0, labels: int = 1) -> Path:
    """Write a one-layer BERT with a head that gives a text `labels` scores, as rerankers and reward models have."""
    file, weights = _bert(seed), _Weights(seed + 1, None)
    names = {} if labels == 1 else {"bert.classifier.output_labels": [f"label {number}" for number in range(labels)]}
    file.add(bert__pooling_type=4, **{name.replace(".", "__"): value for name, value in names.items()})
    width = file.tensors["token_embd.weight"].shape[1]
    file.tensors["cls.weight"] = weights.matrix(width, width, 0.3)
    file.tensors["cls.bias"] = np.zeros(width, dtype=np.float32)
    file.tensors["cls.output.weight"] = weights.matrix(labels, width, 0.5)
    file.tensors["cls.output.bias"] = np.full(labels, 0.25, dtype=np.float32)
    return file.write(dst)


def _bert(seed: int) -> _File:
    n_embd, n_ff, n_ctx = 32, 64, 128
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*_BERT_TOKENS, *letters, *(f"\u2581{letter}" for letter in letters)]
    types = [int(TokenType.CONTROL)] * len(_BERT_TOKENS) + [int(TokenType.NORMAL)] * 2 * len(letters)
    file = _File()
    file.add(
        general__architecture="bert",
        general__name="random-bert",
        general__file_type=int(LlamaFileType.ALL_F32),
        bert__context_length=n_ctx,
        bert__embedding_length=n_embd,
        bert__block_count=1,
        bert__feed_forward_length=n_ff,
        bert__attention__head_count=2,
        bert__attention__layer_norm_epsilon=1e-12,
        bert__attention__causal=False,
        bert__pooling_type=1,
        tokenizer__ggml__model="bert",
        tokenizer__ggml__tokens=tokens,
        tokenizer__ggml__token_type=types,
        tokenizer__ggml__token_type_count=2,
        tokenizer__ggml__padding_token_id=0,
        tokenizer__ggml__unknown_token_id=1,
        tokenizer__ggml__bos_token_id=2,
        tokenizer__ggml__seperator_token_id=3,
        tokenizer__ggml__mask_token_id=4,
    )
    file.tensors = dict(_bert_tensors(_Weights(seed, None), len(tokens), n_embd, n_ff, n_ctx))
    return file


def damaged(src: Path, dst_dir: Path) -> dict[str, Path]:
    """Write files that are not, or no longer, a model: truncated, empty, text, wrong_magic."""
    whole = src.read_bytes()
    contents = {
        "truncated": whole[: len(whole) * 3 // 4],
        "empty": b"",
        "text": b"This is a text file that someone renamed.\n" * 20,
        "wrong_magic": b"FUGG" + whole[4:],
    }
    paths = {}
    for kind, content in contents.items():
        paths[kind] = dst_dir / f"{kind}.gguf"
        paths[kind].write_bytes(content)
    return paths
