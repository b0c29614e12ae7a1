"""The maker's files: llama.cpp loads what should load, and refuses what should not."""

from __future__ import annotations

import ctypes
from pathlib import Path

import llama_cpp
import makers
import numpy as np
import pytest
from data_sets import (
    alpaca_instructions,
    fixture_conversations,
    fixture_texts,
    mt_bench_first_turns,
    multi_turn,
    shared,
    vocab_cases,
)
from plain_llama import greedy, load, logits, plain

VOCABULARIES = ("gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")


def quantised(src: Path, dst: Path) -> Path:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    assert llama_cpp.llama_model_quantize(str(src).encode(), str(dst).encode(), ctypes.byref(params)) == 0
    return dst


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return makers.random_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", seed=1)


def test_builtin_vocabulary_spells_every_text_back(tiny: Path) -> None:
    model = load(tiny)
    texts = list(fixture_texts())
    assert texts
    for text in texts:
        assert model.detokenize(plain(model, text)) == text.encode()


def test_builtin_vocabulary_has_its_control_tokens(tiny: Path) -> None:
    model = load(tiny)
    assert len(model.tokenize(b"<|im_start|>", add_bos=False, special=True)) == 1
    assert len(plain(model, "<|im_start|>")) > 1
    assert model.metadata["tokenizer.chat_template"] == makers.CHATML_TEMPLATE


def test_random_output_is_varied_and_not_flat(tiny: Path) -> None:
    model = load(tiny)
    chosen, probs = greedy(model, plain(model, "\n\n[User]\nHello\n\n[Assistant]\n"), 60)
    assert len(set(chosen)) > 20
    assert 0.3 < np.mean(probs) < 0.95


def test_files_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first = makers.random_llama(tmp_path / "first.gguf", seed=5).read_bytes()
    assert makers.random_llama(tmp_path / "again.gguf", seed=5).read_bytes() == first
    assert makers.random_llama(tmp_path / "other.gguf", seed=6).read_bytes() != first


def test_kin_are_near_each_other(tmp_path: Path, tiny: Path) -> None:
    kin = load(makers.random_llama(tmp_path / "kin.gguf", seed=9, kin=(1, 0.999)))
    stranger = load(makers.random_llama(tmp_path / "stranger.gguf", seed=9))
    model = load(tiny)
    tokens = plain(model, "Hello, the answer to that is in the words of the user.")
    choices = logits(model, tokens).argmax(axis=1)
    assert np.mean(logits(kin, tokens).argmax(axis=1) == choices) > 0.6
    assert np.mean(logits(stranger, tokens).argmax(axis=1) == choices) < 0.2


def test_bos_and_template_can_be_set(tmp_path: Path) -> None:
    path = makers.random_llama(tmp_path / "set.gguf", add_bos=True, chat_template=makers.PLAIN_TEMPLATE)
    model = load(path)
    vocab = llama_cpp.llama_model_get_vocab(model._model.model)
    assert vocab is not None
    assert llama_cpp.llama_vocab_get_add_bos(vocab)
    assert model.metadata["tokenizer.chat_template"] == makers.PLAIN_TEMPLATE


@pytest.mark.parametrize("name", VOCABULARIES)
def test_real_vocabularies_tokenise_as_llama_cpp_expects(name: str, tmp_path: Path) -> None:
    vocab = shared(f"vocabs/ggml-vocab-{name}.gguf")
    path = makers.random_llama(tmp_path / "model.gguf", vocab, n_embd=32, n_layer=1, n_head=2, n_ff=32)
    model = load(path, n_ctx=64)
    for text, expected in vocab_cases(vocab):
        assert plain(model, text) == expected
    assert np.isfinite(logits(model, plain(model, "Hello world"))).all()


def test_f32_copy_of_f32_is_the_same_model(tiny: Path, tmp_path: Path) -> None:
    copy = makers.f32_copy(tiny, tmp_path / "copy.gguf")
    assert makers.raw_entries(copy) == makers.raw_entries(tiny)
    model = load(tiny)
    tokens = plain(model, "Hello, the answer.")
    assert np.array_equal(logits(load(copy), tokens), logits(model, tokens))


def test_f32_copy_of_q8_0_gives_nearly_the_same_logits(tiny: Path, tmp_path: Path) -> None:
    small = quantised(tiny, tmp_path / "q8_0.gguf")
    copy = makers.f32_copy(small, tmp_path / "f32.gguf")
    assert small.stat().st_size < copy.stat().st_size / 2
    changed = {"general.file_type"}
    kept = {key: entry for key, entry in makers.raw_entries(small).items() if key not in changed}
    assert kept == {key: entry for key, entry in makers.raw_entries(copy).items() if key not in changed}
    model = load(small)
    tokens = plain(model, "Hello, the answer to that.")
    rows, copied = logits(model, tokens), logits(load(copy), tokens)
    assert 0 < np.abs(rows - copied).max() < 0.1 * rows.std()


def test_embedding_model_loads_and_embeds(tmp_path: Path) -> None:
    path = makers.embedding_model(tmp_path / "bert.gguf")
    model = load(path, n_ctx=64, embedding=True)
    assert model.metadata["general.architecture"] == "bert"
    assert len(model.embed("a b c")) == 32


def test_damaged_files_are_refused(tiny: Path, tmp_path: Path) -> None:
    broken = makers.damaged(tiny, tmp_path)
    assert set(broken) == {"truncated", "empty", "text", "wrong_magic"}
    for path in broken.values():
        with pytest.raises(ValueError, match="Failed to load model"):
            load(path)


def test_public_sets_have_the_known_sizes() -> None:
    assert len(mt_bench_first_turns()) == 80
    assert len(alpaca_instructions(2000)) == 805


def test_made_conversations_are_well_formed_and_always_the_same() -> None:
    made = multi_turn(24)
    assert made == multi_turn(30)[:24]
    for messages in [*made, *(messages for _, messages in fixture_conversations())]:
        roles = [message["role"] for message in messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    assert {sum(message["role"] == "user" for message in messages) for messages in made} == {2, 3, 4}
    assert sum(messages[0]["role"] == "system" for messages in made) == 8
    assert sum(messages[-1]["role"] == "assistant" for messages in made) == 6


def test_public_folder_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_TEST_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"question\.jsonl"):
        shared("mt_bench/question.jsonl")
    monkeypatch.setenv("WSD_TEST_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(pytest.skip.Exception, match=r"^expected: "):
        shared("mt_bench/question.jsonl")
