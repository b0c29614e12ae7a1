"""`wsd-local eval demo`: what it says is recounted here from replies and log-probabilities of one's own."""

from __future__ import annotations

import json
import math
import re
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import wsd
from exactness import exact_oracle, exact_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import PageReader

from wsd_local.cli import evaluate as evaluate_command
from wsd_local.errors import UsageError
from wsd_local.prompts.messages import conversation
from wsd_local.reports.demo import Verdict, judge
from wsd_local.reports.evaluation import (
    BASE,
    DRAFT,
    PREFIXES,
    SWEEP_QUESTIONS,
    THRESHOLDS,
    WAYS,
    WINDOWS,
    WSD,
    DemoResults,
    JudgedReply,
    measure,
    questions,
    row,
    steps,
    stride,
)
from wsd_local.reports.evaluation_page import demo_page, demo_tables
from wsd_local.reports.perplexity import perplexity, reply_logprobs
from wsd_local.runtime.pair import load

ASKED = 3


@pytest.fixture(scope="module")
def measured() -> tuple[DemoResults, list[str]]:
    """Some questions measured, and the steps reported on the way."""
    told: list[str] = []
    with load("demo", threads=1) as pair:
        return measure(pair, questions(limit=ASKED), told.append), told


# -- what is measured ----------------------------------------------------------------------------------------


def test_every_row_is_what_its_replies_give(measured: tuple[DemoResults, list[str]]) -> None:
    results, _ = measured
    asked = questions(limit=ASKED)
    ways = {found.way: found for found in (*results.ways, *results.thresholds, *results.windows)}
    wanted: dict[str, dict[str, Any]] = {
        BASE: {"mode": "base"},
        DRAFT: {"mode": "draft"},
        WSD: {},
        "fixed:3": {"mode": "fixed:3"},
        "WSD, threshold 0.95": {"threshold": 0.95},
        "WSD, window 12": {"window": 12},
    }
    with load("demo", threads=1) as pair:
        for way, changes in wanted.items():
            replies = [pair.reply(question.messages, max_tokens=256, **changes) for question in asked]
            verdicts = [judge(question, reply.text) for question, reply in zip(asked, replies, strict=True)]
            places = [reply.switch.index for reply in replies if reply.switch.index is not None]
            found = ways[way]
            assert found.questions == ASKED
            assert found.well == sum(verdict.well for verdict in verdicts) / ASKED
            assert found.right == sum(verdict.right for verdict in verdicts) / ASKED
            assert found.mean_switch == (sum(places) / len(places) if places else None)
            assert dict(found.switches) == Counter(places)
            assert found.without_switch == ASKED - len(places)
            assert found.mean_kept == pytest.approx(sum(reply.draft.tokens for reply in replies) / ASKED)
            assert found.mean_drafted == pytest.approx(sum(reply.draft.drafted_tokens for reply in replies) / ASKED)
            assert found.mean_tokens == pytest.approx(sum(len(reply.tokens) for reply in replies) / ASKED)
            assert found.mean_s > 0 and found.median_s > 0
            assert (found.window, found.threshold) == (
                (None, None) if "mode" in changes else (changes.get("window", 6), changes.get("threshold", 0.8))
            )


def test_all_ways_and_points_are_there_and_every_step_is_reported(measured: tuple[DemoResults, list[str]]) -> None:
    results, told = measured
    assert [found.way for found in results.ways] == list(WAYS)
    assert [found.threshold for found in results.thresholds] == list(THRESHOLDS)
    assert [found.window for found in results.windows] == list(WINDOWS)
    assert [found.prefix_tokens for found in results.perplexity] == list(PREFIXES)[: len(results.perplexity)]
    assert len(told) == steps(ASKED)
    assert set(told) == {
        *WAYS,
        *(f"WSD, threshold {point:g}" for point in THRESHOLDS),
        *(f"WSD, window {point}" for point in WINDOWS if point != 6),
        "perplexity",
    }


def test_the_default_point_of_both_sweeps_is_the_same_measurement(measured: tuple[DemoResults, list[str]]) -> None:
    results, _ = measured
    wsd_row = next(found for found in results.ways if found.way == WSD)
    by_threshold = next(found for found in results.thresholds if found.threshold == 0.8)
    by_window = next(found for found in results.windows if found.window == 6)
    assert by_threshold == wsd_row
    assert replace(by_window, way=WSD) == wsd_row


@settings(deadline=None)
@given(st.integers(1, 5000))
def test_sweeps_ask_all_questions_or_a_share_of_them_spread_evenly(count: int) -> None:
    swept = range(0, count, stride(count))
    assert len(swept) == count if count <= SWEEP_QUESTIONS else SWEEP_QUESTIONS / 2 <= len(swept) <= SWEEP_QUESTIONS
    assert steps(count) == count * (len(WAYS) + 1) + len(swept) * (len(THRESHOLDS) + len(WINDOWS) - 2)


ANSWERS = st.lists(
    st.builds(
        JudgedReply,
        text=st.just(""),
        verdict=st.builds(Verdict, well=st.booleans(), right=st.booleans()),
        index=st.none() | st.integers(0, 300),
        kept=st.integers(0, 300),
        drafted=st.integers(0, 300),
        tokens=st.integers(0, 300),
        seconds=st.floats(0, 100),
    ),
    min_size=1,
)


@settings(deadline=None)
@given(ANSWERS, st.randoms())
def test_a_row_counts_every_answer_once_in_whatever_order(answers: list[JudgedReply], chance: Any) -> None:
    found = row("way", answers)
    assert sum(count for _, count in found.switches) + found.without_switch == len(answers) == found.questions
    well = sum(answer.verdict.well for answer in answers)
    both = sum(answer.verdict.well and answer.verdict.right for answer in answers)
    assert round(found.well * len(answers), 6) == well
    assert found.right_of_well == (pytest.approx(both / well) if well else None)
    if found.mean_switch is not None:
        places = [answer.index for answer in answers if answer.index is not None]
        assert found.mean_switch * len(places) == pytest.approx(sum(places))
        assert found.median_switch == statistics.median(places)
    shuffled = answers[:]
    chance.shuffle(shuffled)
    again = row("way", shuffled)
    assert replace(again, mean_s=0) == replace(found, mean_s=0)
    assert again.mean_s == pytest.approx(found.mean_s)


def test_no_answers_are_no_row() -> None:
    with pytest.raises(ValueError, match="no answers"):
        row("way", [])


# -- perplexity ----------------------------------------------------------------------------------------------

LOGPROBS = st.lists(st.lists(st.floats(-30, 0), max_size=12), max_size=8)


@settings(deadline=None)
@given(LOGPROBS, st.integers(0, 13), st.randoms())
def test_perplexity_is_pooled_over_the_tokens_after_the_prefix(
    replies: list[list[float]], prefix: int, chance: Any
) -> None:
    found = perplexity(replies, prefix)
    rest = [logprob for reply in replies for place, logprob in enumerate(reply) if place >= prefix]
    first = [reply[prefix] for reply in replies if len(reply) > prefix]
    if not rest:
        assert found is None
        return
    assert found is not None
    assert (found.tokens, found.replies) == (len(rest), len(first))
    assert found.rest == pytest.approx(math.exp(-sum(rest) / len(rest)))
    assert found.next == pytest.approx(math.exp(-sum(first) / len(first)))
    assert found.rest >= 1 - 1e-9
    shuffled = replies[:]
    chance.shuffle(shuffled)
    assert perplexity(shuffled, prefix) == found


@settings(deadline=None)
@given(LOGPROBS)
def test_the_whole_reply_is_its_first_tokens_and_the_rest(replies: list[list[float]]) -> None:
    whole, rest = perplexity(replies, 0), perplexity(replies, 1)
    if whole is None:
        return
    apart = whole.replies * math.log(whole.next) + (rest.tokens * math.log(rest.rest) if rest else 0)
    assert whole.tokens * math.log(whole.rest) == pytest.approx(apart, abs=1e-6)


def test_log_probabilities_of_a_reply_are_the_base_s_own(demo_f32: tuple[Path, Path]) -> None:
    asked = questions(limit=2)
    oracle = exact_oracle(demo_f32)
    with exact_pair(demo_f32) as pair:
        for question in asked:
            text = pair.reply(question.messages, mode="draft").text
            found = reply_logprobs(pair, conversation(question.messages), f" {text} ")
            prompt = f"\n\n[User]\n{question.question}\n\n[Assistant]\n"
            tokens = [*oracle.base_model.bos, *oracle.base_model.plain(prompt + text)]
            start = len(oracle.base_model.bos) + len(oracle.base_model.plain(prompt))
            rows = oracle.base_model.rows(tokens).astype(np.float64)
            logs = rows - np.log(np.exp(rows).sum(1, keepdims=True))
            wanted = [logs[place - 1, tokens[place]] for place in range(start, len(tokens))]
            assert len(found) > 10
            assert found == pytest.approx(wanted, abs=1e-3)
            assert reply_logprobs(pair, conversation(question.messages), "  ") == []
    oracle.close()


def test_perplexities_are_those_of_the_replies(measured: tuple[DemoResults, list[str]]) -> None:
    results, _ = measured
    asked = questions(limit=ASKED)
    right: list[list[float]] = []
    wrong: list[list[float]] = []
    own: list[list[float]] = []
    with load("demo", threads=1) as pair:
        for question in asked:
            messages = conversation(question.messages)
            text = pair.reply(question.messages, max_tokens=256, mode="draft").text
            (right if judge(question, text).right else wrong).append(reply_logprobs(pair, messages, text))
            text = pair.reply(question.messages, max_tokens=256, mode="base").text
            own.append(reply_logprobs(pair, messages, text))
    for k in (0, 1, 5):
        found = results.perplexity[k]
        for mine, theirs in (
            (perplexity(right + wrong, k), found.aligned),
            (perplexity(right, k), found.aligned_right),
            (perplexity(wrong, k), found.aligned_wrong),
            (perplexity(own, k), found.own),
        ):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                assert (mine.replies, mine.tokens) == (theirs.replies, theirs.tokens)
                assert (mine.rest, mine.next) == pytest.approx((theirs.rest, theirs.next), rel=0.05)


def test_a_reply_well_begun_is_easy_to_go_on_with(measured: tuple[DemoResults, list[str]]) -> None:
    nothing, one = measured[0].perplexity[:2]
    assert nothing.aligned is not None and one.aligned is not None and nothing.own is not None
    assert nothing.aligned.next > 3 * one.aligned.next
    assert nothing.aligned.next > nothing.own.next


# -- what is shown -------------------------------------------------------------------------------------------


def as_if_many(results: DemoResults) -> DemoResults:
    """The widest figures that can be expected."""
    wide = [
        tuple(
            replace(found, questions=420, well=1.0, right=1.0, right_of_well=1.0, mean_switch=123.4, mean_kept=123.4)
            for found in rows
        )
        for rows in (results.ways, results.thresholds, results.windows)
    ]
    return replace(results, ways=wide[0], thresholds=wide[1], windows=wide[2])


def test_the_tables_fit_into_80_columns(
    measured: tuple[DemoResults, list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for results in (measured[0], as_if_many(measured[0])):
        evaluate_command.show(demo_tables(results))
        shown = capsys.readouterr().out
        lines = [line.rstrip() for line in shown.splitlines() if not line.startswith("Well begun")]
        assert max(map(len, lines)) <= 80
        assert "…" not in shown
        for way in WAYS:
            assert any(line.startswith(way) for line in lines)


def test_the_page_shows_every_chart_and_loads_nothing(measured: tuple[DemoResults, list[str]]) -> None:
    text = demo_page(measured[0])
    page = PageReader(text)
    assert page.headings == [
        "Answered well, and right",
        "Where the base takes over",
        "Who writes the reply",
        "Well begun is half done: the next token",
        "Well begun is half done: the whole rest",
        "Time for a reply",
        "The threshold: answered well, and right",
        "The threshold: how much of the draft is kept",
        "The window: answered well, and right",
        "The window: how much of the draft is kept",
    ]
    assert page.tags.count("svg") == page.tags.count("table") == len(page.headings)
    assert {*WAYS, "well", "right", "draft", "base"} <= set(page.drawn)
    for table in demo_tables(measured[0])[:3]:
        for cells in table.rows:
            assert {cell for cell in cells if cell} <= set(page.cells)
    assert demo_page(measured[0]) == text


def test_a_page_without_any_switch_can_be_drawn(measured: tuple[DemoResults, list[str]]) -> None:
    results = measured[0]
    never = tuple(
        replace(found, switches=(), mean_switch=None, median_switch=None, without_switch=ASKED, mean_kept=0.0)
        for found in results.ways
    )
    empty = replace(results, ways=never, thresholds=never[:7], windows=never[:6], perplexity=results.perplexity[:1])
    empty = replace(
        empty,
        thresholds=tuple(replace(found, threshold=point) for found, point in zip(never, THRESHOLDS, strict=True)),
        windows=tuple(replace(found, window=point) for found, point in zip(never[:6], WINDOWS, strict=True)),
    )
    assert "Where the base takes over" not in PageReader(demo_page(empty)).headings


def test_the_command_prints_json_writes_the_page_and_counts_to_the_end(tmp_path: Path) -> None:
    page = tmp_path / "a folder" / "demo.html"
    page.parent.mkdir()
    done = wsd("eval", "demo", "--limit", "2", "--json", "--html", str(page))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"ways", "thresholds", "windows", "perplexity"}
    old = "way questions well right right_of_well median_switch mean_kept without_switch mean_tokens mean_s"
    assert all(set(old.split()) <= set(line) for name in ("ways", "thresholds", "windows") for line in found[name])
    assert [line["way"] for line in found["ways"]] == list(WAYS)
    assert all(line["questions"] == 2 for line in found["ways"])
    assert found["perplexity"][0]["aligned"]["replies"] == 2
    assert b"100%" in done.stderr and str(page).encode() in done.stderr.replace(b"\n", b"")
    assert len(PageReader(page.read_text(encoding="utf-8")).labels) == 10
    assert [path.name for path in page.parent.iterdir()] == ["demo.html"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--limit", "0"], ["limit is 0"]),
        (["--threads", "0"], ["threads is 0"]),
        (["--questions", "absent.jsonl"], ["absent.jsonl", "cannot be read"]),
        (["--html", "."], ["is a folder"]),
    ],
)
def test_what_cannot_be_meant_is_said_in_one_line(arguments: list[str], words: list[str]) -> None:
    done = wsd("eval", "demo", *arguments)
    assert done.returncode == 2
    assert done.stdout == b""
    lines = done.stderr.decode().strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words)


def test_a_questions_file_without_questions_to_measure_is_said(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"forms": {"openings": [], "closings": [], "values": {}}}\n', encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(str(path))):
        questions(path)
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1"):
        questions(path)
