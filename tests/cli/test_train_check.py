"""`wsd-local train check`: real checkpoints, read by transformers, against files that llama.cpp's converter made."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import named_converter, needed, tiny_checkpoint
from command_line import complains, wsd

from wsd_local.library.checkpoint import Checkpoint
from wsd_local.library.convert import convert
from wsd_local.library.gguf import read_model
from wsd_local.reports.draft_check import loaded
from wsd_local.reports.draft_check.judging import Judgement, judge
from wsd_local.reports.draft_check.measuring import measured
from wsd_local.reports.draft_check.reference import reference_of
from wsd_local.system.child import UNOBSERVED

EXTRA = ("torch", "transformers", "sentencepiece")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in EXTRA:
        needed(name)
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Tiny-Llama")


@pytest.fixture(scope="module")
def file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the converter makes of it."""
    with pytest.MonkeyPatch.context() as patch:
        named_converter(patch)
        return convert(Checkpoint(checkpoint), tmp_path_factory.mktemp("files") / "tiny-f32.gguf", "f32")


@pytest.fixture
def demo_checkpoint(demo_q8: tuple[Path, Path], tmp_path: Path) -> Path:
    """The embedded draft, as transformers expands its file."""
    transformers = needed("transformers")
    path, folder = demo_q8[0], tmp_path / "Demo"
    read: dict[str, Any] = {"gguf_file": path.name}
    transformers.AutoTokenizer.from_pretrained(path.parent, **read).save_pretrained(folder)
    read["quantization_config"] = transformers.GgufConfig(dequantize=True)
    transformers.AutoModelForCausalLM.from_pretrained(path.parent, **read).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_sound_draft_by_the_command(demo_checkpoint: Path, demo_q8: tuple[Path, Path]) -> None:
    asked = ("train", "check", str(demo_checkpoint), str(demo_q8[0]), "--threads", "1")
    done = wsd(*asked, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    bad = {one["symptom"]: one["verdict"] for one in found["findings"] if one["verdict"] != "ok"}
    # The file adds BOS, and its template does not.
    assert bad == {"tokens": "warning"} and found["verdict"] == "usable with care"
    assert found["figures"]["templates"]["alike"] == 10 and found["figures"]["endings"]["ended"] > 10
    assert found["figures"]["logits"][0]["divergence"] < 0.01


@pytest.mark.slow
def test_a_fault_is_an_exit_code(demo_checkpoint: Path, demo_q8: tuple[Path, Path]) -> None:
    """The base of the pair is no conversion of its draft."""
    done = wsd("train", "check", str(demo_checkpoint), str(demo_q8[1]), "--threads", "1")
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("fault    logits of base-q8_0.gguf: ") for line in lines)
    assert lines[-1].startswith("base-q8_0.gguf: not as trained (")


# -- the converter -----------------------------------------------------------------------------------------------


def checked(folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Judgement:
    """The findings, with short replies: a random model's do not end."""
    monkeypatch.setattr(loaded, "REPLY", 2)
    return judge(measured(reference_of(Checkpoint(folder), UNOBSERVED, 1), read_model(file), threads=1))


def faults(found: Judgement) -> set[str]:
    return {one.symptom.split(" of ")[0] for one in found.findings if one.verdict == "fault"} - {"endings"}


@pytest.mark.slow
def test_the_converter_makes_the_same_model(checkpoint: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checked(checkpoint, file, monkeypatch)
    assert not faults(found), [one.line() for one in found.findings]
    figures = found.figures
    assert figures.templates.alike == 10 and figures.tokens.alike == 10
    assert (figures.positions.kind, figures.positions.factors, figures.positions.file_factors) == ("llama3", 32, 32)
    assert figures.positions.difference is not None and figures.positions.difference < 1e-5
    assert (figures.output.tied, figures.output.own) == (True, False)
    assert figures.logits[0].divergence is not None and figures.logits[0].divergence < 1e-6
    assert figures.ends.turn == "</s>" and figures.ends.turn_ends


def edited(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def other_template(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", lambda values: values.update(chat_template="{{ messages[0].content }}"))


def other_end(folder: Path) -> None:
    edited(folder / "tokenizer_config.json", lambda values: values.update(eos_token="<s>", bos_token="</s>"))
    for name in ("config.json", "generation_config.json"):
        edited(folder / name, lambda values: values.update(eos_token_id=1, bos_token_id=2))


def no_spaces(folder: Path) -> None:
    """Without the space that llama.cpp writes after each special token."""
    edited(folder / "tokenizer_config.json", lambda values: values.update(legacy=False))


def no_scaling(folder: Path) -> None:
    positions = {"rope_type": "default", "rope_theta": 10000.0}
    edited(folder / "config.json", lambda values: values.update(rope_parameters=positions))


def changed_weights(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    torch = needed("safetensors.torch")
    tensors = torch.load_file(folder / "model.safetensors")
    change(tensors)
    torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def permuted(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    changed_weights(folder, lambda tensors: tensors.update({name: tensors[name].flip(0).contiguous()}))


def untied(folder: Path) -> None:
    name = "model.embed_tokens.weight"
    edited(folder / "config.json", lambda values: values.update(tie_word_embeddings=False))
    changed_weights(folder, lambda tensors: tensors.update({"lm_head.weight": tensors[name].flip(0).contiguous()}))


def larger(folder: Path) -> None:
    """Sixty-four rows more, as when tokens were added: the file has none of them."""
    torch, name = needed("torch"), "model.embed_tokens.weight"
    edited(folder / "config.json", lambda values: values.update(vocab_size=values["vocab_size"] + 64))
    changed_weights(folder, lambda tensors: tensors.update({name: torch.cat([tensors[name], tensors[name][:64]])}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "symptoms"),
    [
        (other_template, {"chat template"}),
        (other_end, {"end tokens"}),
        (no_spaces, {"tokens"}),
        (no_scaling, {"positions"}),
        (permuted, {"logits"}),
        (untied, {"output layer", "logits"}),
        (larger, {"logits"}),
    ],
)
def test_a_file_of_another_checkpoint_is_found(
    change: Callable[[Path], None],
    symptoms: set[str],
    checkpoint: Path,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "Changed"
    shutil.copytree(checkpoint, folder)
    change(folder)
    assert symptoms <= faults(checked(folder, file, monkeypatch))


# -- what is refused ---------------------------------------------------------------------------------------------


def test_what_cannot_be_checked_is_one_line(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    for name in EXTRA:
        needed(name)
    draft = str(demo_q8[0])
    complains(wsd("train", "check", str(tmp_path / "none"), draft), 3, "no such folder")
    complains(wsd("train", "check", str(tmp_path), draft), 3, "holds no config.json")
    complains(wsd("train", "check", draft, draft), 3, "is a file")
    complains(wsd("train", "check", str(tmp_path), draft, "--threads", "0"), 2, "threads is 0")
    (tmp_path / "config.json").write_text("{}")
    complains(wsd("train", "check", str(tmp_path), "nothing.gguf"), 3, "nothing.gguf: no such file")
    complains(wsd("train", "check", str(tmp_path), draft), 3, "holds no weights")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    done = wsd("train", "check", str(tmp_path), "mine")
    complains(done, 1, "checking a draft needs torch; install with", "transformers")
