"""The embedded pair, streamed, against the three passes: same switch, same kept tokens, same reply.

F32 weights and caches, flash attention off: there logits do not depend on how the work is cut, so every difference
counts. The quantised pair is compared too; its differences are reported with their distance from a tie.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from data_sets import alpaca_instructions, fixture_conversations, fixture_prompts, mt_bench_first_turns, multi_turn
from exactness import Conversation, Tally, exact_oracle
from oracle import Oracle
from summary import Tell

from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings

LIMITS = {"draft_max_tokens": 64, "max_tokens": 72}
THRESHOLDS = (0.0, 0.3, 0.5, 0.8, 0.95, 2.0)
WINDOWS = (1, 3, 6, 12)
CHUNKS = (1, 6, 16, 512)
EACH_ONCE: list[dict[str, Any]] = [
    {"threshold": threshold, "check_chunk": chunk}
    for threshold, chunk in zip(THRESHOLDS, (1, 6, 16, 512, 8, 6), strict=True)
] + [{"window": window, "check_chunk": chunk} for window, chunk in ((1, 1), (3, 16), (12, 512))]
"""Every threshold with the usual window, every other window with the usual threshold, every chunk size in between."""

TOGETHER = [
    {"threshold": threshold, "window": window, "check_chunk": chunk}
    for threshold, window, chunk in itertools.product(THRESHOLDS, WINDOWS, CHUNKS)
]


def asked(prompts: Sequence[str]) -> list[Conversation]:
    return [[{"role": "user", "content": prompt}] for prompt in prompts if prompt.strip()]


def held_out() -> list[Conversation]:
    return [question.messages for question in load_questions(demo_dir() / "questions.jsonl")]


def conversations(name: str) -> list[Conversation]:
    if name == "own":
        own = [list(messages) for _, messages in fixture_conversations()]
        return own + asked([record["prompt"] for record in fixture_prompts()])
    if name == "questions":
        return held_out()
    if name == "mt_bench":
        return asked(mt_bench_first_turns())
    return asked(alpaca_instructions(200)) if name == "alpaca" else [list(messages) for messages in multi_turn(100)]


def check(tally: Tally, name: str, tell: Tell) -> None:
    tell(f"{name}: {tally}", *tally.ties, *tally.different)
    assert not tally.different
    assert len(tally.ties) <= 1 + tally.equal // 500


PARTS = [("mt_bench", 0), ("mt_bench", 1)] + [
    (name, part) for name in ("own", "questions", "alpaca", "multi_turn") for part in range(4)
]
QUICK = ("own", 0)


@pytest.mark.parametrize(
    ("name", "part"),
    [pytest.param(*part, marks=[] if part == QUICK else [pytest.mark.slow]) for part in PARTS],
)
def test_each_setting_on_all(pair: Pair, oracle: Oracle, name: str, part: int, tell: Tell) -> None:
    parts = max(number for other, number in PARTS if other == name) + 1
    tally = Tally()
    for messages in conversations(name)[part::parts]:
        for settings in EACH_ONCE:
            tally.compare(pair, oracle, messages, **LIMITS, **settings)
    check(tally, f"{name} {part + 1}/{parts}, {len(EACH_ONCE)} settings", tell)


@pytest.mark.slow
def test_settings_together(pair: Pair, oracle: Oracle, tell: Tell) -> None:
    tally = Tally()
    sample = held_out()[::25][:10] + conversations("own")[:10]
    for messages in sample:
        for settings in TOGETHER:
            tally.compare(pair, oracle, messages, **LIMITS, **settings)
    check(tally, f"all {len(TOGETHER)} combinations on {len(sample)}", tell)


@pytest.mark.slow
def test_how_often_the_quantised_pair_diverges(demo_q8: tuple[Path, Path], tell: Tell) -> None:
    """Not exact by nature: the logits of quantised weights depend on the shape of a batch."""
    tally = Tally()
    oracle = exact_oracle(demo_q8)
    with Pair(draft=demo_q8[0], base=demo_q8[1], loading=LoadSettings(threads=1)) as pair:
        for messages in held_out():
            tally.compare(pair, oracle, messages, **LIMITS)
    oracle.close()
    tell(f"quantised: {tally}", *tally.ties, *tally.different)
    assert len(tally.different) <= tally.equal // 20
