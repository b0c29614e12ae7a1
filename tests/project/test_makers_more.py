"""The further makers' files: llama.cpp loads them, and their memories forget what they should, or refuse to."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import llama_cpp
import makers_more
import numpy as np
import numpy.typing as npt
import pytest
from makers import CHATML_TEMPLATE, PLAIN_TEMPLATE, random_llama
from plain_llama import greedy, logits, plain

PROMPT = "\n\n[User]\nHello\n\n[Assistant]\n"
TEXT = "Hello, the answer to that is in the words of the user."


class Maker(Protocol):
    def __call__(
        self,
        dst: Path,
        *,
        seed: int = 0,
        n_layer: int = 2,
        kin: tuple[int, float] | None = None,
        chat_template: str | None = None,
    ) -> Path: ...


MAKERS: dict[str, Maker] = {
    "mamba": makers_more.random_mamba,
    "lfm2": makers_more.random_lfm2,
    "sliding": makers_more.random_sliding,
}
each_kind = pytest.mark.parametrize("kind", MAKERS)


def load(path: Path, **options: Any) -> llama_cpp.Llama:
    return llama_cpp.Llama(
        str(path),
        n_ctx=512,
        n_threads=1,
        n_threads_batch=1,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
        **options,
    )


def mixed(count: int) -> list[int]:
    """Tokens without a pattern, all of the built-in vocabulary."""
    return [int(token) for token in np.random.default_rng(0).integers(0, 256, count)]


def cut(model: llama_cpp.Llama, start: int) -> bool:
    """Ask the memory to forget from `start` on."""
    return bool(llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(model._ctx.ctx), 0, start, -1))


def first_and_last(model: llama_cpp.Llama) -> tuple[int, int]:
    """The positions between which the memory can be cut."""
    memory = llama_cpp.llama_get_memory(model._ctx.ctx)
    ends = (llama_cpp.llama_memory_seq_pos_min, llama_cpp.llama_memory_seq_pos_max)
    first, last = (int(end(memory, 0)) for end in ends)
    return first, last


def snapshot(model: llama_cpp.Llama, flags: int) -> ctypes.Array[ctypes.c_uint8]:
    size = llama_cpp.llama_state_seq_get_size_ext(model._ctx.ctx, 0, flags)
    data: ctypes.Array[ctypes.c_uint8] = (ctypes.c_uint8 * size)()
    assert llama_cpp.llama_state_seq_get_data_ext(model._ctx.ctx, data, size, 0, flags) == size
    return data


def restore(model: llama_cpp.Llama, data: ctypes.Array[ctypes.c_uint8], flags: int) -> None:
    assert llama_cpp.llama_state_seq_set_data_ext(model._ctx.ctx, data, len(data), 0, flags) == len(data)


@contextmanager
def adapted(model: llama_cpp.Llama, lora: Path, scale: float = 1.0) -> Iterator[None]:
    adapter = llama_cpp.llama_adapter_lora_init(model._model.model, str(lora).encode())
    assert adapter is not None
    adapters, scales = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter), (ctypes.c_float * 1)(scale)
    assert llama_cpp.llama_set_adapters_lora(model._ctx.ctx, adapters, 1, scales) == 0
    yield
    assert llama_cpp.llama_set_adapters_lora(model._ctx.ctx, None, 0, None) == 0
    llama_cpp.llama_adapter_lora_free(adapter)


def continued_alike(model: llama_cpp.Llama, tokens: list[int], whole: npt.NDArray[np.float32], start: int) -> bool:
    """Whether the model, cut at `start` and given the rest of `tokens`, gives the rows of `whole` once more."""
    assert cut(model, start)
    model.n_tokens = start
    model.eval(tokens[start:])
    return distance(model.scores[start : len(tokens)], whole[start:]) < 1e-4


def distance(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    return float(np.abs(left - right).max())


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("more")
    return {kind: make(folder / f"{kind}.gguf", seed=1) for kind, make in MAKERS.items()}


# --- the models -----------------------------------------------------------------------------------------


@each_kind
@pytest.mark.parametrize("n_layer", [2, 4])
def test_random_output_is_varied_and_stays_finite(kind: str, n_layer: int, tmp_path: Path) -> None:
    for seed in range(3):
        model = load(MAKERS[kind](tmp_path / "model.gguf", seed=seed, n_layer=n_layer))
        chosen, probs = greedy(model, plain(model, PROMPT), 300)
        rows = model.scores[: model.n_tokens]
        assert np.isfinite(rows).all()
        assert np.abs(rows).max() < 50
        assert len(set(chosen[:60])) > 20
        assert len(set(chosen[200:])) > 20
        assert 0.3 < np.mean(probs) < 0.95


@each_kind
def test_long_prompts_give_finite_logits_whatever_their_batches(kind: str, paths: dict[str, Path]) -> None:
    model, tokens = load(paths[kind]), mixed(200)
    rows = logits(model, tokens)
    assert np.isfinite(rows).all()
    model.n_tokens = 0
    for start in range(0, len(tokens), 7):
        model.eval(tokens[start : start + 7])
    assert distance(model.scores[: len(tokens)], rows) < 1e-4


@each_kind
def test_the_first_token_still_matters_later(kind: str, paths: dict[str, Path]) -> None:
    model, tokens = load(paths[kind]), mixed(40)
    assert distance(logits(model, tokens)[-1], logits(model, [tokens[0] + 1, *tokens[1:]])[-1]) > 0.01


def test_llama_cpp_knows_what_they_are(paths: dict[str, Path]) -> None:
    found = {}
    for kind, path in paths.items():
        whole = load(path)
        ask = (llama_cpp.llama_model_is_recurrent, llama_cpp.llama_model_is_hybrid, llama_cpp.llama_model_n_swa)
        found[kind] = tuple(question(whole._model.model) for question in ask)
    assert found == {"mamba": (True, False, 0), "lfm2": (False, True, 0), "sliding": (False, False, 16)}


@each_kind
def test_files_depend_on_the_seed_alone(kind: str, tmp_path: Path) -> None:
    first = MAKERS[kind](tmp_path / "first.gguf", seed=5).read_bytes()
    assert MAKERS[kind](tmp_path / "again.gguf", seed=5).read_bytes() == first
    assert MAKERS[kind](tmp_path / "other.gguf", seed=6).read_bytes() != first


@each_kind
def test_kin_are_near_each_other(kind: str, paths: dict[str, Path], tmp_path: Path) -> None:
    kin = load(MAKERS[kind](tmp_path / "kin.gguf", seed=9, kin=(1, 0.999)))
    stranger = load(MAKERS[kind](tmp_path / "stranger.gguf", seed=9))
    model = load(paths[kind])
    tokens = plain(model, TEXT)
    choices = logits(model, tokens).argmax(axis=1)
    assert np.mean(logits(kin, tokens).argmax(axis=1) == choices) > 0.6
    assert np.mean(logits(stranger, tokens).argmax(axis=1) == choices) < 0.2


@each_kind
def test_template_can_be_set(kind: str, paths: dict[str, Path], tmp_path: Path) -> None:
    path = MAKERS[kind](tmp_path / "set.gguf", chat_template=PLAIN_TEMPLATE)
    assert load(path).metadata["tokenizer.chat_template"] == PLAIN_TEMPLATE
    assert load(paths[kind]).metadata["tokenizer.chat_template"] == CHATML_TEMPLATE


# --- their memories -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mamba", "lfm2"])
def test_a_state_cannot_be_cut_and_stays_as_it_was(kind: str, paths: dict[str, Path]) -> None:
    model, tokens = load(paths[kind]), mixed(60)
    whole = logits(model, tokens)
    logits(model, tokens[:50])
    for start in (1, 25, 49):
        assert not cut(model, start)
    assert first_and_last(model) == (49, 49)
    model.eval(tokens[50:])
    assert distance(model.scores[50:60], whole[50:]) < 1e-4
    assert cut(model, 0)
    assert first_and_last(model) == (-1, -1)


def test_a_full_window_can_be_cut_anywhere(paths: dict[str, Path]) -> None:
    model, tokens = load(paths["sliding"], swa_full=True), mixed(60)
    whole = logits(model, tokens)
    for start in (59, 30, 1):
        assert continued_alike(model, tokens, whole, start)
    assert cut(model, 20)
    assert first_and_last(model) == (0, 19)


def test_a_small_window_cut_too_far_is_wrong_without_a_word(paths: dict[str, Path]) -> None:
    model, tokens = load(paths["sliding"], swa_full=False, n_batch=32, n_ubatch=32), mixed(450)
    whole = logits(model, tokens)
    first, _ = first_and_last(model)
    assert first > 100
    for start, right in ((first + 15, True), (first + 14, False), (first, False)):
        assert continued_alike(model, tokens, whole, start) == right


def test_a_restored_window_is_small_even_where_it_was_full(paths: dict[str, Path]) -> None:
    model, tokens = load(paths["sliding"], swa_full=True), mixed(150)
    whole = logits(model, tokens)
    for start, right in ((99, True), (98, False)):
        logits(model, tokens[:100])
        restore(model, snapshot(model, 0), 0)
        assert first_and_last(model) == (84, 99)
        assert continued_alike(model, tokens, whole, start) == right


@each_kind
@pytest.mark.parametrize("flags", [0, llama_cpp.LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY])
def test_snapshots_lead_back(kind: str, flags: int, paths: dict[str, Path]) -> None:
    model, tokens = load(paths[kind]), mixed(90)
    whole = logits(model, tokens)
    logits(model, tokens[:50])
    saved = snapshot(model, flags)
    model.eval(mixed(140)[90:])
    restore(model, saved, flags)
    # A partial snapshot leaves the plain part of the memory as long as it is: the cut is needed, and allowed.
    assert continued_alike(model, tokens, whole, 50)


def test_the_window_is_what_the_file_says(tmp_path: Path) -> None:
    near = load(makers_more.random_sliding(tmp_path / "near.gguf", window=16))
    far = load(makers_more.random_sliding(tmp_path / "far.gguf", window=64))
    tokens = mixed(40)
    rows, others = logits(near, tokens), logits(far, tokens)
    assert distance(rows[:16], others[:16]) < 1e-4
    assert (np.abs(rows - others).max(axis=1)[16:] > 0.01).all()


# --- LoRA -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "lfm2", "sliding"])
@pytest.mark.parametrize(("rank", "alpha"), [(4, 8.0), (2, 3.0)])
def test_an_adapter_is_the_same_as_its_merged_file(kind: str, rank: int, alpha: float, tmp_path: Path) -> None:
    make = {"llama": random_llama, **MAKERS}[kind]
    path = make(tmp_path / "model.gguf", seed=2)
    lora = makers_more.random_lora(tmp_path / "lora.gguf", path, rank=rank, seed=3, alpha=alpha)
    model, tokens = load(path), mixed(200)
    before = logits(model, tokens)
    with adapted(model, lora):
        rows = logits(model, tokens)
    assert np.array_equal(logits(model, tokens), before)
    assert distance(rows, before) > 1
    assert distance(rows, logits(load(makers_more.merged(tmp_path / "merged.gguf", path, lora)), tokens)) < 1e-4


def test_an_adapter_changes_what_is_chosen(tmp_path: Path) -> None:
    path = random_llama(tmp_path / "model.gguf", seed=3)
    model = load(path)
    tokens = plain(model, PROMPT)
    before, _ = greedy(model, tokens, 60)
    for seed in range(3):
        lora = makers_more.random_lora(tmp_path / "lora.gguf", path, seed=seed)
        with adapted(model, lora):
            chosen, probs = greedy(model, tokens, 200)
        assert np.isfinite(model.scores[: model.n_tokens]).all()
        assert chosen[:5] != before[:5]
        assert len(set(chosen[:60])) > 20
        assert 0.3 < np.mean(probs) < 0.95


def test_scale_and_alpha_turn_the_same_knob(tmp_path: Path) -> None:
    path = random_llama(tmp_path / "model.gguf", seed=3)
    model, tokens = load(path), mixed(60)
    rows = []
    for alpha, scale in ((8.0, 0.5), (4.0, 1.0)):
        lora = makers_more.random_lora(tmp_path / f"{alpha}.gguf", path, alpha=alpha)
        with adapted(model, lora, scale):
            rows.append(logits(model, tokens))
    assert distance(*rows) < 1e-4


def test_merging_needs_the_adapters_model(paths: dict[str, Path], tmp_path: Path) -> None:
    path = random_llama(tmp_path / "model.gguf")
    lora = makers_more.random_lora(tmp_path / "lora.gguf", path)
    with pytest.raises(ValueError, match="has no tensors for"):
        makers_more.merged(tmp_path / "merged.gguf", paths["mamba"], lora)
