"""What goes wrong on the way to a base: lost connections, busy servers, broken streams, impossible answers.

Each is one clear line, or is overcome without a change of the reply.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from exactness import EXACT, PLAIN
from same_replies import facts
from serving import listening
from stand_ins import Base, Trouble, vllm
from starlette.responses import JSONResponse, Response, StreamingResponse

from wsd_local.errors import UsageError, WsdError
from wsd_local.events import Text
from wsd_local.remote.address import Address, is_address
from wsd_local.remote.link import Link, Patience
from wsd_local.remote.pace import LARGEST, Pace
from wsd_local.remote.servers.protocol import Given
from wsd_local.remote.servers.vllm import VllmServer
from wsd_local.runtime.pair import Pair

QUICK = Patience(connect_s=5, first_s=20, idle_s=0.4, busy_s=2, attempts=3, pause_s=0.0)
QUESTION = "How do I boil an egg?"
PATH = "/v1/completions"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsd_local.runtime.remote_base.Link", partial(Link, patience=QUICK, randomly=lambda: 0.0))


@pytest.fixture
def trouble(real_base: Base) -> Trouble:
    return Trouble(vllm(real_base), path=PATH)


@pytest.fixture
def far(quick: None, trouble: Trouble, demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    loading = replace(EXACT, base_vocab=str(demo_f32[1]))
    with listening(trouble) as url, Pair(draft=demo_f32[0], base=Address(url), reply=PLAIN, loading=loading) as pair:
        pair.models.load()
        trouble.asked.clear()
        yield pair


def failure(pair: Pair, **settings: Any) -> str:
    """The one line that a reply ends with."""
    with pytest.raises(WsdError) as caught:
        pair.reply(QUESTION, **settings)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 400
    return line


# -- what is overcome ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statuses", [[429], [503, 503], ["reset"], ["reset", 502, "reset"], [None, "reset"]], ids=str)
def test_a_request_without_an_answer_is_made_again(
    here: Pair, far: Pair, trouble: Trouble, statuses: list[int | str | None]
) -> None:
    trouble.statuses = list(statuses)
    assert facts(far.reply(QUESTION, max_tokens=20)) == facts(here.reply(QUESTION, max_tokens=20))
    assert trouble.statuses == []


@pytest.mark.parametrize("breaks", [[0], [1, 1, 1], [5], [0, 2, 0, 3]], ids=str)
def test_a_broken_stream_goes_on_and_is_not_repeated(
    here: Pair, far: Pair, trouble: Trouble, breaks: list[int]
) -> None:
    wanted = here.reply(QUESTION)
    far.reply(QUESTION)
    requests = trouble.asked[PATH]
    trouble.breaks = list(breaks)
    assert facts(far.reply(QUESTION)) == facts(wanted)
    assert trouble.asked[PATH] == 2 * requests + len(breaks)


# -- what is not -----------------------------------------------------------------------------------------------------


def test_a_server_that_stays_busy(far: Pair, trouble: Trouble) -> None:
    trouble.answers[PATH] = lambda: JSONResponse({"error": {"message": "queue is full"}}, 503, {"Retry-After": "1"})
    assert "answers /v1/completions with 503: queue is full" in failure(far)


def test_a_server_that_went_away(far: Pair, trouble: Trouble) -> None:
    trouble.statuses = ["reset"] * 10
    assert "cannot be reached" in failure(far)
    assert trouble.asked[PATH] == QUICK.attempts


def test_a_stream_that_never_goes_on_keeps_the_text_so_far(far: Pair, trouble: Trouble) -> None:
    whole = far.reply(QUESTION)
    trouble.breaks = [4, *[0] * 20]
    run = far.start(QUESTION)
    with pytest.raises(WsdError, match=r"connection was lost|ended before"):
        for _ in run.events():
            pass
    assert run.reply.finish_reason == "cancelled"
    assert run.reply.base.tokens == 4
    assert whole.text.startswith(run.reply.text)


def test_an_error_inside_a_stream(far: Pair, trouble: Trouble) -> None:
    body = b'data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\n'
    trouble.answers[PATH] = lambda: Response(body, media_type="text/event-stream")
    assert "ends the stream: CUDA out of memory" in failure(far, mode="base")


def test_a_key_that_is_refused(far: Pair, trouble: Trouble) -> None:
    trouble.answers[PATH] = lambda: JSONResponse({"error": "no"}, 401)
    assert "--base-api-key-env" in failure(far)


# -- answers that cannot be true -------------------------------------------------------------------------------------


def scored(rows: Any) -> Callable[[], Response]:
    text = json.dumps({"choices": [{"index": 0, "text": "", "prompt_logprobs": rows}]})
    return lambda: Response(text, media_type="application/json")


def rows_with(**changes: Any) -> list[Any]:
    return [None, *[{"1": {"logprob": -0.5, **changes}}] * 5]


async def endless() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b" " * 65536


async def drip() -> AsyncIterator[bytes]:
    yield b"{"
    for _ in range(200):
        await asyncio.sleep(0.02)
        yield b" "


HOSTILE: dict[str, tuple[Callable[[], Response], str]] = {
    "too few": (scored(rows_with()), "there are 6 values where"),
    "no list": (scored({"a": 1}), "there is no list"),
    "nothing": (lambda: JSONResponse({}), "choices is missing"),
    "a list": (lambda: JSONResponse([1, 2]), "choices is missing"),
    "null": (lambda: JSONResponse(None), "choices is missing"),
    "no JSON": (lambda: Response("<html>"), "something else than JSON"),
    "deep": (lambda: Response("[" * 100_000), "something else than JSON"),
    "empty": (lambda: Response(""), "something else than JSON"),
    "endless": (lambda: StreamingResponse(endless()), "sends more than"),
    "slow": (lambda: StreamingResponse(drip()), "too slowly"),
    "compressed": (lambda: Response(gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}), "compresses"),
    "a redirect": (lambda: Response(status_code=302, headers={"Location": "http://example.com/"}), "with 302"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_one_line(far: Pair, trouble: Trouble, name: str) -> None:
    answer, expected = HOSTILE[name]
    trouble.answers[PATH] = answer
    assert expected in failure(far)
    assert trouble.asked[PATH] == 1
    trouble.answers.clear()
    assert far.reply(QUESTION, max_tokens=8).text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda row: {**row, "logprob": math.nan}, "a log-probability is nan"),
        (lambda row: {**row, "logprob": 0.7}, r"a log-probability is 0\.7"),
        (lambda row: {**row, "logprob": "-1"}, "a log-probability is -1"),
        (lambda row: {**row, "logprob": None}, "a log-probability is None"),
        (lambda row: {}, "logprob is missing"),
        (lambda row: 3, "logprob is missing"),
    ],
    ids=["nan", "positive", "text", "null", "nothing", "number"],
)
def test_log_probabilities_that_cannot_be(
    demo_f32: tuple[Path, Path], change: Callable[[Any], Any], expected: str
) -> None:
    server, given = VllmServer("http://x", "m"), Given([5, 6, 7], 1)
    rows: list[Any] = [None, {"6": {"logprob": -0.5}}, {"7": {"logprob": -1.0}}]
    assert [score.logprob for score in server.scored(answer_of(rows), given).scores] == [-0.5, -1.0]
    rows[2] = {"7": change(rows[2]["7"])}
    with pytest.raises(WsdError, match=expected):
        server.scored(answer_of(rows), given)
    with pytest.raises(WsdError, match="scores are those of other tokens"):
        server.scored(answer_of([None, {"6": {"logprob": -0.5}}, {"8": {"logprob": -1.0}}]), given)
    with pytest.raises(WsdError, match="no log-probability of a token in the middle"):
        server.scored(answer_of([None, {"6": {"logprob": -0.5}}, None]), given)


def answer_of(rows: Any) -> Any:
    return {"choices": [{"prompt_logprobs": rows}]}


# -- stopping, addresses, pace ---------------------------------------------------------------------------------------


def test_a_reply_can_be_stopped_while_the_server_is_silent(far: Pair, trouble: Trouble) -> None:
    asked = threading.Event()

    async def silent() -> AsyncIterator[bytes]:
        asked.set()
        await asyncio.Event().wait()
        yield b""

    far.models.remote._link.patience = Patience()  # type: ignore[union-attr]
    trouble.answers[PATH] = lambda: StreamingResponse(silent())
    run = far.start(QUESTION)

    def stop() -> None:
        asked.wait()
        run.cancel()

    thread = threading.Thread(target=stop)
    thread.start()
    events = list(run.events())
    thread.join()
    assert run.reply.finish_reason == "cancelled"
    assert any(isinstance(event, Text) for event in events)
    trouble.answers.clear()
    assert far.reply(QUESTION, max_tokens=8).text


def test_the_first_text_does_not_wait_for_the_server(far: Pair, trouble: Trouble) -> None:
    for event in far.start(QUESTION).events():
        if isinstance(event, Text):
            assert trouble.asked.get(PATH, 0) == 0
            return
    pytest.fail("there was no text")


@pytest.mark.parametrize(
    "url", ["http://", "http://u:p@host", "http://host?key=1", "http://host:port", "http://host:99999999", "http://[x"]
)
def test_what_is_no_address(url: str) -> None:
    assert is_address(url)
    with pytest.raises(UsageError, match="is no address of a base"):
        Address(url)


def test_addresses_and_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Address("HTTP://host:8080/v1/").url == "http://host:8080"
    assert Address("https://host/under/v1").url == "https://host/under"
    with pytest.raises(UsageError, match="there is no key in that environment variable"):
        Address("https://host", None, "NO_SUCH_KEY")
    monkeypatch.setenv("A_KEY", "secret-of-the-server")
    assert Address("https://host", None, "A_KEY").key == "secret-of-the-server"
    assert Address("http://127.0.0.1:1", None, "A_KEY").key == "secret-of-the-server"
    with pytest.raises(UsageError, match="others could read the key in A_KEY") as caught:
        Address("http://host", None, "A_KEY")
    assert "secret" not in str(caught.value)


def test_more_tokens_are_checked_together_where_a_round_trip_is_long() -> None:
    pace = Pace()
    assert pace.chunk(8) == 8
    sizes = []
    for seconds in (0.0005, 0.02, 0.1, 1000.0):
        pace = Pace()
        pace.saw(seconds)
        sizes.append(pace.chunk(8))
    assert sizes == sorted(sizes)
    assert sizes[0] == 8
    assert sizes[-1] == LARGEST
    assert sizes[1] < sizes[2] < LARGEST


def test_a_page_of_several_models(quick: None, real_base: Base, demo_f32: tuple[Path, Path]) -> None:
    trouble = Trouble(vllm(real_base))
    one = {"object": "model", "owned_by": "vllm", "max_model_len": 2048}
    trouble.answers["/v1/models"] = lambda: JSONResponse({"data": [one | {"id": "a"}, one | {"id": "b"}]})
    loading = replace(EXACT, base_vocab=str(demo_f32[1]))
    with listening(trouble) as url:
        with (
            Pair(draft=demo_f32[0], base=Address(url), loading=loading) as pair,
            pytest.raises(UsageError, match=r"several models: choose one with --base-model \(a, b\)"),
        ):
            pair.reply("Hi")
        with Pair(draft=demo_f32[0], base=Address(url, "b"), reply=PLAIN, loading=loading) as pair:
            assert pair.reply("Hi", max_tokens=4).base.model == "b"
