"""Converting an adapter of PEFT: with it, a model is the one that PEFT merges; what is left out is an error."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import WORDS, logprobs, named_converter, needed, tiny_checkpoint
from command_line import complains, wsd, wsd_process
from hub_stand_in import HubStandIn, Repo

from wsd_local.errors import ModelError
from wsd_local.library.checkpoint import Checkpoint
from wsd_local.library.convert import convert
from wsd_local.library.convert_adapter import _check_complete, convert_adapter
from wsd_local.library.gguf import read_header
from wsd_local.library.peft import read_adapter
from wsd_local.library.registry import known
from wsd_local.library.vetting import vet_adapter

TEXT = " ".join(WORDS[:40])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needed("peft")
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Tiny-Llama")


def random_adapter(folder: Path, checkpoint: Path, how: Mapping[str, Any], merged: Path | None = None) -> Path:
    """An adapter as PEFT saves it, about as loud as the model's weights; `merged` receives the model with it."""
    torch, transformers, peft = map(needed, ("torch", "transformers", "peft"))
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    config = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **how}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**config))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    adapted.save_pretrained(folder)
    if merged is not None:
        adapted.merge_and_unload().save_pretrained(merged)
        for file in checkpoint.glob("tokenizer*"):
            (merged / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2, "down_proj": 8}, "target_modules": ["q_proj", "down_proj"]},
    ],
    ids=["usual", "rsLoRA", "ranks of layers"],
)
def test_a_model_with_an_adapter_is_the_merged_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    named_converter(monkeypatch)
    merged, base = tmp_path / "merged.gguf", tmp_path / "base.gguf"
    folder = random_adapter(tmp_path / "My-Adapter", checkpoint, how, tmp_path / "merged")
    done = wsd("models", "convert", str(folder))
    assert done.returncode == 0, done.stderr
    name, path, _ = done.stdout.decode().rstrip("\n").split("\t")
    assert name == "my-adapter-f32" and known()[name].path == Path(path)
    assert "--draft-lora my-adapter-f32" in done.stderr.decode()
    convert(Checkpoint(tmp_path / "merged"), merged, "f32")
    convert(Checkpoint(checkpoint), base, "f32")
    vet_adapter(Path(path), base)
    wanted, plain, ours = logprobs(merged, TEXT)[1], logprobs(base, TEXT)[1], logprobs(base, TEXT, Path(path))[1]
    assert np.abs(plain - wanted).max() > 0.1
    assert np.abs(ours - wanted).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"target_modules": ["q_proj", "lm_head"]}, "embeddings or the output layer"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "embeddings or the output layer"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: lm_head"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"trainable_token_indices": [3, 4]}, "embeddings of tokens"),
        ({"init_lora_weights": "olora"}, "changed weights"),
    ],
    ids=str,
)
def test_what_peft_writes_and_no_gguf_adapter_holds_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any], words: str
) -> None:
    named_converter(monkeypatch)
    folder = random_adapter(tmp_path / "adapter", checkpoint, how)
    complains(wsd("models", "convert", str(folder), "--as", "mine"), 3, str(folder), words, "merge it into its model")
    assert "mine" not in known()
    settings = folder / "adapter_config.json"
    plain = {key: None for key in how if key != "target_modules"}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | plain))
    if how.get("init_lora_weights") is None:  # the tensors alone show all the others
        complains(wsd("models", "convert", str(folder), "--as", "mine"), 3, str(folder), "merge it into its model")


@pytest.mark.slow
def test_an_adapter_of_the_hub_is_fetched_with_its_models_configuration(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_converter(monkeypatch)
    folder = random_adapter(tmp_path / "adapter", checkpoint, {})
    settings = folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": "owner/Tiny"}))
    repos = {
        "owner/Adapter": Repo({path.name: path.read_bytes() for path in folder.iterdir()}),
        "owner/Tiny": Repo({path.name: path.read_bytes() for path in checkpoint.iterdir()}),
    }
    with HubStandIn(**repos) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        done = wsd_process("models", "convert", "owner/Adapter", "--as", "mine", "--type", "f16")
        assert done.returncode == 0, done.stderr
        assert (known()["mine"].origin, known()["mine"].repo) == ("made", "owner/Adapter")
        assert not any("model.safetensors" in path and "adapter" not in path for path in map(str, hub.log))
    assert {tensor.type for tensor in read_header(known()["mine"].path).tensors} == {"F16"}


@pytest.mark.slow
def test_what_the_converter_leaves_out_is_an_error(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named_converter(monkeypatch)
    folder = random_adapter(tmp_path / "adapter", checkpoint, {})
    adapter = read_adapter(folder)
    model = tmp_path / "model"  # as where an adapter was trained on a quantised model
    model.mkdir()
    quantised = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (model / "config.json").write_text(json.dumps(json.loads((checkpoint / "config.json").read_text()) | quantised))
    made = convert_adapter(adapter, model, tmp_path / "made.gguf", name="mine")
    safetensors = importlib.import_module("safetensors.torch")
    weights = safetensors.load_file(folder / "adapter_model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layers.1.mlp" not in name}
    safetensors.save_file(kept, folder / "adapter_model.safetensors")
    fewer = convert_adapter(read_adapter(folder), checkpoint, tmp_path / "fewer.gguf", name="mine")
    assert len(read_header(fewer).tensors) == len(read_header(made).tensors) - 6
    with pytest.raises(ModelError, match=r"converter leaves out 3\d\.\d% of the weights that it changes; merge"):
        _check_complete(adapter, read_header(fewer))
