"""One reply: how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from exactness import exact_pair

import wsd_local as wsd
from wsd_local.core.decoding import Phase

EGG = "How do I boil an egg?"


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[wsd.Pair]:
    with exact_pair(demo_f32) as pair:
        yield pair


def test_progress_follows_a_reply_from_its_draft_to_its_end(pair: wsd.Pair) -> None:
    run = pair.start(EGG, max_tokens=60)
    seen = [run.progress]
    for _ in run.events():
        seen.append(run.progress)
    reply, last = run.reply, seen[-1]
    phases = [progress.phase for progress in seen]
    assert phases == sorted(phases, key=[Phase.DRAFT, Phase.CONTINUE, Phase.DONE].index)
    assert set(phases) == set(Phase)
    for name in ("draft_tokens", "base_tokens"):
        counts = [getattr(progress, name) for progress in seen]
        assert counts == sorted(counts)
    assert (seen[0].draft_tokens, seen[0].base_tokens, seen[0].timings.first_text_s) == (0, 0, None)
    assert all(progress.base_tokens == 0 for progress in seen if progress.phase is Phase.DRAFT)
    assert last.draft_tokens == reply.draft.drafted_tokens and last.base_tokens >= reply.base.tokens > 0
    assert seen[0].context_tokens == reply.timings.base_prompt_tokens
    assert last.context_tokens == reply.timings.base_prompt_tokens + reply.draft.tokens + last.base_tokens
    assert last.n_ctx == pair.models.n_ctx("base")
    assert last.timings == reply.timings == run.timings


@pytest.mark.parametrize("mode", ["draft", "base"])
def test_progress_of_one_model_alone_counts_for_that_model(pair: wsd.Pair, mode: str) -> None:
    run = pair.start(EGG, mode=mode, max_tokens=8)
    assert run.progress.phase is Phase.CONTINUE
    list(run)
    progress = run.progress
    counts = {"draft": progress.draft_tokens, "base": progress.base_tokens}
    assert counts.pop(mode) == len(run.reply.tokens) == 8 and set(counts.values()) == {0}
