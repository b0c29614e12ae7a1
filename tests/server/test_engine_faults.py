"""Unexpected faults in the threads between event loops and models: no one of them ends the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exactness import EXACT, PLAIN

from wsd_local.errors import WsdError
from wsd_local.library.catalog import PairEntry
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.server import engine as engines
from wsd_local.server.desk import Desk
from wsd_local.server.engine import EngineRoom
from wsd_local.server.observing import Nobody
from wsd_local.server.orders import ReplyOrder
from wsd_local.server.reporting import Reporter
from wsd_local.server.service import ReplyRequest

LOADING = replace(EXACT, ctx=512, parallel=2)


@asynccontextmanager
async def opened(files: tuple[Path, Path], **options: Any) -> AsyncIterator[Desk]:
    pair = PairEntry("kin", str(files[0]), str(files[1]), BaseFormat())
    desk = Desk([pair], PLAIN, LOADING, **options)
    desk.start()
    try:
        yield desk
    finally:
        await asyncio.to_thread(desk.close)


async def reply_to(desk: Desk) -> Reply:
    async with desk.replies(ReplyRequest("kin", "Hello there", {"max_tokens": 3})) as events:
        async for _, event in events:
            if isinstance(event, Finished):
                return event.reply
    raise AssertionError("no end")


async def loaded(desk: Desk) -> None:
    """Wait until the models were loaded."""
    await desk.texts.tokenize("kin", "once they are loaded")


async def freed(desk: Desk) -> None:
    """Wait until no models are loaded."""
    while desk._room.loaded is not None:
        await asyncio.sleep(0.002)


def fails_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let a function fail when it is called for the first time."""
    original, left = getattr(owner, name), [ValueError("/secret")]

    def failing(*given: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return original(*given, **named)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    ("owner", "name", "message"),
    [
        pytest.param(Reporter, "report", "the evaluation failed; the server's log says why", id="reporting"),
        pytest.param(EngineRoom, "_serve", "the server failed; its log says why", id="serving"),
        pytest.param(EngineRoom, "_ready", "the server failed; its log says why", id="readying"),
        pytest.param(EngineRoom, "_admit", "the server failed; its log says why", id="admitting"),
        pytest.param(EngineRoom, "_refusal", "the server failed; its log says why", id="choosing"),
        pytest.param(
            ReplyOrder, "work", "the request could not be prepared; the server's log says why", id="preparing"
        ),
    ],
)
async def test_a_fault_fails_the_requests_concerned_and_the_next_is_answered(
    kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, message: str
) -> None:
    async with opened(kin) as desk:
        await loaded(desk)
        desk.reload([desk._room.serving.pairs["kin"]], PLAIN, replace(LOADING, ctx=256))  # it is loaded once more
        await freed(desk)
        fails_once(monkeypatch, owner, name)
        with pytest.raises(WsdError) as caught:
            await reply_to(desk)
        assert str(caught.value) == message
        for _ in range(2):
            assert (await reply_to(desk)).text
        assert desk.status.state == "ready" and desk.status.idle


@pytest.mark.parametrize("name", ["_next", "_unload"])
async def test_a_fault_between_requests(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async with opened(kin, keep_alive=0.0) as desk:
        await loaded(desk)
        await freed(desk)
        fails_once(monkeypatch, EngineRoom, name)
        for _ in range(3):
            try:
                await reply_to(desk)
            except WsdError as error:
                assert str(error) == "the server failed; its log says why"
            await loaded(desk)
            await freed(desk)
        assert (await reply_to(desk)).text


async def test_models_that_cannot_be_freed_in_order(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    close = Pair.close

    def failing(self: Pair) -> None:
        close(self)
        raise OSError("/secret")

    monkeypatch.setattr(Pair, "close", failing)
    async with opened(kin, keep_alive=0.0) as desk:
        for _ in range(3):
            assert (await reply_to(desk)).text


async def test_a_fault_while_the_first_pair_is_loaded(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    fails_once(monkeypatch, EngineRoom, "_load")
    async with opened(kin) as desk:
        while desk.status.state == "loading":
            await asyncio.sleep(0.002)
        states = [desk.status.state]
        assert desk.status.failure is not None
        assert (await reply_to(desk)).text
        assert [*states, desk.status.state] == ["failed", "ready"]


async def test_what_was_admitted_by_then_fails_and_what_waits_for_another_pair_does_not(
    kin: tuple[Path, Path], demo_f32: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [
        PairEntry(name, str(draft), str(base), BaseFormat())
        for name, (draft, base) in (("kin", kin), ("demo", demo_f32))
    ]
    desk = Desk(pairs, PLAIN, LOADING)
    desk.start()
    try:
        await desk.texts.tokenize("kin", "x")
        fails_once(monkeypatch, Reporter, "report")
        found = await asyncio.gather(reply_to(desk), desk.texts.tokenize("demo", "x"), return_exceptions=True)
        assert isinstance(found[0], WsdError) and isinstance(found[1], list)
    finally:
        await asyncio.to_thread(desk.close)


async def test_an_observer_that_fails_changes_nothing(kin: tuple[Path, Path]) -> None:
    class Failing(Nobody):
        """Fails whatever it receives."""

        def __getattribute__(self, name: str) -> Callable[..., None]:
            def fail(*_: object) -> None:
                raise ValueError(name)

            return fail

    async with opened(kin, observer=Failing()) as desk:
        assert (await reply_to(desk)).text
        with pytest.raises(WsdError, match="the prompt is empty"):
            async with desk.replies(ReplyRequest("kin", " ")):
                pass
        assert (await reply_to(desk)).text


async def test_a_fault_again_and_again_ends_no_thread(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    ready = EngineRoom._ready
    faults = [ValueError("/secret")] * 5

    def failing(self: EngineRoom, pair: str) -> Any:
        if faults:
            raise faults.pop()
        return ready(self, pair)

    async with opened(kin, keep_alive=0.0) as desk:
        await loaded(desk)
        await freed(desk)
        monkeypatch.setattr(engines.EngineRoom, "_ready", failing)
        for _ in range(5):
            with pytest.raises(WsdError, match="the server failed; its log says why"):
                await reply_to(desk)
        assert (await reply_to(desk)).text
