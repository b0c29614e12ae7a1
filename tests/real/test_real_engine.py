"""Real models in every way of using them: sessions beyond the sliding window, many at once, proposals, stops."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from exactness import PLAIN
from real_conversations import QUESTIONS, conversations, long_text
from real_models import EXACT, Files

from wsd_local.core.decoding import Phase
from wsd_local.events import Switched, Text
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.settings import LoadSettings, changed

pytestmark = pytest.mark.real

SHORT: dict[str, Any] = {"draft_max_tokens": 32, "max_tokens": 40}
SLIDING = 512
"""Tokens that gemma-3's local layers see."""


def told(reply: Reply) -> tuple[Any, ...]:
    """What must be equal of two replies."""
    return (
        reply.text,
        reply.switch.index,
        reply.switch.reason,
        [token.id for token in reply.tokens],
        reply.finish_reason,
    )


# -- the sliding window -------------------------------------------------------------------------------------------


def test_turns_beyond_the_sliding_window_are_what_a_fresh_reply_is(exact: Pair, f32: Files) -> None:
    texts = [f"{long_text(30, 0)} What is this about?", "Who paid?", "What came first?"]
    with exact.session() as chat:
        replies = [chat.send(text, **SHORT) for text in texts]
        assert replies[-1].timings.base_prompt_tokens > SLIDING
        branch = chat.fork(4)
        other = branch.send("How old is the town?", **SHORT)
        again = chat.regenerate(**SHORT)
        messages = list(chat.messages)
    with Pair(draft=f32[0], base=f32[1], reply=PLAIN, loading=EXACT) as fresh:
        assert told(fresh.reply(messages[:5], **SHORT)) == told(replies[2]) == told(again)
        forked = [*messages[:4], {"role": "user", "content": "How old is the town?"}]
        assert told(fresh.reply(forked, **SHORT)) == told(other)


def test_tokens_taken_back_beyond_the_sliding_window(exact: Pair) -> None:
    question = f"{long_text(40, 7)} What is this about?"
    never = exact.reply(question, **SHORT, threshold=2.0)
    assert never.counts.checked_tokens > 0
    first = exact.reply(question, **SHORT, threshold=0.3, window=3)
    exact.reply("Something else entirely.", **SHORT)
    assert told(exact.reply(question, **SHORT, threshold=0.3, window=3)) == told(first)


# -- many, and proposals ------------------------------------------------------------------------------------------


def test_many_at_once_are_what_each_is_alone(exact: Pair, f32: Files) -> None:
    loading = changed(EXACT, {"parallel": 6, "ctx": 512})
    with Pair(draft=f32[0], base=f32[1], reply=exact.settings, loading=loading) as pair:
        together = dict(pair.replies(QUESTIONS[:8], **SHORT))
    for number, question in enumerate(QUESTIONS[:8]):
        assert told(together[number]) == told(exact.reply(question, **SHORT)), question


def test_proposals_change_nothing(exact: Pair) -> None:
    for question in QUESTIONS[8:13]:
        without = exact.reply(question, **SHORT)
        for way in ("auto", "draft", "lookup"):
            assert told(exact.reply(question, **SHORT, speculation=way)) == told(without), (question, way)


# -- stops --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["draft", "switch", "continue"])
def test_a_reply_stopped_in_any_phase_goes_on(exact: Pair, phase: str) -> None:
    question, settings = QUESTIONS[6], {**SHORT, "threshold": 0.3, "window": 3}
    whole = exact.reply(question, **settings)
    assert whole.switch.reason == "threshold" and len(whole.base.text) > 20
    with exact.session() as chat:
        for event in chat.stream(question, **settings):
            drafting = isinstance(event, Text) and event.source == "draft"
            continuing = isinstance(event, Text) and event.source == "base"
            if {"draft": drafting, "switch": isinstance(event, Switched), "continue": continuing}[phase]:
                exact.cancel()
        assert chat.run is not None
        stopped = chat.run.reply
        assert stopped.finish_reason == "cancelled"
        assert chat.run.machine.phase in (Phase.DRAFT, Phase.CONTINUE, Phase.DONE)
        assert whole.text.startswith(stopped.text)
        assert chat.resume().text == whole.text


@pytest.mark.parametrize("source", ["draft", "base"])
def test_stop_strings(exact: Pair, source: str) -> None:
    settings: dict[str, Any] = {**SHORT, "threshold": 0.3, "window": 3}
    whole = exact.reply(QUESTIONS[4], **settings)
    drafted = whole.draft.text + whole.discarded
    words = (token.text for token in whole.tokens if token.source == source and len(token.text.strip()) > 3)
    word = next(word for word in words if source == "draft" or word not in drafted)
    cut = exact.reply(QUESTIONS[4], **settings, stop=word)
    assert cut.finish_reason == "stop"
    assert cut.text == whole.text[: whole.text.index(word)].rstrip() or cut.text == whole.text[: whole.text.index(word)]


def test_a_json_schema_holds_for_the_whole_reply(shipped: Files) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer", "maximum": 99999999}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    with Pair(draft=shipped[0], base=shipped[1], loading=LoadSettings(ctx=1024, threads=1)) as pair:
        reply = pair.reply("Name a large city and how many people live in it.", json_schema=schema, max_tokens=80)
    found = json.loads(reply.text)
    assert set(found) == {"city", "people"} and len(found["city"]) <= 20 and isinstance(found["people"], int)


# -- the chat -----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_models(shipped: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The pair `tiny` as `models pull` leaves it."""
    from wsd_local.library.registry import Known, remember

    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    for name, path in zip(("smollm2-135m-instruct", "gemma-3-270m"), shipped, strict=True):
        remember(Known(name, (path,), "imported"))
    yield


async def test_the_chat_answers(own_models: None, tmp_path: Path) -> None:
    from chat_pilot import ask, until
    from wsd_chat.app import ChatApp
    from wsd_chat.model_jobs import Wanted

    from wsd_local.store import Store

    with Store(tmp_path / "chats.db") as store:
        app = ChatApp(Wanted("tiny", None, None, {"threads": 1, "ctx": 1024, **SHORT}), store)
        async with app.run_test(size=(110, 34)) as pilot:
            await until(pilot, lambda: app.models.pair is not None and app.status.phase == "ready")
            await ask(app, pilot, QUESTIONS[0])
            await ask(app, pilot, "And of Spain?")
        (chat,) = store.chats.find()
        messages = store.messages.of(chat.id)
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant"]
    assert all(message.text for message in messages)


def test_every_kind_of_conversation_is_there() -> None:
    kinds = conversations()
    assert any(one[0]["role"] == "system" for one in kinds) and any(len(one) == 3 for one in kinds)
    assert any("法" in one[-1]["content"] for one in kinds) and any(len(one[-1]["content"]) > 4000 for one in kinds)


def test_a_run_over_a_data_set_repeats_itself(own_models: None, tmp_path: Path) -> None:
    from command_line import wsd

    (source := tmp_path / "questions.txt").write_text("".join(f"{question}\n" for question in QUESTIONS[:8]))
    made = []
    for name in ("one", "two"):
        out = tmp_path / f"{name}.jsonl"
        options = ("--pair", "tiny", "--parallel", "4", "--max-tokens", "40", "--ctx", "512", "--threads", "1")
        done = wsd("run", "--input", str(source), "--output", str(out), *options)
        assert done.returncode == 0, done.stderr
        found = [json.loads(line) for line in out.read_text().splitlines()]
        made.append([(line["index"], line["text"], line["switch"]["index"]) for line in found])
    assert made[0] == made[1]
