"""Chat completions, with OpenAI's own client and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from serving import ScriptedService, finished

import wsd_local
from wsd_local.errors import FitError
from wsd_local.events import Checked, Notice, Reading, Switched, Text, TokenDetails, Wrote
from wsd_local.server.service import OverloadedError, UnavailableError

URL = "/v1/chat/completions"
ASKED: Any = [{"role": "user", "content": "What is rain?"}]

Serve = Callable[[ScriptedService], str]


@pytest.fixture
def sdk(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="-", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def demo() -> Iterator[wsd_local.Pair]:
    with wsd_local.load("demo", threads=1) as made:
        yield made


def chunks(text: str) -> list[Any]:
    """The data of a stream's events, without comments."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def streamed(url: str, **body: Any) -> list[Any]:
    answer = httpx.post(url + URL, json={"model": "demo", "messages": ASKED, "stream": True, **body}, timeout=None)
    assert answer.status_code == 200
    return chunks(answer.text)


def test_an_answer_is_the_reply_of_the_pair(sdk: openai.OpenAI, demo: wsd_local.Pair) -> None:
    for question in ("What is rain?", "Name a colour.", "hello"):
        messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": question}]
        answer = sdk.chat.completions.create(model="demo", messages=messages, max_tokens=40)
        reply = demo.reply(messages, max_tokens=40)
        assert answer.choices[0].message.content == reply.text
        assert answer.choices[0].finish_reason == reply.finish_reason
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(reply.prompt_ids["base"])
        assert answer.usage.completion_tokens == len(reply.tokens)
        wsd: Any = answer.wsd  # type: ignore[attr-defined]
        assert wsd["switch"]["index"] == reply.switch.index
        assert wsd["draft"]["text"] == reply.draft.text


@pytest.mark.parametrize("model", ["demo", "demo:base", "demo:draft"])
def test_a_stream_joined_is_the_whole_answer(sdk: openai.OpenAI, model: str) -> None:
    asked: Any = {"model": model, "messages": ASKED, "max_tokens": 30}
    whole = sdk.chat.completions.create(**asked).choices[0]
    stream = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert stream[0].choices[0].delta.role == "assistant"
    assert "".join(one.choices[0].delta.content or "" for one in stream[:-1]) == whole.message.content
    assert [one.choices[0].finish_reason for one in stream[:-1]][-1] == whole.finish_reason
    assert not stream[-1].choices and stream[-1].usage is not None
    assert {one.id for one in stream} == {stream[0].id}


async def test_the_asynchronous_client_streams(server: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server}/v1", api_key="-") as sdk:
        asked: Any = {"model": "demo", "messages": ASKED, "max_tokens": 12}
        stream = await sdk.chat.completions.create(**asked, stream=True)
        text = "".join([one.choices[0].delta.content or "" async for one in stream])
        whole = await sdk.chat.completions.create(**asked)
    assert text == whole.choices[0].message.content


def test_a_last_message_of_the_assistant_is_continued(sdk: openai.OpenAI, demo: wsd_local.Pair) -> None:
    messages: Any = [*ASKED, {"role": "assistant", "content": "Rain is"}]
    answer = sdk.chat.completions.create(model="demo", messages=messages, max_tokens=10)
    assert answer.choices[0].message.content == demo.reply(messages, max_tokens=10).text


def test_parts_of_text_and_the_developers_role_are_read(sdk: openai.OpenAI) -> None:
    parts: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "rain?"}]},
    ]
    plain: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is\nrain?"}]
    answers = [sdk.chat.completions.create(model="demo", messages=one, max_tokens=8) for one in (parts, plain)]
    assert answers[0].choices[0].message == answers[1].choices[0].message


def test_an_answer_follows_a_schema(sdk: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"rain": {"type": "boolean"}}, "required": ["rain"]}
    form: Any = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema, "strict": True}}
    answer = sdk.chat.completions.create(model="demo", messages=ASKED, response_format=form, max_tokens=40)
    assert isinstance(json.loads(answer.choices[0].message.content or "")["rain"], bool)


def test_what_is_asked_for_reaches_the_service(scripted: Serve) -> None:
    service = ScriptedService()
    body = {
        "model": "demo:base",
        "messages": ASKED,
        "max_completion_tokens": 5,
        "temperature": 0.5,
        "seed": -3,
        "stop": "x",
        "logprobs": True,
        "top_logprobs": 2,
        "truncate": True,
        "user": "someone",
        "wsd": {"threshold": 0.25},
    }
    assert httpx.post(scripted(service) + URL, json=body).status_code == 200
    (request,) = service.requests
    assert (request.model, request.details, request.truncate) == ("demo:base", 2, True)
    assert request.settings == {
        "max_tokens": 5,
        "temperature": 0.5,
        "seed": 2**32 - 4,
        "stop": ("x",),
        "threshold": 0.25,
    }


def test_without_a_model_the_only_pair_answers_and_of_several_one_must_be_named(scripted: Serve) -> None:
    url = scripted(ScriptedService())
    for named in ({}, {"model": ""}, {"model": "demo:latest"}):
        assert httpx.post(url + URL, json={"messages": ASKED, **named}).json()["model"] == "demo"
    assert httpx.get(f"{url}/v1/models/demo:latest").json()["id"] == "demo"
    refused = httpx.post(scripted(ScriptedService(pairs=["one", "two"])) + URL, json={"messages": ASKED})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "model"


def test_every_choice_has_its_own_text(scripted: Serve) -> None:
    url = scripted(ScriptedService([Text("It ", "draft"), Text("is.", "base", 0.5), finished("It is.", kept="It ")]))
    answer = httpx.post(url + URL, json={"messages": ASKED, "n": 3}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert all(choice["wsd"]["draft"]["text"] == "It " for choice in answer["choices"])
    assert answer["usage"]["prompt_tokens"] == 3
    assert answer["usage"]["completion_tokens"] == 6
    texts: dict[int, str] = {}
    for chunk in streamed(url, n=3):
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
    assert texts == dict.fromkeys(range(3), "It is.")


SWITCHING = [
    Reading("base", 300, 300),
    Text("It ", "draft"),
    Checked(0, (0.5, 0.9), (None, 0.75)),
    Text("is ", "draft", 0.9),
    Switched("threshold", 1, 2, 0.75),
    Text("rain.", "base", 0.5),
    Notice("the context is full"),
    finished("It is rain.", kept="It is "),
]


def test_chunks_say_which_model_wrote_and_where_the_base_took_over(scripted: Serve) -> None:
    found = [chunk["wsd"] for chunk in streamed(scripted(ScriptedService(SWITCHING))) if "wsd" in chunk]
    switch = {"reason": "threshold", "index": 1, "kept_tokens": 2, "confidence": 0.75}
    switch |= {"window": 6, "threshold": 0.8, "rule": "window"}
    assert found[:-1] == [
        {"source": "draft", "prob": None},
        {"source": "draft", "prob": 0.9, "confidence": 0.75},
        {"source": "base", "prob": 0.5, "switch": switch},
    ]
    assert found[-1]["notices"] == ["the context is full"]
    assert found[-1]["draft"] == {"model": "scripted-draft", "kept_tokens": 2, "drafted_tokens": 2}


def test_events_come_as_chunks_of_their_own_on_demand(scripted: Serve) -> None:
    found = streamed(scripted(ScriptedService(SWITCHING)), wsd={"events": True})
    alone = [chunk["wsd"] for chunk in found if "wsd" in chunk and chunk["choices"][0]["delta"] == {}]
    assert alone[:-1] == [
        {"reading": {"model": "base", "done": 300, "total": 300}},
        {"checked": {"start": 0, "probs": [0.5, 0.9], "windows": [None, 0.75]}},
        {"notice": "the context is full"},
    ]


TOKENS = (
    TokenDetails(5, b"\xe2\x98", "base", -0.5, ((5, b"\xe2\x98", -0.5), (6, b" a", -1.5))),
    TokenDetails(7, b"\x83", "base", None),
)
SNOWMAN = [Text("\N{SNOWMAN}", "base", 0.5), Wrote(TOKENS), finished("\N{SNOWMAN}")]


def test_log_probabilities_have_the_bytes_of_their_tokens(scripted: Serve) -> None:
    url = scripted(ScriptedService(SNOWMAN))
    asked = {"messages": ASKED, "logprobs": True, "top_logprobs": 1}
    whole = httpx.post(url + URL, json=asked).json()["choices"][0]["logprobs"]["content"]
    assert whole == [
        {
            "token": "\ufffd",
            "logprob": -0.5,
            "bytes": [0xE2, 0x98],
            "top_logprobs": [{"token": "\ufffd", "logprob": -0.5, "bytes": [0xE2, 0x98]}],
        },
        {"token": "\ufffd", "logprob": -9999.0, "bytes": [0x83], "top_logprobs": []},
    ]
    parts = [chunk["choices"][0] for chunk in streamed(url, **asked)]
    assert [part["delta"]["content"] for part in parts if part["logprobs"]] == ["\N{SNOWMAN}"]
    assert [entry for part in parts if part["logprobs"] for entry in part["logprobs"]["content"]] == whole


def test_texts_of_two_models_keep_their_tokens_apart(scripted: Serve) -> None:
    draft, base = TokenDetails(1, b"It ", "draft", -1.0), TokenDetails(2, b"is.", "base", -2.0)
    steps = [Text("It ", "draft"), Text("is.", "base"), Wrote((draft, base)), finished("It is.", kept="It ")]
    found = [chunk for chunk in streamed(scripted(ScriptedService(steps)), logprobs=True) if "wsd" in chunk]
    parts = [chunk["choices"][0] for chunk in found[:-1]]
    assert [part["delta"]["content"] for part in parts] == ["It ", "is."]
    assert [[entry["token"] for entry in part["logprobs"]["content"]] for part in parts] == [["It "], ["is."]]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "function", "function": {"name": "a"}}]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"functions": [{"name": "a"}]}, "functions"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "a", "format": "wav"}}, "audio"),
    ({"prediction": {"type": "content", "content": ""}}, "prediction"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"reasoning_effort": "high"}, "reasoning_effort"),
    ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs.enable_thinking"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"messages": [{"role": "assistant", "content": "a", "tool_calls": [{}]}]}, "messages[].tool_calls"),
    ({"store": True}, "store"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
    ({"n": 0}, "n"),
    ({"n": True}, "n"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"maxtokens": 5}, "maxtokens"),
    ({"wsd": {"events": True}}, "wsd.events"),
    ({"wsd": {"treshold": 0.5}}, "wsd.treshold"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages"),
    ({"messages": [*ASKED, {"role": "tool", "content": "1", "tool_call_id": "a"}]}, "messages[1].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "a", "colour": 1}]}, "messages[].colour"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=[f"{param}-{i}" for i, (_, param) in enumerate(REFUSED)])
def test_what_is_not_supported_is_refused_by_name(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = client.post(URL, json={"model": "demo", "messages": ASKED, **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


WITHOUT_EFFECT = {
    "user": "someone",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "auto",
    "parallel_tool_calls": True,
    "safety_identifier": "a",
    "prompt_cache_key": "a",
    "tools": [],
    "tool_choice": "none",
    "logit_bias": {},
    "modalities": ["text"],
    "response_format": {"type": "text"},
    "functions": None,
    "reasoning_effort": None,
    "chat_template_kwargs": {"enable_thinking": False},
}


def test_what_has_no_effect_is_accepted(client: httpx.Client) -> None:
    plain = client.post(URL, json={"model": "demo", "messages": ASKED, "max_tokens": 5}).json()
    answer = client.post(URL, json={"model": "demo", "messages": ASKED, "max_tokens": 5, **WITHOUT_EFFECT})
    assert answer.status_code == 200
    assert answer.json()["choices"] == plain["choices"]


def test_errors_are_those_of_the_client(scripted: Serve, sdk: openai.OpenAI) -> None:
    asked: Any = {"model": "demo", "messages": ASKED}
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.chat.completions.create(**asked | {"model": "other"})
    assert missing.value.code == "model_not_found"
    for error, kind, code in (
        (OverloadedError("all places are taken", 7), openai.RateLimitError, "overloaded"),
        (UnavailableError("the models are being loaded"), openai.InternalServerError, "unavailable"),
        (FitError("the prompt is too long: 9 tokens"), openai.BadRequestError, "context_length_exceeded"),
    ):
        other = sdk.with_options(base_url=scripted(ScriptedService(entering=error)) + "/v1")
        for stream in (False, True):
            with pytest.raises(kind) as caught:
                other.chat.completions.create(**asked, stream=stream)
            assert caught.value.code == code
            assert caught.value.response.headers.get("retry-after") == ("7" if code == "overloaded" else None)


def test_an_error_after_the_beginning_ends_the_stream(scripted: Serve, sdk: openai.OpenAI) -> None:
    for failure, message in ((FitError("no room"), "no room"), (ValueError("secret"), "the server failed")):
        url = scripted(ScriptedService([Text("It ", "base"), failure]))
        stream: Any = sdk.with_options(base_url=url + "/v1").chat.completions.create(
            model="demo",
            messages=ASKED,
            stream=True,
        )
        text = ""
        with pytest.raises(openai.APIError, match=message) as caught:
            for chunk in stream:
                text += chunk.choices[0].delta.content or ""
        assert text == "It "
        assert "secret" not in str(caught.value)


def test_a_reply_without_an_end_is_an_error(scripted: Serve) -> None:
    url = scripted(ScriptedService([Text("It ", "base")])) + URL
    assert httpx.post(url, json={"messages": ASKED}).status_code == 500
    lines = httpx.post(url, json={"messages": ASKED, "stream": True}).text.split()
    assert "[DONE]" not in lines
    assert any(line.startswith('{"error"') for line in lines)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_leaves_its_replies(scripted: Serve, stream: bool) -> None:
    never, left = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Watched(ScriptedService):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "left" and value:
                loop.call_soon_threadsafe(left.set)

    service = Watched([Text("It ", "base"), never])
    body = {"model": "demo", "messages": ASKED, "stream": stream}
    url = scripted(service) + URL
    async with httpx.AsyncClient(timeout=None) as client:
        request = asyncio.create_task(client.post(url, json=body))
        while not service.requests:
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await left.wait()
    assert service.left == 1
