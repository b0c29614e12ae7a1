"""The Python API as the README writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from makers import embedding_model

import wsd_local as wsd

EGG = "How do I boil an egg?"


@pytest.fixture(scope="module")
def pair() -> Iterator[wsd.Pair]:
    with wsd.load("demo", threads=1) as pair:
        yield pair


def test_stream_and_reply_say_the_same(pair: wsd.Pair) -> None:
    text = ""
    for event in pair.stream(EGG):
        if isinstance(event, wsd.Text):
            text += event.text
    assert text == pair.reply(EGG).text


def test_a_setting_can_be_given_with_each_reply(pair: wsd.Pair) -> None:
    reply = pair.reply([{"role": "user", "content": EGG}], threshold=0.7)
    assert (reply.switch.threshold, pair.reply(EGG).switch.threshold) == (0.7, 0.8)
    assert reply.tokens and reply.timings.total_s > 0


def test_events_are_ready_for_json(pair: wsd.Pair) -> None:
    import json

    kinds = [json.loads(json.dumps(event.as_dict()))["event"] for event in pair.stream(EGG)]
    assert kinds[-1] == "finished"
    assert {"text", "checked", "switched"} <= set(kinds)


def test_a_long_prompt_is_read_in_events(pair: wsd.Pair) -> None:
    events = list(pair.stream("word " * 700, max_tokens=3))
    read = {
        name: [event for event in events if isinstance(event, wsd.Reading) and event.model == name]
        for name in ("WSD demo draft", "WSD demo base")
    }
    for events_of_model in read.values():
        done = [event.done for event in events_of_model]
        assert len(done) > 1 and done == sorted(set(done)) and done[-1] > 600
        assert {event.total for event in events_of_model} == {done[-1]}
    first = next(place for place, event in enumerate(events) if isinstance(event, wsd.Text))
    assert any(isinstance(event, wsd.Reading) for event in events[:first])
    assert not any(isinstance(event, wsd.Reading) for event in pair.stream(EGG))


def test_a_session_reports_only_what_it_has_to_read(pair: wsd.Pair) -> None:
    with pair.session() as chat:
        chat.send("word " * 500, max_tokens=3)
        totals = {event.total for event in chat.stream("word " * 520, max_tokens=3) if isinstance(event, wsd.Reading)}
        assert chat.run is not None
        assert totals and max(totals) < chat.run.timings.draft_prompt_tokens


def test_a_session_remembers(pair: wsd.Pair) -> None:
    with pair.session() as chat:
        chat.send("What is the capital of France?")
        chat.send("Thank you!")
        assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2


def test_models_can_be_given_by_path_and_by_name(demo_q8: tuple[object, object]) -> None:
    with wsd.load(draft=str(demo_q8[0]), base="demo-base", threads=1) as pair:
        assert pair.reply(EGG).text


@pytest.mark.parametrize(
    "settings",
    [
        {"treshold": 0.5},
        {"threshold": "high"},
        {"threshold": True},
        {"window": 6.5},
        {"mode": "other"},
        {"ctx": 0},
        {"flash_attn": "x"},
        {"cache_type_k": "zz"},
        {"stop": 5},
        {"stop": ["abc", 5]},
        {"stop": b"abc"},
        {"stop": ""},
        {"stop": [""]},
        {"on_draft_end": "wait"},
    ],
)
def test_wrong_settings_are_one_error(settings: dict[str, Any]) -> None:
    with pytest.raises(wsd.UsageError):
        wsd.load("demo", **settings)


def test_a_misspelt_setting_is_answered_with_the_right_one(pair: wsd.Pair) -> None:
    with pytest.raises(wsd.UsageError, match="did you mean 'threshold'"):
        pair.reply(EGG, treshold=0.5)


def test_two_pairs_live_side_by_side(pair: wsd.Pair) -> None:
    with wsd.load("demo", threads=1) as other:
        assert other.reply(EGG).text == pair.reply(EGG).text


def test_stop_strings_can_be_given(pair: wsd.Pair) -> None:
    whole = pair.reply(EGG)
    stop = whole.text[10:15]
    stopped = pair.reply(EGG, stop=["never written", stop])
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert (whole.stop, stopped.stop) == (None, stop)


def test_a_closed_pair_says_so() -> None:
    pair = wsd.load("demo", threads=1)
    events = pair.stream(EGG)
    next(events)
    pair.close()
    with pytest.raises(wsd.WsdError, match="closed"):
        list(events)
    with pytest.raises(wsd.WsdError, match="closed"):
        pair.reply(EGG)


def test_loading_can_be_stopped() -> None:
    with pytest.raises(wsd.WsdError, match="stopped"):
        wsd.load("demo", progress=lambda role, fraction: False)


def test_an_embedding_model_is_refused_every_time(tmp_path: Path) -> None:
    path = embedding_model(tmp_path / "bert.gguf")
    for mode in ("wsd", "base"):
        with pytest.raises(wsd.ModelError, match="embedding model"):
            wsd.load(base=path, mode=mode)
    with wsd.load(base=path, mode="draft", threads=1) as pair:
        for _ in range(2):
            with pytest.raises(wsd.ModelError, match="embedding model"):
                pair.reply(EGG, mode="base")


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = wsd.nothing_of_the_kind


def test_the_public_names_can_be_seen() -> None:
    assert set(wsd.__all__) <= set(dir(wsd))
    assert all(getattr(wsd, name) is not None for name in dir(wsd))


WRONG_PROMPTS: list[Any] = [
    *(5, None, 3.5, True, b"text", object(), set()),
    {"role": "user", "content": "text"},
    *([5], [None], ["text"], [[]], [{"role": "user"}], [{"content": "text"}]),
    *([{"role": 5, "content": "text"}], [{"role": ["user"], "content": "text"}]),
    *([{"role": "user", "content": None}], [{"role": "user", "content": 5}]),
    *("", [], "\ud800"),
]


@pytest.mark.parametrize("prompt", WRONG_PROMPTS, ids=range(len(WRONG_PROMPTS)))
def test_a_prompt_of_a_wrong_kind_is_one_error_everywhere(pair: wsd.Pair, prompt: Any) -> None:
    chat = pair.session()
    for ask in (pair.reply, pair.start, pair.stream, chat.send, chat.stream):
        with pytest.raises(wsd.UsageError):
            list(ask(prompt))  # type: ignore[arg-type]
    with pytest.raises(wsd.UsageError):
        list(pair.replies([EGG, prompt], max_tokens=3))
    assert not chat.messages


@pytest.mark.parametrize("prompts", [5, None, EGG, {EGG: 1}])
def test_many_prompts_are_a_list(pair: wsd.Pair, prompts: Any) -> None:
    with pytest.raises(wsd.UsageError):
        pair.replies(prompts)


@pytest.mark.parametrize(
    "given",
    [
        {"name": 5},
        {"name": ""},
        {"draft": 5},
        {"base": ""},
        {"base_format": {"stop": []}},
        {"progress": 5},
        {"busy": []},
        {"busy": "later"},
    ],
)
def test_what_is_loaded_is_of_its_kind(given: dict[str, Any]) -> None:
    with pytest.raises(wsd.UsageError):
        wsd.load(**given)


def test_other_wrong_kinds(pair: wsd.Pair) -> None:
    chat, run = pair.session(), pair.start(EGG)
    wrong: list[Callable[[], object]] = [
        lambda: pair.session(5),  # type: ignore[arg-type]
        lambda: wsd.Session(pair, messages=5),  # type: ignore[arg-type]
        lambda: chat.fork("all"),  # type: ignore[arg-type]
        lambda: run.steer("high"),  # type: ignore[arg-type]
        lambda: wsd.BaseFormat(headings=5),  # type: ignore[arg-type]
        lambda: wsd.BaseFormat(stop=5),  # type: ignore[arg-type]
        lambda: wsd.BaseFormat.of(5),  # type: ignore[arg-type]
        chat.resume,
        chat.regenerate,
        chat.complete,
    ]
    for call in wrong:
        with pytest.raises(wsd.UsageError):
            call()


def test_a_plain_text_is_one_stop_string(pair: wsd.Pair) -> None:
    whole = pair.reply(EGG).text
    assert pair.reply(EGG, stop=whole[10:15]).text == whole[: whole.index(whole[10:15])]
    assert wsd.BaseFormat(stop="###").stops == ("###",)  # type: ignore[arg-type]


def test_a_run_gives_its_events_in_a_loop(pair: wsd.Pair) -> None:
    run = pair.start(EGG)
    events = list(run)
    assert isinstance(events[-1], wsd.Finished) and events[-1].reply == run.reply
    assert "".join(event.text for event in events if isinstance(event, wsd.Text)) == run.reply.text


def test_verbs_of_a_conversation_return_replies_and_their_twins_give_events(pair: wsd.Pair) -> None:
    chat = pair.session()
    whole = chat.send(EGG)
    assert chat.regenerate().text == whole.text
    for _ in chat.stream_regenerate():
        chat.cancel()
    stopped = chat.messages[-1]["content"]
    assert chat.run is not None and chat.run.reply.finish_reason == "cancelled"
    resumed = chat.resume()
    assert (resumed.text, resumed.finish_reason) == (whole.text, "stop") and whole.text.startswith(stopped)
    begun = wsd.Session(pair, messages=[*chat.messages[:-1], {"role": "assistant", "content": whole.text[:12]}])
    rest = begun.complete()
    assert begun.messages[-1]["content"] == whole.text[:12] + rest.text
    for twin in (chat.stream_resume, chat.stream_regenerate, begun.stream_complete):
        assert isinstance(list(twin())[-1], wsd.Finished)
