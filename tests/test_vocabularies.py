"""Real vocabularies around small random models, and drafts scripted from real text in pieces of random size."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from compare import TIE
from conftest import Tell
from data_sets import fixture_texts, llama3_replies, vocabularies
from makers import random_llama
from oracle import Oracle
from test_decoding import split_at

from wsd_local.decoding import Decoding, Limits, NextBaseToken, NextDraftToken, Score
from wsd_local.llama import Cancellation, Context, ContextOptions, Model, Sampler
from wsd_local.prompts import BaseFormat, conversation
from wsd_local.sampling import Sampling
from wsd_local.switch import SwitchPolicy

NAMES = ["gemma-4", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"]
QUESTION = [{"role": "user", "content": "What is it?"}]
PROMPT = BaseFormat().prompt(conversation(QUESTION))
CONTINUED = 8
CTX = 1024


@pytest.fixture(scope="module", params=NAMES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    vocabulary = next(path for path in vocabularies() if path.stem == f"ggml-vocab-{request.param}")
    path = tmp_path_factory.mktemp("vocab") / f"{request.param}.gguf"
    yield random_llama(path, vocabulary, n_embd=32, n_layer=1, n_head=2, n_ff=64)
    path.unlink()


def scripted(context: Context, run: Decoding, pieces: list[bytes]) -> None:
    """A draft that says `pieces`, before a real base."""
    sampler, left = Sampler(Sampling(), context.model), list(pieces)
    while (request := run.request()) is not None:
        if isinstance(request, Score):
            run.scored(context.logprobs(0, request.tokens, request.start))
        elif isinstance(request, NextBaseToken):
            token, _ = context.sample(0, request.tokens, sampler)
            if context.model.is_eog(token):
                run.base_ended()
            else:
                run.continued(token)
        elif isinstance(request, NextDraftToken) and left:
            run.drafted(left.pop(0))
        else:
            run.draft_ended()


def between(windows: Sequence[float]) -> list[float]:
    """A threshold that some window passes, far from a tie: half way between two that differ by a tenth."""
    ordered = sorted(windows)
    apart = [(low, high) for low, high in pairwise(ordered) if high > 1.1 * low]
    return [math.sqrt(math.prod(apart[len(apart) * 3 // 4]))] if apart else []


def texts() -> list[str]:
    """Short texts of our own in many scripts, and real replies."""
    return [text[:260] for text in (*fixture_texts(), *(reply for _, reply in llama3_replies(4)))]


def test_scripted_drafts_equal_the_oracle(base: Path, tell: Tell) -> None:
    oracle = Oracle(base, base, n_ctx=CTX, threads=1)
    options = ContextOptions(n_ctx=CTX, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    chance, counts = random.Random(base.stem), {"replies": 0, "rollbacks": 0, "other tokens": 0}
    with Model(base) as model:
        context = Context(model, options, Cancellation())
        for text in texts():
            switched = oracle.reply(QUESTION, threshold=2.0, draft_text=text, on_draft_end="stop")
            thresholds = [2.0, 0.0, *between(switched.windows)]
            for threshold, chunk in zip(thresholds, chance.sample([1, 6, 8, 16, 512], len(thresholds)), strict=True):
                passes = next((i for i, g in enumerate(switched.windows) if g >= threshold), len(switched.probs))
                enough = passes + 6 + CONTINUED
                limits = Limits(max_tokens=enough, draft_max_tokens=10**6, check_chunk=chunk, stops=BaseFormat().stops)
                run = Decoding(model, PROMPT, SwitchPolicy(6, threshold), limits)
                cuts = [chance.randrange(10**4) for _ in range(len(text) // 3)]
                scripted(context, run, split_at(text.encode(), cuts))
                counts["replies"] += 1
                counts["rollbacks"] += run.counts.rollbacks
                theirs = oracle.reply(QUESTION, threshold=threshold, draft_text=text, max_tokens=enough)
                ours = [token.id for token in run.tokens()]
                whole = model.tokenize(PROMPT + text.strip())[run.prompt_length :]
                if ours[: run.kept_tokens] != whole[: run.kept_tokens]:
                    counts["other tokens"] += 1
                else:
                    assert (run.switch_index, run.switch_reason) == (theirs.index, theirs.reason)
                    assert min(theirs.continuation_gaps, default=1) < TIE or ours == list(theirs.tokens)
                    assert run.text == theirs.text or min(theirs.continuation_gaps, default=1) < TIE
        context.close()
    oracle.close()
    tell(f"scripted drafts before {base.stem}: {counts}")
    assert counts["other tokens"] <= counts["replies"] // 50
