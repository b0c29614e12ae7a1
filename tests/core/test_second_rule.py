"""A second rule, all of it in this file, through the real engine and against the three passes.

The base takes over where its entropy was at most a bound for some tokens in a row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from data_sets import fixture_prompts
from exactness import TIE, difference
from oracle import Oracle, OracleReply
from scripted import STOPS, Words, bounds
from scripted import Pair as ScriptedPair
from summary import Tell

from wsd_local.core.decoding import Decoding
from wsd_local.core.rules import Score
from wsd_local.llama.logits import distribution_of
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.settings import ReplySettings

LIMITS: dict[str, Any] = {"draft_max_tokens": 64, "max_tokens": 72}


class Calm:
    """The base writes once its entropy was at most `bound` nats for `count` tokens in a row.

    Its confidence is the exponential of minus the largest of these entropies: 1 where the base has no doubt.
    """

    needs_distribution = True

    def __init__(self, count: int, bound: float) -> None:
        self.lookahead = count
        self.threshold = math.exp(-bound)
        self._entropies: list[float] = []

    @property
    def kept_at_least(self) -> int:
        return max(self.lookahead, len(self._entropies) + 1)

    @property
    def confidence(self) -> float | None:
        last = self._entropies[-self.lookahead :]
        return math.exp(-max(last)) if len(last) == self.lookahead else None

    def push(self, score: Score) -> int | None:
        assert score.entropy is not None and score.top1 is not None
        assert score.top1 <= 1 and score.logprob <= math.log(score.top1) + 1e-6
        self._entropies.append(score.entropy)
        confidence = self.confidence
        return len(self._entropies) if confidence is not None and confidence >= self.threshold else None

    def truncate(self, length: int) -> None:
        del self._entropies[length:]


def at_a_tie(ours: Reply, theirs: OracleReply, entropies: list[float], bound: float) -> bool:
    """Whether the switches differ because an entropy is as good as the bound."""
    return ours.switch.index != theirs.index and min(abs(entropy - bound) for entropy in entropies) < TIE


@pytest.mark.parametrize(("count", "bound"), [(1, 0.01), (3, 0.3), (6, 0.7), (6, 100.0), (4, 0.0)])
@pytest.mark.slow
def test_the_decision_is_that_of_three_passes(
    pair: Pair, oracle: Oracle, monkeypatch: pytest.MonkeyPatch, count: int, bound: float, tell: Tell
) -> None:
    monkeypatch.setattr(ReplySettings, "make_rule", lambda _: Calm(count, bound))
    questions = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][::20][:12]
    questions += [[{"role": "user", "content": record["prompt"]}] for record in fixture_prompts()][:6]
    reasons, ties = [], 0
    for messages in questions:
        ours = pair.reply(list(messages), check_chunk=5, **LIMITS)
        theirs = oracle.reply(messages, window=count, calm=bound, **LIMITS)
        reasons.append(ours.switch.reason)
        if (found := difference(ours, theirs)) is not None:
            conversation = tuple((message["role"], message["content"]) for message in messages)
            assert at_a_tie(ours, theirs, oracle.entropies(conversation, theirs.draft_text), bound), found
            ties += 1
        elif ours.switch.confidence is not None:
            assert ours.switch.confidence >= math.exp(-bound)
    tell(f"entropy at most {bound} for {count}: {reasons.count('threshold')} of {len(reasons)} switch, {ties} ties")
    assert ties <= 1
    assert reasons.count("threshold") == {0.0: 0, 100.0: len(reasons)}.get(bound, reasons.count("threshold"))
    assert reasons.count("threshold") > 0 or bound == 0.0


def test_the_window_asks_for_no_distribution(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over the vocabulary for each checked token is the price of rules that need it."""
    import wsd_local.llama.sequences as sequences

    computed: list[tuple[float, float]] = []

    def counted(logits: npt.NDArray[np.float32]) -> tuple[float, float]:
        computed.append(distribution_of(logits))
        return computed[-1]

    monkeypatch.setattr(sequences, "distribution_of", counted)
    assert pair.reply("How do I boil an egg?", **LIMITS).counts.checked_tokens > 0
    assert not computed
    monkeypatch.setattr(ReplySettings, "make_rule", lambda _: Calm(6, 100.0))
    assert pair.reply("How do I boil an egg?", **LIMITS).counts.checked_tokens == len(computed)


def test_the_scripted_base_is_sure_from_the_tenth_token_on() -> None:
    vocabulary = Words([" fox", "the"])
    prompt = "ask: "
    sure_from = len(vocabulary.tokenize(prompt)) + 10
    base = ScriptedPair(
        [b"the", *[b" fox"] * 15], list(b"!"), entropy=lambda tokens: 0.0 if len(tokens) >= sure_from else 1.0
    )
    run = Decoding(vocabulary, prompt, Calm(2, 0.1), bounds(check_chunk=1, stops=STOPS))
    list(base.drive(run))
    assert (run.switch_index, run.switch_reason, run.switch_confidence) == (10, "threshold", 1.0)
    assert run.text == "the" + " fox" * 10 + "!"


def test_the_distribution_of_a_row_is_exact() -> None:
    rows = np.random.default_rng(5).normal(0, 6, (50, 999)).astype(np.float32)
    for row in rows:
        p = np.exp(row.astype(np.longdouble) - row.astype(np.longdouble).max())
        p /= p.sum()
        top1, entropy = distribution_of(row)
        assert math.isclose(top1, float(p.max()), rel_tol=1e-12)
        assert math.isclose(entropy, float(-(p * np.log(p)).sum()), rel_tol=1e-10)
    assert distribution_of(np.array([0.0, -np.inf, -np.inf], np.float32)) == (1.0, 0.0)
    half = distribution_of(np.array([3.0, 3.0, -np.inf], np.float32))
    assert half == pytest.approx((0.5, math.log(2)))
