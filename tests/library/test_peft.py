"""Adapters of PEFT that no GGUF adapter can hold are refused in one line, before anything is converted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import write_safetensors
from command_line import complains, wsd
from makers import Floats

from wsd_local.errors import ModelError
from wsd_local.library.peft import base_of, is_adapter, read_adapter
from wsd_local.library.repo_files import checkpoint_files

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "owner/Model"}


def zeros(*shape: int) -> Floats:
    return np.zeros(shape, dtype=np.float32)


FACTORS = {f"{LAYER}.lora_A.weight": zeros(4, 64), f"{LAYER}.lora_B.weight": zeros(32, 4)}
OTHER = {
    f"{LAYER.replace('q_', 'v_')}.lora_A.weight": zeros(2, 64),
    f"{LAYER.replace('q_', 'v_')}.lora_B.weight": zeros(16, 2),
}


def saved(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Floats] | None = None) -> Path:
    """The folder of an adapter."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    write_safetensors(folder / "adapter_model.safetensors", {**(FACTORS if tensors is None else tensors)})
    return folder


def test_an_adapter_is_read(tmp_path: Path) -> None:
    found = read_adapter(saved(tmp_path, {"rank_pattern": {"v_proj": 2}}, {**FACTORS, **OTHER}))
    assert (found.alpha, found.changed, found.size) == (8.0, 64 * 32 + 64 * 16, 4 * 96 + 2 * 80)
    assert found.base == base_of(found) == "owner/Model"


def test_a_root_of_the_rank_becomes_an_alpha(tmp_path: Path) -> None:
    assert read_adapter(saved(tmp_path, {"use_rslora": True})).alpha == 8 * math.sqrt(4)
    with pytest.raises(ModelError, match=r"layers have the ranks 2, 4, and scales by their roots \(rsLoRA\); merge it"):
        read_adapter(saved(tmp_path, {"use_rslora": True}, {**FACTORS, **OTHER}))


def test_values_that_say_nothing_are_no_obstacle(tmp_path: Path) -> None:
    config = {
        "use_dora": False,
        "modules_to_save": [],
        "bias": "none",
        "init_lora_weights": "gaussian",
        "alpha_pattern": {"q_proj": 8},
        "target_modules": ["q_proj"],
        "something_new": None,
        "lora_dropout": 0.1,
    }
    assert read_adapter(saved(tmp_path, config)).alpha == 8.0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "it is no LoRA adapter (peft_type is 'IA3')"),
        ({"use_dora": True}, "(DoRA)"),
        ({"modules_to_save": ["lm_head", "score"]}, "it replaces whole layers (modules_to_save: lm_head, score)"),
        ({"trainable_token_indices": [1]}, "embeddings of tokens"),
        ({"bias": "all"}, "it changes biases (bias is 'all')"),
        ({"lora_bias": True}, "it changes biases (lora_bias)"),
        ({"fan_in_fan_out": True}, "transposed"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "repeated layers"),
        ({"target_parameters": ["experts.up"]}, "no layers (target_parameters: experts.up)"),
        ({"alora_invocation_tokens": [5, 6]}, "aLoRA"),
        ({"use_qalora": True}, "QALoRA"),
        ({"init_lora_weights": "pissa_niter_4"}, "it may belong to changed weights (init_lora_weights is 'pissa_nit"),
        ({"init_lora_weights": "olora"}, "changed weights"),
        ({"init_lora_weights": ["x"]}, "changed weights"),
        ({"alpha_pattern": {"q_proj": 4}}, "an alpha of their own (alpha_pattern)"),
        ({"alpha_pattern": [1]}, "an alpha of their own"),
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"use_newlora": {"x": 1}}, "its configuration has 'use_newlora', which is not known here"),
        ({"invocation_string": "\x1b[2J"}, "'invocation_string'"),
    ],
    ids=str,
)
def test_a_configuration_that_a_gguf_file_cannot_hold_is_refused(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        read_adapter(saved(tmp_path, config))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}: cannot become a GGUF adapter: ") and words in text
    assert text.endswith("and convert that") and text.isprintable()


@pytest.mark.parametrize("alpha", [True, "8", None, float("inf"), 10**400, [8]], ids=str)
def test_an_alpha_that_is_no_number_is_damage(alpha: object, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json: is damaged: lora_alpha is"):
        read_adapter(saved(tmp_path, {"lora_alpha": alpha}))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "it changes no weights"),
        ({"base_model.model.lm_head.lora_A.weight": zeros(4, 64)}, "embeddings or the output layer"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": zeros(4, 9)}, "embeddings or the output layer"),
        ({"base_model.model.model.embed_tokens.weight": zeros(9, 64)}, "embeddings or the output layer"),
        ({f"{LAYER}.lora_magnitude_vector": zeros(32)}, "DoRA"),
        ({f"{LAYER}.lora_B.bias": zeros(32)}, "it changes biases"),
        ({f"{LAYER}.base_layer.bias": zeros(32)}, "it changes biases"),
        ({"base_model.model.model.norm.weight": zeros(64)}, "norm.weight' as a whole"),
        ({f"{LAYER}.lora_A.weight": zeros(4, 64)}, "by factors of shape [4, 64] and []"),
        ({f"{LAYER}.lora_A.weight": zeros(4, 8, 3, 3), f"{LAYER}.lora_B.weight": zeros(9, 4, 1, 1)}, "by factors"),
    ],
    ids=str,
)
def test_a_tensor_that_a_gguf_file_cannot_hold_is_refused(
    tensors: dict[str, Floats], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError) as caught:
        read_adapter(saved(tmp_path, {}, {**tensors, **(OTHER if tensors else {})}))
    assert str(caught.value).startswith(f"{tmp_path}: cannot become a GGUF adapter: ") and words in str(caught.value)


def test_damage_is_named(tmp_path: Path) -> None:
    saved(tmp_path, {}, {f"{LAYER}.lora_A.weight": zeros(4, 64), f"{LAYER}.lora_B.weight": zeros(32, 3)})
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: is damaged: the factors of .* are \[4, 64\]"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: is damaged"):
        read_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors"):
        read_adapter(tmp_path)
    for text in ("[]", "{", "[" * 100_000):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(ModelError, match=r"adapter_config\.json"):
            read_adapter(tmp_path)


def test_the_model_that_an_adapter_changes_is_found(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    adapter = read_adapter(saved(tmp_path / "adapter", {"base_model_name_or_path": str(model)}))
    with pytest.raises(ModelError, match=r"changes '.*model', which is not here: name .* with --base"):
        base_of(adapter)
    (model / "config.json").write_text("{}")
    assert base_of(adapter) == model
    nameless = read_adapter(saved(tmp_path / "adapter", {"base_model_name_or_path": None}))
    with pytest.raises(ModelError, match="does not say which model it changes: name"):
        base_of(nameless)
    long = read_adapter(saved(tmp_path / "adapter", {"base_model_name_or_path": f"/{'x' * 5000}"}))
    with pytest.raises(ModelError, match="is not here"):
        base_of(long)
    (adapter.folder / "config.json").write_text("{}")
    assert base_of(nameless) == adapter.folder


def test_a_repository_of_a_whole_model_is_no_adapter(tmp_path: Path) -> None:
    """Some models were merged, and what was merged is beside them."""
    assert is_adapter(saved(tmp_path, {}), fetched=True)
    write_safetensors(tmp_path / "model.safetensors", {"w": zeros(4, 8)})
    assert not is_adapter(tmp_path, fetched=True)
    top = ["config.json", "model.safetensors", "adapter_config.json", "adapter_model.safetensors", "sub/model.gguf"]
    assert "model.safetensors" in checkpoint_files("a/b", top, adapters=True)
    assert checkpoint_files("a/b", top[2:], adapters=True) == ("adapter_config.json", "adapter_model.safetensors")
    with pytest.raises(ModelError, match="holds a LoRA adapter, and a whole model is wanted"):
        checkpoint_files("a/b", top[2:])


def test_commands_tell_adapters_and_models_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsd_local.library.convert.EXTRA", ())
    monkeypatch.setattr("wsd_local.training.running.EXTRA", ())
    folder = tmp_path / "llama.cpp"
    for name in ("conversion", "gguf-py"):
        (folder / name).mkdir(parents=True)
    (folder / "convert_hf_to_gguf.py").touch()
    monkeypatch.setenv("WSD_LOCAL_LLAMA_CPP", str(folder))
    adapter = saved(tmp_path / "adapter", {"use_dora": True})
    complains(wsd("models", "convert", str(adapter)), 3, str(adapter), "cannot become a GGUF adapter", "DoRA")
    saved(adapter, {"base_model_name_or_path": str(tmp_path)})
    complains(wsd("models", "convert", str(adapter)), 3, "is not here", "--base")
    complains(wsd("models", "convert", str(adapter), "--base", str(tmp_path)), 3, "holds no config.json")
    complains(wsd("models", "convert", str(adapter), "--base", str(adapter)), 3, "holds no config.json", "--base")
    (tmp_path / "config.json").write_text("{}")
    complains(wsd("models", "convert", str(adapter)), 1, "convert_lora_to_gguf.py", "WSD_LOCAL_LLAMA_CPP")
    complains(wsd("train", "draft", str(adapter), str(tmp_path), "--out", "mine"), 3, "holds a LoRA adapter", "merge")
    write_safetensors(adapter / "model.safetensors", {"w": zeros(4, 8)})
    complains(wsd("models", "convert", str(adapter)), 3, "holds an adapter", "model.safetensors", "move one away")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    write_safetensors(model / "model.safetensors", {"w": zeros(4, 8)})
    complains(wsd("models", "convert", str(model), "--base", str(model)), 2, "--base is for LoRA adapters")
