"""A judge's verdicts in figures: scripted judges, mirrored runs, and the length-controlled win rate against oracles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsd_local.errors import UsageError
from wsd_local.prompts.messages import Message
from wsd_local.reports.judge.asking import GRADES, Asked, comparison, grading
from wsd_local.reports.judge.lengths import RIDGE, features, fitted, length_controlled, sigmoid
from wsd_local.reports.judge.questions import Memory, ask, comparisons, gradings
from wsd_local.reports.judge.replies import Judged, Place, ReplyFile, shared_places
from wsd_local.reports.judge.summary import Comparison, compared, comparison_of, grade_difference, grading_of
from wsd_local.reports.judge.verdicts import Compared, Shown, TooLongError, grade, normalised, shown
from wsd_local.reports.statistics import Estimate

Probabilities = Sequence[float]


class ScriptedJudge:
    """Answers with probabilities that a function computes from the texts of the replies, in the order shown."""

    def __init__(self, decide: Callable[[list[str]], Probabilities]) -> None:
        self._decide = decide
        self.asked: list[Asked] = []
        self.identity: dict[str, Any] = {"model": "scripted"}

    def logprobs(self, asked: Asked) -> tuple[float, ...]:
        self.asked.append(asked)
        text = asked.messages[-1]["content"]
        replies = [part.split("]\n", 1)[1].split("\n[End of")[0] for part in text.split("[Reply of ")[1:]]
        return tuple(math.log(value) for value in self._decide(replies))


def file(texts: Sequence[str], name: str = "a", turns: int = 1) -> ReplyFile:
    replies: dict[Place, Judged] = {}
    for number, text in enumerate(texts):
        index, turn = divmod(number, turns)
        replies[index, turn] = Judged(f"q{index}", (Message(role="user", content=f"Question {index}?"),), text)
    return ReplyFile(Path(f"{name}.jsonl"), name, replies)


def result(judge: ScriptedJudge, a: ReplyFile, b: ReplyFile) -> Comparison:
    memory = Memory()
    places = shared_places([a, b])
    ask(judge, list(comparisons("mt_bench", a, b, places)), memory)
    return comparison_of(compared(memory.done, a, b, places))


def longer(replies: list[str]) -> Probabilities:
    return (0.9, 0.05, 0.05) if len(replies[0]) > len(replies[1]) else (0.05, 0.9, 0.05)


# -- judges of known character -------------------------------------------------------------------------------


def test_a_judge_that_looks_at_the_replies_is_the_same_in_both_orders() -> None:
    a, b = file(["long reply", "short", "long reply"]), file(["no", "a longer one", "no"], "b")
    found = result(ScriptedJudge(longer), a, b)
    assert (found.pairs, found.wins_a, found.wins_b, found.ties, found.split) == (3, 2, 1, 0, 0)
    assert found.win_rate.value == pytest.approx(2 / 3)
    assert found.agreement.value == 1 and found.agreement.interval == pytest.approx((0.025 ** (1 / 3), 1))
    assert found.lean.value == pytest.approx(0) and found.first == 0.5
    assert found.preference.value == pytest.approx((2 * 0.925 + 0.075) / 3)
    assert found.warnings == []


def test_a_judge_that_prefers_the_first_place_decides_nothing_and_is_warned_about() -> None:
    found = result(ScriptedJudge(lambda _: (0.8, 0.15, 0.05)), file(["x"] * 4), file(["y"] * 4, "b"))
    assert (found.wins_a, found.wins_b, found.ties, found.split) == (0, 0, 0, 4)
    assert found.win_rate.value == found.preference.value == 0.5
    assert found.agreement.value == 0 and found.agreement.interval == pytest.approx((0, 1 - 0.025**0.25))
    low, high = found.win_rate.interval or (0.5, 0.5)
    assert low < 0.3 and high > 0.7 and low + high == pytest.approx(1), "four ties do not say that all are"
    assert found.preference.interval is None
    assert found.lean.value == pytest.approx(0.65) and found.first == 1
    assert "agrees with itself in 0%" in found.warnings[0]


def test_a_judge_that_calls_everything_equal_finds_ties() -> None:
    found = result(ScriptedJudge(lambda _: (0.2, 0.2, 0.6)), file(["x"] * 3), file(["y"] * 3, "b"))
    assert (found.ties, found.split, found.win_rate.value, found.first) == (3, 0, 0.5, None)
    even = result(ScriptedJudge(lambda _: (0.4, 0.4, 0.2)), file(["x"] * 3), file(["y"] * 3, "b"))
    assert (even.ties, even.agreement.value) == (3, 1)


def test_a_judge_that_does_not_answer_in_the_form_is_warned_about() -> None:
    found = result(ScriptedJudge(lambda texts: [p / 10 for p in longer(texts)]), file(["xx"]), file(["y"], "b"))
    assert found.mass == pytest.approx(0.1) and found.wins_a == 1
    assert any("does not follow the form" in line for line in found.warnings)


def test_turns_of_one_record_are_drawn_together() -> None:
    """Ten records whose two turns always agree: the interval is that of ten, not of twenty."""
    texts = ["long" if number % 2 else "s" for number in range(10) for _ in range(2)]
    found = result(ScriptedJudge(longer), file(texts, turns=2), file(["xx"] * 20, "b", turns=2))
    alone = result(ScriptedJudge(longer), file(texts[::2]), file(["xx"] * 10, "b"))
    assert (found.pairs, found.win_rate.count) == (20, 10)
    assert found.win_rate == alone.win_rate


def test_what_is_too_long_is_counted_and_asked_again_later() -> None:
    class Small(ScriptedJudge):
        def logprobs(self, asked: Asked) -> tuple[float, ...]:
            if "huge" in asked.messages[-1]["content"]:
                raise TooLongError("it has 9 tokens, and the context 8")
            return super().logprobs(asked)

    a, b = file(["xx", "huge", "xx"]), file(["y"] * 3, "b")
    memory, places = Memory(), shared_places([a, b])
    questions = list(comparisons("mt_bench", a, b, places))
    work = ask(Small(longer), questions, memory)
    assert (work.asked, [question.id for question, _ in work.too_long]) == (4, ["q1", "q1"])
    assert comparison_of(compared(memory.done, a, b, places)).pairs == 2
    again = ask(ScriptedJudge(longer), questions, memory)
    assert again.asked == 2 and comparison_of(compared(memory.done, a, b, places)).pairs == 3


def test_a_pair_judged_in_one_order_only_is_no_pair() -> None:
    a, b = file(["xx", "xx"]), file(["y", "y"], "b")
    found = compared({(0, 0, "ab"): (-1.0, -2.0, -3.0)}, a, b, shared_places([a, b]))
    assert found == []


# -- questions -----------------------------------------------------------------------------------------------


def test_both_orders_show_the_same_texts_in_exchanged_places() -> None:
    user = Message(role="user", content="Which?")
    one, other = ([user, Message(role="assistant", content=text)] for text in ("first text", ""))
    for way, answers in (("mt_bench", ("A", "B", "C")), ("alpaca_eval", ("m", "M"))):
        ab, ba = comparison(way, one, other), comparison(way, other, one)  # type: ignore[arg-type]
        assert ab.answers == ba.answers == answers
        assert ab.messages[0] == ba.messages[0]
        text = ab.messages[1]["content"]
        assert text.index("first text") < text.index("(This reply is empty.)")
        swapped = text.replace("first text", "#").replace("(This reply is empty.)", "first text")
        assert ba.messages[1]["content"] == swapped.replace("#", "(This reply is empty.)")


def test_later_turns_show_both_conversations_whole() -> None:
    def talk(name: str) -> list[Message]:
        said = [("user", "Q1"), ("assistant", f"{name}1"), ("user", "Q2"), ("assistant", f"{name}2")]
        return [Message(role=role, content=text) for role, text in said]  # type: ignore[typeddict-item]

    text = comparison("mt_bench", talk("x"), talk("y")).messages[1]["content"]
    assert [text.count(part) for part in ("Q1", "Q2", "x1", "x2", "y1", "y2")] == [2, 2, 1, 1, 1, 1]
    assert "Judge the last replies" in text
    graded = grading(talk("x"))
    assert graded.answers == GRADES and "last reply" in graded.messages[1]["content"]


def test_prompts_must_be_the_same_and_each_have_two_replies() -> None:
    a, b = file(["x", "y"]), file(["x", "y", "z"], "b")
    with pytest.raises(UsageError, match=r"a\.jsonl: has no reply to record q2, which b\.jsonl has"):
        shared_places([a, b])
    assert shared_places([a, b], partial=True) == [(0, 0), (1, 0)]
    other = dict(a.replies) | {(1, 0): Judged("q1", (Message(role="user", content="Another?"),), "y")}
    with pytest.raises(UsageError, match="different prompts in record q1"):
        shared_places([a, ReplyFile(Path("c.jsonl"), "c", other)])
    with pytest.raises(UsageError, match="no prompt in common"):
        shared_places([a, ReplyFile(Path("c.jsonl"), "c", {(7, 0): a.replies[0, 0]})], partial=True)


# -- grades --------------------------------------------------------------------------------------------------


def test_a_grade_is_an_expected_value() -> None:
    assert grade([math.log(0.1)] * 10)[0] == pytest.approx(5.5)
    assert grade([math.log(0.001)] * 9 + [math.log(0.5)])[0] > 9.5
    a, b = file(["long reply", "s"]), file(["x", "y"], "b")
    memory, places = Memory(), shared_places([a, b])
    judge = ScriptedJudge(lambda texts: [0.9 if number == len(texts[0]) else 0.01 for number in range(1, 11)])
    ask(judge, list(gradings({"a": a, "b": b}, places)), memory)
    found = grading_of(memory.done, "a", "a", a, places)
    low, high = (0.9 + 0.01 * 54) / 0.99, (9.0 + 0.01 * 45) / 0.99
    assert found.grade.value == pytest.approx((low + high) / 2) and found.replies == 2
    difference = grade_difference(memory.done, places)
    assert difference is not None and difference.value == pytest.approx((high - low) / 2)
    assert grade_difference(memory.done, []) is None


# -- invariants ----------------------------------------------------------------------------------------------

LOGPROBS = st.lists(st.floats(-30, 0), min_size=2, max_size=3)


@given(
    st.lists(
        st.tuples(*[st.lists(st.floats(-9, 0), min_size=3, max_size=3)] * 2, *[st.integers(0, 900)] * 2),
        max_size=6,
        min_size=1,
    )
)
@settings(max_examples=8, deadline=None)
def test_exchanging_a_and_b_mirrors_the_result(rows: list[tuple[list[float], list[float], int, int]]) -> None:
    pairs = [Compared(i, shown(ab), shown(ba), la, lb) for i, (ab, ba, la, lb) in enumerate(rows)]
    swapped = [Compared(pair.index, pair.ba, pair.ab, pair.length_b, pair.length_a) for pair in pairs]
    one, other = comparison_of(pairs), comparison_of(swapped)
    assert (one.wins_a, one.wins_b, one.ties, one.split) == (other.wins_b, other.wins_a, other.ties, other.split)
    for name in ("win_rate", "preference", "length_controlled"):
        first, second = getattr(one, name), getattr(other, name)
        assert isinstance(first, Estimate)
        assert first.value == pytest.approx(1 - second.value, abs=1e-6)
        turned = None if second.interval is None else (1 - second.interval[1], 1 - second.interval[0])
        assert first.interval == (None if turned is None else pytest.approx(turned, abs=1e-6))
    assert (one.agreement, one.first) == (other.agreement, other.first)
    assert one.lean.value == pytest.approx(other.lean.value)


@given(LOGPROBS)
def test_probabilities_are_normalised(logprobs: list[float]) -> None:
    probabilities, mass = normalised(logprobs)
    assert math.fsum(probabilities) == pytest.approx(1) and 0 <= mass <= 1
    assert mass == pytest.approx(min(1.0, math.fsum(map(math.exp, logprobs))))
    found = shown(logprobs)
    (*_, second, best) = sorted(logprobs)
    if best - second > 1e-9:
        assert found.winner == ("first", "second", "tie")[logprobs.index(best)]


def test_equal_probabilities_prefer_neither_reply() -> None:
    assert Shown(0.4, 0.4, 0.2, 1.0).winner == "tie" and Shown(0.5, 0.5, 0.0, 1.0).winner == "tie"


# -- length ---------------------------------------------------------------------------------------------------


def _penalised(theta: float, phi: float, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> float:
    """The objective written out once more, from its definition."""
    p = 1 / (1 + np.exp(-(theta + phi * x)))
    return float((y * np.log(p) + (1 - y) * np.log(1 - p)).sum() - RIDGE / 2 * (theta**2 + phi**2))


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.integers(-500, 500)), min_size=2, max_size=12))
@settings(max_examples=40, deadline=None)
def test_the_fit_is_the_maximum_of_the_likelihood(rows: list[tuple[float, int]]) -> None:
    y, design = np.array([row[0] for row in rows]), features([float(row[1]) for row in rows])
    theta, phi = fitted(design, y)
    best = _penalised(theta, phi, design[:, 1], y)
    for step, (along, across) in product((1e-3, 0.1, 1.0), product((-1, 0, 1), repeat=2)):
        assert _penalised(theta + along * step, phi + across * step, design[:, 1], y) <= best + 1e-9
    slopes = [
        (_penalised(theta + e, phi + f, design[:, 1], y) - _penalised(theta - e, phi - f, design[:, 1], y)) / 2e-5
        for e, f in ((1e-5, 0), (0, 1e-5))
    ]
    assert slopes == pytest.approx([0, 0], abs=1e-4)


def test_the_scale_is_the_root_mean_square_and_equal_lengths_change_nothing() -> None:
    assert features([3.0, -4.0])[:, 1].tolist() == pytest.approx([math.tanh(3 / 12.5**0.5), math.tanh(-4 / 12.5**0.5)])
    assert length_controlled([0.9, 0.4, 0.6], [0.0, 0.0, 0.0]) == pytest.approx(1.9 / 3, abs=3e-3)


def test_a_known_effect_of_length_is_removed() -> None:
    """Verdicts drawn with θ = 0.4 and φ = 2, where A is longer in most: the plain win rate is far too high."""
    draw = np.random.default_rng(5)
    lengths = draw.normal(300, 250, size=4000)
    chances = sigmoid(features(list(lengths)) @ np.array([0.4, 2.0]))
    verdicts = (draw.random(4000) < chances).astype(float)
    truth = 1 / (1 + math.exp(-0.4))
    assert verdicts.mean() > truth + 0.1
    assert length_controlled(list(verdicts), list(lengths)) == pytest.approx(truth, abs=0.03)


def test_one_side_that_always_wins_has_a_finite_fit() -> None:
    assert 0.99 < length_controlled([1.0] * 50, [float(number - 20) for number in range(50)]) < 1
    assert 0 < length_controlled([0.0], [100.0]) < 0.2
