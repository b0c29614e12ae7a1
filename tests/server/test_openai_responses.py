"""OpenAI's responses and its list of models, with its own client and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from serving import ScriptedService, finished

from wsd_local.errors import FitError
from wsd_local.events import Notice, Switched, Text, TokenDetails, Wrote

URL = "/v1/responses"
Serve = Callable[[ScriptedService], str]


@pytest.fixture
def sdk(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="-", max_retries=0) as made:
        yield made


def streamed(url: str, **body: Any) -> list[tuple[str, Any]]:
    """Name and data of each event."""
    answer = httpx.post(url + URL, json={"input": "What is rain?", "stream": True, **body}, timeout=None)
    assert answer.status_code == 200, answer.text
    events = [part.splitlines() for part in answer.text.split("\n\n") if part.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in events]


def test_a_response_is_the_chat_answer(sdk: openai.OpenAI) -> None:
    asked: Any = {"model": "demo", "instructions": "Be brief."}
    response = sdk.responses.create(**asked, input="What is rain?", max_output_tokens=60)
    chat = sdk.chat.completions.create(
        model="demo",
        max_tokens=60,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is rain?"}],
    )
    assert response.output_text == chat.choices[0].message.content
    assert response.status == "completed"
    assert response.usage is not None and chat.usage is not None
    assert response.usage.input_tokens == chat.usage.prompt_tokens
    assert response.usage.output_tokens == chat.usage.completion_tokens


def test_a_conversation_goes_on_with_the_output_of_earlier_responses(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(model="demo", input="What is rain?", max_output_tokens=60)
    items: Any = [
        {"role": "user", "content": "What is rain?"},
        *[item.model_dump(exclude_none=True) for item in first.output],
        {"role": "user", "content": [{"type": "input_text", "text": "Say it again."}]},
    ]
    second = sdk.responses.create(model="demo", input=items, max_output_tokens=20)
    chat = sdk.chat.completions.create(
        model="demo",
        max_tokens=20,
        messages=[
            {"role": "user", "content": "What is rain?"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "Say it again."},
        ],
    )
    assert second.output_text == chat.choices[0].message.content


def test_a_response_that_reached_its_limit_is_incomplete(sdk: openai.OpenAI) -> None:
    response = sdk.responses.create(model="demo", input="What is rain?", max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_the_clients_stream_ends_with_the_whole_response(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="demo", input="What is rain?", max_output_tokens=60) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        response = stream.get_final_response()
    assert text == response.output_text
    assert (
        response.output_text
        == sdk.responses.create(model="demo", input="What is rain?", max_output_tokens=60).output_text
    )


def test_a_response_follows_a_schema(sdk: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"rain": {"type": "boolean"}}, "required": ["rain"]}
    form: Any = {"format": {"type": "json_schema", "name": "weather", "schema": schema, "strict": True}}
    response = sdk.responses.create(model="demo", input="What is rain?", text=form, max_output_tokens=40)
    assert isinstance(json.loads(response.output_text)["rain"], bool)


WRITTEN = [
    Text("It ", "draft"),
    Wrote((TokenDetails(1, b"It ", "draft", -1.0),)),
    Switched("threshold", 5, 1, 0.9),
    Text("rains.", "base", 0.5),
    Wrote((TokenDetails(2, b"rains", "base", -2.0, ((2, b"rains", -2.0),)), TokenDetails(3, b".", "base", None))),
    Notice("a notice"),
    finished("It rains.", kept="It "),
]


def test_events_come_in_openais_order_and_are_numbered(scripted: Serve) -> None:
    found = streamed(scripted(ScriptedService(WRITTEN)))
    assert [name for name, _ in found] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [data["sequence_number"] for _, data in found] == list(range(10))
    assert all(data["type"] == name for name, data in found)
    assert found[0][1]["response"]["status"] == "in_progress"
    assert [data["wsd"]["source"] for name, data in found if name.endswith("delta")] == ["draft", "base"]
    last = found[-1][1]["response"]
    assert last["output"] == [found[-2][1]["item"]]
    assert last["output"][0]["content"][0]["text"] == "It rains."
    assert last["wsd"]["notices"] == ["a notice"]
    assert last["usage"]["output_tokens_details"]["kept_tokens"] == 1


def test_log_probabilities_are_included_on_demand(scripted: Serve) -> None:
    url = scripted(ScriptedService(WRITTEN))
    asked = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    whole = httpx.post(url + URL, json={"input": "a", **asked}).json()["output"][0]["content"][0]["logprobs"]
    assert [(one["token"], one["logprob"], len(one["top_logprobs"])) for one in whole] == [
        ("It ", -1.0, 0),
        ("rains", -2.0, 1),
        (".", -9999.0, 0),
    ]
    deltas = [data["logprobs"] for name, data in streamed(url, **asked) if name.endswith("delta")]
    assert [one for part in deltas for one in part] == whole
    assert httpx.post(url + URL, json={"input": "a"}).json()["output"][0]["content"][0]["logprobs"] == []


def test_an_error_after_the_beginning_is_an_event_and_fails_the_response(scripted: Serve) -> None:
    found = streamed(scripted(ScriptedService([Text("It ", "base"), FitError("no room")])))
    (error_name, error), (name, failed) = found[-2:]
    assert (error_name, error["message"], error["code"]) == ("error", "no room", "context_length_exceeded")
    assert (name, failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": "context_length_exceeded", "message": "no room"}


def test_what_is_asked_for_reaches_the_service(scripted: Serve) -> None:
    service = ScriptedService()
    body = {"input": "a", "instructions": "b", "truncation": "auto", "max_output_tokens": 9, "seed": 3, "store": True}
    answer = httpx.post(scripted(service) + URL, json=body).json()
    (request,) = service.requests
    assert request.prompt == [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}]
    assert (request.settings, request.truncate, request.details) == ({"max_tokens": 9, "seed": 3}, True, None)
    assert (answer["store"], answer["truncation"], answer["max_output_tokens"]) == (False, "auto", 9)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "a"}}, "prompt"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"truncation": "disabled", "truncate": True}, "truncation"),
        ({"max_tokens": 4}, "max_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = client.post(URL, json={"model": "demo", "input": "a", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_leaves_its_reply(scripted: Serve, stream: bool) -> None:
    service = ScriptedService([Text("a", "base"), asyncio.Event()])
    url = scripted(service) + URL
    async with httpx.AsyncClient(timeout=None) as client:
        request = asyncio.create_task(client.post(url, json={"input": "a", "stream": stream}))
        while not service.requests:
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        while not service.left:
            await asyncio.sleep(0)
    assert service.left == 1


def test_models_are_listed_and_described(sdk: openai.OpenAI) -> None:
    listed = {model.id: model for model in sdk.models.list()}
    assert set(listed) == {"demo", "demo:base", "demo:draft"}
    for id, model in listed.items():
        assert sdk.models.retrieve(id) == model
    wsd: Any = listed["demo:base"].wsd  # type: ignore[attr-defined]
    assert (wsd["pair"], wsd["mode"]) == ("demo", "base")


def test_names_with_a_slash_are_found_and_unknown_ones_are_not(scripted: Serve) -> None:
    url = scripted(ScriptedService(pairs=["some/pair"])) + "/v1/models/"
    for id in ("some/pair", "some/pair:base", "some%2Fpair%3Adraft"):
        assert httpx.get(url + id).status_code == 200
    missing = httpx.get(url + "other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
