"""A base on a server of our own: the reply is the one of the same base on this machine, token by token.

F32 weights and caches, flash attention off, as wherever equality is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from data_sets import alpaca_instructions
from exactness import EXACT, PLAIN
from same_replies import facts

import wsd_local
from wsd_local.errors import UsageError
from wsd_local.library.gguf import read_header
from wsd_local.library.vocabulary_file import fingerprint
from wsd_local.paths import demo_dir
from wsd_local.remote.address import Address
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.pair import Pair

WAYS: list[dict[str, Any]] = [
    {},
    {"window": 3, "threshold": 0.5},
    {"threshold": 2.0, "draft_max_tokens": 12},
    {"max_tokens": 5},
    {"mode": "base"},
    {"mode": "fixed:4"},
    {"stop": ("water",)},
    {"temperature": 0.8, "seed": 7, "top_k": 20},
    {"temperature": 0.9, "seed": 3, "repeat_penalty": 1.3, "frequency_penalty": 0.2},
    {"ignore_eos": True, "max_tokens": 70},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_way(here: Pair, there: Pair, way: Mapping[str, Any]) -> None:
    question = "How do I boil an egg?"
    assert facts(there.reply(question, **way)) == facts(here.reply(question, **way))


def test_scores_are_those_of_the_base(here: Pair, there: Pair) -> None:
    wanted, found = (pair.reply("What is a fox?", probabilities=True, max_tokens=40) for pair in (here, there))
    assert found.switch.confidence == pytest.approx(wanted.switch.confidence, abs=1e-4)
    probs = [[token.prob for token in reply.tokens] for reply in (wanted, found)]
    assert None not in probs[1]
    assert probs[1] == pytest.approx(probs[0], abs=1e-4)


def test_a_conversation_goes_on(here: Pair, there: Pair) -> None:
    sessions = [pair.session("You are helpful.") for pair in (here, there)]
    for question in ("How do I boil an egg?", "And a carrot?"):
        wanted, found = (session.send(question) for session in sessions)
        assert facts(found) == facts(wanted)


def test_an_answer_that_was_begun_is_continued(here: Pair, there: Pair) -> None:
    messages = [{"role": "user", "content": "How do I boil an egg?"}, {"role": "assistant", "content": "Thanks for"}]
    assert facts(there.reply(messages)) == facts(here.reply(messages))


def test_a_stopped_reply_goes_on(here: Pair, there: Pair) -> None:
    run = there.start("How do I boil an egg?")
    for _event in run.events():
        if len(run.reply.tokens) >= 12:
            run.cancel()
    assert run.reply.finish_reason == "cancelled"
    assert run.reply.base.tokens > 0
    for _ in run.events():
        pass
    assert facts(run.reply) == facts(here.reply("How do I boil an egg?"))


def test_many_at_once(here: Pair, demo_f32: tuple[Path, Path], base_server: str) -> None:
    questions = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][:6]
    loading = replace(EXACT, parallel=3)
    with Pair(draft=demo_f32[0], base=Address(base_server), reply=PLAIN, loading=loading) as there:
        found = dict(there.replies(questions, max_tokens=40))
    assert [facts(found[i]) for i in range(6)] == [facts(here.reply(one, max_tokens=40)) for one in questions]


def test_what_identifies_the_base_is_reported(there: Pair, base_server: str) -> None:
    provenance = there.reply("Hi", max_tokens=4).provenance
    assert provenance["base_sha256"] is None
    server = provenance["base_server"]
    assert (server["url"], server["model"], server["kind"]) == (base_server, "demo:base", "wsd-local serve")
    assert len(server["vocabulary"]) == 64


@pytest.mark.parametrize(
    "settings",
    [{"rule": "nudging"}, {"rule": "veto"}, {"rule": "entropy"}, {"rule": "return"}, {"regex": "[a-z]+"}],
    ids=str,
)
def test_what_needs_more_of_the_base_is_refused(there: Pair, settings: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError, match="log-probabilities of given tokens alone"):
        there.reply("Hi", **settings)


def test_measures_that_need_the_base_here_are_refused(there: Pair) -> None:
    with pytest.raises(UsageError, match="needs the base on this machine"):
        there.models.context("base")


def test_by_name_and_by_configuration(
    here: Pair, base_server: str, demo_f32: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[pairs.far]\ndraft = "{demo_f32[0]}"\nbase = "{base_server}/v1/"\nbase_model = "demo"\n')
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(config))
    exact = {name: value for name, value in asdict(EXACT).items() if not name.startswith("base_")}
    with wsd_local.load("far", loop_guard="off", **exact) as pair:
        assert facts(pair.reply("How do I boil an egg?")) == facts(here.reply("How do I boil an egg?"))


def test_a_model_that_is_not_served(demo_f32: tuple[Path, Path], base_server: str) -> None:
    with pytest.raises(UsageError, match=r"serves no model 'deno'; known are demo:base"):
        wsd_local.load(draft=demo_f32[0], base=base_server, base_model="deno")


@pytest.mark.parametrize("name", ["base_model", "base_api_key_env", "base_vocab"])
def test_settings_of_a_server_need_one(demo_f32: tuple[Path, Path], name: str) -> None:
    with pytest.raises(UsageError, match="goes with --base http"):
        wsd_local.load(draft=demo_f32[0], base=demo_f32[1], **dict[str, Any]({name: "x"}))


def test_another_vocabulary_is_refused(demo_f32: tuple[Path, Path], base_server: str) -> None:
    with pytest.raises(UsageError, match=r"divides .* otherwise"):
        wsd_local.load(draft=demo_f32[0], base=base_server, base_vocab=str(demo_f32[0]))


def test_the_vocabulary_alone_is_offered(base_server: str, tmp_path: Path) -> None:
    file = tmp_path / "v.gguf"
    file.write_bytes(httpx.get(f"{base_server}/v1/vocabulary?model=demo:base").content)
    header = read_header(file)
    assert header.tensors == ()
    assert fingerprint(header) == fingerprint(read_header(demo_dir() / "base-q8_0.gguf"))


@pytest.mark.slow
def test_the_decision_is_the_local_one(here: Pair, there: Pair) -> None:
    """200 replies, as many prompts."""
    questions = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")]
    prompts = [*questions, *([{"role": "user", "content": text}] for text in alpaca_instructions(200))][:200]
    settings = {"draft_max_tokens": 48, "max_tokens": 56}
    different = [
        messages[-1]["content"]
        for messages in prompts
        if facts(there.reply(messages, **settings)) != facts(here.reply(messages, **settings))
    ]
    assert len(prompts) == 200
    assert different == []
