"""Models in llama-cpp-python's own `Llama`, one token after the other, without any of this project's code."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt


def load(path: Path, *, n_ctx: int = 256, embedding: bool = False) -> llama_cpp.Llama:
    return llama_cpp.Llama(
        str(path),
        n_ctx=n_ctx,
        n_threads=1,
        logits_all=not embedding,
        embedding=embedding,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )


def plain(model: llama_cpp.Llama, text: str) -> list[int]:
    return list(model.tokenize(text.encode(), add_bos=False, special=False))


def logits(model: llama_cpp.Llama, tokens: list[int]) -> npt.NDArray[np.float32]:
    model.n_tokens = 0
    model.eval(tokens)
    return np.array(model.scores[: len(tokens)])


def greedy(model: llama_cpp.Llama, tokens: list[int], steps: int) -> tuple[list[int], list[float]]:
    """Chosen tokens and their probabilities."""
    chosen, probs = [], []
    row = logits(model, tokens)[-1]
    for _ in range(steps):
        weights = np.exp(row.astype(np.float64) - row.max())
        chosen.append(int(row.argmax()))
        probs.append(float(weights.max() / weights.sum()))
        model.eval(chosen[-1:])
        row = model.scores[model.n_tokens - 1]
    return chosen, probs
