"""Completions of raw prompts, with OpenAI's own client and by hand, and scores of prompts against plain llama.cpp."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import plain_llama
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ScriptedService, finished, listening

import wsd_local
from wsd_local.errors import FitError
from wsd_local.events import Text, TokenDetails, Wrote
from wsd_local.library.catalog import PairEntry
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.raw import RawPrompt
from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.server.openai_completions import gathered, merged
from wsd_local.server.openai_logprobs import CompletionLogprobs
from wsd_local.server.service import ScoreRequest
from wsd_local.settings import LoadSettings

URL = "/v1/completions"
Serve = Callable[[ScriptedService], str]


@pytest.fixture(scope="module")
def exact_server(demo_f32: tuple[Path, Path]) -> Iterator[str]:
    """A server of the embedded pair in F32, whose numbers do not depend on the shape of a batch."""
    draft, base = (str(path) for path in demo_f32)
    loading = LoadSettings(threads=1, parallel=2, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    desk = Desk([PairEntry("exact", draft, base, BaseFormat())], loading=loading)
    desk.start()
    with listening(create_app(desk)) as url:
        yield url
    desk.close()


def complete(url: str, prompt: Any, **body: Any) -> dict[str, Any]:
    answer = httpx.post(url + URL, json={"prompt": prompt, **body}, timeout=None)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def streamed(url: str, prompt: Any, **body: Any) -> list[Any]:
    answer = httpx.post(url + URL, json={"prompt": prompt, "stream": True, **body}, timeout=None)
    assert answer.status_code == 200, answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def expected(path: Path, tokens: list[int]) -> list[float]:
    """Log-probabilities of tokens after the first."""
    rows = plain_llama.logits(plain_llama.load(path), tokens).astype(np.float64)
    rows -= np.log(np.exp(rows - rows.max(1, keepdims=True)).sum(1, keepdims=True)) + rows.max(1, keepdims=True)
    return [float(rows[place, token]) for place, token in enumerate(tokens[1:])]


TEXT = "The capital of France is Paris. \N{SNOWMAN}!"


@pytest.mark.oracle
@pytest.mark.parametrize(("model", "place"), [("exact:base", 1), ("exact", 1), ("exact:draft", 0)])
def test_a_prompts_scores_are_those_of_plain_llama_cpp(
    exact_server: str, demo_f32: tuple[Path, Path], model: str, place: int
) -> None:
    path = demo_f32[place]
    plain = plain_llama.load(path)
    tokens = plain_llama.plain(plain, TEXT)
    begun = [plain.token_bos(), *tokens]
    found = complete(exact_server, TEXT, model=model, echo=True, max_tokens=0, logprobs=2)["choices"][0]
    assert found["text"] == TEXT
    assert found["finish_reason"] == "length"
    scores = found["logprobs"]
    assert {len(values) for values in scores.values()} == {len(tokens)}
    assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
    right = expected(path, begun)
    assert scores["token_logprobs"][1:] == pytest.approx(right[1:], abs=1e-3)

    ids = complete(exact_server, tokens, model=model, echo=True, max_tokens=0, logprobs=2)["choices"][0]
    right = expected(path, tokens)
    assert ids["text"] == TEXT
    assert ids["logprobs"]["token_logprobs"][1:] == pytest.approx(right, abs=1e-3)
    assert ids["logprobs"]["token_logprobs"][0] is None


@pytest.mark.oracle
def test_an_answers_log_probabilities_are_those_of_its_tokens_as_a_prompt(exact_server: str) -> None:
    asked: dict[str, Any] = {"model": "exact:base", "logprobs": 2}
    answer = complete(exact_server, "The capital of France", max_tokens=6, echo=True, **asked)["choices"][0]
    whole = complete(exact_server, answer["text"], max_tokens=0, echo=True, **asked)["choices"][0]
    assert len(answer["logprobs"]["tokens"]) > 6
    assert answer["logprobs"]["tokens"] == whole["logprobs"]["tokens"]
    assert answer["logprobs"]["text_offset"] == whole["logprobs"]["text_offset"]
    found, right = (one["logprobs"]["token_logprobs"][1:] for one in (answer, whole))
    assert found == pytest.approx(right, abs=1e-3)
    assert [set(top) for top in answer["logprobs"]["top_logprobs"][1:]] == [
        set(top) for top in whole["logprobs"]["top_logprobs"][1:]
    ]


@pytest.mark.oracle
@pytest.mark.parametrize("stream", [False, True])
def test_a_chats_log_probabilities_are_the_bases_by_plain_llama_cpp(
    exact_server: str, demo_f32: tuple[Path, Path], stream: bool
) -> None:
    asked: list[Any] = [{"role": "user", "content": "What is rain?"}]
    f32: Any = {"cache_type_k": "f32", "cache_type_v": "f32", "flash_attn": "off", "threads": 1}
    with wsd_local.load(draft=demo_f32[0], base=demo_f32[1], **f32) as pair:
        reply = pair.reply(asked, max_tokens=24)
    body = {"model": "exact", "messages": asked, "max_tokens": 24, "logprobs": True, "top_logprobs": 1}
    answer = httpx.post(f"{exact_server}/v1/chat/completions", json={**body, "stream": stream}, timeout=None)
    if stream:
        lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
        parts = [json.loads(line)["choices"][0]["logprobs"] for line in lines]
        entries = [entry for part in parts if part is not None for entry in part["content"]]
    else:
        entries = answer.json()["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == reply.text
    prompt, ids = reply.prompt_ids["base"], [token.id for token in reply.tokens]
    right = expected(demo_f32[1], [*prompt, *ids])[len(prompt) - 1 :]
    assert [entry["logprob"] for entry in entries] == pytest.approx(right, abs=1e-3)
    for entry in entries:
        assert entry["top_logprobs"][0]["logprob"] >= entry["logprob"] - 1e-6


@pytest.mark.oracle
def test_the_pair_opens_a_raw_prompt_with_the_draft(exact_server: str, demo_f32: tuple[Path, Path]) -> None:
    base = plain_llama.load(demo_f32[1])
    prompt = "What is the capital of France?\n"
    answer = complete(exact_server, prompt, model="exact", max_tokens=8, logprobs=1, wsd={"mode": "fixed:3"})
    text = answer["choices"][0]["text"]
    kept = answer["wsd"]["draft"]["text"]
    draft = plain_llama.load(demo_f32[0])
    first = plain_llama.greedy(draft, [draft.token_bos(), *plain_llama.plain(draft, prompt)], 12)[0]
    assert kept and draft.detokenize(first).decode().strip().startswith(kept.strip())
    after = plain_llama.plain(base, prompt + kept)
    count = answer["wsd"]["base"]["tokens"]
    chosen = plain_llama.greedy(base, [base.token_bos(), *after], count)[0]
    assert text[len(kept) :] == base.detokenize(chosen).decode()


def test_one_model_alone_continues_as_plain_llama_cpp(exact_server: str, demo_f32: tuple[Path, Path]) -> None:
    base = plain_llama.load(demo_f32[1])
    tokens = [base.token_bos(), *plain_llama.plain(base, "The capital of France is")]
    chosen, _ = plain_llama.greedy(base, tokens, 5)
    text = base.detokenize(chosen).decode()
    for prompt in ("The capital of France is", tokens):
        answer = complete(exact_server, prompt, model="exact:base", max_tokens=5)
        assert answer["choices"][0]["text"] == text
        assert answer["usage"]["prompt_tokens"] == len(tokens)
        assert answer["usage"]["completion_tokens"] == 5


def test_the_client_gets_whole_answers_and_streams(server: str) -> None:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="-", max_retries=0) as sdk:
        asked: Any = {"model": "demo:base", "prompt": "The capital of", "max_tokens": 9}
        whole = sdk.completions.create(**asked)
        stream = list(sdk.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(one.choices[0].text for one in stream[:-1]) == whole.choices[0].text
    assert stream[-1].usage == whole.usage or stream[-1].usage is not None
    assert stream[-2].choices[0].finish_reason == whole.choices[0].finish_reason == "length"


def test_every_prompt_has_its_choices_in_order(server: str) -> None:
    prompts = ["The capital of France is", "The opposite of hot is"]
    alone = [complete(server, one, model="demo:base", max_tokens=3)["choices"][0]["text"] for one in prompts]
    answer = complete(server, prompts, model="demo:base", max_tokens=3, n=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [choice["text"] for choice in answer["choices"]] == [alone[0], alone[0], alone[1], alone[1]]
    texts = dict.fromkeys(range(4), "")
    for chunk in streamed(server, prompts, model="demo:base", max_tokens=3, n=2, echo=True):
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["text"]
    assert list(texts.values()) == [prompts[i // 2] + alone[i // 2] for i in range(4)]


def test_a_stream_with_echo_has_the_prompts_scores_first(server: str) -> None:
    asked: dict[str, Any] = {"model": "demo:base", "max_tokens": 4, "echo": True, "logprobs": 1}
    whole = complete(server, TEXT, **asked)["choices"][0]
    parts = [chunk["choices"][0] for chunk in streamed(server, TEXT, **asked)]
    assert parts[0]["text"] == TEXT
    assert "".join(part["text"] for part in parts) == whole["text"]
    for name, values in whole["logprobs"].items():
        assert [value for part in parts if part["logprobs"] for value in part["logprobs"][name]] == values
    scored = streamed(server, TEXT, **asked | {"max_tokens": 0}, stream_options={"include_usage": True})
    assert [chunk["choices"][0]["finish_reason"] for chunk in scored[:-1]] == ["length"]
    assert scored[-1]["usage"]["completion_tokens"] == 0


def test_prompts_of_every_kind_reach_the_service(scripted: Serve) -> None:
    kinds: list[tuple[Any, list[RawPrompt]]] = [
        ("a", [RawPrompt(text="a")]),
        (["a", "b"], [RawPrompt(text="a"), RawPrompt(text="b")]),
        ([1, 2], [RawPrompt(tokens=[1, 2])]),
        ([[1], [2, 3]], [RawPrompt(tokens=[1]), RawPrompt(tokens=[2, 3])]),
    ]
    for prompt, raw in kinds:
        service = ScriptedService()
        complete(scripted(service), prompt, logprobs=3, max_tokens=7)
        assert [request.prompt for request in service.requests] == raw
        assert {(request.details, request.settings["max_tokens"]) for request in service.requests} == {(3, 7)}


def test_a_prompt_is_scored_without_a_reply(scripted: Serve) -> None:
    service = ScriptedService()
    answer = complete(scripted(service), "ab", echo=True, max_tokens=0, logprobs=1)
    assert [request for request in service.requests if isinstance(request, ScoreRequest)] == [
        ScoreRequest("demo", [1, *b"ab"], 1, 1)
    ]
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"b": -0.5, "a": -1.0}],
        "text_offset": [0, 1],
    }
    assert answer["usage"]["completion_tokens"] == 0


def test_a_reply_that_ends_at_once_has_an_entry_after_an_echoed_prompt(scripted: Serve) -> None:
    url = scripted(ScriptedService([finished("")]))
    asked = {"echo": True, "max_tokens": 1, "logprobs": 1}
    whole = complete(url, "ab", **asked)["choices"][0]["logprobs"]
    assert whole["tokens"] == ["a", "b", ""]
    assert whole["token_logprobs"] == [None, -0.5, -9999.0]
    assert whole["text_offset"] == [0, 1, 2]
    parts = [chunk["choices"][0]["logprobs"] for chunk in streamed(url, "ab", **asked)]
    assert [token for part in parts for token in part["tokens"]] == whole["tokens"]
    assert complete(url, "ab", logprobs=1, max_tokens=1)["choices"][0]["logprobs"]["tokens"] == []


def test_a_token_inside_a_character_is_written_as_bytes() -> None:
    rows = CompletionLogprobs(1)
    rows.add(b"a", None)
    for piece in (b"\xe2\x98", b"\x83", b"b"):
        rows.add(piece, -1.0, [(b"\xe2", -0.5), (b"c", -0.7)])
    assert rows.take() == {
        "tokens": ["a", "bytes:\\xe2\\x98", "bytes:\\x83", "b"],
        "token_logprobs": [None, -1.0, -1.0, -1.0],
        "top_logprobs": [
            None,
            {"bytes:\\xe2": -0.5, "bytes:\\xe2\\x98": -1.0},
            {"bytes:\\xe2": -0.5, "bytes:\\x83": -1.0},
            {"bytes:\\xe2": -0.5, "b": -1.0},
        ],
        "text_offset": [0, 1, 1, 2],
    }


@given(st.text(), st.data())
def test_offsets_count_characters(text: str, data: st.DataObject) -> None:
    data_bytes, rows, cuts = text.encode(), CompletionLogprobs(0), []
    place = 0
    while place < len(data_bytes):
        cuts.append(place)
        end = place + data.draw(st.integers(1, 5))
        rows.add(data_bytes[place:end], -1.0)
        place = end
    whole = [len(data_bytes[:cut].decode(errors="ignore")) for cut in cuts]
    assert rows.take()["text_offset"] == whole


def test_a_suffix_that_is_empty_is_none(scripted: Serve) -> None:
    url = scripted(ScriptedService([Text("ab", "base"), finished("ab")]))
    assert complete(url, "x", suffix="")["choices"][0]["text"] == "ab"


def test_unknown_log_probabilities_stay_json(scripted: Serve) -> None:
    tokens = (TokenDetails(1, b"a", "base", None), TokenDetails(2, b"b", "base", -1.0, ((3, b"c", float("-inf")),)))
    url = scripted(ScriptedService([Text("ab", "base"), Wrote(tokens), finished("ab")]))
    found = complete(url, "x", logprobs=1)["choices"][0]["logprobs"]
    assert found["token_logprobs"] == [-9999.0, -1.0]
    assert found["top_logprobs"] == [{"a": -9999.0}, {"b": -1.0, "c": -9999.0}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"suffix": "b"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"truncate": True}, "truncate"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [1, "a"]}, "prompt[0]"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"logit_bias": {"5": 2}}, "logit_bias"),
        ({"prompt": ["a"] * 9, "stream": True}, "prompt"),
        ({"stream_options": {}}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: httpx.Client, body: dict[str, Any], param: str) -> None:
    answer = client.post(URL, json={"model": "demo", "prompt": "a", **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_token_that_the_model_does_not_have_is_the_clients_mistake(client: httpx.Client) -> None:
    for more in ({"max_tokens": 1}, {"max_tokens": 0, "echo": True, "logprobs": 1}, {"echo": True, "max_tokens": 1}):
        answer = client.post(URL, json={"model": "demo", "prompt": [2**31 - 1], **more})
        assert answer.status_code == 400, answer.text


def test_one_prompt_that_fails_fails_the_request(scripted: Serve) -> None:
    url = scripted(ScriptedService([Text("a", "base"), FitError("no room")]))
    answer = httpx.post(url + URL, json={"prompt": ["a", "b"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    lines = httpx.post(url + URL, json={"prompt": ["a", "b"], "stream": True}).text.splitlines()
    assert json.loads(next(line for line in reversed(lines) if line)[6:])["error"]["message"] == "no room"


async def test_a_failure_ends_what_is_gathered_and_merged() -> None:
    ended = []

    async def endless(number: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)
        return number

    async def fails() -> int:
        await asyncio.sleep(0)
        raise FitError("no room")

    with pytest.raises(FitError):
        await gathered([endless(1), fails()])

    async def items(number: int) -> AsyncIterator[int]:
        yield number
        yield await (endless(number) if number else fails())

    found = []
    with pytest.raises(FitError):
        async for item in merged([items(0), items(2)]):
            found.append(item)
    assert ended == [1, 2]
    assert sorted(found) == [0, 2]


async def test_a_client_that_goes_away_leaves_all_prompts(scripted: Serve) -> None:
    for stream in (False, True):
        service = ScriptedService([Text("a", "base"), asyncio.Event()])
        url = scripted(service) + URL
        async with httpx.AsyncClient(timeout=None) as client:
            request = asyncio.create_task(client.post(url, json={"prompt": ["a", "b"], "stream": stream}))
            while len(service.requests) < 2:
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            while service.left < 2:
                await asyncio.sleep(0)
        assert service.left == 2


def test_the_embedded_pair_is_served_as_itself(server: str) -> None:
    with wsd_local.load("demo", mode="base", threads=1) as pair:
        vocabulary = pair.models.model("base")
        tokens = vocabulary.tokenize_text(TEXT)
    echoed = complete(server, tokens, model="demo:base", max_tokens=1, echo=True)
    assert echoed["choices"][0]["text"].startswith(TEXT)
