"""Endpoints of our own, asked of the embedded pair; their edges with scripted services."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from serving import ScriptedService

import wsd_local
from wsd_local.server.service import State

Serve = Callable[[ScriptedService], str]


def posted(client: httpx.Client, path: str, **body: Any) -> Any:
    """The answer of an endpoint that is expected to give one."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


# -- state -----------------------------------------------------------------------------------------------------------


def test_health(client: httpx.Client) -> None:
    for path in ("/health", "/v1/health"):
        assert client.get(path).json() == {"status": "ok"}
        assert client.head(path).status_code == 200


@pytest.mark.parametrize("state", ["loading", "failed", "ending"])
def test_health_while_requests_are_not_answered(scripted: Serve, state: State) -> None:
    service = ScriptedService()
    service.state, service.progress = state, {"pair": "demo", "role": "base", "fraction": 0.5}
    answer = httpx.get(f"{scripted(service)}/health")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["status"] == state
    assert answer.json()["progress"]["fraction"] == 0.5
    assert answer.json()["error"]["code"] == 503


def test_properties(client: httpx.Client) -> None:
    props = client.get("/props").json()
    assert [model["id"] for model in props["models"]] == ["demo", "demo:base", "demo:draft"]
    assert props["total_slots"] == 4
    assert props["default_generation_settings"]["n_ctx"] == 2048
    assert props["default_generation_settings"]["params"]["threshold"] == 0.8
    assert "/" not in str(props)


def test_slots(scripted: Serve) -> None:
    service = ScriptedService()
    url = scripted(service)
    busy, idle = httpx.get(f"{url}/slots").json()
    assert (busy["phase"], busy["is_processing"], busy["reply_tokens"]) == ("continue", True, 2)
    assert (idle["phase"], idle["is_processing"]) == ("idle", False)
    assert httpx.get(f"{url}/slots?fail_on_no_slot=1").status_code == 200
    only = service.status.slots()[:1]
    service.slots = lambda: only  # type: ignore[method-assign]
    assert httpx.get(f"{url}/slots?fail_on_no_slot=1").status_code == 503
    assert httpx.get(f"{url}/slots").status_code == 200
    refused = httpx.get(f"{url}/slots?fail_on_no_slot=yes")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "fail_on_no_slot"
    assert "fail_on_no_slot must be '0', '1'" in refused.json()["error"]["message"]


# -- tokens and templates --------------------------------------------------------------------------------------------

TEXT = "How do I boil an egg? Café, 雨.\n"


@pytest.mark.parametrize("model", ["", "demo", "demo:base", "demo:draft"])
def test_tokens_are_the_text(client: httpx.Client, model: str) -> None:
    tokens = posted(client, "/tokenize", content=TEXT, model=model)["tokens"]
    assert posted(client, "/detokenize", tokens=tokens, model=model)["content"] == TEXT


def test_tokens_by_the_names_of_vllm(client: httpx.Client) -> None:
    plain = posted(client, "/tokenize", content=TEXT)["tokens"]
    found = posted(client, "/tokenize", prompt=TEXT, add_special_tokens=False)
    assert (found["tokens"], found["count"], found["max_model_len"]) == (plain, len(plain), 2048)
    whole = posted(client, "/tokenize", prompt=TEXT, add_special_tokens=True)["tokens"]
    assert whole[1:] == plain
    assert posted(client, "/detokenize", tokens=plain)["prompt"] == TEXT
    info = client.get("/tokenizer_info").json()
    assert posted(client, "/tokenize", content=info["bos_token"])["tokens"] == whole[:1]
    assert len(posted(client, "/tokenize", content=info["eos_token"])["tokens"]) == 1
    for body in ({}, {"content": "x", "prompt": "x"}):
        refused = client.post("/tokenize", json=body)
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, "give content, or prompt")
    assert client.get("/tokenizer_info", params={"model": "other"}).status_code == 404


def test_tokens_with_their_pieces(client: httpx.Client) -> None:
    tokens = posted(client, "/tokenize", content=TEXT)["tokens"]
    pieces = posted(client, "/tokenize", content=TEXT, with_pieces=True)["tokens"]
    assert [one["id"] for one in pieces] == tokens
    parts = [one["piece"].encode() if isinstance(one["piece"], str) else bytes(one["piece"]) for one in pieces]
    assert b"".join(parts).decode() == TEXT


@pytest.mark.parametrize("count", [0, 1, 2048, 2049, 5000])
def test_a_list_of_tokens_of_any_length_is_asked_for_once(scripted: Serve, count: int) -> None:
    service = ScriptedService()
    url = scripted(service)
    answer = httpx.post(f"{url}/tokenize", json={"content": "é" * count if count else "", "with_pieces": True})
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.json()["tokens"]) == 2 * count and len(service.requests) == 2
    assert answer.json()["tokens"][:2] == [{"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}][: 2 * count]
    plain = httpx.post(f"{url}/tokenize", json={"content": "a" * count}).json()
    assert plain == {"tokens": [97] * count, "count": count, "max_model_len": 512}


def test_more_scores_than_an_answer_holds_are_refused(client: httpx.Client) -> None:
    many = [{"tokens": [5] * 2000, "start": 1, "top": 100}] * 20
    answer = client.post("/v1/score", json={"model": "demo:base", "requests": many})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "requests")
    assert "4037980 log-probabilities" in answer.json()["error"]["message"]


def test_what_is_wrong_in_one_of_many_requests(client: httpx.Client) -> None:
    right: dict[str, Any] = {"tokens": [5, 6], "start": 1}
    for wrong, param in (
        ({"tokens": [5, 10**6], "start": 1}, "tokens"),
        ({"tokens": [5] * 5000, "start": 1}, "tokens"),
    ):
        answer = client.post("/v1/score", json={"model": "demo:base", "requests": [right, wrong]})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"requests[1].{param}")
        assert answer.json()["error"]["message"].startswith("requests[1]: ")


def test_what_is_spelled_like_a_control_token(client: httpx.Client) -> None:
    with wsd_local.load("demo", threads=1) as pair:
        vocabulary = pair.models.model("draft")
        spelling = next(iter(vocabulary._control_tokens))
        control = vocabulary._control_tokens[spelling]
    whole = posted(client, "/tokenize", content=spelling, model="demo:draft")["tokens"]
    apart = posted(client, "/tokenize", content=spelling, model="demo:draft", parse_special=False)["tokens"]
    assert whole == [control]
    assert control not in apart


def test_a_token_that_the_model_does_not_have(client: httpx.Client) -> None:
    for token in (2**31 - 1, -1, 2**40):
        answer = client.post("/detokenize", json={"tokens": [token]})
        assert answer.status_code == 400
        assert "tokens" in answer.json()["error"]["message"]


def test_a_conversation_as_the_models_read_it(client: httpx.Client) -> None:
    messages = [{"role": "user", "content": "What is rain?"}]
    both = posted(client, "/apply-template", messages=messages)
    assert set(both["prompts"]) == {"draft", "base"}
    assert both["prompt"] == both["prompts"]["base"]
    assert "What is rain?" in both["prompts"]["draft"]
    alone = posted(client, "/apply-template", messages=messages, model="demo:draft")
    assert alone["prompts"] == {"draft": both["prompts"]["draft"]}
    refused = client.post("/apply-template", json={"messages": [{"role": "tool", "content": "x"}]})
    assert refused.status_code == 400


# -- scores ----------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_base(client: httpx.Client) -> None:
    """Held against the probabilities that a reply of the same model reports."""
    with wsd_local.load("demo", threads=1) as pair:
        reply = pair.reply("How do I boil an egg?", mode="base", max_tokens=12, probabilities=True)
    prompt, written = list(reply.prompt_ids["base"]), [token.id for token in reply.tokens]
    found = posted(
        client, "/v1/score", model="demo:base", requests=[{"tokens": prompt + written, "start": len(prompt), "top": 3}]
    )
    (result,) = found["results"]
    assert [token["id"] for token in result["tokens"]] == written
    for token, own in zip(result["tokens"], reply.tokens, strict=True):
        assert own.prob is not None
        assert math.exp(token["logprob"]) == pytest.approx(own.prob, abs=0.02)
        assert token["top"][0]["logprob"] >= token["logprob"] - 1e-6
        assert [one["logprob"] for one in token["top"]] == sorted(
            (one["logprob"] for one in token["top"]), reverse=True
        )
    assert result["logprob"] == pytest.approx(sum(token["logprob"] for token in result["tokens"]))
    assert found["usage"]["scored_tokens"] == len(written)
    assert found["usage"]["prompt_tokens"] == len(prompt) + len(written)


def test_many_scores_are_what_each_is_alone(client: httpx.Client) -> None:
    texts = [{"prompt": f"Question {number}: what is", "continuation": " rain?", "top": 1} for number in range(20)]
    together = posted(client, "/v1/score", requests=texts)["results"]
    for text, result in zip(texts[::7], together[::7], strict=True):
        (alone,) = posted(client, "/v1/score", requests=[text])["results"]
        assert [token["id"] for token in alone["tokens"]] == [token["id"] for token in result["tokens"]]
        assert alone["logprob"] == pytest.approx(result["logprob"], abs=0.1)
        assert "".join(token["text"] for token in result["tokens"]) == " rain?"


def test_what_was_scored_before_is_in_the_cache(client: httpx.Client) -> None:
    prompt = "Rain falls when water in the air becomes drops that are too heavy to stay there, and"
    body = {"prompt": prompt, "continuation": " then it"}
    first = posted(client, "/v1/score", requests=[body])
    again = posted(client, "/v1/score", requests=[{**body, "continuation": " so we"}])
    assert again["results"][0]["cached_tokens"] >= first["results"][0]["start"] - 1
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] == again["results"][0]["cached_tokens"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ({}, "tokens"),
        ({"tokens": [1, 2]}, "start"),
        ({"tokens": [], "start": 0}, "tokens"),
        ({"tokens": [1, 2], "start": 2}, "start"),
        ({"tokens": [1, 2], "start": -1}, "start"),
        ({"tokens": [1, 2], "start": 0}, "start"),
        ({"tokens": [1, 2.5], "start": 1}, "tokens"),
        ({"tokens": [1, True], "start": 1}, "tokens"),
        ({"tokens": [1, 2**40], "start": 1}, "tokens"),
        ({"tokens": [1, 999_999], "start": 1}, "token"),
        ({"tokens": [1, 2], "start": 1, "continuation": "x"}, "tokens"),
        ({"tokens": [1, 2], "start": 1, "prompt": "x"}, "prompt"),
        ({"continuation": "x", "start": 1}, "start"),
        ({"continuation": ""}, "continuation"),
        ({"tokens": [1, 2], "start": 1, "top": 101}, "top"),
        ({"tokens": [1, 2], "start": 1, "stride": 1}, "stride"),
    ],
)
def test_a_request_for_scores_that_is_wrong(client: httpx.Client, text: dict[str, Any], word: str) -> None:
    answer = client.post("/v1/score", json={"requests": [{"tokens": [1, 2, 3], "start": 1}, text]})
    assert answer.status_code == 400
    assert word in answer.json()["error"]["message"]


def test_a_text_that_does_not_fit_is_refused_with_counts(client: httpx.Client) -> None:
    answer = client.post("/v1/score", json={"requests": [{"tokens": [5] * 5000, "start": 4999}]})
    assert answer.status_code == 400
    assert "5000" in answer.json()["error"]["message"]
    assert "2048" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/score", "/tokenize", "/detokenize", "/apply-template"])
def test_a_model_that_is_not_served(client: httpx.Client, path: str) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "/v1/score": {"requests": [{"tokens": [1, 2], "start": 1}]},
        "/tokenize": {"content": "x"},
        "/detokenize": {"tokens": [1]},
        "/apply-template": {"messages": [{"role": "user", "content": "x"}]},
    }
    answer = client.post(path, json={"model": "dem", **bodies[path]})
    assert answer.status_code == 404
    assert "'demo'" in answer.json()["error"]["message"]
    unknown = client.post(path, json={"modle": "demo", **bodies[path]})
    assert unknown.status_code == 400
    assert "modle" in unknown.json()["error"]["message"]


def test_a_model_must_be_named_where_there_are_several(scripted: Serve) -> None:
    url = scripted(ScriptedService(pairs=("one", "two")))
    answer = httpx.post(f"{url}/tokenize", json={"content": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"


def test_every_endpoint_is_described(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path in ("/health", "/props", "/slots", "/metrics", "/tokenize", "/detokenize", "/apply-template", "/v1/score"):
        assert all(operation["summary"] for operation in paths[path].values())


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/tokenize", {"content": "a", "add_specials": True}, "add_special"),
        ("/detokenize", {"token": [1]}, "tokens"),
        ("/apply-template", {"mesages": []}, "messages"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(
    client: httpx.Client, path: str, body: dict[str, Any], name: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert f"did you mean '{name}'" in answer.json()["error"]["message"]
