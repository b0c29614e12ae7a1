"""Conversations: forks, answers anew, reading ahead, steering, one model in memory at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from exactness import PLAIN

import wsd_local as wsd
from wsd_local.errors import UsageError
from wsd_local.events import Notice, Switched, Text
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings, ReplySettings

FRANCE = "What is the capital of France?"
EGG = "How do I boil an egg?"
EXACT = LoadSettings(threads=1, flash_attn="off", cache_type_k="f32", cache_type_v="f32")
RESIDENCIES: tuple[Literal["both", "one"], ...] = ("both", "one")


@pytest.fixture
def pair(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    """The embedded pair in F32: the same tokens whatever is batched."""
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=PLAIN, loading=EXACT) as pair:
        yield pair


def fresh(pair: Pair, messages: Sequence[Mapping[str, Any]], **overrides: Any) -> str:
    """The reply of a pair that has never seen anything."""
    with Pair(draft=pair.models.paths["draft"], base=pair.models.paths["base"], loading=pair.models.loading) as other:
        return other.reply(messages, **overrides).text


def test_a_fork_answers_as_a_new_conversation_would(pair: Pair) -> None:
    chat = pair.session("Be kind.")
    chat.send(FRANCE)
    fork = chat.fork(3)
    assert fork.messages == chat.messages[:3]
    one, other = chat.send(EGG), fork.send("And what language do they speak there?")
    assert one.text == fresh(pair, chat.messages[:-1]) and other.text == fresh(pair, fork.messages[:-1])
    assert chat.messages[:3] == fork.messages[:3] and chat.messages[3:] != fork.messages[3:]


def test_what_forks_share_is_not_evaluated_again(pair: Pair) -> None:
    chat = pair.session()
    first = chat.send(FRANCE)
    chat.send(EGG)
    other = chat.fork(2).send("How do I tie a knot?")
    shared = first.timings.base_prompt_tokens + len(first.tokens)
    new = other.timings.base_prompt_tokens - shared
    assert new > 0
    checked = other.counts.checked_tokens + other.base.tokens
    assert other.timings.base_evaluated_tokens <= new + checked + 8


def test_answering_anew(pair: Pair) -> None:
    chat = pair.session()
    first = chat.send(FRANCE)
    for _ in chat.stream_regenerate():
        pass
    assert len(chat.messages) == 2 and chat.messages[-1]["content"] == first.text
    texts = set()
    for seed in range(6):
        for _ in chat.stream_regenerate(temperature=1.5, draft_temperature=1.5, seed=seed):
            pass
        texts.add(chat.messages[-1]["content"])
    assert len(texts) > 1
    with pytest.raises(UsageError):
        next(pair.session().stream_regenerate())


def test_reading_ahead_changes_time_only(pair: Pair) -> None:
    chat, slow = pair.session("Be kind."), pair.session("Be kind.")
    chat.send(FRANCE)
    before = {role: pair.models.context(role).evaluated for role in ("draft", "base")}
    assert chat.prepare()
    read = {role: pair.models.context(role).evaluated - before[role] for role in ("draft", "base")}
    assert read["draft"] > 0, "the draft has not seen what the base wrote"
    with_ahead = chat.send(EGG)
    slow.send(FRANCE)
    without = slow.send(EGG)
    assert with_ahead.text == without.text == fresh(pair, chat.messages[:-1])
    assert with_ahead.timings.draft_evaluated_tokens + read["draft"] <= without.timings.draft_evaluated_tokens + 8
    assert with_ahead.timings.draft_evaluated_tokens < without.timings.draft_evaluated_tokens


def test_reading_ahead_stops_when_somebody_asks(pair: Pair) -> None:
    chat = pair.session()
    assert chat.prepare(), "there is nothing to read"
    chat.send(FRANCE)
    before = pair.models.context("draft").evaluated
    assert not chat.prepare(lambda: True)
    assert pair.models.context("draft").evaluated == before
    assert chat.send(EGG).text == fresh(pair, chat.messages[:-1])


def test_reading_ahead_can_be_cancelled_inside_an_evaluation(pair: Pair) -> None:
    chat = pair.session()
    chat.send(FRANCE)

    def stopped() -> bool:
        pair.cancel()
        return False

    assert not chat.prepare(stopped)
    assert chat.send(EGG).text == fresh(pair, chat.messages[:-1])


def test_handing_over_in_the_middle(pair: Pair) -> None:
    run, texts = pair.start(EGG, threshold=2.0), []
    for event in run.events():
        if isinstance(event, Text):
            texts.append(event)
            if event.source == "draft" and len(texts) == 3:
                run.hand_over()
    reply = run.reply
    assert (reply.switch.reason, reply.switch.index) == ("user", None)
    assert 3 <= reply.draft.tokens < 12 and reply.base.tokens > 0
    kept = reply.draft.text
    assert reply.text == kept + fresh_continuation(pair, EGG, reply.draft.tokens)


def fresh_continuation(pair: Pair, prompt: str, kept: int) -> str:
    """What the base writes after that many tokens of the draft."""
    reply = pair.reply(prompt, mode=f"fixed:{kept}")
    return reply.text[len(reply.draft.text) :]


def test_another_threshold_in_the_middle(pair: Pair) -> None:
    run = pair.start(FRANCE)
    run.steer(2.0)
    for _ in run.events():
        pass
    assert run.reply.switch.reason == "draft_end" and run.reply.switch.threshold == 2.0
    assert run.reply.text == pair.reply(FRANCE, threshold=2.0).text
    with pytest.raises(UsageError):
        run.steer(-1.0)
    run, switched = pair.start(FRANCE, threshold=2.0, check_chunk=1), []
    for event in run.events():
        if isinstance(event, Text) and event.source == "draft":
            run.steer(0.0)
        if isinstance(event, Switched):
            switched.append(event)
    assert switched[0].reason == "threshold" and run.reply.switch.threshold == 0.0


def test_steering_from_another_thread(pair: Pair) -> None:
    run = pair.start(EGG, threshold=2.0)
    seen = threading.Event()

    def steer() -> None:
        seen.wait()
        run.hand_over()

    thread = threading.Thread(target=steer)
    thread.start()
    for event in run.events():
        if isinstance(event, Text) and not seen.is_set():
            seen.set()
            thread.join()
    assert run.reply.switch.reason == "user"


@pytest.mark.parametrize("mode", ["wsd", "base", "draft", "fixed:5"])
def test_one_model_at_a_time_gives_the_same_replies(demo_f32: tuple[Path, Path], mode: str) -> None:
    replies, confidences = {}, {}
    for resident in RESIDENCIES:
        loading = replace(EXACT, resident=resident)
        with Pair(draft=demo_f32[0], base=demo_f32[1], reply=ReplySettings(mode=mode), loading=loading) as pair:
            chat = pair.session("Be kind.")
            found = [chat.send(FRANCE), chat.send(EGG)]
            assert resident == "both" or len(pair.models.loaded) == 1
            replies[resident] = [
                (one.text, one.switch.reason, one.switch.index, one.draft.tokens, one.base, one.finish_reason)
                for one in found
            ]
            confidences[resident] = [one.switch.confidence for one in found]
    assert replies["one"] == replies["both"]
    assert confidences["one"] == pytest.approx(confidences["both"], abs=1e-5)


def test_one_at_a_time_can_be_stopped_and_gone_on_with(demo_f32: tuple[Path, Path]) -> None:
    loading = replace(EXACT, resident="one")
    with Pair(draft=demo_f32[0], base=demo_f32[1], loading=loading) as pair:
        whole = pair.reply(EGG).text
        chat = pair.session()
        for event in chat.stream(EGG):
            if isinstance(event, Text):
                pair.cancel()
        assert chat.messages[-1]["content"] != whole
        while chat.messages[-1]["content"] != whole:
            for _ in chat.stream_resume():
                pass
        assert not chat.prepare() or pair.models.loading.resident == "one"


def test_a_plan_for_one_at_a_time(demo_q8: tuple[Path, Path]) -> None:
    with wsd.load("demo", threads=1, resident="one") as pair:
        assert pair.models.plan is not None and not pair.models.plan.together
        taken = [placement.bytes_on("memory") for placement in pair.models.plan.placements.values()]
        assert pair.models.plan.used("memory") == max(taken) < sum(taken)
        assert pair.reply(FRANCE).text == wsd.load("demo", threads=1).reply(FRANCE).text


def test_the_embedded_pair_says_once_that_it_is_for_single_questions(
    demo_q8: tuple[Path, Path], tmp_path: Path
) -> None:
    def hints(pair: Pair) -> list[int]:
        with pair.session() as chat:
            return [
                turn
                for turn in range(1, 9)
                for event in chat.stream("Thank you!", max_tokens=8)
                if isinstance(event, Notice) and "single questions" in event.message
            ]

    with wsd.load("demo", threads=1) as pair:
        assert hints(pair) == [5]
    draft, base = (tmp_path / path.name for path in demo_q8)
    for path, own in zip(demo_q8, (draft, base), strict=True):
        own.symlink_to(path)
    with wsd.load(draft=draft, base=base, threads=1) as pair:
        assert hints(pair) == []
