"""`wsd-local eval reward`: scores held against llama.cpp called by hand, and models that give none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from command_line import complains, wsd
from makers import embedding_model, random_llama, ranking_model


def lines(texts: Sequence[str]) -> list[dict[str, Any]]:
    asked = [{"role": "user", "content": "what is it"}]
    return [{"index": i, "id": f"q{i}", "turn": 0, "messages": asked, "text": text} for i, text in enumerate(texts)]


def written(path: Path, texts: Sequence[str]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines(texts)), encoding="utf-8")
    return path


def score_by_hand(path: Path, query: str, text: str) -> float:
    """The score of begin, query, separator, text, separator, with a model and a context of their own."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    vocab = llama_cpp.llama_model_get_vocab(model)

    def tokens(words: str) -> list[int]:
        buffer = (llama_cpp.llama_token * 512)()
        count = llama_cpp.llama_tokenize(vocab, words.encode(), len(words.encode()), buffer, 512, False, False)
        return list(buffer[:count])

    begin, separator = llama_cpp.llama_vocab_bos(vocab), llama_cpp.llama_vocab_sep(vocab)
    whole = [begin, *tokens(query), separator, *tokens(text), separator]
    params = llama_cpp.llama_context_default_params()
    params.embeddings, params.n_ctx, params.n_batch, params.n_ubatch = True, 128, 128, 128
    params.pooling_type, params.n_threads = llama_cpp.LLAMA_POOLING_TYPE_RANK, 1
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(whole), 0, 1)
    for place, token in enumerate(whole):
        batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
    batch.n_tokens = len(whole)
    assert llama_cpp.llama_encode(context, batch) == 0
    found = float(llama_cpp.llama_get_embeddings_seq(context, 0)[0])
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found


def test_scores_are_those_of_llama_cpp(tmp_path: Path) -> None:
    model = ranking_model(tmp_path / "reward.gguf")
    texts = {"a": ["it is a bee", "no", "same"], "b": ["a", "it is here", "same"]}
    files = [str(written(tmp_path / f"{name}.jsonl", replies)) for name, replies in texts.items()]
    done = wsd("eval", "reward", *files, "--model", str(model), "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    by_hand = {name: [score_by_hand(model, "what is it", text) for text in replies] for name, replies in texts.items()}
    for name, scores in by_hand.items():
        assert [one["score"] for one in found["scores"] if one["which"] == name] == pytest.approx(scores, abs=1e-5)
        assert found["means"][name]["value"] == pytest.approx(sum(scores) / 3, abs=1e-5)
    assert len({round(score, 4) for score in by_hand["a"]}) == 3
    wins = [(a > b) + (a == b) / 2 for a, b in zip(by_hand["a"], by_hand["b"], strict=True)]
    assert found["better"]["value"] == pytest.approx(sum(wins) / 3)
    assert found["model"]["sha256"] and found["too_long"] == 0
    shown = wsd("eval", "reward", files[0], "--model", str(model), "--threads", "1")
    assert shown.returncode == 0 and b"mean score" in shown.stdout


def test_a_reply_that_does_not_fit_is_counted(tmp_path: Path) -> None:
    model = ranking_model(tmp_path / "reward.gguf")
    file = str(written(tmp_path / "a.jsonl", ["short", "word " * 100]))
    done = wsd("eval", "reward", file, "--model", str(model), "--threads", "1", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["too_long"], len(found["scores"])) == (5, 1, 1)
    assert b"1 reply too long" in done.stderr and b"record q1" in done.stderr


def test_models_without_a_ranking_head_are_refused(tmp_path: Path) -> None:
    file = str(written(tmp_path / "a.jsonl", ["short"]))
    for model in (embedding_model(tmp_path / "embeds.gguf"), random_llama(tmp_path / "writes.gguf", seed=1)):
        complains(wsd("eval", "reward", file, "--model", str(model)), 3, "has no head that scores texts")
    two = ranking_model(tmp_path / "two.gguf", labels=2)
    complains(wsd("eval", "reward", file, "--model", str(two)), 3, "gives 2 scores")
    complains(wsd("eval", "reward", file, "--model", str(two), "--ctx", "0"), 2, "ctx is 0")
    complains(wsd("eval", "reward", file, file, file, "--model", str(two)), 2, "give one or two")
