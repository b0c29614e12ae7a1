"""A tiny checkpoint, weights in files, and where llama.cpp's converter is, for tests that convert and train."""

from __future__ import annotations

import importlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import Floats

from wsd_local.library import convert as making
from wsd_local.llama import Cancellation, Context, Model
from wsd_local.llama.options import ContextOptions

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CORPUS = (
    "the bread stays fresh in a paper bag keep it away from damp air boil an egg for eight minutes and cool it under "
    "running water user assistant system answer question why how what is it good to know that snow falls in winter"
)
WORDS = CORPUS.split()
ROOT = Path(__file__).parents[1]


def needed(name: str) -> Any:
    """A module of the extra, or a skip."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"expected: {name} is not installed (pip install '.[convert]')")


def named_converter(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of llama.cpp's converter, named to the program; a skip where it or its libraries are not."""
    for name in making.EXTRA:
        needed(name)
    folder = Path(os.environ.get("WSD_TEST_LLAMA_CPP") or ROOT / ".venv" / "llama.cpp")
    if not (folder / "convert_hf_to_gguf.py").is_file():
        pytest.skip(f"expected: no source of llama.cpp at {folder} (set WSD_TEST_LLAMA_CPP)")
    monkeypatch.setenv("WSD_LOCAL_LLAMA_CPP", str(folder))
    return folder


def tiny_checkpoint(folder: Path) -> Path:
    """A random Llama like Llama 3.2 in shape (tied embeddings, grouped queries, stretched positions), in F32."""
    torch, transformers, sentencepiece = map(needed, ("torch", "transformers", "sentencepiece"))
    folder.mkdir()
    text = folder / "text.txt"
    choose = random.Random(0)
    text.write_text("".join(" ".join(choose.choices(WORDS, k=12)).capitalize() + ".\n" for _ in range(400)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        pad_id=-1,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    text.unlink()
    (folder / "tokenizer.vocab").unlink()
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": True,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    positions = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = transformers.LlamaConfig(
        vocab_size=sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model")).vocab_size(),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        rope_parameters=positions,
    )
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).to(torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 1.5 * weight.shape[1] ** -0.5)
    model.save_pretrained(folder)
    return folder


def write_safetensors(path: Path, tensors: dict[str, Floats], dtype: str = "F32") -> None:
    """A file of weights; `dtype` is what its header says."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [end, end + tensor.nbytes]}
        end += tensor.nbytes
    text = json.dumps(header).encode()
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def logprobs(path: Path, text: str, adapter: Path | None = None) -> tuple[list[int], Floats]:
    """Tokens of a text as llama.cpp sees them, and the log-probability of each after those before it."""
    with Model(path) as model:
        options = ContextOptions(
            n_ctx=1024,
            threads=1,
            cache_type_k="f32",
            cache_type_v="f32",
            flash_attn="off",
            lora=None if adapter is None else (adapter, 1.0),
        )
        context = Context(model, options, Cancellation())
        tokens = model.tokenize(text)
        found = context.logprobs(0, tokens, 1)
        context.close()
    return tokens, np.array(found, dtype=np.float32)
