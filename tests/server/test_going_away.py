"""Clients that go away: their replies stop in every phase, by counted evaluations, and nobody else's does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from evaluations import PATIENCE, Evaluation, Evaluations, evaluations
from exactness import EXACT, PLAIN
from serving import desk_of
from wire import Wire

from wsd_local.runtime.reply import Reply
from wsd_local.server.observing import Nobody

CHAT = "/v1/chat/completions"
LONG = "the rain in the hills and the river in the valley " * 40
"""A prompt of several evaluations."""
OTHERS = ["What is rain?", "How do I boil an egg?", "Name a colour of the sky."]
PARALLEL = 4


class Ends(Nobody):
    """Records the ends of replies."""

    def __init__(self) -> None:
        self.cancelled_replies: list[Reply | None] = []
        self._one = threading.Semaphore(0)

    def cancelled(self, model: str, reply: Reply | None, seconds: float) -> None:
        """See `Observer`."""
        self.cancelled_replies.append(reply)
        self._one.release()

    def wait(self) -> Reply | None:
        """Wait until one more reply was stopped."""
        assert self._one.acquire(timeout=PATIENCE), "no reply was stopped"
        return self.cancelled_replies[-1]


@pytest.fixture(scope="module")
def ends() -> Ends:
    """What the server reports about stopped replies."""
    return Ends()


@pytest.fixture(scope="module")
def url(demo_f32: tuple[Path, Path], ends: Ends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server under the conditions in which a reply does not depend on what it shares evaluations with."""
    loading = replace(EXACT, ctx=2048, parallel=PARALLEL)
    with desk_of(demo_f32, loading, tmp_path_factory.mktemp("exact"), reply=PLAIN, observer=ends) as made:
        yield made


@pytest.fixture
def watched() -> Iterator[Evaluations]:
    """The server's evaluations."""
    with evaluations() as found:
        yield found


def asked(text: str, **more: Any) -> dict[str, Any]:
    """A request whose reply has all phases: the draft writes six tokens, the base the rest of thirty."""
    messages = [{"role": "user", "content": text}]
    own = {"ignore_eos": True, "wsd": {"draft_max_tokens": 6, "threshold": 0.0}}
    return {"model": "demo", "messages": messages, "max_tokens": 30, **own, **more}


def answer(url: str, text: str, **more: Any) -> str:
    found = httpx.post(url + CHAT, json=asked(text, **more), timeout=None)
    assert found.status_code == 200, found.text
    return str(found.json()["choices"][0]["message"]["content"])


# -- one client alone ----------------------------------------------------------------------------------------------


def reads(model: str) -> Callable[[Evaluation], bool]:
    """A part of a long prompt; no chunk of a check has so many tokens."""
    return lambda found: found.model.startswith(model) and found.parts[0][1] > 64


def reads_on(found: Evaluation) -> bool:
    return reads("draft")(found) and found.parts[0][0] > 256


def writes(model: str) -> Callable[[Evaluation], bool]:
    return lambda found: found.model.startswith(model) and found.is_step


PHASES: dict[str, Callable[[Evaluation], bool]] = {
    "the draft's prompt": reads("draft"),
    "a later part of the draft's prompt": reads_on,
    "drafting": writes("draft"),
    "the base's prompt": reads("base"),
    "continuing": writes("base"),
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("phase", PHASES)
def test_nothing_is_evaluated_for_a_client_that_went_away(
    url: str, ends: Ends, watched: Evaluations, phase: str, stream: bool
) -> None:
    watched.hold(PHASES[phase])
    with Wire(url, CHAT, **asked(f"{phase} {stream} {LONG}", stream=stream)) as client:
        watched.held()
        client.hang_up()
        ends.wait()
    assert watched.stopped == watched.begun[-1:]


BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": LONG, "max_tokens": 30},
    "/v1/responses": {"input": LONG, "max_output_tokens": 30},
    "/v1/messages": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 30},
    "/api/chat": {"messages": [{"role": "user", "content": LONG}]},
    "/api/generate": {"prompt": LONG},
}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", BODIES)
def test_the_same_in_all_protocols(url: str, ends: Ends, watched: Evaluations, path: str, stream: bool) -> None:
    own = {name: f"{path} {stream} {value}" for name, value in BODIES[path].items() if isinstance(value, str)}
    watched.hold(writes("draft"))
    with Wire(url, path, model="demo", stream=stream, **(BODIES[path] | own)) as client:
        watched.held()
        client.hang_up()
        ends.wait()
    assert watched.stopped == watched.begun[-1:]


def test_a_client_that_waits_and_goes_away_is_never_worked_on(url: str, ends: Ends, watched: Evaluations) -> None:
    texts = [f"{number} {LONG}" for number in range(PARALLEL)]
    watched.hold(reads("draft"))
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(answer, url, text, max_tokens=2) for text in texts]
        watched.held()
        with Wire(url, CHAT, **asked("the last of all", stream=True)) as client:
            client.until(b"\r\n\r\n")
            client.hang_up()
            watched.release()
            assert ends.wait() is None
        assert all(other.result() for other in others)


# -- others are in progress ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "leave", [Wire.hang_up, pytest.param(Wire.reset, marks=pytest.mark.slow)], ids=["closed", "broken"]
)
def test_a_client_that_goes_away_takes_no_other_reply_with_it(
    url: str, ends: Ends, watched: Evaluations, phase: str, leave: Callable[[Wire], None]
) -> None:
    alone = [answer(url, text) for text in OTHERS]
    with ThreadPoolExecutor() as pool:
        watched.hold(PHASES[phase])
        with Wire(url, CHAT, **asked(f"{phase} {leave} {LONG}", stream=True)) as client:
            watched.held()
            others = [pool.submit(answer, url, text) for text in OTHERS]
            leave(client)
            ends.wait()
        assert [other.result() for other in others] == alone


def test_a_request_does_not_interrupt_the_one_before(url: str, watched: Evaluations) -> None:
    first, second = OTHERS[:2]
    alone = [answer(url, first), answer(url, second)]
    watched.hold(writes("base"))
    with ThreadPoolExecutor() as pool:
        earlier = pool.submit(answer, url, first)
        watched.held()
        later = pool.submit(answer, url, second)
        watched.release()
        assert [earlier.result(), later.result()] == alone


def test_at_temperature_0_a_reply_is_the_same_under_load(url: str) -> None:
    alone = {text: answer(url, text, temperature=0) for text in OTHERS}
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda text: answer(url, text, temperature=0), OTHERS * 4))
    assert together == [alone[text] for text in OTHERS * 4]
