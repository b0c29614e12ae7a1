"""Sampling of draft and base apart, penalties and adapters, on the real engine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import fixture_prompts
from exactness import EXACT, Tally, exact_oracle, exact_pair
from makers import kin_pair, random_llama
from makers_more import merged, random_lora

from wsd_local.core.contexts import Question
from wsd_local.core.sampling import Sampling
from wsd_local.errors import ModelError, UsageError
from wsd_local.llama import Sequences
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings, ReplySettings

PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]
HOT: dict[str, Any] = {"threshold": 0.3, "max_tokens": 50, "draft_max_tokens": 40}


@pytest.fixture(scope="module")
def pair(kin: tuple[Path, Path]) -> Iterator[Pair]:
    with exact_pair(kin) as pair:
        yield pair


# --- sampling --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.9},
        {"draft_temperature": 0.9},
        {"temperature": 0.8, "draft_temperature": 1.2, "draft_top_k": 40, "top_p": 0.9, "min_p": 0.05},
        {"repeat_penalty": 1.3, "frequency_penalty": 0.4, "draft_presence_penalty": 0.5, "draft_temperature": 0.7},
    ],
)
def test_the_same_seed_gives_the_same_reply_whatever_the_chunk(pair: Pair, sampling: dict[str, Any]) -> None:
    replies = [pair.reply(PROMPTS[4], seed=7, check_chunk=chunk, **HOT, **sampling) for chunk in (1, 6, 8, 512)]
    assert len({(reply.text, reply.switch.index) for reply in replies}) == 1


def test_other_seeds_give_other_replies(pair: Pair) -> None:
    for name in ("temperature", "draft_temperature"):
        texts = {pair.reply(PROMPTS[4], seed=seed, **HOT, **{name: 1.0}).text for seed in range(6)}
        assert len(texts) > 2, name


def test_draft_and_base_are_sampled_apart(pair: Pair) -> None:
    greedy = pair.reply(PROMPTS[4], **HOT)
    hot_base = pair.reply(PROMPTS[4], temperature=1.5, seed=1, **HOT)
    hot_draft = pair.reply(PROMPTS[4], draft_temperature=1.5, seed=1, **HOT)
    assert hot_base.draft.text == greedy.draft.text
    assert hot_base.base.text != greedy.base.text
    assert hot_draft.draft.text != greedy.draft.text


def test_a_draft_seed_of_its_own(pair: Pair) -> None:
    asked: dict[str, Any] = {**HOT, "threshold": 0.0, "draft_temperature": 1.0, "temperature": 1.0}
    first = pair.reply(PROMPTS[4], seed=1, draft_seed=5, **asked)
    second = pair.reply(PROMPTS[4], seed=2, draft_seed=5, **asked)
    drafted = (first.draft.text + first.discarded, second.draft.text + second.discarded)
    assert drafted[0][: len(drafted[1])] == drafted[1][: len(drafted[0])]
    assert first.text != second.text
    assert (first.provenance["settings"]["seed"], first.provenance["settings"]["draft_seed"]) == (1, 5)


def test_the_check_uses_the_plain_distribution(kin: tuple[Path, Path]) -> None:
    """A sampled draft's probabilities are those of the base at temperature 1, whatever the base samples with."""
    oracle = exact_oracle(kin)
    with exact_pair(kin) as pair:
        reply = pair.reply(
            PROMPTS[4], temperature=0.3, top_k=3, repeat_penalty=1.5, draft_temperature=1.0, seed=3, **HOT
        )
    drafted = reply.draft.text + reply.discarded
    theirs = oracle.reply([{"role": "user", "content": PROMPTS[4]}], threshold=2.0, draft_text=drafted)
    oracle.close()
    ours = [token.prob for token in reply.tokens if token.source == "draft"]
    assert len(ours) > 5
    assert ours == pytest.approx(theirs.probs[: len(ours)], abs=1e-4)


def penalised(row: np.ndarray, before: list[int], sampling: Sampling) -> int:
    """What llama.cpp's documentation says of penalties, read off it: the favourite after the last tokens."""
    logits = row.astype(np.float64).copy()
    last = before if sampling.repeat_last_n < 0 else before[-sampling.repeat_last_n :]
    for token in set(last):
        logit = logits[token]
        logits[token] = logit / sampling.repeat_penalty if logit > 0 else logit * sampling.repeat_penalty
        logits[token] -= last.count(token) * sampling.frequency_penalty + sampling.presence_penalty
    return int(logits.argmax())


@pytest.mark.parametrize(
    "asked",
    [
        {"repeat_penalty": 1.5},
        {"frequency_penalty": 0.7, "repeat_last_n": 20},
        {"presence_penalty": 2.0, "repeat_last_n": 8},
        {"frequency_penalty": 0.3, "repeat_last_n": -1},
    ],
)
def test_penalties_look_at_the_last_tokens_of_prompt_and_reply(pair: Pair, asked: dict[str, Any]) -> None:
    plain = pair.reply(PROMPTS[5], **HOT)
    reply = pair.reply(PROMPTS[5], **HOT, **asked)
    context, sampling = pair.models.context("base"), Sampling(**asked)
    prompt = pair.models.model("base").tokenize(
        pair.models.base_format.prompt([{"role": "user", "content": PROMPTS[5]}])
    )
    tokens = prompt + [token.id for token in reply.tokens]
    assert reply.text != plain.text
    for end in range(len(prompt) + reply.draft.tokens, len(tokens)):
        assert penalised(logits(context, tokens[:end]), tokens[:end], sampling) == tokens[end]


def logits(context: Sequences, tokens: list[int]) -> Any:
    """The logits after `tokens`."""
    rows: list[Any] = []
    context.ask(Question(0, tokens, len(tokens) - 1, lambda _, row: rows.append(np.array(context._logits(row)))))
    return rows[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"repeat_penalty": 0.0}, "repeat-penalty is 0.0"),
        ({"draft_repeat_penalty": -1.0}, "draft-repeat-penalty is -1.0"),
        ({"frequency_penalty": math.nan}, "frequency-penalty is nan"),
        ({"repeat_last_n": -2}, "repeat-last-n is -2"),
        ({"draft_top_p": 1.5}, "draft-top-p is 1.5"),
        ({"draft_seed": 2**32}, "draft-seed is 4294967296"),
        ({"seed": 2**32 - 1}, "seed is 4294967295"),  # llama.cpp draws one for this
        ({"temperature": math.inf}, "temperature is inf"),
        ({"grammar": "root ::= x", "json_schema": "{}"}, "only one of them"),
        ({"regex": "x", "lark": "start: X"}, "only one of them"),
        ({"json_schema": "{"}, "is not JSON"),
        ({"grammar": "root ::= x", "ignore_eos": True}, "leave one out"),
        ({"base_lora_scale": math.nan}, "base-lora-scale is nan"),
        ({"draft_lora_scale": 0.5, "base_lora": "a.gguf"}, "without draft-lora"),
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, Any], said: str) -> None:
    kind = LoadSettings if any("lora" in name for name in wrong) else ReplySettings
    with pytest.raises(UsageError, match=said):
        kind(**wrong)


# --- adapters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["draft", "base"])
def test_an_adapter_is_worth_its_merged_model(role: str, tmp_path: Path) -> None:
    files = dict(zip(("draft", "base"), kin_pair(tmp_path), strict=True))
    adapter = random_lora(tmp_path / "lora.gguf", files[role], alpha=2.0)
    with_merged = {**files, role: merged(tmp_path / "merged.gguf", files[role], adapter)}
    oracle = exact_oracle((with_merged["draft"], with_merged["base"]))
    tally, plain = Tally(), []
    loading = LoadSettings(
        ctx=EXACT.ctx,
        threads=1,
        cache_type_k="f32",
        cache_type_v="f32",
        flash_attn="off",
        **{f"{role}_lora": str(adapter)},  # type: ignore[arg-type]
    )
    with exact_pair((files["draft"], files["base"])) as pair:
        plain = [pair.reply(prompt, **HOT).text for prompt in PROMPTS[:4]]
    with Pair(draft=files["draft"], base=files["base"], loading=loading) as pair:
        for prompt in PROMPTS[:4]:
            tally.compare(pair, oracle, [{"role": "user", "content": prompt}], **HOT)
        adapted = [pair.reply(prompt, **HOT).text for prompt in PROMPTS[:4]]
        pair.models.hash_files()
        assert len(pair.reply(PROMPTS[0], **HOT).provenance[f"{role}_lora_sha256"]) == 64
    oracle.close()
    assert not tally.different, "\n".join(tally.different)
    assert adapted != plain


def test_an_adapter_of_no_strength_changes_nothing(tmp_path: Path) -> None:
    draft, base = kin_pair(tmp_path)
    adapter = str(random_lora(tmp_path / "lora.gguf", base))
    loading = LoadSettings(ctx=2048, threads=1, base_lora=adapter, base_lora_scale=0.0)
    plain = LoadSettings(ctx=2048, threads=1)
    with Pair(draft=draft, base=base, loading=loading) as one, Pair(draft=draft, base=base, loading=plain) as other:
        assert one.reply(PROMPTS[0], **HOT).text == other.reply(PROMPTS[0], **HOT).text


def test_files_that_are_no_adapter(kin: tuple[Path, Path], tmp_path: Path) -> None:
    other = random_llama(tmp_path / "other.gguf", n_embd=96, n_head=6)
    wrong = {
        tmp_path / "none.gguf": "no such file",
        kin[0]: "is no adapter for",
        random_lora(tmp_path / "lora.gguf", other): "is no adapter for",
    }
    for path, said in wrong.items():
        with (
            pytest.raises(ModelError, match=said),
            Pair(draft=kin[0], base=kin[1], loading=LoadSettings(threads=1, base_lora=str(path))) as pair,
        ):
            pair.models.load()
