"""`wsd-local eval preferences`: log-probabilities held against llama-cpp-python's own evaluation, and the figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import plain_llama
import pytest
from command_line import complains, wsd
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import CHATML_TEMPLATE, embedding_model, random_llama

from wsd_local.reports.preferences import PairScores, preferences

PAIRS = [
    {"prompt": "What is it?", "chosen": "Hello and the answer", "rejected": "that is to answers of it"},
    {"prompt": "Again?", "chosen": "a", "rejected": "return in the user"},
    {"prompt": "And now?", "chosen": "Hello " * 3, "rejected": "the"},
]


def written(path: Path, records: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return str(path)


def by_hand(path: Path, prompt: str, reply: str) -> tuple[float, int]:
    """The reply's log-probability with the end of its turn, in ChatML, and its number of tokens."""
    model = plain_llama.load(path)
    before = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    head = list(model.tokenize(before.encode(), add_bos=False, special=True))
    whole = [*head, *list(model.tokenize(f"{reply.strip()}<|im_end|>".encode(), add_bos=False, special=True))]
    rows = plain_llama.logits(model, whole)
    total = 0.0
    for place in range(len(head), len(whole)):
        row = rows[place - 1].astype(float)
        total += row[whole[place]] - row.max() - math.log(sum(math.exp(value - row.max()) for value in row))
    return total, len(whole) - len(head)


def test_log_probabilities_are_those_of_llama_cpp(tmp_path: Path) -> None:
    models = [random_llama(tmp_path / f"{seed}.gguf", seed=seed, chat_template=CHATML_TEMPLATE) for seed in (1, 2)]
    file = written(tmp_path / "pairs.jsonl", PAIRS)
    done = wsd("eval", "preferences", *map(str, models), "--pairs", file, "--json", "--cache-type-k", "f32",
               "--cache-type-v", "f32", "--flash-attn", "off")  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    scores = iter(found["scores"])
    for number, path in enumerate(models):
        right = []
        for pair in PAIRS:
            one = next(scores)
            for side in ("chosen", "rejected"):
                total, count = by_hand(path, pair["prompt"], pair[side])
                assert one[side] == pytest.approx(total, abs=1e-3) and one[f"{side}_tokens"] == count
            right.append(one["chosen"] > one["rejected"])
        assert found["models"][number]["prefers"]["value"] == pytest.approx(sum(right) / len(right))
    first, second = (found["scores"][at : at + 3] for at in (0, 3))
    margins = [b["chosen"] - b["rejected"] - a["chosen"] + a["rejected"] for a, b in zip(first, second, strict=True)]
    assert found["change"]["margin"]["value"] == pytest.approx(sum(margins) / 3)
    assert found["change"]["moved"]["value"] == pytest.approx(sum(one > 0 for one in margins) / 3)


def test_the_validation_pairs_of_a_prepared_folder_are_read(tmp_path: Path) -> None:
    model = str(random_llama(tmp_path / "m.gguf", seed=1, chat_template=CHATML_TEMPLATE))
    many = [{"prompt": f"Question {i}?", "chosen": f"the answer {i}", "rejected": "and of"} for i in range(20)]
    file = written(tmp_path / "pairs.jsonl", many)
    for share, name in (("0.25", "with"), ("0", "without")):
        assert wsd("train", "prepare", file, "--out", str(tmp_path / name), "--validation", share).returncode == 0
    held_out = (tmp_path / "with" / "data_trl" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    page = tmp_path / "page.html"
    done = wsd("eval", "preferences", model, "--pairs", str(tmp_path / "with"), "--json", "--html", str(page))
    assert json.loads(done.stdout)["pairs"]["count"] == len(held_out) > 1
    assert "<svg" in page.read_text(encoding="utf-8")
    complains(wsd("eval", "preferences", model, "--pairs", str(tmp_path / "without")), 2, "without validation pairs")
    limited = wsd("eval", "preferences", model, "--pairs", file, "--limit", "2")
    assert limited.returncode == 0 and b"2 pairs" in limited.stdout


def test_a_pair_that_does_not_fit_is_left_out_and_counted(tmp_path: Path) -> None:
    model = str(random_llama(tmp_path / "m.gguf", seed=1, chat_template=CHATML_TEMPLATE))
    long = {"prompt": "Long?", "chosen": "the answer " * 200, "rejected": "no"}
    done = wsd("eval", "preferences", model, "--pairs", written(tmp_path / "p.jsonl", [long, *PAIRS]), "--json",
               "--ctx", "128")  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["pairs"]["count"]) == (5, 3)
    assert b"left out: 1 pair; the first is pair 1" in done.stderr
    only = wsd("eval", "preferences", model, "--pairs", written(tmp_path / "q.jsonl", [long]), "--ctx", "128")
    assert (only.returncode, only.stdout) == (2, b"") and b"no pair fits" in only.stderr


def test_bad_arguments_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    model = str(random_llama(tmp_path / "m.gguf", seed=1, chat_template=CHATML_TEMPLATE))
    file = written(tmp_path / "pairs.jsonl", PAIRS)
    complains(wsd("eval", "preferences", model, model, model, "--pairs", file), 2, "give one or two")
    complains(wsd("eval", "preferences", model, "--pairs", file, "--limit", "0"), 2, "limit is 0")
    complains(wsd("eval", "preferences", str(tmp_path / "none.gguf"), "--pairs", file), 3, "none.gguf")
    complains(wsd("eval", "preferences", model, "--pairs", str(tmp_path / "none.jsonl")), 2, "none.jsonl")
    complains(wsd("eval", "preferences", str(embedding_model(tmp_path / "e.gguf")), "--pairs", file), 3)


score = st.floats(-500, -1).map(lambda value: round(value, 3))
scored = st.builds(PairScores, score, score, st.integers(1, 300), st.integers(1, 300))


def swapped(one: PairScores) -> PairScores:
    return PairScores(one.rejected, one.chosen, one.rejected_tokens, one.chosen_tokens)


@settings(deadline=None, max_examples=30)  # a bootstrap each
@given(st.lists(st.tuples(scored, scored), min_size=1, max_size=8))
def test_exchanging_the_sides_mirrors_the_figures(found: list[tuple[PairScores, PairScores]]) -> None:
    def both(change: Any) -> Any:
        return preferences(["a", "b"], [[change(one) for one in side] for side in zip(*found, strict=True)])

    there, back = both(lambda one: one), both(swapped)
    for one, other in zip(there.models, back.models, strict=True):
        assert one.prefers.value == pytest.approx(1 - other.prefers.value)
        assert one.prefers_per_token.value == pytest.approx(1 - other.prefers_per_token.value)
        assert one.margin.value == pytest.approx(-other.margin.value)
    assert there.change is not None and back.change is not None
    assert there.change.moved.value == pytest.approx(1 - back.change.moved.value)
    assert there.change.prefers.value == pytest.approx(-back.change.prefers.value)


def test_without_pairs_there_are_no_figures() -> None:
    with pytest.raises(ValueError, match="no items"):
        preferences(["a"], [[]])
