"""The rule `entropy`: streamed with the embedded pair against three passes, and its edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from data_sets import fixture_prompts
from exactness import TIE, difference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import Oracle, mean_index
from summary import Tell

from wsd_local.cli.output import summary
from wsd_local.core.rules import Score
from wsd_local.core.rules_entropy import Entropy
from wsd_local.errors import UsageError
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.pair import Pair
from wsd_local.settings import ReplySettings

LIMITS: dict[str, Any] = {"draft_max_tokens": 64, "max_tokens": 72}


def is_tie(entropies: Sequence[float], window: int, bound: float) -> bool:
    means = [sum(entropies[end - window : end]) / window for end in range(window, len(entropies) + 1)]
    return min((abs(mean - bound) for mean in means), default=math.inf) < TIE


@pytest.mark.parametrize(
    ("window", "bound", "chunk"), [(6, 0.5, 8), (3, 0.1, 1), (1, 0.01, 512), (6, 9.0, 5), (4, 0.0, 8)]
)
def test_the_decision_is_that_of_three_passes(
    pair: Pair, oracle: Oracle, window: int, bound: float, chunk: int, tell: Tell
) -> None:
    questions = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][::20][:12]
    questions += [[{"role": "user", "content": record["prompt"]}] for record in fixture_prompts()][:6]
    reasons, ties = [], 0
    for messages in questions:
        ours = pair.reply(list(messages), rule="entropy", window=window, entropy=bound, check_chunk=chunk, **LIMITS)
        theirs = oracle.reply(messages, window=window, entropy=bound, **LIMITS)
        reasons.append(ours.switch.reason)
        if (found := difference(ours, theirs)) is not None:
            conversation = tuple((message["role"], message["content"]) for message in messages)
            assert is_tie(oracle.entropies(conversation, theirs.draft_text), window, bound), found
            ties += 1
        elif ours.switch.confidence is not None:
            assert ours.switch.confidence >= math.exp(-bound) == ours.switch.threshold
    switches = reasons.count("threshold")
    tell(f"mean entropy at most {bound} over {window}: {switches} of {len(reasons)} switch, {ties} ties")
    assert ties <= 1 and {0.0: 0, 9.0: len(reasons)}.get(bound, switches) == switches


@settings(max_examples=200)
@given(
    entropies=st.lists(st.floats(0, 4), max_size=30),
    window=st.integers(1, 8),
    bound=st.floats(0, 4),
    back=st.integers(0, 30),
)
def test_it_decides_at_the_first_window_also_after_a_roll_back(
    entropies: list[float], window: int, bound: float, back: int
) -> None:
    rule, expected = Entropy(window, bound), mean_index(entropies, window, bound)
    for entropy in entropies[:back]:
        if rule.push(Score(-1.0, 0.5, entropy + 9)) is not None:
            break
    rule.truncate(0)
    kept = next((kept for one in entropies if (kept := rule.push(Score(-1.0, 0.5, one))) is not None), None)
    means = [sum(entropies[end - window : end]) / window for end in range(window, len(entropies) + 1)]
    assume(all(abs(mean - bound) > 1e-9 for mean in means))
    assert (None if kept is None else kept - 1) == expected


def test_steering_sets_the_confidence() -> None:
    rule = Entropy(1, 0.5)
    rule.threshold = 0.25
    assert rule.threshold == pytest.approx(0.25)
    assert rule.push(Score(-1.0, 0.5, 1.3)) == 1
    rule.threshold = 1.5
    assert rule.push(Score(-1.0, 1.0, 0.0)) is None
    rule.threshold = 0.0
    assert rule.push(Score(-1.0, 0.5, 99.0)) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"rule": "entropy", "threshold": 0.7},
            "threshold is given, and the rule is entropy: it is for the rule window or return",
        ),
        ({"entropy": 0.7}, "entropy is given, and the rule is window: it is for the rule entropy"),
        ({"rule": "entropy", "mode": "base"}, "rule entropy and mode base are given: rules hold in the mode wsd alone"),
        ({"rule": "entropy", "entropy": -1.0}, "entropy is -1.0: it is in nats and must lie between 0 and 100"),
        ({"rule": "entropy", "window": 0}, "window is 0: it counts base tokens and must be at least 1"),
        ({"rule": "chance"}, "rule is 'chance': it must be one of window, return, entropy"),
    ],
)
def test_what_a_rule_does_not_use_is_an_error(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        ReplySettings(**values)


def test_the_summary_and_the_report_name_the_rule(pair: Pair) -> None:
    reply = pair.reply("How do I boil an egg?", rule="entropy", **LIMITS)
    assert reply.as_dict()["switch"]["rule"] == "entropy" and "(rule entropy, window 6, threshold 0.606531)" in summary(
        reply
    )
    assert "rule" not in summary(pair.reply("How do I boil an egg?", **LIMITS))
