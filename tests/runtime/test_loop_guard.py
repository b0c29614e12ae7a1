"""The loop guard with the embedded pair: nothing changes without a loop, and what a loop ends says so everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_sets import fixture_prompts
from exactness import exact_pair

import wsd_local as wsd
from wsd_local.cli.output import summary
from wsd_local.events import Text
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.settings import ReplySettings

QUESTION = "What is the capital of France?"
REPEATS: dict[str, Any] = {"regex": "Oh, (la Femme, ){30}", "max_tokens": 400}


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[wsd.Pair]:
    with exact_pair(demo_f32) as pair:
        yield pair


@pytest.mark.slow
def test_replies_without_a_loop_are_the_same_token_by_token(pair: wsd.Pair) -> None:
    questions = [question.messages[-1]["content"] for question in load_questions(demo_dir() / "questions.jsonl")][::12]
    asked = questions + [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]
    assert asked
    for prompt in asked:
        on, off = (pair.reply(prompt, max_tokens=80, loop_guard=guard) for guard in ("on", "off"))
        assert (on.tokens, on.switch, on.finish_reason) == (off.tokens, off.switch, off.finish_reason)
        assert "loop" not in (on.switch.reason, on.finish_reason)


@pytest.mark.parametrize("chunk", [1, 8, 512])
def test_a_draft_that_loops_hands_over_and_a_reply_that_loops_ends(pair: wsd.Pair, chunk: int) -> None:
    run = pair.start(QUESTION, loop_guard="on", check_chunk=chunk, **REPEATS)
    shown = "".join(event.text for event in run.events() if isinstance(event, Text))
    reply = run.reply
    assert shown == reply.text == "Oh, la Femme, la Femme,"
    assert (reply.switch.reason, reply.switch.index, reply.finish_reason, reply.stop) == ("loop", None, "loop", None)
    assert reply.draft.text == "Oh, la Femme,"
    assert reply.constraint is not None and not reply.constraint.complete
    assert "switch: loop" in summary(reply) and summary(reply).endswith(", loop")
    assert reply.as_dict()["switch"]["reason"] == reply.as_dict()["finish_reason"] == "loop"


@pytest.mark.parametrize("mode", ["base", "draft"])
def test_one_model_alone_ends_in_a_loop_too(pair: wsd.Pair, mode: str) -> None:
    alone = pair.reply(QUESTION, mode=mode, loop_guard="on", **REPEATS)
    assert (alone.text, alone.switch.reason, alone.finish_reason) == ("Oh, la Femme, la Femme,", "none", "loop")


def test_where_the_guard_is_off_a_loop_goes_on_to_its_end(pair: wsd.Pair) -> None:
    reply = pair.reply(QUESTION, loop_guard="off", **REPEATS)
    assert reply.text == "Oh, " + "la Femme, " * 30
    assert reply.finish_reason == "stop"


def test_a_supplied_beginning_is_no_part_of_a_loop(pair: wsd.Pair) -> None:
    begun = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Oh, " + "la Femme, " * 9}]
    reply = pair.reply(begun, loop_guard="on", regex="Oh, (la Femme, ){11}")
    assert (reply.text, reply.finish_reason) == ("la Femme, " * 2, "stop")


def test_it_is_on_unless_a_reply_must_have_its_whole_length() -> None:
    for settings, loops in [
        (ReplySettings(), True),
        (ReplySettings(ignore_eos=True), False),
        (ReplySettings(ignore_eos=True, loop_guard="on"), True),
        (ReplySettings(loop_guard="off"), False),
    ]:
        assert settings.limits(99, ()).loops is loops


def test_many_at_once_are_as_each_alone(demo_f32: tuple[Path, Path]) -> None:
    from dataclasses import replace

    from exactness import EXACT, PLAIN

    from wsd_local.runtime.fleet import Fleet
    from wsd_local.runtime.reply import Finished

    reply = replace(PLAIN, loop_guard="on", **REPEATS)
    with wsd.Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=replace(EXACT, parallel=3)) as pair:
        fleet: Fleet[int] = Fleet(pair)
        for number in range(4):
            fleet.add(number, [{"role": "user", "content": QUESTION}])
        done = {key: event.reply for key, event in fleet.events() if isinstance(event, Finished)}
    assert {(one.text, one.switch.reason, one.finish_reason) for one in done.values()} == {
        ("Oh, la Femme, la Femme,", "loop", "loop")
    }
    assert len(done) == 4
