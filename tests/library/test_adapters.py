"""LoRA adapters and importance matrices that cannot be true: one line, and llama.cpp never ends this process."""

from __future__ import annotations

import json
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from command_line import complains, wsd
from gguf.constants import GGUFValueType
from gguf.gguf_writer import GGUFValue
from makers import Floats, packed_string, random_llama
from makers_more import random_lora, random_mamba

import wsd_local as wsd_api
from wsd_local.errors import ModelError
from wsd_local.library import vetting
from wsd_local.library.adapters import check_adapter
from wsd_local.library.gguf import Array, read_header, read_model
from wsd_local.library.made import remember_made
from wsd_local.library.quantize import quantize
from wsd_local.library.quantizer import read_imatrix

Tensors = dict[str, Floats]
Changes = dict[str, tuple[object, GGUFValueType] | None]
Kind = GGUFValueType

Q, EMBED = "blk.0.attn_q.weight", "token_embd.weight"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_llama(tmp_path_factory.mktemp("model") / "model.gguf")


def zeros(*shape: int) -> Floats:
    return np.zeros(shape, dtype=np.float32)


GOOD: Tensors = {f"{Q}.lora_a": zeros(4, 64), f"{Q}.lora_b": zeros(64, 4)}


def written(path: Path, changes: Changes, tensors: Tensors, values: Changes) -> Path:
    """A GGUF file of these values, with changes (None: it is left out), and tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    for key, entry in {**values, **changes}.items():
        writer.kv_data[0].pop(key, None)
        if entry is not None:
            value, kind = entry
            sub = GGUFValueType.get_type(value[0]) if isinstance(value, list) else None
            writer.kv_data[0][key] = GGUFValue(value=value, type=kind, sub_type=sub)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


ADAPTER: Changes = {
    "general.type": ("adapter", Kind.STRING),
    "adapter.type": ("lora", Kind.STRING),
    "adapter.lora.alpha": (8.0, Kind.FLOAT32),
}
WRONG: dict[str, tuple[Changes, Tensors, str]] = {
    "type is a number": ({"general.type": (7, Kind.UINT32)}, GOOD, "general.type is no text"),
    "type is a list": ({"general.type": (["adapter"], Kind.ARRAY)}, GOOD, "general.type is no text"),
    "no type": ({"general.type": None}, GOOD, "is no LoRA adapter"),
    "adapter type is a number": ({"adapter.type": (1.5, Kind.FLOAT32)}, GOOD, "adapter.type is no text"),
    "another adapter type": ({"adapter.type": ("ia3", Kind.STRING)}, GOOD, "is no LoRA adapter"),
    "alpha is text": ({"adapter.lora.alpha": ("8", Kind.STRING)}, GOOD, "adapter.lora.alpha is '8'"),
    "alpha is whole": ({"adapter.lora.alpha": (8, Kind.UINT32)}, GOOD, "adapter.lora.alpha is 8"),
    "alpha is double": ({"adapter.lora.alpha": (8.0, Kind.FLOAT64)}, GOOD, "adapter.lora.alpha is 8.0"),
    "alpha is no number": ({"adapter.lora.alpha": (float("nan"), Kind.FLOAT32)}, GOOD, "adapter.lora.alpha is nan"),
    "alpha is a flag": ({"adapter.lora.alpha": (True, Kind.BOOL)}, GOOD, "adapter.lora.alpha is True"),
    "architecture is a number": ({"general.architecture": (3, Kind.INT32)}, GOOD, "for the architecture"),
    "another architecture": ({"general.architecture": ("qwen2", Kind.STRING)}, GOOD, "for the architecture 'qwen2'"),
    "norms": (
        {},
        {**GOOD, "blk.0.attn_norm.weight": zeros(64)},
        "cannot be used as an adapter: it replaces 'blk.0.attn_norm.weight', which llama.cpp leaves out; merge it",
    ),
    "tokens are text": ({"adapter.alora.invocation_tokens": ("x", Kind.STRING)}, GOOD, "is no list of tokens"),
    "tokens are signed": ({"adapter.alora.invocation_tokens": ([1, 2], Kind.ARRAY)}, GOOD, "is no list of tokens"),
    "a part": ({"split.count": (2, Kind.UINT16)}, GOOD, "is a part of a split file"),
    "no tensors": ({}, {}, "changes no weights"),
    "half a pair": ({}, {f"{Q}.lora_a": zeros(4, 64)}, "has no counterpart"),
    "no factor": ({}, {**GOOD, "x.weight": zeros(4, 64)}, "is no factor"),
    "a tensor that is not there": (
        {},
        {"blk.7.attn_q.weight.lora_a": zeros(4, 64), "blk.7.attn_q.weight.lora_b": zeros(64, 4)},
        "has no 'blk.7.attn_q.weight', which the adapter changes (the factors are [64, 4] and [4, 64])",
    ),
    "too wide": (
        {},
        {f"{Q}.lora_a": zeros(4, 96), f"{Q}.lora_b": zeros(64, 4)},
        "is [64, 64] in the model, and [96, 64] in the adapter (the factors are [96, 4] and [4, 64])",
    ),
    "too high": (
        {},
        {f"{Q}.lora_a": zeros(4, 64), f"{Q}.lora_b": zeros(96, 4)},
        "is [64, 64] in the model, and [64, 96] in the adapter",
    ),
    "two ranks": (
        {},
        {f"{Q}.lora_a": zeros(4, 64), f"{Q}.lora_b": zeros(64, 8)},
        "the factors are [64, 4] and [8, 64]",
    ),
    "three dimensions": (
        {},
        {f"{Q}.lora_a": zeros(2, 4, 64), f"{Q}.lora_b": zeros(2, 64, 4)},
        "is [64, 64] in the model, and ",
    ),
    "one dimension": ({}, {f"{Q}.lora_a": zeros(64), f"{Q}.lora_b": zeros(64)}, "and no matrix in the adapter"),
    "an embedding as a matrix": (
        {},
        {f"{EMBED}.lora_a": zeros(4, 64), f"{EMBED}.lora_b": zeros(64, 4)},
        "in the model, and ",
    ),
    "a control character": ({}, {"\x1b[2J.lora_a": zeros(4, 64), "\x1b[2J.lora_b": zeros(64, 4)}, "has no "),
}


@pytest.mark.parametrize(("changes", "tensors", "said"), WRONG.values(), ids=WRONG)
def test_an_adapter_that_cannot_be_true_is_refused(
    model: Path, tmp_path: Path, changes: Changes, tensors: Tensors, said: str
) -> None:
    path = written(tmp_path / "lora.gguf", changes, tensors, ADAPTER)
    with pytest.raises(ModelError) as caught:
        check_adapter(read_header(path), read_model(model))
    text = str(caught.value)
    assert text.startswith(str(path)) and said in text and text.isprintable() and "\n" not in text


def test_an_adapter_of_embeddings_that_are_the_output_layer_is_refused(model: Path, tmp_path: Path) -> None:
    """llama.cpp would end the process: it multiplies them as the output layer too."""
    headers = read_model(model)
    n_embd, n_vocab = next(tensor.shape for tensor in headers[0].tensors if tensor.name == EMBED)
    factors = {f"{EMBED}.lora_a": zeros(n_vocab, 4), f"{EMBED}.lora_b": zeros(n_embd, 4)}
    adapter = read_header(written(tmp_path / "lora.gguf", {}, factors, ADAPTER))
    check_adapter(adapter, headers)
    tied = tuple(tensor for tensor in headers[0].tensors if tensor.name != "output.weight")
    with pytest.raises(ModelError, match=r"'token_embd\.weight', which is the output layer of .* too; merge it"):
        check_adapter(adapter, (replace(headers[0], tensors=tied),))


def test_an_adapter_for_what_comes_after_certain_tokens_is_refused(model: Path, tmp_path: Path) -> None:
    path = random_lora(tmp_path / "lora.gguf", model)
    adapter = read_header(path)
    tokens = Array(Kind.UINT32, 2, np.array([1, 2], dtype=np.uint32).tobytes())
    changed = replace(adapter, metadata={**adapter.metadata, "adapter.alora.invocation_tokens": tokens})
    check_adapter(adapter, read_model(model))
    with pytest.raises(ModelError, match=r"made to begin after certain tokens \(aLoRA\)"):
        check_adapter(changed, read_model(model))


@pytest.mark.parametrize("part", ["ssm_conv1d", "ssm_in"])
def test_a_change_that_llama_cpp_leaves_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """llama.cpp convolves with `ssm_conv1d` and adds no adapter there; the names and the shapes are right."""
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "verdicts"))
    model = random_mamba(tmp_path / "mamba.gguf", chat_template=None)
    name = f"blk.0.{part}.weight"
    columns, rows = next(tensor.shape for tensor in read_model(model)[0].tensors if tensor.name == name)
    factors = {f"{name}.lora_a": zeros(2, columns), f"{name}.lora_b": zeros(rows, 2)}
    arch: Changes = {"general.architecture": ("mamba", Kind.STRING)}
    path = written(tmp_path / "lora.gguf", arch, factors, ADAPTER)
    arguments = ("run", "hi", "--mode", "base", "--base", str(model), "--max-tokens", "2", "--base-lora", str(path))
    if part == "ssm_in":
        assert wsd(*arguments).returncode == 0
    else:
        complains(wsd(*arguments), 3, "lora.gguf", f"it changes '{name}', and llama.cpp leaves that out for mamba")


def test_an_adapter_has_a_name_like_a_model(model: Path, tmp_path: Path) -> None:
    remember_made("mine", random_lora(tmp_path / "lora.gguf", model), None, None)
    arguments = ("run", "hi", "--mode", "base", "--base", str(model), "--max-tokens", "2", "--json", "--base-lora")
    named, by_path = wsd(*arguments, "mine"), wsd(*arguments, str(tmp_path / "lora.gguf"))
    assert named.returncode == by_path.returncode == 0, named.stderr
    texts = [json.loads(done.stdout)["text"] for done in (named, by_path)]
    assert texts[0] == texts[1]
    complains(wsd(*arguments, "min"), 3, "min: neither a model's name nor a file", "mine")
    assert "adapter" in next(line for line in wsd("models", "list").stdout.decode().splitlines() if "mine" in line)
    shown = wsd("models", "show", "mine")
    assert "LoRA adapter for llama, 2 layers, alpha 8.0" in shown.stdout.decode(), shown.stderr
    complains(wsd("models", "quantize", "mine", "Q8_0"), 3, "lora.gguf: is a LoRA adapter; models convert --type")


def test_the_command_and_the_library_refuse_it_and_try_a_good_one(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "verdicts"))
    wrong = written(tmp_path / "wrong.gguf", {"general.type": (7, Kind.UINT32)}, GOOD, ADAPTER)
    arguments = ("run", "hi", "--mode", "base", "--base", str(model), "--max-tokens", "2", "--base-lora")
    complains(wsd(*arguments, str(wrong)), 3, "wrong.gguf", "general.type is no text")
    other = written(tmp_path / "other.gguf", {}, {f"{Q}.lora_a": zeros(4, 96), f"{Q}.lora_b": zeros(64, 4)}, ADAPTER)
    for command in (("run", "hi"), ("check-pair",), ("bench",), ("fit",)):
        done = wsd(*command, "--draft", str(model), "--base", str(model), "--draft-lora", str(other))
        complains(done, 3, "other.gguf", f"'{Q}' is [64, 64] in the model, and [96, 64] in the adapter")
    for command in (("run", "hi"), ("fit",)):
        complains(wsd(*command, "--base", str(model), "--base-lora", str(tmp_path / "none.gguf")), 3, "no such file")
    with pytest.raises(ModelError, match=r"and \[96, 64\] in the adapter"):
        wsd_api.load("demo", base=model, base_lora=str(other))
    good = random_lora(tmp_path / "good.gguf", model)
    tried: list[list[str]] = []
    really = vetting._trial

    def trial(arguments: list[str], *more: object) -> tuple[int | None, str, str]:
        tried.append(arguments)
        return really(arguments, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(vetting, "_trial", trial)
    for _ in range(2):
        with wsd_api.load("demo", base=model, base_lora=str(good), mode="base", threads=1) as pair:
            assert pair.reply("hi", max_tokens=2).text
    assert [arguments[3:] for arguments in tried] == [[str(good)]], "the model alone is known already"
    shutil.copy(random_lora(tmp_path / "other.gguf", model, seed=3), good)
    with wsd_api.load("demo", base=model, base_lora=str(good), mode="base", threads=1) as pair:
        assert pair.reply("hi", max_tokens=2).text
    assert len(tried) == 2, "another adapter by the same name"


def test_an_adapter_that_ends_llama_cpp_is_one_line(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the header does not show is tried by a process of its own."""
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "verdicts"))
    good = random_lora(tmp_path / "good.gguf", model)
    monkeypatch.setattr(vetting, "_trial", lambda *_: (-6, "", "GGML_ASSERT(x) failed"))
    with pytest.raises(ModelError, match=r"good\.gguf: llama.cpp gave up on it: GGML_ASSERT\(x\) failed"):
        vetting.vet_adapter(good, model)


def test_a_model_that_a_later_reply_needs_is_tried_too(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSD_LOCAL_CACHE", str(tmp_path / "verdicts"))
    tried: list[str] = []
    monkeypatch.setattr("wsd_local.runtime.llama_file.vet", lambda path, _waiting: tried.append(path.name))
    with wsd_api.load("demo", base=model, mode="draft", threads=1) as pair:
        assert tried == ["draft-q8_0.gguf"]
        pair.reply("hi", mode="base", max_tokens=2)
        pair.reply("hi", mode="base", max_tokens=2)
    assert tried == ["draft-q8_0.gguf", "model.gguf"]


# -- importance matrices -------------------------------------------------------------------------------------

MATRIX: Changes = {"general.type": ("imatrix", Kind.STRING)}


def matrix_of(width: int, **more: Floats) -> Tensors:
    return {f"{Q}.in_sum2": zeros(1, width) + 1, f"{Q}.counts": zeros(1, 1) + 1, **more}


WRONG_MATRIX: dict[str, tuple[Changes, Tensors, str]] = {
    "type is a number": ({"general.type": (7, Kind.UINT32)}, matrix_of(64), "holds no importance matrix"),
    "another type": ({"general.type": ("model", Kind.STRING)}, matrix_of(64), "holds no importance matrix"),
    "nothing": ({}, {}, "holds no importance matrix"),
    "other tensors": ({}, {"x": zeros(3)}, "holds no importance matrix"),
    "no counts": ({}, {f"{Q}.in_sum2": zeros(1, 64)}, "has no counterpart"),
    "no sums": ({}, {f"{Q}.counts": zeros(1, 1)}, "has no counterpart"),
    "uneven": ({}, {f"{Q}.in_sum2": zeros(1, 64), f"{Q}.counts": zeros(5, 1)}, "64 sums for 5 counts"),
    "halves": ({}, {f"{Q}.in_sum2": zeros(1, 64).astype(np.float16), f"{Q}.counts": zeros(1, 1)}, "must be F32"),
    "another width": ({}, matrix_of(96), "has 96 inputs there, and 64 here"),
    "another model": ({}, {"y.in_sum2": zeros(1, 64), "y.counts": zeros(1, 1)}, "names no tensor of this one"),
}


@pytest.mark.parametrize(("changes", "tensors", "said"), WRONG_MATRIX.values(), ids=WRONG_MATRIX)
def test_an_importance_matrix_that_cannot_be_true_is_refused(
    model: Path, tmp_path: Path, changes: Changes, tensors: Tensors, said: str
) -> None:
    path = written(tmp_path / "matrix.gguf", changes, tensors, MATRIX)
    with pytest.raises(ModelError) as caught:
        quantize(model, tmp_path / "made.gguf", "Q4_K_M", imatrix=path)
    assert str(caught.value).startswith(str(path)) and said in str(caught.value)
    assert not (tmp_path / "made.gguf").exists()


def test_an_importance_matrix_longer_than_any_is_refused_unread(model: Path, tmp_path: Path) -> None:
    """Gigabytes of which only the header is on the disk."""
    path = tmp_path / "matrix.gguf"
    tensors = ((f"{Q}.in_sum2", 1 << 30, 0), (f"{Q}.counts", 1, 1 << 32))
    with path.open("wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 0))
        for name, length, offset in tensors:
            out.write(packed_string(name) + struct.pack("<I2QIQ", 2, length, 1, 0, offset))
        out.truncate((1 << 32) + (1 << 20))
    with pytest.raises(ModelError, match="holds more than 536870912 numbers"):
        quantize(model, tmp_path / "made.gguf", "Q4_K_M", imatrix=path)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0])
def test_numbers_that_cannot_be_are_refused(model: Path, tmp_path: Path, number: float) -> None:
    for name in (f"{Q}.in_sum2", f"{Q}.counts"):
        tensors = matrix_of(64)
        tensors[name][0, 0] = number
        path = written(tmp_path / "matrix.gguf", {}, tensors, MATRIX)
        with pytest.raises(ModelError, match="holds numbers that cannot be"):
            read_imatrix(path)
        with pytest.raises(ModelError, match="holds numbers that cannot be"):
            quantize(model, tmp_path / "made.gguf", "Q4_K_M", imatrix=path)
