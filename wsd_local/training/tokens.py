"""The tokenizer that transformers makes of a GGUF file, held against llama.cpp's.

Contract: used by the process that trains. A draft that was trained on other tokens than llama.cpp cuts its prompts into
is worse than none, so texts are compared before anything is trained.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from wsd_local.llama.model import Model


def complete(tokenizer: Any, path: Path) -> None:
    """Add what transformers leaves out: SmolLM's digits are a token each."""
    with Model(path, n_gpu_layers=0, vocab_only=True) as model:
        if model.metadata("tokenizer.ggml.pre") == "smollm":
            parts = import_module("tokenizers.pre_tokenizers")
            tokenizer.backend_tokenizer.pre_tokenizer = parts.Sequence(
                [parts.Digits(individual_digits=True), parts.ByteLevel(add_prefix_space=False, use_regex=True)]
            )


def difference(tokenizer: Any, path: Path, texts: Iterable[str]) -> str | None:
    """The first text that both cut differently; None if there is none."""
    with Model(path, n_gpu_layers=0, vocab_only=True) as model:
        for text in texts:
            theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
            if theirs != model.tokenize_text(text, special=True):
                return text
    return None
