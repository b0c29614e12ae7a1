"""Faults that users of other local servers report: none of them happens here, in any protocol.

Those about clients that go away or share the server are in `test_going_away.py`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from makers import random_llama
from serving import ScriptedService, desk_of, finished, listening
from wire import Wire

from wsd_local.events import Text
from wsd_local.load_settings import MOST
from wsd_local.server import streaming
from wsd_local.server.app import create_app
from wsd_local.server.guard import Guard
from wsd_local.server.service import Service
from wsd_local.settings import LoadSettings

CHAT = "/v1/chat/completions"
USER = [{"role": "user", "content": "What is rain?"}]
REFUSES = "{% for m in messages %}{{ m.content or raise_exception('no text') }}{% endfor %}"


@dataclass(frozen=True)
class Spoken:
    """One protocol's request for a reply.

    `body` is the smallest request, `limit` the parameter that bounds a reply.
    """

    path: str
    body: dict[str, Any]
    limit: str
    usage: Callable[[Any], tuple[int, int]]

    def asked(self, tokens: int = 4, **more: Any) -> dict[str, Any]:
        bound = {"options": {self.limit: tokens}} if self.path.startswith("/api/") else {self.limit: tokens}
        return {"model": "demo", **self.body, **bound, **more}

    def of(self, text: str) -> dict[str, Any]:
        """The body with a text of its own."""
        return {name: _replaced(value, text) for name, value in self.body.items()}


def _replaced(value: Any, text: str) -> Any:
    if isinstance(value, list):
        return [{**value[0], "content": text}]
    return text if isinstance(value, str) else value


PROTOCOLS = {
    "chat": Spoken(
        "/v1/chat/completions",
        {"messages": USER},
        "max_tokens",
        lambda answer: (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]),
    ),
    "completions": Spoken(
        "/v1/completions",
        {"prompt": "Rain is"},
        "max_tokens",
        lambda answer: (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]),
    ),
    "messages": Spoken(
        "/v1/messages",
        {"messages": USER},
        "max_tokens",
        lambda answer: (
            answer["usage"]["input_tokens"] + answer["usage"]["cache_read_input_tokens"],
            answer["usage"]["output_tokens"],
        ),
    ),
    "responses": Spoken(
        "/v1/responses",
        {"input": "What is rain?"},
        "max_output_tokens",
        lambda answer: (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]),
    ),
    "ollama chat": Spoken(
        "/api/chat",
        {"messages": USER, "stream": False},
        "num_predict",
        lambda answer: (answer["prompt_eval_count"], answer["eval_count"]),
    ),
    "ollama generate": Spoken(
        "/api/generate",
        {"prompt": "What is rain?", "stream": False},
        "num_predict",
        lambda answer: (answer["prompt_eval_count"], answer["eval_count"]),
    ),
}

spoken = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))


def message_of(answer: httpx.Response) -> str:
    """The message of an error in any protocol's shape."""
    error = answer.json()["error"]
    return str(error if isinstance(error, str) else error["message"])


def events(text: str) -> list[Any]:
    """The objects of a stream, of events or of lines."""
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith(("data: ", "{"))]
    return [json.loads(line) for line in lines if line != "[DONE]"]


# -- what is sent counts -------------------------------------------------------------------------------------------


@spoken
@pytest.mark.parametrize("name", ["max_token", "made_up"])
def test_a_parameter_is_never_ignored(client: httpx.Client, protocol: Spoken, name: str) -> None:
    answer = client.post(protocol.path, json=protocol.asked(**{name: 1}))
    assert answer.status_code == 400
    assert name in message_of(answer)


@spoken
@pytest.mark.parametrize(("name", "value"), [("tools", [{"type": "function", "function": {"name": "f"}}]), ("n", 0)])
def test_what_is_not_supported_is_refused_by_name(
    client: httpx.Client, protocol: Spoken, name: str, value: Any
) -> None:
    answer = client.post(protocol.path, json=protocol.asked(**{name: value}))
    assert answer.status_code == 400
    assert name in message_of(answer)


@pytest.mark.parametrize("kind", ["text", "json_object"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_every_response_format_is_taken(client: httpx.Client, path: str, kind: str) -> None:
    asks = {"messages": USER} if "chat" in path else {"prompt": "Rain in JSON:"}
    answer = client.post(path, json={"model": "demo", **asks, "max_tokens": 40, "response_format": {"type": kind}})
    assert answer.status_code == 200, answer.text
    choice = answer.json()["choices"][0]
    text = choice["message"]["content"] if "chat" in path else choice["text"]
    assert kind == "text" or text.lstrip().startswith("{")


@pytest.mark.parametrize("name", ["chat", "messages", "responses"])
def test_a_list_of_texts_is_read_as_one_text(client: httpx.Client, name: str) -> None:
    protocol, kind = PROTOCOLS[name], "input_text" if name == "responses" else "text"
    parts = [{"type": kind, "text": "What is"}, {"type": kind, "text": " rain?"}]
    field = "input" if name == "responses" else "messages"
    of_parts = client.post(protocol.path, json=protocol.asked() | {field: [{"role": "user", "content": parts}]})
    of_text = client.post(protocol.path, json=protocol.asked() | {field: USER})
    assert of_parts.status_code == 200, of_parts.text
    assert protocol.usage(of_parts.json())[0] in range(protocol.usage(of_text.json())[0], 100)


# -- long prompts --------------------------------------------------------------------------------------------------


@spoken
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_prompt_that_does_not_fit_is_refused_with_counts(
    client: httpx.Client, service: Service, protocol: Spoken, stream: bool
) -> None:
    assert client.post(CHAT, json=_chat("hello")).status_code == 200
    n_ctx = service.models()[0].n_ctx
    assert n_ctx is not None
    text = "rain " * (n_ctx + 100)
    answer = client.post(protocol.path, json=protocol.asked(**protocol.of(text)) | {"stream": stream})
    assert answer.status_code == 400
    numbers = [int(number) for number in re.findall(r"\d+", message_of(answer))]
    assert n_ctx in numbers
    assert max(numbers) > n_ctx


def test_each_request_has_the_whole_context(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    def refused(parallel: int) -> str:
        """What a server with so many places answers to a prompt that is too long."""
        with desk_of(demo_q8, LoadSettings(threads=1, ctx=512, parallel=parallel), tmp_path) as url:
            answers = [httpx.post(url + CHAT, json=_chat("rain " * words), timeout=None) for words in (350, 600)]
        assert [answer.status_code for answer in answers] == [200, 400]
        return message_of(answers[1])

    assert refused(4) == refused(1)


def test_a_long_conversation_is_cut_where_the_client_wants_it_alone(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    turns = [turn for number in range(40) for turn in _turns(number)] + [{"role": "user", "content": "And snow?"}]
    with desk_of(demo_q8, LoadSettings(threads=1, ctx=512), tmp_path) as url:
        body = {"model": "demo", "messages": turns, "max_tokens": 8}
        assert httpx.post(url + CHAT, json=body, timeout=None).status_code == 400
        answer = httpx.post(url + CHAT, json={**body, "truncate": True}, timeout=None)
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens"] < 512
    assert answer.json()["wsd"]["notices"]


def _turns(number: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": f"What is rain number {number}?"},
        {"role": "assistant", "content": "It is water that falls from the sky."},
    ]


def _chat(text: str) -> dict[str, Any]:
    return {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 4}


# -- answers -------------------------------------------------------------------------------------------------------


@spoken
def test_every_answer_counts_its_tokens(client: httpx.Client, protocol: Spoken) -> None:
    answer = client.post(protocol.path, json=protocol.asked(4))
    assert answer.status_code == 200, answer.text
    prompt, written = protocol.usage(answer.json())
    assert prompt > 1
    assert 1 <= written <= 4


@spoken
def test_every_stream_counts_its_tokens(client: httpx.Client, protocol: Spoken) -> None:
    whole = protocol.usage(client.post(protocol.path, json=protocol.asked(4)).json())
    options = {"stream_options": {"include_usage": True}} if protocol.path.endswith("completions") else {}
    answer = client.post(protocol.path, json=protocol.asked(4) | {"stream": True} | options)
    found = events(answer.text)
    if protocol.path == "/v1/messages":
        ends = [event for event in found if event["type"] == "message_delta"]
        usage = {**found[0]["message"]["usage"], **ends[-1]["usage"]}
        assert protocol.usage({"usage": usage}) == whole
    elif protocol.path == "/v1/responses":
        assert protocol.usage(found[-1]["response"]) == whole
    else:
        assert protocol.usage(found[-1]) == whole


def test_a_prompt_has_log_probabilities(client: httpx.Client) -> None:
    asks = {"model": "demo:base", "prompt": "Rain is water that falls.", "echo": True, "logprobs": 1, "max_tokens": 0}
    answer = client.post("/v1/completions", json=asks)
    assert answer.status_code == 200, answer.text
    found = answer.json()["choices"][0]["logprobs"]
    assert "".join(found["tokens"]) == asks["prompt"]
    assert all(value < 0 for value in found["token_logprobs"][1:])


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose draft's chat template refuses empty messages."""
    folder = tmp_path_factory.mktemp("strict")
    draft = random_llama(folder / "draft.gguf", chat_template=REFUSES)
    base = random_llama(folder / "base.gguf", seed=1)
    with desk_of((draft, base), LoadSettings(threads=1, ctx=256), folder) as url:
        yield url


def test_a_conversation_that_the_template_refuses_is_the_clients_mistake(strict: str) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": "b"},
    ]
    answer = httpx.post(strict + CHAT, json={"model": "demo", "messages": messages, "max_tokens": 2}, timeout=None)
    assert answer.status_code == 400
    assert message_of(answer) == "the model's chat template refuses this conversation in line 1: no text"
    assert httpx.post(strict + CHAT, json=_chat("a"), timeout=None).status_code == 200


# -- connections ---------------------------------------------------------------------------------------------------


@spoken
def test_a_stream_is_not_silent_while_a_prompt_is_read(
    scripted: Callable[[ScriptedService], str], monkeypatch: pytest.MonkeyPatch, protocol: Spoken
) -> None:
    if protocol.path.startswith("/api/"):
        pytest.skip("expected: Ollama's protocol has no comments in a stream")
    monkeypatch.setattr(streaming, "PING_SECONDS", 0.01)
    read = asyncio.Event()
    url = scripted(ScriptedService([read, Text("Hello.", "base", 0.5), finished("Hello.")]))
    with Wire(url, protocol.path, **protocol.asked(stream=True)) as client:
        client.until(b"\n: ping")


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_no_other_sites_origin_is_allowed(method: str) -> None:
    with listening(Guard(create_app(ScriptedService()))) as url:
        headers = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}
        answer = httpx.request(method, f"{url}/v1/chat/completions", headers=headers, json=_chat("a"))
    assert "access-control-allow-origin" not in answer.headers
    assert answer.status_code == 403 or method == "OPTIONS"


# -- what is wrong is named as the client spells it ------------------------------------------------------------------

BROKEN = {"type": "object", "properties": {"a": {"not": {"type": "string"}}}}
FORMS: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"response_format": {"type": "json_schema", "json_schema": {"schema": BROKEN}}}, "response_format"),
    ("chat", {"json_schema": BROKEN}, "json_schema"),
    ("chat", {"grammar": "root ::= nothing"}, "grammar"),
    ("chat", {"wsd": {"lark": "start: nothing"}}, "wsd.lark"),
    ("chat", {"wsd": {"regex": "(?=a)"}}, "wsd.regex"),
    ("chat", {"grammar": 'root ::= "a"', "ignore_eos": True}, "ignore_eos"),
    ("chat", {"wsd": {"rule": "return", "mode": "base"}}, "wsd.rule"),
    ("completions", {"grammar": "root ::= nothing"}, "grammar"),
    ("completions", {"prompt": [10**6], "model": "demo:base"}, "prompt"),
    ("completions", {"prompt": [[5], [10**6]], "stream": True}, "prompt"),
    ("completions", {"prompt": [10**6], "echo": True}, "prompt"),
    ("completions", {"prompt": [5, 10**6], "echo": True, "logprobs": 1, "max_tokens": 0}, "prompt"),
    ("responses", {"text": {"format": {"type": "json_schema", "schema": BROKEN}}}, "text.format"),
    ("messages", {"output_config": {"format": {"type": "json_schema", "schema": BROKEN}}}, "output_config.format"),
    ("ollama chat", {"format": BROKEN}, "format"),
    ("ollama generate", {"wsd": {"lark": "start: nothing"}}, "wsd.lark"),
]


@pytest.mark.parametrize(("name", "more", "param"), FORMS, ids=[f"{name}-{param}" for name, _, param in FORMS])
def test_what_is_found_wrong_later_has_the_clients_name_too(
    client: httpx.Client, name: str, more: dict[str, Any], param: str
) -> None:
    protocol = PROTOCOLS[name]
    answer = client.post(protocol.path, json=protocol.asked() | more)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    if isinstance(error, dict) and "param" in error:
        assert error["param"] == param
    if "ignore" not in param and "rule" not in param:
        assert param in message_of(answer)


LIMITS: list[tuple[str, int, str | None]] = [
    ("chat", 0, "max_tokens is 0: it counts tokens and must be at least 1; -1 is as many as fit"),
    ("chat", -1, None),
    ("chat", -2, "max_tokens is -2: it counts tokens and must be at least 1; -1 is as many as fit"),
    ("completions", 0, "max_tokens is 0 without echo: true, so the answer would be empty"),
    ("completions", -1, None),
    ("completions", -2, "max_tokens is -2: it counts tokens and must be at least 1; -1 is as many as fit"),
    ("responses", -1, None),
    ("responses", 0, "max_output_tokens is 0: it counts tokens and must be at least 1; -1 is as many as fit"),
    ("messages", 0, "max_tokens must be greater than or equal to 1"),
    ("messages", -1, "max_tokens must be greater than or equal to 1"),
    ("ollama chat", 0, "options.num_predict is 0: it counts tokens and must be at least 1; -1 is as many as fit"),
    ("ollama chat", -1, None),
    ("ollama generate", -2, None),
    ("ollama chat", -3, "options.num_predict is -3: it counts tokens and must be at least 1; -1 is as many as fit"),
]


@pytest.mark.parametrize(("name", "most", "message"), LIMITS)
def test_a_limit_that_is_no_number_of_tokens(
    scripted: Callable[[ScriptedService], str], name: str, most: int, message: str | None
) -> None:
    service, protocol = ScriptedService(), PROTOCOLS[name]
    answer = httpx.post(scripted(service) + protocol.path, json=protocol.asked(most))
    if message is None:
        assert answer.status_code == 200 and service.requests[-1].settings["max_tokens"] == MOST
    else:
        assert answer.status_code == 400 and message_of(answer) == message
