"""Ollama's protocol, with its own client and by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

import httpx
import ollama
import pytest
from serving import ScriptedService, finished

import wsd_local
from wsd_local.errors import FitError
from wsd_local.events import Checked, Reading, Switched, Text, TokenDetails, Wrote
from wsd_local.prompts.raw import RawPrompt
from wsd_local.server.ollama_bodies import seconds_of
from wsd_local.server.service import OverloadedError, UnavailableError

ASKED = [{"role": "user", "content": "What is rain?"}]

BODIES: dict[str, dict[str, Any]] = {
    "chat": {"messages": ASKED},
    "generate": {"prompt": "What is rain?"},
    "show": {},
}

Serve = Callable[[ScriptedService], str]


class Silence(asyncio.Event):
    """Makes a scripted reply wait until `end` is called, from any thread."""

    async def wait(self) -> Literal[True]:
        self.loop = asyncio.get_running_loop()
        return await super().wait()

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.set)


@pytest.fixture
def sdk(server: str) -> ollama.Client:
    return ollama.Client(server)


@pytest.fixture(scope="module")
def demo() -> Iterator[wsd_local.Pair]:
    with wsd_local.load("demo", threads=1) as made:
        yield made


def lines(url: str, path: str = "/api/chat", **body: Any) -> list[dict[str, Any]]:
    """The objects of a stream."""
    answer = httpx.post(url + path, json={"model": "demo", **body}, timeout=None)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("model", ["demo", "demo:latest", "demo:base", "demo:draft"])
def test_an_answer_is_the_reply_of_the_pair(sdk: ollama.Client, demo: wsd_local.Pair, model: str) -> None:
    mode = model.removesuffix(":latest").partition(":")[2] or "wsd"
    answer = sdk.chat(model, ASKED, options={"num_predict": 40})
    reply = demo.reply(ASKED, max_tokens=40, mode=mode)
    assert answer.message.content == reply.text
    assert (answer.model, answer.message.role, answer.done, answer.done_reason) == (
        model,
        "assistant",
        True,
        reply.finish_reason,
    )
    assert answer.prompt_eval_count == len(reply.prompt_ids["draft" if mode == "draft" else "base"])
    assert answer.eval_count == len(reply.tokens)


def test_durations_are_measured(sdk: ollama.Client) -> None:
    answer = sdk.chat("demo", ASKED, options={"num_predict": 20})
    total, load = answer.total_duration or 0, answer.load_duration or 0
    prompt, writing = answer.prompt_eval_duration or 0, answer.eval_duration or 0
    assert total > 0 and prompt > 0 and writing > 0 and load >= 0
    assert abs(total - load - prompt - writing) <= 3  # each is rounded to nanoseconds


def test_a_stream_joined_is_the_whole_answer(sdk: ollama.Client) -> None:
    whole = sdk.chat("demo", ASKED, options={"num_predict": 60})
    parts = list(sdk.chat("demo", ASKED, stream=True, options={"num_predict": 60}))
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert (parts[-1].done_reason, parts[-1].eval_count) == (whole.done_reason, whole.eval_count)


async def test_the_asynchronous_client_streams(server: str, demo: wsd_local.Pair) -> None:
    sdk = ollama.AsyncClient(server)
    parts = [part async for part in await sdk.chat("demo", ASKED, stream=True, options={"num_predict": 30})]
    generated = await sdk.generate("demo", "What is rain?", options={"num_predict": 30})
    text = "".join(part.message.content or "" for part in parts)
    assert text == generated.response == demo.reply(ASKED, max_tokens=30).text


def test_a_stream_is_the_default(server: str) -> None:
    parts = lines(server, messages=ASKED, options={"num_predict": 9})
    assert len(parts) > 1 and parts[-1]["done"] and parts[-1]["message"]["content"] == ""
    assert len(lines(server, "/api/generate", prompt="What is rain?", options={"num_predict": 9})) > 1


def test_a_prompt_is_answered_with_its_system_message(sdk: ollama.Client, demo: wsd_local.Pair) -> None:
    answer = sdk.generate("demo", "What is rain?", system="Be brief.", options={"num_predict": 30})
    messages = [{"role": "system", "content": "Be brief."}, *ASKED]
    assert answer.response == demo.reply(messages, max_tokens=30).text


def test_a_raw_prompt_is_continued_as_it_is(sdk: ollama.Client, demo: wsd_local.Pair) -> None:
    answer = sdk.generate("demo:base", "The rain falls", raw=True, options={"num_predict": 12})
    reply = demo.reply(RawPrompt("The rain falls"), mode="base", max_tokens=12)
    assert answer.response == reply.text


def test_a_last_message_of_the_assistant_is_continued(sdk: ollama.Client, demo: wsd_local.Pair) -> None:
    asked = [*ASKED, {"role": "assistant", "content": "Rain is"}]
    assert sdk.chat("demo", asked, options={"num_predict": 30}).message.content == demo.reply(asked, max_tokens=30).text


@pytest.mark.parametrize("form", ["json", {"type": "object", "properties": {"a": {"type": "integer"}}}])
def test_an_answer_has_the_form_that_is_asked_for(sdk: ollama.Client, form: Any) -> None:
    answer = sdk.chat("demo", ASKED, format=form, options={"num_predict": 80})
    text = answer.message.content or ""
    assert text.lstrip().startswith("{") and (answer.done_reason == "length" or isinstance(json.loads(text), dict))


def test_what_is_asked_for_reaches_the_service(scripted: Serve) -> None:
    service = ScriptedService()
    options = {
        "num_predict": 7,
        "num_ctx": 512,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "min_p": 0.1,
        "seed": 5,
        "stop": ["a", "b"],
        "repeat_penalty": 1.1,
        "repeat_last_n": 32,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "wsd": {"threshold": 0.5},
        "mirostat": 0,
        "typical_p": 1,
    }
    ollama.Client(scripted(service)).chat("demo:base", ASKED, options=options, think=False, tools=[])
    wanted = {name: options[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed", "repeat_penalty")}
    wanted |= {name: options[name] for name in ("repeat_last_n", "presence_penalty", "frequency_penalty")}
    request = service.requests[-1]
    assert request.settings == wanted | {"max_tokens": 7, "stop": ("a", "b"), "threshold": 0.5}
    assert (request.model, request.prompt, request.details) == ("demo:base", ASKED, None)


@pytest.mark.parametrize("most", [-1, -2])
def test_as_many_tokens_as_fit(scripted: Serve, most: int) -> None:
    service = ScriptedService()
    ollama.Client(scripted(service)).chat("demo", ASKED, options={"num_predict": most})
    assert service.requests[-1].settings["max_tokens"] > 10**6


def test_nothing_to_be_answered_loads_or_frees_the_models(scripted: Serve) -> None:
    service = ScriptedService()
    sdk = ollama.Client(scripted(service))
    assert sdk.chat("demo", []).done_reason == "load"
    assert sdk.generate("demo", "", keep_alive="10m").done_reason == "load"
    assert (service.requests, service.kept) == ([("load", "demo")] * 2, [("demo", 600.0)])
    assert sdk.generate("demo", keep_alive=0).done_reason == "unload"
    assert [part.done_reason for part in sdk.chat("demo", [], stream=True, keep_alive="-1s")] == ["load"]
    assert service.kept[1:] == [("demo", 0.0), ("demo", None)]
    sdk.chat("demo", ASKED, keep_alive=30)
    assert service.kept[-1] == ("demo", 30.0)


def test_models_are_freed_when_a_client_says_so_and_loaded_again(sdk: ollama.Client) -> None:
    assert sdk.generate("demo", "").done_reason == "load"
    assert {model.model for model in sdk.ps().models} == {"demo:latest", "demo:base", "demo:draft"}
    assert sdk.generate("demo", "", keep_alive=1e300).done_reason == "load"
    text = sdk.chat("demo", ASKED, options={"num_predict": 9}, keep_alive=0).message.content
    while sdk.ps().models:
        pass
    assert sdk.chat("demo", ASKED, options={"num_predict": 9}).message.content == text
    assert sdk.ps().models[0].context_length == 2048 and sdk.ps().models[0].expires_at is not None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(5, 5.0), (0, 0.0), ("0", 0.0), ("5m", 300.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("250ms", 0.25), ("300", 300.0)],
)
def test_durations_are_read(given: float | str, seconds: float) -> None:
    assert seconds_of(given) == pytest.approx(seconds)


@pytest.mark.parametrize("given", [-1, "-1", "-5m"])
def test_negative_durations_are_for_ever(given: float | str) -> None:
    assert seconds_of(given) is None


def test_models_are_listed_and_described(sdk: ollama.Client) -> None:
    listed = {model.model: model for model in sdk.list().models}
    assert list(listed) == ["demo:latest", "demo:base", "demo:draft"]
    pair = listed["demo:latest"]
    assert pair.details is not None and pair.details.format == "gguf" and pair.details.parameter_size
    assert pair.size == (listed["demo:base"].size or 0) + (listed["demo:draft"].size or 0) > 0
    assert len({model.digest for model in listed.values()}) == 3
    for name in ("demo", "demo:latest", "demo:draft"):
        shown = sdk.show(name)
        assert shown.capabilities == ["completion"] and shown.modelinfo is not None
        family = shown.modelinfo["general.architecture"]
        assert shown.modelinfo["general.parameter_count"] > 0 and shown.modelinfo[f"{family}.context_length"] > 0
    assert sdk.show("demo:draft").template
    with pytest.raises(ollama.ResponseError, match="not found"):
        sdk.show("other")


def test_the_version_is_that_of_the_protocol(client: httpx.Client) -> None:
    answer = client.get("/api/version").json()
    assert tuple(map(int, answer["version"].split("."))) >= (0, 6, 4) and answer["wsd_local"]


def test_what_a_client_written_in_go_sends_is_understood(client: httpx.Client) -> None:
    """Such clients send empty values of all types in place of leaving them out."""
    assert [client.head(path).status_code for path in ("/api/tags", "/api/version")] == [200, 200]
    empty = {"system": "", "template": "", "options": None}
    assert (
        client.post("/api/show", json={"model": "demo", "name": "demo", "verbose": False, **empty}).status_code == 200
    )
    loading = {"model": "demo", "prompt": "", "suffix": "", **empty, "context": None, "images": None, "raw": False}
    assert client.post("/api/generate", json=loading).json()["done_reason"] == "load"
    message: dict[str, Any] = {
        "role": "user",
        "content": "What is rain?",
        "thinking": "",
        "images": [],
        "tool_calls": None,
    }
    more: dict[str, Any] = {
        "options": {},
        "format": "",
        "tools": [],
        "think": None,
        "logprobs": False,
        "top_logprobs": 0,
        "stream": False,
    }
    answer = client.post("/api/chat", json={"model": "demo:latest", "messages": [message], **more}).json()
    assert answer["done_reason"] == "stop" and answer["message"]["content"]


def test_no_path_of_this_machine_is_told(client: httpx.Client) -> None:
    shown = client.post("/api/show", json={"name": "demo"})
    assert shown.status_code == 200 and ".gguf" not in shown.text + client.get("/api/tags").text


def test_parts_say_which_model_wrote_and_where_the_base_took_over(scripted: Serve) -> None:
    steps = [
        Reading("base", 3, 9),
        Text("One", "draft", 0.9),
        Checked(0, (0.9,), (0.85,)),
        Switched("threshold", 0, 1, 0.85),
        Text(" two", "base", 0.5),
        finished("One two", kept="One"),
    ]
    url = scripted(ScriptedService(steps))
    first, second, end = lines(url, messages=ASKED)
    assert (first["wsd"]["source"], second["wsd"]["switch"]["reason"]) == ("draft", "threshold")
    assert end["wsd"]["draft"]["kept_tokens"] == 1
    for events in ({"wsd": {"events": True}}, {"options": {"wsd": {"events": True}}}):
        loud = lines(url, messages=ASKED, **events)
        assert {"reading", "checked", "source"} <= {name for part in loud for name in part["wsd"]}


def test_log_probabilities_are_those_of_the_tokens(scripted: Serve) -> None:
    tokens = (TokenDetails(7, b"Hi", "base", -0.5, ((8, b"Ho", -1.5),)),)
    service = ScriptedService([Text("Hi", "base"), Wrote(tokens), finished("Hi")])
    sdk = ollama.Client(scripted(service))
    answer = sdk.chat("demo", ASKED, logprobs=True, top_logprobs=1)
    assert service.requests[-1].details == 1 and answer.logprobs is not None
    (entry,) = answer.logprobs
    assert (entry.token, entry.logprob) == ("Hi", -0.5)
    assert entry.top_logprobs is not None and entry.top_logprobs[0].token == "Ho"
    streamed = [part.logprobs for part in sdk.generate("demo", "Hi", stream=True, logprobs=True) if part.logprobs]
    assert [one.token for part in streamed for one in part] == ["Hi"]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("chat", {"messages": [{"role": "tool", "content": "3"}]}, "messages[0].role"),
        ("chat", {"messages": [{"role": "user", "content": "hi", "images": ["aGk="]}]}, "images are not supported"),
        ("chat", {"messages": [{"role": "user", "content": ["hi"]}]}, "messages[0].content"),
        ("chat", {"messages": [{"role": "assistant", "content": "only this"}]}, "user message"),
        ("chat", {"tools": [{"type": "function"}]}, "tools"),
        ("chat", {"think": True}, "think"),
        ("chat", {"think": "high"}, "think"),
        ("chat", {"options": {"temprature": 1}}, "'temperature'"),
        ("chat", {"options": {"temperature": -1}}, "temperature"),
        ("chat", {"options": {"mirostat": 2}}, "mirostat"),
        ("chat", {"options": {"num_gpu": 1}}, "num_gpu"),
        ("chat", {"options": {"num_ctx": 100_000}}, "num_ctx is 100000: the context holds 2048 tokens"),
        ("chat", {"format": "yaml"}, "format"),
        ("chat", {"keep_alive": "soon"}, "keep_alive"),
        ("chat", {"top_logprobs": 2}, "top_logprobs"),
        ("chat", {"wsd": {"treshold": 1}}, "'threshold'"),
        ("chat", {"wsd": {"seed": 1}, "options": {"wsd": {"seed": 2}}}, "wsd is given twice"),
        ("chat", {"mesages": []}, "'messages'"),
        ("generate", {"suffix": "end"}, "suffix"),
        ("generate", {"template": "{{ .Prompt }}"}, "template"),
        ("generate", {"context": [1, 2]}, "context"),
        ("generate", {"images": ["aGk="]}, "images"),
        ("generate", {"raw": True, "system": "Be brief."}, "system and raw"),
        ("show", {"system": "Be brief."}, "system"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_not_supported_is_refused_by_name(
    client: httpx.Client, path: str, body: dict[str, Any], named: str, stream: bool
) -> None:
    asked = BODIES[path]
    more = {} if path == "show" else {"stream": stream}
    answer = client.post(f"/api/{path}", json={"model": "demo", **asked, **body, **more})
    message = answer.json()["error"]
    assert answer.status_code == 400 and named in message and "\n" not in message


@pytest.mark.parametrize("path", ["pull", "push", "create", "copy", "delete", "embed", "embeddings", "blobs/sha256:0"])
def test_endpoints_that_change_models_say_what_to_do_instead(client: httpx.Client, path: str) -> None:
    for method in ("POST", "DELETE", "GET"):
        answer = client.request(method, f"/api/{path}", json={"model": "demo"})
        assert answer.status_code == 404 and "is not supported: " in answer.json()["error"]
    with pytest.raises(ollama.ResponseError, match="wsd-local models pull"):
        ollama.Client(str(client.base_url)).pull("demo")


def test_errors_are_those_of_the_client(scripted: Serve, sdk: ollama.Client) -> None:
    for name in ("other", "demo:other", ""):
        if name:
            with pytest.raises(ollama.ResponseError, match="not found") as caught:
                sdk.chat(name, ASKED)
            assert caught.value.status_code == 404
    for error, status in (
        (FitError("too long"), 400),
        (OverloadedError("many wait", 3), 429),
        (UnavailableError("loading"), 503),
    ):
        with pytest.raises(ollama.ResponseError, match=str(error)) as caught:
            ollama.Client(scripted(ScriptedService(entering=error))).chat("demo", ASKED)
        assert caught.value.status_code == status


def test_an_error_after_the_beginning_ends_the_stream(scripted: Serve) -> None:
    url = scripted(ScriptedService([Text("One", "base"), UnavailableError("the server is about to end")]))
    parts = lines(url, messages=ASKED)
    assert parts[0]["message"]["content"] == "One" and parts[1] == {"error": "the server is about to end"}
    with pytest.raises(ollama.ResponseError, match="about to end"):
        list(ollama.Client(url).chat("demo", ASKED, stream=True))


def test_the_only_pair_answers_without_a_name(client: httpx.Client, scripted: Serve) -> None:
    body = {"messages": ASKED, "stream": False, "options": {"num_predict": 3}}
    assert client.post("/api/chat", json=body).json()["model"] == "demo"
    answer = httpx.post(scripted(ScriptedService(pairs=["a", "b"])) + "/api/chat", json=body)
    assert answer.status_code == 400 and "a:base" in answer.json()["error"]


def test_a_silent_reply_is_kept_alive_by_parts_without_text(scripted: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsd_local.server.streaming.PING_SECONDS", 0.01)
    silence = Silence()
    service = ScriptedService([silence, Text("One", "base"), finished("One")])
    with httpx.stream("POST", scripted(service) + "/api/chat", json={"model": "demo", "messages": ASKED}) as answer:
        found = answer.iter_lines()
        first = json.loads(next(found))
        silence.end()
        rest = [json.loads(part) for part in found]
    assert first["message"]["content"] == "" and not first["done"]
    assert "".join(part["message"]["content"] for part in rest) == "One" and rest[-1]["done"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_goes_away_leaves_its_reply(scripted: Serve, stream: bool) -> None:
    service = ScriptedService([Text("One", "base"), Silence()])
    url = scripted(service) + "/api/chat"
    async with httpx.AsyncClient(timeout=None) as client:
        request = asyncio.create_task(client.post(url, json={"model": "demo", "messages": ASKED, "stream": stream}))
        while not service.requests:
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        while not service.left:
            await asyncio.sleep(0)
    assert service.left == 1
