"""One reply: what it is made from, and how far it has come."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from exactness import EXACT, PLAIN, exact_pair

import wsd_local as wsd
from wsd_local.core.decoding import Phase
from wsd_local.prompts.messages import conversation
from wsd_local.runtime.engine import Engine
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.run import Run, RunOptions

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


def test_a_run_needs_models_and_an_engine_alone(demo_f32: tuple[Path, Path]) -> None:
    ticks = itertools.count()
    with LoadedModels(*demo_f32, EXACT) as models:
        engine = Engine(models.context, models.cancellation)
        options = RunOptions(clock=lambda: float(next(ticks)), endless_draft=True)
        settings = replace(PLAIN, threshold=1.1, draft_max_tokens=70, ignore_eos=True, max_tokens=80)
        run = Run(models, engine, conversation(EGG), settings, options)
        list(run)
        assert run.reply.draft.drafted_tokens == 70  # the draft alone would have ended its turn
        assert run.timings.total_s == int(run.timings.total_s) > 0
        with wsd.Pair(draft=demo_f32[0], base=demo_f32[1], reply=PLAIN, loading=EXACT) as pair:
            assert pair.reply(EGG, threshold=1.1, draft_max_tokens=70).draft.drafted_tokens < 70


def test_a_pair_can_stand_over_models_of_ones_own(demo_f32: tuple[Path, Path]) -> None:
    models = LoadedModels(*demo_f32, EXACT)
    with wsd.Pair.over(models, reply=PLAIN) as pair:
        assert pair.models is models
        own = pair.reply(EGG, max_tokens=20)
    with pytest.raises(wsd.WsdError, match="closed"):
        models.load()
    with exact_pair(demo_f32) as other:
        assert own.text == other.reply(EGG, max_tokens=20).text
