"""Models whose memory refuses to remove its newest tokens: the same replies, by going back to snapshots."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from data_sets import fixture_conversations, fixture_prompts
from exactness import EXACT, Tally, exact_oracle, exact_pair, sampled
from makers_more import MAKERS, paths_of_kinds, random_mamba
from oracle import Oracle
from summary import Tell

from wsd_local.core.sampling import Sampling
from wsd_local.errors import CancelledError
from wsd_local.llama import Cancellation, Context, ContextOptions, Model, Sampler
from wsd_local.llama.snapshots import SNAPSHOTS
from wsd_local.runtime.pair import Pair

PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]
PAIRS = [("mamba", "mamba"), ("lfm2", "lfm2"), ("sliding", "sliding"), ("llama", "lfm2"), ("mamba", "llama")]
FORGETFUL = [("mamba", "mamba"), ("lfm2", "lfm2")]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return paths_of_kinds(tmp_path_factory.mktemp("memory"), request.param)


@pytest.fixture(scope="module", params=FORGETFUL, ids="-".join)
def forgetful(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return paths_of_kinds(tmp_path_factory.mktemp("forgetful"), request.param)


@pytest.fixture(scope="module")
def oracle(files: tuple[Path, Path]) -> Iterator[Oracle]:
    oracle = exact_oracle(files)
    yield oracle
    oracle.close()


def windows_of(oracle: Oracle, prompts: list[str]) -> list[float]:
    asked = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return sorted(g for m in asked for g in oracle.reply(m, threshold=2.0, draft_max_tokens=40, max_tokens=80).windows)


def test_replies_equal_the_oracle(files: tuple[Path, Path], oracle: Oracle, tell: Tell) -> None:
    tally = Tally()
    asked = [[{"role": "user", "content": prompt}] for prompt in PROMPTS[:5]]
    conversations = [*asked, *(list(messages) for _, messages in fixture_conversations()[:4])]
    found = windows_of(oracle, PROMPTS[:5])
    thresholds = [0.0, found[len(found) // 2] * 1.01, found[len(found) * 9 // 10] * 1.01, 2.0]
    with exact_pair(files) as pair:
        for messages in conversations:
            for threshold, chunk in zip(thresholds, (1, 6, 16, 512), strict=True):
                tally.compare(
                    pair,
                    oracle,
                    messages,
                    threshold=threshold,
                    check_chunk=chunk,
                    draft_max_tokens=40,
                    max_tokens=80,
                )
    tell(f"{pair.models.paths['base'].parent.name}: {tally}", *tally.ties, *tally.different)
    assert not tally.different
    assert tally.equal >= 30


def threshold_between(files: tuple[Path, Path]) -> float:
    oracle = exact_oracle(files)
    found = windows_of(oracle, PROMPTS[:3])
    oracle.close()
    return found[len(found) // 2] * 1.01


def test_turns_of_a_session_cost_what_is_new(forgetful: tuple[Path, Path]) -> None:
    settings: dict[str, Any] = {
        "threshold": threshold_between(forgetful),
        "max_tokens": 24,
        "draft_max_tokens": 24,
        "stop": ("never written",),
    }
    with exact_pair(forgetful) as pair, pair.session() as chat:
        costs, prompts, texts = [], [], []
        for turn in range(6):
            reply = chat.send(f"Tell me about number {turn}, please.", **settings)
            costs.append(reply.timings.base_evaluated_tokens + reply.timings.draft_evaluated_tokens)
            prompts.append(reply.timings.base_prompt_tokens)
            texts.append(reply.text)
        assert prompts[-1] > 4 * prompts[0]
        assert max(costs[1:]) < 3 * costs[0]
        for turn in (1, 3, 5):
            with exact_pair(forgetful) as fresh:
                assert fresh.reply(chat.messages[: 2 * turn + 1], **settings).text == texts[turn]


@pytest.mark.parametrize("steps", [0, 2, 5, 9, 14, 22])
def test_a_cancelled_reply_resumes_and_is_exact(forgetful: tuple[Path, Path], steps: int) -> None:
    settings: dict[str, Any] = {"threshold": threshold_between(forgetful), "max_tokens": 50, "draft_max_tokens": 50}
    with exact_pair(forgetful) as pair:
        whole = pair.reply(PROMPTS[3], **settings)
        run = pair.start(PROMPTS[3], **settings)
        for i, _ in enumerate(run.events()):
            if i == steps:
                pair.cancel()
        if run.reply.finish_reason == "cancelled":
            assert pair.reply(PROMPTS[0], max_tokens=10).finish_reason != "cancelled"
            list(run.events())
        assert (run.reply.text, run.reply.switch) == (whole.text, whole.switch)


@pytest.mark.parametrize("nodes", [1, 20, 45])
@pytest.mark.parametrize("kind", ["mamba", "lfm2", "sliding", "llama"])
def test_an_evaluation_broken_off_inside_spoils_nothing(kind: str, nodes: int, tmp_path: Path) -> None:
    """The stop comes after so many nodes of the graph: what a recurrent state holds then is worth nothing."""
    options = ContextOptions(n_ctx=512, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    cancellation, left = Cancellation(), iter(range(nodes, 0, -1))

    def stop(_data: object) -> bool:
        if next(left, 0) == 1:
            cancellation.set()
        return cancellation.is_set

    callback = llama_cpp.ggml_abort_callback(stop)
    with Model(MAKERS[kind](tmp_path / "model.gguf")) as model:
        tokens = model.tokenize("A long text of many words. " * 12)
        half = len(tokens) // 2
        fresh = Context(model, options, Cancellation())
        expected = fresh.logprobs(0, tokens, half)
        context = Context(model, options, cancellation)
        context.logprobs(0, tokens[: half + 8], half)
        llama_cpp.llama_set_abort_callback(context._handle, callback, None)
        with pytest.raises(CancelledError, match="stopped"):
            context.logprobs(0, tokens, half + 8)
        assert next(left, None) is None
        cancellation.clear()
        assert context.logprobs(0, tokens, half) == pytest.approx(expected, abs=1e-4)
        assert context.logprobs(0, tokens, half + 8) == pytest.approx(expected[8:], abs=1e-4)
        fresh.close()
        context.close()


def test_the_log_says_which_way_was_taken(forgetful: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wsd_local.llama"), exact_pair(forgetful) as pair:
        pair.reply(PROMPTS[0], threshold=0.0, check_chunk=16, max_tokens=20)
        pair.reply(PROMPTS[1], threshold=0.0, check_chunk=16, max_tokens=20)
    assert "snapshots are taken to go back to" in caplog.text
    assert "back to a snapshot of" in caplog.text


def test_few_snapshots_are_kept_and_the_newest_always(tmp_path: Path) -> None:
    options = ContextOptions(n_ctx=2048, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    with Model(random_mamba(tmp_path / "mamba.gguf")) as model:
        context = Context(model, options, Cancellation())
        tokens = model.tokenize("word by word " * 60)
        for end in range(16, len(tokens), 7):
            context.logprobs(0, tokens[:end], end - 6)
            kept = sorted(context._snapshots[0]._kept)
            assert len(kept) <= SNAPSHOTS
            assert kept[-1] >= end - 7
        before = context.evaluated
        half = len(tokens) // 2
        sampled(context, tokens[:half], Sampler(Sampling(), model))
        assert context.evaluated - before < half / 2
        context.close()


def test_a_memory_of_the_wider_kind_needs_no_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = paths_of_kinds(tmp_path, ("sliding", "sliding"))
    with caplog.at_level(logging.INFO, "wsd_local.llama"), Pair(draft=files[0], base=files[1], loading=EXACT) as pair:
        pair.reply(PROMPTS[0], threshold=0.0, check_chunk=16, max_tokens=20)
    assert "snapshot" not in caplog.text
