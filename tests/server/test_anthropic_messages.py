"""Anthropic's protocol, with its own client and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import MessageParam
from serving import ScriptedService, finished

import wsd_local
from wsd_local.errors import FitError
from wsd_local.events import Checked, Reading, Switched, Text
from wsd_local.server.service import OverloadedError, ReplyRequest, UnavailableError

URL = "/v1/messages"
ASKED: list[MessageParam] = [{"role": "user", "content": "What is rain?"}]

Serve = Callable[[ScriptedService], str]


def client_of(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="-", max_retries=0)


@pytest.fixture
def sdk(server: str) -> Iterator[anthropic.Anthropic]:
    with client_of(server) as made:
        yield made


@pytest.fixture(scope="module")
def demo() -> Iterator[wsd_local.Pair]:
    with wsd_local.load("demo", threads=1) as made:
        yield made


def events(url: str, **body: Any) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of a stream's events."""
    asked = {"model": "demo", "max_tokens": 60, "messages": ASKED, "stream": True, **body}
    answer = httpx.post(url + URL, json=asked, timeout=None)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if lines:
            found.append((lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))))
    return found


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


@pytest.mark.parametrize("model", ["demo", "demo:base", "demo:draft"])
def test_an_answer_is_the_reply_of_the_pair(sdk: anthropic.Anthropic, demo: wsd_local.Pair, model: str) -> None:
    mode = model.partition(":")[2] or "wsd"
    answer = sdk.messages.create(model=model, max_tokens=50, messages=ASKED, system="Be brief.")
    reply = demo.reply([{"role": "system", "content": "Be brief."}, *ASKED], max_tokens=50, mode=mode)
    assert text_of(answer) == reply.text
    assert (answer.type, answer.role, answer.model, answer.stop_reason) == ("message", "assistant", model, "end_turn")
    prompt = len(reply.prompt_ids["draft" if mode == "draft" else "base"])
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == prompt
    assert answer.usage.output_tokens == len(reply.tokens)


def test_a_stream_joined_is_the_whole_answer(sdk: anthropic.Anthropic) -> None:
    whole = sdk.messages.create(model="demo", max_tokens=60, messages=ASKED)
    with sdk.messages.stream(model="demo", max_tokens=60, messages=ASKED) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(final) == text_of(whole)
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


async def test_the_asynchronous_client_streams(server: str, demo: wsd_local.Pair) -> None:
    async with anthropic.AsyncAnthropic(base_url=server, api_key="-", max_retries=0) as sdk:
        async with sdk.messages.stream(model="demo", max_tokens=30, messages=ASKED) as stream:
            text = [part async for part in stream.text_stream]
        whole = await sdk.messages.create(model="demo", max_tokens=30, messages=ASKED)
    assert "".join(text) == text_of(whole) == demo.reply(ASKED, max_tokens=30).text


def test_the_events_of_a_stream_have_their_order(server: str) -> None:
    found = events(server, max_tokens=12)
    names = [name for name, _ in found]
    assert all(data["type"] == name for name, data in found)
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    start, end = found[0][1]["message"], found[-2][1]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 0)
    assert end["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    usage = end["usage"]
    assert start["usage"]["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"] > 0
    assert 0 < usage["output_tokens"] <= 12


def test_text_blocks_are_read_like_text(sdk: anthropic.Anthropic) -> None:
    plain = sdk.messages.create(model="demo", max_tokens=30, messages=ASKED, system="Be brief.")
    block: Any = {"type": "text", "text": "What is rain?", "cache_control": {"type": "ephemeral"}}
    system: Any = [{"type": "text", "text": "Be brief."}]
    blocks = sdk.messages.create(
        model="demo", max_tokens=30, messages=[{"role": "user", "content": [block]}], system=system
    )
    assert text_of(blocks) == text_of(plain)


def test_a_last_message_of_the_assistant_is_continued(sdk: anthropic.Anthropic, demo: wsd_local.Pair) -> None:
    asked: list[MessageParam] = [*ASKED, {"role": "assistant", "content": "Rain is"}]
    answer = sdk.messages.create(model="demo", max_tokens=30, messages=asked)
    assert text_of(answer) == demo.reply(asked, max_tokens=30).text


def test_the_stop_sequence_that_ended_the_answer_is_named(sdk: anthropic.Anthropic, demo: wsd_local.Pair) -> None:
    text = demo.reply(ASKED, max_tokens=60).text
    stop = text[10:16]
    answer = sdk.messages.create(model="demo", max_tokens=60, messages=ASKED, stop_sequences=["never written", stop])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", stop)
    assert text_of(answer).rstrip() == text[: text.index(stop)].rstrip()


def test_a_stop_of_the_bases_own_is_none_of_the_clients(scripted: Serve) -> None:
    steps = [Text("Hi", "base"), finished("Hi", stop="\n\n[User]")]
    with client_of(scripted(ScriptedService(steps))) as sdk:
        for stops, named in ((["[System]"], None), (["User]", "[User]"], "[User]")):
            answer = sdk.messages.create(model="demo", max_tokens=9, messages=ASKED, stop_sequences=stops)
            assert (answer.stop_reason, answer.stop_sequence) == (
                "end_turn" if named is None else "stop_sequence",
                named,
            )


def test_a_full_context_is_no_limit_of_the_clients(scripted: Serve) -> None:
    steps = [Text("Hi", "base"), finished("Hi", finish_reason="length")]
    with client_of(scripted(ScriptedService(steps))) as sdk:  # the scripted context holds 512 tokens, the prompt has 3
        for most, reason in ((509, "max_tokens"), (510, "model_context_window_exceeded")):
            assert sdk.messages.create(model="demo", max_tokens=most, messages=ASKED).stop_reason == reason


def test_an_answer_follows_a_schema(sdk: anthropic.Anthropic) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    answer = sdk.messages.create(
        model="demo",
        max_tokens=60,
        messages=ASKED,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert answer.stop_reason != "end_turn" or isinstance(json.loads(text_of(answer))["a"], int)


def test_tokens_are_counted_as_the_model_reads_them(sdk: anthropic.Anthropic, demo: wsd_local.Pair) -> None:
    for model in ("demo", "demo:base", "demo:draft"):
        count = sdk.messages.count_tokens(model=model, messages=ASKED, system="Be brief.")
        mode = model.partition(":")[2] or "wsd"
        reply = demo.reply([{"role": "system", "content": "Be brief."}, *ASKED], max_tokens=1, mode=mode)
        assert count.input_tokens == len(reply.prompt_ids["draft" if mode == "draft" else "base"])
    long = sdk.messages.count_tokens(model="demo", messages=[{"role": "user", "content": "rain " * 9000}])
    assert long.input_tokens > 9000


def test_the_models_are_listed(sdk: anthropic.Anthropic) -> None:
    assert [model.id for model in sdk.models.list()] == ["demo", "demo:base", "demo:draft"]
    model = sdk.models.retrieve("demo:base")
    assert (model.type, model.id, model.display_name) == ("model", "demo:base", "demo:base")
    with pytest.raises(anthropic.APIStatusError, match="other"):
        sdk.models.retrieve("other")


def test_what_is_asked_for_reaches_the_service(scripted: Serve) -> None:
    service = ScriptedService()
    with client_of(scripted(service)) as sdk:
        sdk.messages.create(
            model="demo:base",
            max_tokens=7,
            messages=ASKED,
            stop_sequences=["a", "b"],
            metadata={"user_id": "x"},
            service_tier="auto",
            thinking={"type": "disabled"},
            tools=[],
            extra_body={
                "temperature": 0.5,
                "top_p": 0.9,
                "top_k": 3,
                "truncate": True,
                "wsd": {"threshold": 0.5, "seed": 3},
            },
        )
    wanted = {"max_tokens": 7, "stop": ("a", "b"), "temperature": 0.5, "top_p": 0.9, "top_k": 3}
    prompt = [{"role": "user", "content": "What is rain?"}]
    assert service.requests == [
        ReplyRequest("demo:base", prompt, {**wanted, "threshold": 0.5, "seed": 3}, truncate=True)
    ]


def test_deltas_say_which_model_wrote_and_where_the_base_took_over(scripted: Serve) -> None:
    steps = [
        Reading("base", 3, 9),
        Text("One", "draft", 0.9),
        Checked(0, (0.9,), (0.85,)),
        Switched("threshold", 0, 1, 0.85),
        Text(" two", "base", 0.5),
        finished("One two", kept="One"),
    ]
    url = scripted(ScriptedService(steps))
    deltas = [(data["delta"]["text"], data["wsd"]) for name, data in events(url) if name == "content_block_delta"]
    assert [text for text, _ in deltas] == ["One", " two"]
    assert [wsd["source"] for _, wsd in deltas] == ["draft", "base"] and deltas[1][1]["switch"]["reason"] == "threshold"
    end = dict(events(url))["message_delta"]
    assert end["wsd"]["draft"]["kept_tokens"] == 1
    loud = [data["wsd"] for name, data in events(url, wsd={"events": True}) if name == "content_block_delta"]
    assert {"reading", "checked", "source"} <= {name for wsd in loud for name in wsd}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [DOCUMENT]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_result"),
        ({"messages": [{"role": "assistant", "content": "only this"}]}, "user message"),
        ({"system": [IMAGE]}, "system[0] has the type 'image'"),
        ({"tools": [{"name": "clock", "input_schema": {"type": "object"}}]}, "tools"),
        ({"tool_choice": {"type": "any"}}, "tools are not supported"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"thinking": {"type": "adaptive"}}, "thinking"),
        ({"output_config": {"effort": "high"}}, "effort"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"stop_sequences": [""]}, "stop"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_q": 0.5}, "'top_p'"),
        ({"wsd": {"treshold": 0.5}}, "'threshold'"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: httpx.Client, body: dict[str, Any], named: str) -> None:
    answer = client.post(URL, json={"model": "demo", "max_tokens": 5, "messages": ASKED, **body})
    found = answer.json()
    assert (answer.status_code, found["type"], found["error"]["type"]) == (400, "error", "invalid_request_error")
    assert named in found["error"]["message"] and "\n" not in found["error"]["message"]


def test_max_tokens_is_required(client: httpx.Client) -> None:
    answer = client.post(URL, json={"model": "demo", "messages": ASKED})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "max_tokens is missing")


def test_errors_are_those_of_the_client(scripted: Serve, sdk: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model"):
        sdk.messages.create(model="other", max_tokens=5, messages=ASKED)
    cases = (
        (FitError("too long"), anthropic.BadRequestError),
        (OverloadedError("many wait", 3), anthropic.RateLimitError),
        (UnavailableError("loading"), anthropic.APIStatusError),
    )
    for error, kind in cases:
        with client_of(scripted(ScriptedService(entering=error))) as other, pytest.raises(kind, match=str(error)):
            other.messages.create(model="demo", max_tokens=5, messages=ASKED)


def test_an_error_after_the_beginning_ends_the_stream(scripted: Serve) -> None:
    url = scripted(ScriptedService([Text("One", "base"), UnavailableError("the server is about to end")]))
    found = events(url)
    assert [name for name, _ in found[-2:]] == ["content_block_delta", "error"]
    assert found[-1][1]["error"] == {"type": "overloaded_error", "message": "the server is about to end"}
    with (
        client_of(url) as sdk,
        pytest.raises(anthropic.APIStatusError, match="about to end"),
        sdk.messages.stream(model="demo", max_tokens=5, messages=ASKED) as stream,
    ):
        stream.until_done()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_leaves_its_reply(scripted: Serve, stream: bool) -> None:
    service = ScriptedService([Text("One", "base"), asyncio.Event()])
    url = scripted(service)
    body = {"model": "demo", "max_tokens": 5, "messages": ASKED, "stream": stream}
    async with httpx.AsyncClient(timeout=None) as client:
        task = asyncio.create_task(client.post(url + URL, json=body))
        while not [one for one in service.requests if isinstance(one, ReplyRequest)]:
            await asyncio.sleep(0)
        task.cancel()
        while not service.left:
            await asyncio.sleep(0)
    assert service.left == 1
