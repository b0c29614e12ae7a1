"""One of many replies is stopped, by its key and from any thread: the others are what they would be alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from data_sets import fixture_prompts
from exactness import EXACT, PLAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from makers_more import paths_of_kinds

from wsd_local.errors import CancelledError
from wsd_local.events import Event
from wsd_local.llama import Context
from wsd_local.prompts.templates import Template
from wsd_local.runtime.fleet import Failed, Fleet
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.runtime.setup import start

PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()][:7]
WAYS: list[dict[str, Any]] = [{"threshold": 0.6}, {"mode": "base"}, {"threshold": 2.0, "draft_max_tokens": 30}]
ASKED = [(prompt, {"max_tokens": 30} | WAYS[index % 3]) for index, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def pair(kin: tuple[Path, Path]) -> Iterator[Pair]:
    with Pair(draft=kin[0], base=kin[1], reply=PLAIN, loading=replace(EXACT, ctx=512, parallel=4)) as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(kin: tuple[Path, Path]) -> list[Reply]:
    with Pair(draft=kin[0], base=kin[1], reply=PLAIN, loading=replace(EXACT, ctx=512)) as opened:
        return [opened.reply(prompt, **own) for prompt, own in ASKED]


@contextmanager
def before_evaluations(act: Callable[[int], None]) -> Iterator[None]:
    """Call `act` with the number of each evaluation, when it can only be stopped by an abort."""
    decode, count = Context._decode, 0

    def counted(self: Context, parts: Any) -> None:
        nonlocal count
        check = self._cancellation.check

        def late() -> None:
            check()
            act(count)

        self._cancellation.check = late  # type: ignore[method-assign]
        count += 1
        try:
            decode(self, parts)
        finally:
            self._cancellation.check = check  # type: ignore[method-assign]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Context, "_decode", counted)
        yield


def filled(pair: Pair, count: int = len(ASKED)) -> Fleet[int]:
    fleet: Fleet[int] = Fleet(pair)
    for index, (prompt, own) in enumerate(ASKED[:count]):
        fleet.add(index, prompt, **own)
    return fleet


def ends(events: Iterator[tuple[int, Event]]) -> dict[int, Event]:
    return {key: event for key, event in events if isinstance(event, Finished | Failed)}


def require_unharmed(found: dict[int, Event], alone: list[Reply], stopped: set[int]) -> None:
    """All have ended; those that were not stopped as they would alone, the others with what they had."""
    assert set(found) == set(range(len(found)))
    for key, event in found.items():
        if isinstance(event, Failed):
            assert key in stopped and isinstance(event.error, CancelledError)
        elif isinstance(event, Finished) and event.reply.finish_reason == "cancelled":
            assert key in stopped and alone[key].text.startswith(event.reply.text)
        else:
            assert isinstance(event, Finished)
            assert (event.reply.text, event.reply.finish_reason) == (alone[key].text, alone[key].finish_reason)
            assert [token.id for token in event.reply.tokens] == [token.id for token in alone[key].tokens]


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=pytest.mark.slow if seed > 5 else ()) for seed in range(40)])
def test_evaluations_in_progress_are_taken_back_for_one(pair: Pair, alone: list[Reply], seed: int) -> None:
    chance = Random(seed)
    moments = {chance.randrange(60 if seed % 2 else 15): key for key in chance.sample(range(len(ASKED)), 4)}
    fleet, stopped = filled(pair), set[int]()

    def act(number: int) -> None:
        if number in moments:
            stopped.add(moments[number])
            fleet.stop(moments[number])

    with before_evaluations(act):
        found = ends(fleet.events())
    assert len(found) == len(ASKED)
    require_unharmed(found, alone, stopped)
    assert not pair.models.cancellation.is_set


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [("mamba", "mamba"), ("lfm2", "lfm2"), ("sliding", "sliding")], ids="-".join)
def test_memories_of_other_kinds(tmp_path: Path, kinds: tuple[str, str]) -> None:
    files = paths_of_kinds(tmp_path, kinds)
    with Pair(draft=files[0], base=files[1], reply=PLAIN, loading=replace(EXACT, ctx=512)) as opened:
        alone = [opened.reply(prompt, **own) for prompt, own in ASKED]
    with Pair(draft=files[0], base=files[1], reply=PLAIN, loading=replace(EXACT, ctx=512, parallel=4)) as opened:
        for seed in range(6):
            chance, fleet, stopped = Random(seed), filled(opened), set[int]()
            moments = {chance.randrange(20): key for key in chance.sample(range(len(ASKED)), 3)}

            def act(
                number: int, fleet: Fleet[int] = fleet, moments: dict[int, int] = moments, stopped: set[int] = stopped
            ) -> None:
                if number in moments:
                    stopped.add(moments[number])
                    fleet.stop(moments[number])

            with before_evaluations(act):
                require_unharmed(ends(fleet.events()), alone, stopped)


@settings(max_examples=25, deadline=None)
@given(moments=st.dictionaries(st.integers(0, 60), st.integers(0, 6), max_size=5))
def test_stops_between_events(pair: Pair, alone: list[Reply], moments: dict[int, int]) -> None:
    fleet, found = filled(pair), dict[int, Event]()
    for count, (key, event) in enumerate(fleet.events()):
        if isinstance(event, Finished | Failed):
            found[key] = event
        if count in moments:
            fleet.stop(moments[count])
    assert len(found) == len(ASKED)
    require_unharmed(found, alone, set(moments.values()))


def test_another_thread_stops_at_any_time(pair: Pair, alone: list[Reply]) -> None:
    for seed in range(4):
        chance, fleet = Random(seed), filled(pair)
        order, go = chance.sample(range(len(ASKED)), 3), threading.Semaphore(0)

        def work(order: list[int] = order, fleet: Fleet[int] = fleet, go: threading.Semaphore = go) -> None:
            for key in order:
                go.acquire()
                fleet.stop(key)

        thread = threading.Thread(target=work)
        thread.start()
        found: dict[int, Event] = {}
        for count, (key, event) in enumerate(fleet.events()):
            if isinstance(event, Finished | Failed):
                found[key] = event
            if count % 15 == 5:
                go.release()
        go.release(3)
        thread.join()
        require_unharmed(found, alone, set(order))
        fleet.stop(order[0])  # over: nothing happens
        assert ends(filled(pair, 2).events()).keys() == {0, 1}


def test_one_that_waits_is_dropped_without_an_evaluation(pair: Pair, alone: list[Reply]) -> None:
    fleet: Fleet[int] = Fleet(pair, parallel=1)
    for index, (prompt, own) in enumerate(ASKED[:3]):
        fleet.add(index, prompt, **own)
    events = fleet.events()
    next(events)
    interrupted = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pair.models.cancellation, "set", lambda: interrupted.append(True))
        assert fleet.stop(1)
    found = ends(events)
    assert not interrupted
    assert isinstance(found[1], Failed)
    require_unharmed(found, alone, {1})


def test_one_that_is_prepared_is_stopped(pair: Pair, alone: list[Reply], monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, render = filled(pair, 3), Template.render
    asked: list[int] = []

    def slow(self: Template, conversations: Any, values: Any, now: Any, cancelled: Any) -> Any:
        asked.append(len(asked))
        if len(asked) == 1:
            fleet.stop(0)
        if cancelled():
            raise CancelledError("stopped")
        return render(self, conversations, values, now, cancelled)

    monkeypatch.setattr(Template, "render", slow)
    found = ends(fleet.events())
    assert isinstance(found[0], Failed)
    require_unharmed(found, alone, {0})


def test_prepared_work_enters_from_another_thread(pair: Pair, alone: list[Reply]) -> None:
    fleet: Fleet[int] = Fleet(pair)
    fleet.add(0, ASKED[0][0], **ASKED[0][1])
    found: dict[int, Event] = {}

    def prepare() -> None:
        for index in range(1, 5):
            fleet.enter(index, start(pair, ASKED[index][0], **ASKED[index][1]))

    for count, (key, event) in enumerate(fleet.events()):
        if isinstance(event, Finished | Failed):
            found[key] = event
        if count == 3:
            thread = threading.Thread(target=prepare)
            thread.start()
            thread.join()
    assert len(found) == 5
    require_unharmed(found, alone, set())


def test_a_stop_of_all_is_no_stop_of_one(pair: Pair) -> None:
    fleet = filled(pair)
    events = fleet.events()
    for _ in range(10):
        next(events)
    fleet.stop(0)
    pair.cancel()
    found: dict[int, Event] = {}
    with pytest.raises(CancelledError):
        for key, event in events:
            found[key] = event
    assert len(found | ends(fleet.events())) == len(ASKED)  # the others go on
