"""The names by which models are shown to people."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.library.catalog import catalog_models
from wsd_local.library.naming import readable_name

FILES = (
    ("smollm2-135m-instruct-q4_1.gguf", "Smollm2 135M 8k Lc100K Mix1 Ep2", "smollm2-135m-instruct"),
    ("SmolLM2-135M-Instruct.Q4_1.gguf", "Smollm2 135M 8k Lc100K Mix1 Ep2", "SmolLM2-135M-Instruct"),
    ("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "Qwen2.5 Coder 1.5B Instruct GGUF", "qwen2.5-coder-1.5b-instruct"),
    ("gemma-3-270m-q4_k_m.gguf", "Gemma 3 270m", "gemma-3-270m"),
    ("Meta-Llama-3-70B.Q4_K_M.gguf", "", "Meta-Llama-3-70B"),
    ("Meta-Llama-3-70B.i1-IQ3_XXS.gguf", None, "Meta-Llama-3-70B"),
    ("Qwen3-8B-UD-Q4_K_XL.gguf", "Qwen3-8B", "Qwen3-8B"),
    ("gpt-oss-120b-mxfp4-00001-of-00003.gguf", "Gpt Oss 120b", "gpt-oss-120b"),
    ("tinyllama-1.1b-chat-v1.0.Q4_K_M.gguf", "tinyllama_tinyllama-1.1b-chat-v1.0", "tinyllama-1.1b-chat-v1.0"),
    ("Phi-3-mini-4k-instruct-fp16.gguf", "Phi3", "Phi-3-mini-4k-instruct"),
    ("draft-q8_0.gguf", "WSD demo draft", "WSD demo draft"),
    ("base-f32.gguf", "WSD demo base", "WSD demo base"),
    ("model.gguf", "Qwen2.5 Coder 1.5B Instruct GGUF", "Qwen2.5 Coder 1.5B Instruct"),
    ("ggml-model-q4_0.gguf", "Llama 3  8B\nInstruct", "Llama 3 8B Instruct"),
    ("model-00001-of-00002.gguf", "models--mistralai--Mistral-7B-Instruct-v0.3", "Mistral-7B-Instruct-v0.3"),
    ("sha256-" + "0af1" * 16, "Llama 3.2 1B Instruct", "Llama 3.2 1B Instruct"),
    ("Q4_K_M.gguf", "Llama 3 8B", "Llama 3 8B"),
    ("Q4_K_M.gguf", None, "Q4_K_M"),
    ("model.gguf", None, "model"),
    ("model.gguf", "GGUF", "model"),
)


@pytest.mark.parametrize(("file", "stated", "name"), FILES)
def test_of_file_and_metadata(file: str, stated: str | None, name: str) -> None:
    assert readable_name(Path("folder") / file, stated) == name


@pytest.mark.parametrize("name", [name for name, entry in catalog_models().items() if entry.file])
def test_of_the_catalog(name: str) -> None:
    entry = catalog_models()[name]
    assert entry.file is not None
    shown = readable_name(Path(entry.file), "Snapshot 8k Mix1")
    assert shown in entry.file and entry.quantization.lower() not in shown.lower()
    assert shown.lower().removeprefix("meta-") == name.removesuffix("-q2")


@given(st.text(min_size=1, max_size=120), st.none() | st.text(max_size=300))
def test_never_empty_and_never_long(stem: str, stated: str | None) -> None:
    path = Path(f"{stem.replace('/', '_')}.gguf")
    name = readable_name(path, stated)
    assert name and len(name) <= 80
    assert readable_name(path.with_name(f"{path.stem}-Q4_K_M.gguf"), stated), "quantised, it has a name as well"
