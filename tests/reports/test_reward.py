"""`wsd-local eval reward`: scores held against llama.cpp called by hand, and models that give none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from command_line import complains, wsd
from gguf import GGUFReader
from makers import embedding_model, random_llama, ranking_model
from makers_more import random_qwen3
from page_reader import PageReader


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


def last_state(path: Path, text: str) -> Any:
    """The last hidden state of a text whose control tokens count, with a model and a context of their own."""
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    buffer = (llama_cpp.llama_token * 512)()
    vocab, encoded = llama_cpp.llama_model_get_vocab(model), text.encode()
    count = llama_cpp.llama_tokenize(vocab, encoded, len(encoded), buffer, 512, False, True)
    params = llama_cpp.llama_context_default_params()
    params.embeddings, params.n_ctx, params.n_batch, params.n_ubatch = True, 512, 512, 512
    params.pooling_type, params.n_threads = llama_cpp.LLAMA_POOLING_TYPE_LAST, 1
    context = llama_cpp.llama_init_from_model(model, params)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(buffer, count)) == 0
    state = np.array(llama_cpp.llama_get_embeddings_seq(context, 0)[: llama_cpp.llama_model_n_embd(model)])
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return state


def decoder_score(path: Path, text: str) -> float:
    """The softmax of the head's two outputs, of which the one with the label yes counts."""
    (head,) = (tensor.data for tensor in GGUFReader(path).tensors if tensor.name == "cls.output.weight")
    outputs = np.asarray(head, dtype=np.float64) @ last_state(path, text)
    yes = [str(label) for label in GGUFReader(path).fields["qwen3.classifier.output_labels"].contents()].index("yes")
    return float(1 / (1 + np.exp(outputs[1 - yes] - outputs[yes])))


TEXTS = ["it is a bee", "no", "<|im_end|> and more"]
RERANK = "<|im_start|>system\nQ: {query}\n<|im_start|>user\nD: {document}<|im_end|>\n<|im_start|>assistant\n"


def scores_of(model: Path, *files: str) -> list[float]:
    done = wsd("eval", "reward", *files, "--model", str(model), "--threads", "1", "--json")
    assert done.returncode == 0, done.stderr
    return [one["score"] for one in json.loads(done.stdout)["scores"]]


@pytest.mark.parametrize("labels", [("yes", "no"), ("no", "yes")])
def test_a_decoder_reads_the_whole_conversation_in_its_chat_template(tmp_path: Path, labels: tuple[str, str]) -> None:
    """The score is the probability of yes at the end of the reply's turn."""
    model = random_qwen3(tmp_path / "decoder.gguf", labels=labels)
    found = scores_of(model, str(written(tmp_path / "a.jsonl", TEXTS[:2])))
    begun = "<|im_start|>user\nwhat is it<|im_end|>\n<|im_start|>assistant\n"
    wanted = [decoder_score(model, f"{begun}{text}<|im_end|>") for text in TEXTS[:2]]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert abs(wanted[0] - wanted[1]) > 1e-4 and all(0 < one < 1 for one in wanted)


def test_a_template_for_rerankers_holds_conversation_and_reply(tmp_path: Path) -> None:
    model = random_qwen3(tmp_path / "decoder.gguf", rerank=RERANK)
    found = scores_of(model, str(written(tmp_path / "a.jsonl", [*TEXTS, "{query}"])))
    filled = [RERANK.replace("{query}", "what is it").replace("{document}", text) for text in TEXTS]
    wanted = [decoder_score(model, text) for text in filled]
    assert found[:2] == pytest.approx(wanted[:2], abs=1e-5)
    assert abs(found[2] - wanted[2]) > 1e-4, "a control token in a reply is text"
    assert found[3] == pytest.approx(decoder_score(model, filled[1].replace("D: no", "D: {query}")), abs=1e-5)


def test_a_head_that_scores_nothing_is_refused(tmp_path: Path) -> None:
    """Such files load, and llama.cpp gives 1 for every text, or a number of the last hidden state."""
    file = str(written(tmp_path / "a.jsonl", ["short"]))
    one = random_qwen3(tmp_path / "one.gguf", labels=("reward",))
    complains(wsd("eval", "reward", file, "--model", str(one)), 3, "makes 1 of it for every text", "yes and no")
    none = random_qwen3(tmp_path / "none.gguf", head=False)
    complains(wsd("eval", "reward", file, "--model", str(none)), 3, "has no head that scores texts")
    other = random_qwen3(tmp_path / "other.gguf", labels=("good", "bad"))
    complains(wsd("eval", "reward", file, "--model", str(other)), 3, "gives 2 scores")


def test_the_page_draws_the_scores(tmp_path: Path) -> None:
    model, page = ranking_model(tmp_path / "reward.gguf"), tmp_path / "page.html"
    texts = {"a": ["it is a bee", "no", "same"], "b": ["a", "it is here", "same"]}
    files = [str(written(tmp_path / f"{name}.jsonl", replies)) for name, replies in texts.items()]
    done = wsd("eval", "reward", *files, "--model", str(model), "--html", str(page), "--json")
    assert done.returncode == 0, done.stderr
    found, read = json.loads(done.stdout), PageReader(page.read_text("utf-8"))
    means, wins = read.labels
    for name in texts:
        mean = found["means"][name]
        assert f"{mean['value']:.3f}" in read.cells and f"{name} {mean['value']:.2f}" in means
        assert f"{name} {mean['low']:.2f} to {mean['high']:.2f}" in means
    assert f"a against b {found['better']['value']:.0%}" in wins
    alone = wsd("eval", "reward", files[0], "--model", str(model), "--html", str(page), "--limit", "1")
    assert alone.returncode == 0 and b"none" in alone.stdout
    assert len(PageReader(page.read_text("utf-8")).labels) == 1


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
