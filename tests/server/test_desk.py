"""The service over real pairs: many clients at once, pairs in turns, clients that go away, slow ones, full queues."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_sets import fixture_prompts
from exactness import EXACT, PLAIN

from wsd_local.constraints.compiling import compiled
from wsd_local.errors import CancelledError, FitError, UsageError, WsdError
from wsd_local.events import Event, Text, Wrote
from wsd_local.library.catalog import PairEntry
from wsd_local.llama import Context, Model
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime import grammars
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.server import desk as desks
from wsd_local.server import engine as engines
from wsd_local.server import orders
from wsd_local.server import outbox as outboxes
from wsd_local.server.desk import Desk
from wsd_local.server.observing import Nobody
from wsd_local.server.service import (
    OverloadedError,
    ReplyRequest,
    ScoreRequest,
    UnavailableError,
    UnknownModelError,
)

LOADING = replace(EXACT, ctx=512, parallel=4)
PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]


def entry(name: str, files: tuple[Path, Path]) -> PairEntry:
    return PairEntry(name, str(files[0]), str(files[1]), BaseFormat())


class Seen(Nobody):
    """Records what an observer receives."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []

    def queued(self, model: str) -> None:
        self.all.append(("queued", model))

    def started(self, model: str, waited_s: float) -> None:
        self.all.append(("started", model))

    def first_text(self, model: str, seconds: float) -> None:
        self.all.append(("first_text", model))

    def finished(self, model: str, reply: Reply, seconds: float) -> None:
        self.all.append(("finished", model))

    def scored(self, model: str, tokens: int, cached: int, seconds: float) -> None:
        self.all.append(("scored", model, tokens, cached))

    def cancelled(self, model: str, reply: Reply | None, seconds: float) -> None:
        self.all.append(("cancelled", model))

    def failed(self, model: str, error: WsdError, seconds: float) -> None:
        self.all.append(("failed", model))

    def loaded(self, pair: str, seconds: float) -> None:
        self.all.append(("loaded", pair))

    def unloaded(self, pair: str) -> None:
        self.all.append(("unloaded", pair))

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        return [one for one in self.all if one[0] in kinds]


@asynccontextmanager
async def opened(*pairs: PairEntry, seen: Seen | None = None, **options: Any) -> AsyncIterator[Desk]:
    desk = Desk(pairs, options.pop("reply", PLAIN), options.pop("loading", LOADING), observer=seen, **options)
    desk.start()
    try:
        yield desk
    finally:
        await asyncio.to_thread(desk.close)


async def reply_to(desk: Desk, model: str, prompt: Any, **settings: Any) -> Reply:
    async with desk.replies(ReplyRequest(model, prompt, settings)) as events:
        async for _, event in events:
            if isinstance(event, Finished):
                return event.reply
    raise AssertionError("no end")


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.002)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Holds every evaluation until it is opened: (an evaluation has come, go on)."""
    came, go = threading.Event(), threading.Event()
    decode = Context._decode

    def held(self: Context, parts: Any) -> None:
        came.set()
        while not go.is_set():
            if self._cancellation.is_set:  # as an evaluation that is aborted
                raise CancelledError("stopped")
            go.wait(0.002)
        decode(self, parts)

    monkeypatch.setattr(Context, "_decode", held)
    yield came, go
    go.set()


@pytest.mark.parametrize("count", [pytest.param(6), pytest.param(40, marks=pytest.mark.slow)])
async def test_greedy_replies_under_load_are_those_alone(demo_f32: tuple[Path, Path], count: int) -> None:
    asked = [(PROMPTS[index % len(PROMPTS)], ("demo", "demo:base", "demo:draft")[index % 3]) for index in range(count)]
    modes = {"demo": "wsd", "demo:base": "base", "demo:draft": "draft"}
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=PLAIN, loading=replace(LOADING, parallel=1)) as pair:
        alone = [pair.reply(prompt, mode=modes[model], max_tokens=40).text for prompt, model in asked]
        tokens = pair.models.model("base").tokenize("How do I boil an egg?")
        logprobs = pair.models.context("base").logprobs(0, tokens, 1)

    async with opened(entry("demo", demo_f32)) as desk:
        scores = [desk.score(ScoreRequest("demo", tokens, 1, 2)) for _ in range(4)]
        works: list[Awaitable[Any]] = [reply_to(desk, model, prompt, max_tokens=40) for prompt, model in asked]
        found = await asyncio.gather(*works[: count // 2], *scores, *works[count // 2 :])
        assert desk.status.idle and desk.status.waiting == 0
    scored = found[count // 2 : count // 2 + 4]
    replies = found[: count // 2] + found[count // 2 + 4 :]
    assert [reply.text for reply in replies] == alone
    for one in scored:
        assert [token.id for token in one.tokens] == tokens[1:]
        assert [token.logprob for token in one.tokens] == pytest.approx(logprobs, abs=1e-3)
        assert all(len(token.top) == 2 and token.top[0][2] >= token.top[1][2] for token in one.tokens)


async def test_several_replies_to_one_request(kin: tuple[Path, Path]) -> None:
    async with opened(entry("kin", kin)) as desk:
        request = ReplyRequest("kin", PROMPTS[0], {"temperature": 0.9, "seed": 3, "max_tokens": 12}, details=1)
        texts, wrote = dict.fromkeys(range(3), ""), set()
        async with desk.replies(request, 3) as events:
            async for number, event in events:
                texts[number] += event.text if isinstance(event, Text) else ""
                if isinstance(event, Wrote):
                    wrote.add(number)
                if isinstance(event, Finished):
                    assert event.reply.text == texts[number]
                    assert event.reply.provenance["settings"]["seed"] == 3 + number
        assert wrote == {0, 1, 2}
        alone = [await reply_to(desk, "kin", PROMPTS[0], temperature=0.9, seed=3 + i, max_tokens=12) for i in range(3)]
        assert [reply.text for reply in alone] == list(texts.values())


async def test_what_can_be_checked_is_refused_on_entering(kin: tuple[Path, Path]) -> None:
    async with opened(entry("kin", kin)) as desk:
        wrong: list[tuple[type[WsdError], str, ReplyRequest, int]] = [
            (UnknownModelError, "there is no model 'kim' here; did you mean 'kin'", ReplyRequest("kim", "x"), 1),
            (UsageError, "there is no setting 'tempo'", ReplyRequest("kin", "x", {"tempo": 1}), 1),
            (UsageError, "the prompt is empty", ReplyRequest("kin", " "), 1),
            (UsageError, "0 replies are asked for", ReplyRequest("kin", "x"), 0),
            (FitError, r"the prompt is too long: \d+ draft tokens", ReplyRequest("kin", "word " * 900), 1),
            (UsageError, "nothing", ReplyRequest("kin", "x", {"grammar": 'root ::= "a" nothing'}), 1),
            (UsageError, "the prompt has a token", ReplyRequest("kin:base", RawPrompt(tokens=[10**7])), 1),
        ]
        for kind, message, request, count in wrong:
            with pytest.raises(kind, match=message):
                async with desk.replies(request, count):
                    raise AssertionError("entered")
        with pytest.raises(UsageError, match="start is 0"):
            await desk.score(ScoreRequest("kin", [1, 2, 3], 0))
        with pytest.raises(UsageError, match=r"start is 4: .* the number of tokens, 3"):
            await desk.score(ScoreRequest("kin", [1, 2, 3], 4))
        with pytest.raises(UsageError, match="tokens: the model has the tokens 0 to"):
            await desk.texts.pieces("kin", [10**7])
        with pytest.raises(FitError, match="600 tokens do not fit into a context of 512"):
            await desk.score(ScoreRequest("kin", [5] * 600, 1))
        assert (await desk.score(ScoreRequest("kin", [1, 2, 3], 3))).tokens == ()
        assert desk.status.idle


async def test_oldest_turns_are_left_out_only_if_that_is_wanted(kin: tuple[Path, Path]) -> None:
    turns = [{"role": role, "content": "word " * 120} for role in ("user", "assistant") * 2]
    request = ReplyRequest("kin", [*turns, {"role": "user", "content": "Hello"}], {"max_tokens": 4})
    async with opened(entry("kin", kin)) as desk:
        with pytest.raises(FitError):
            async with desk.replies(request):
                pass
        async with desk.replies(replace(request, truncate=True)) as events:
            found = [event async for _, event in events]
        assert isinstance(found[-1], Finished) and len(found[-1].reply.messages) < 5


@pytest.mark.parametrize("phase", ["waiting", "reading", "drafting", "writing", "scoring"])
async def test_who_goes_away_stops_only_the_own_work(
    kin: tuple[Path, Path], phase: str, gate: tuple[threading.Event, threading.Event]
) -> None:
    came, go = gate
    go.set()
    seen = Seen()
    async with opened(entry("kin", kin), seen=seen, loading=replace(LOADING, parallel=2, ctx=4096)) as desk:
        alone = (await reply_to(desk, "kin", PROMPTS[0], max_tokens=30)).text
        wrote = asyncio.Event()

        async def leaving() -> None:
            if phase == "scoring":
                await desk.score(ScoreRequest("kin", [7] * 300, 1))
            settings = {"mode": "base" if phase == "writing" else "wsd", "threshold": 2.0, "max_tokens": 3500}
            async with desk.replies(ReplyRequest("kin", "word " * 60, settings | {"ignore_eos": True})) as events:
                async for _, event in events:
                    if isinstance(event, Text):
                        wrote.set()

        def others() -> list[asyncio.Task[Reply]]:
            return [asyncio.create_task(reply_to(desk, "kin", PROMPTS[0], max_tokens=30)) for _ in range(2)]

        async def orders(count: int) -> None:
            await until(lambda: len(desk._room.outstanding) == count)

        if phase in ("waiting", "reading", "scoring"):
            go.clear()
            came.clear()
        before = others() if phase == "waiting" else []
        await orders(len(before))
        task = asyncio.create_task(leaving())
        await (wrote.wait() if go.is_set() else until(came.is_set))
        going = before or others()
        await orders(3)
        task.cancel()
        await asyncio.wait([task])
        await orders(2)  # also while an evaluation is held
        go.set()
        assert [(await one).text for one in going] == [alone] * 2
        await until(lambda: desk.status.idle)
    assert ("cancelled", "kin") in seen.all
    assert not seen.of("failed")


async def test_who_goes_away_while_a_template_is_rendered(
    kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rendering, prompt = threading.Event(), DraftFormat.prompt

    def endless(self: DraftFormat, messages: Any, cancelled: Any = None) -> Any:
        if messages[-1]["content"] != "endless":
            return prompt(self, messages, cancelled)
        rendering.set()
        while not cancelled():
            rendering.wait(0.001)
        raise CancelledError("stopped")

    monkeypatch.setattr(DraftFormat, "prompt", endless)
    monkeypatch.setattr(desks, "ENTER_S", 0.01)
    async with opened(entry("kin", kin)) as desk:
        going = asyncio.create_task(reply_to(desk, "kin", PROMPTS[0], max_tokens=400, ignore_eos=True))
        await until(lambda: desk.status.slots()[0].phase != "idle")
        async with desk.replies(ReplyRequest("kin", "endless")):  # entered, though it is not prepared yet
            await until(rendering.is_set)
            other = asyncio.create_task(reply_to(desk, "kin", "Hello", max_tokens=4))
            await going  # what is in progress goes on meanwhile
        assert (await other).finish_reason in ("stop", "length")
        await until(lambda: desk.status.idle)


async def test_a_full_queue_refuses(kin: tuple[Path, Path], gate: tuple[threading.Event, threading.Event]) -> None:
    came, go = gate
    async with opened(entry("kin", kin), loading=replace(LOADING, parallel=2), queue=3) as desk:
        tasks = [asyncio.create_task(reply_to(desk, "kin", PROMPTS[0], max_tokens=5)) for _ in range(5)]
        await until(came.is_set)
        with pytest.raises(OverloadedError, match="5 requests are in progress or wait") as caught:
            await reply_to(desk, "kin", PROMPTS[0])
        assert caught.value.retry_after >= 1
        assert await desk.texts.tokenize("kin", "word")  # takes no place
        go.set()
        await asyncio.gather(*tasks)
        assert await reply_to(desk, "kin", PROMPTS[0], max_tokens=2)


async def test_a_slow_client_delays_nobody_and_reads_all(
    kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outboxes, "PATIENCE", 4)
    settings = {"max_tokens": 150, "threshold": 2.0, "draft_max_tokens": 60, "ignore_eos": True}
    async with opened(entry("kin", kin)) as desk:
        alone: list[Event] = []
        async with desk.replies(ReplyRequest("kin", PROMPTS[1], settings, details=1)) as events:
            alone += [event async for _, event in events]
        async with desk.replies(ReplyRequest("kin", PROMPTS[1], settings, details=1)) as events:
            await reply_to(desk, "kin", PROMPTS[2], max_tokens=20)
            await until(lambda: desk.status.idle)  # complete, though nobody has read a word
            late = [event async for _, event in events]
    assert len(late) < len(alone) / 4
    assert "".join(event.text for event in late if isinstance(event, Text)) == late[-1].reply.text  # type: ignore[attr-defined]

    def tokens(events: list[Event]) -> list[int]:
        return [token.id for event in events if isinstance(event, Wrote) for token in event.tokens]

    assert tokens(late) == tokens(alone)


async def test_pairs_take_turns(kin: tuple[Path, Path], demo_f32: tuple[Path, Path]) -> None:
    seen = Seen()
    async with opened(entry("kin", kin), entry("demo", demo_f32), seen=seen) as desk:
        assert [model.id for model in desk.models()] == [
            name for pair in ("kin", "demo") for name in (pair, f"{pair}:base", f"{pair}:draft")
        ]
        works = [reply_to(desk, ("kin", "demo:base", "demo")[i % 3], PROMPTS[0], max_tokens=8) for i in range(9)]
        await asyncio.gather(*works, desk.texts.tokenize("demo", "word"), desk.texts.prompts("kin", "Hello"))
        loaded = [model.id for model in desk.models() if model.loaded]
        assert loaded in (["kin", "kin:base", "kin:draft"], ["demo", "demo:base", "demo:draft"])
        assert all((model.n_ctx is not None) == model.loaded for model in desk.models())
        assert desk.status.state == "ready"
    turns = seen.of("loaded", "unloaded")
    assert [kind for kind, _ in turns] == ["loaded", "unloaded"] * (len(turns) // 2)
    assert len(turns) <= 6
    assert len(seen.of("finished")) == 9


async def test_requests_for_two_pairs_at_the_same_time(kin: tuple[Path, Path], demo_f32: tuple[Path, Path]) -> None:
    async with opened(entry("kin", kin), entry("demo", demo_f32)) as desk:
        for _ in range(3):
            for first, second in (("kin", "demo"), ("demo", "kin")):
                works = [reply_to(desk, name, PROMPTS[0], max_tokens=3) for name in (first, second, first)]
                await asyncio.gather(*works, desk.texts.tokenize(second, "x"))
                await until(lambda: desk.status.idle)


async def test_another_configuration_for_a_request_that_has_just_come(kin: tuple[Path, Path]) -> None:
    async with opened(entry("kin", kin)) as desk:
        for ctx in (256, 512, 256, 512):
            await desk.texts.tokenize("kin", "x")
            going = asyncio.create_task(reply_to(desk, "kin", PROMPTS[0], max_tokens=3))
            await asyncio.sleep(0)
            desk.reload([entry("kin", kin)], PLAIN, replace(LOADING, ctx=ctx))
            assert await going
            await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)
            assert next(model.n_ctx for model in desk.models()) == ctx


async def test_a_pair_in_demand_starves_no_other(
    kin: tuple[Path, Path], demo_f32: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "TURN_S", 0.0)
    over = False

    async def busy(desk: Desk) -> int:
        count = 0
        while not over:
            await reply_to(desk, "kin", PROMPTS[0], max_tokens=20)
            count += 1
        return count

    async with opened(entry("kin", kin), entry("demo", demo_f32)) as desk:
        crowd = [asyncio.create_task(busy(desk)) for _ in range(4)]
        for _ in range(3):
            await reply_to(desk, "demo", PROMPTS[0], max_tokens=5)
        over = True
        assert all(await asyncio.gather(*crowd))


async def test_models_are_freed_after_a_while_without_work(kin: tuple[Path, Path]) -> None:
    seen = Seen()
    async with opened(entry("kin", kin), seen=seen, keep_alive=0.0) as desk:
        for _ in range(2):
            await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)
            await until(lambda: not any(model.loaded for model in desk.models()))
        assert desk.status.state == "ready"
    turns = [kind for kind, _ in seen.of("loaded", "unloaded")]
    assert turns[:4] == ["loaded", "unloaded"] * 2


async def test_a_pair_that_cannot_be_loaded(
    kin: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    async with opened(entry("kin", kin), entry("broken", (broken, kin[1]))) as desk:
        await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)
        for ask in (lambda: reply_to(desk, "broken", "x"), lambda: desk.score(ScoreRequest("broken", [1, 2], 1))):
            with pytest.raises(UnavailableError, match="the models of broken cannot be loaded; the server's log") as e:
                await ask()
            assert str(tmp_path) not in str(e.value)
        assert str(broken) in str(desk.status.failure)
        await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)  # the others are still served
        assert desk.status.state == "ready"
        with pytest.raises(UnavailableError):
            await reply_to(desk, "broken", "x")
        assert [model.id for model in desk.models() if model.loaded] == ["kin", "kin:base", "kin:draft"]  # as before
        broken.write_bytes(kin[0].read_bytes())
        monkeypatch.setattr(engines, "RETRY_S", 0.0)
        assert await reply_to(desk, "broken", PROMPTS[0], max_tokens=3)


async def test_the_first_pair_that_cannot_be_loaded(kin: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    async with opened(entry("broken", (broken, kin[1]))) as desk:
        with pytest.raises(UnavailableError):
            await desk.texts.tokenize("broken", "x")
        assert desk.status.state == "failed"


async def test_another_configuration(kin: tuple[Path, Path], demo_f32: tuple[Path, Path]) -> None:
    seen = Seen()
    async with opened(entry("kin", kin), seen=seen) as desk:
        async with desk.replies(ReplyRequest("kin", PROMPTS[0], {"max_tokens": 100, "ignore_eos": True})) as events:
            await anext(events)
            desk.reload([entry("kin", kin), entry("demo", demo_f32)], replace(PLAIN, max_tokens=3), LOADING)
            found = [event async for _, event in events]
        assert isinstance(found[-1], Finished) and found[-1].reply.finish_reason == "length"
        assert len(found[-1].reply.tokens) > 3
        assert len((await reply_to(desk, "kin", PROMPTS[0])).tokens) <= 3
        assert not seen.of("unloaded")  # other settings of replies need no other models
        desk.reload([entry("demo", demo_f32)], replace(PLAIN, max_tokens=5), replace(LOADING, ctx=256))
        with pytest.raises(UnknownModelError):
            await reply_to(desk, "kin", PROMPTS[0])
        assert len((await reply_to(desk, "demo", PROMPTS[0])).tokens) <= 5
        assert next(model.n_ctx for model in desk.models()) == 256
        desk.reload([entry("demo", demo_f32)], PLAIN, LOADING)
        await until(lambda: not any(model.loaded for model in desk.models()))
        await reply_to(desk, "demo", PROMPTS[0], max_tokens=2)
        assert next(model.n_ctx for model in desk.models()) == 512
        with pytest.raises(UsageError):
            desk.reload(["nobody"])


async def test_the_end(kin: tuple[Path, Path], gate: tuple[threading.Event, threading.Event]) -> None:
    came, _ = gate
    async with opened(entry("kin", kin), loading=replace(LOADING, parallel=1)) as desk:
        tasks = [asyncio.create_task(reply_to(desk, "kin", PROMPTS[0], max_tokens=5)) for _ in range(3)]
        tasks.append(asyncio.create_task(desk.score(ScoreRequest("kin", [1, 2], 1))))  # type: ignore[arg-type]
        await until(came.is_set)
        desk.refuse()
        assert desk.status.state == "ending" and not desk.status.idle
        with pytest.raises(UnavailableError, match="about to end"):
            await desk.texts.tokenize("kin", "x")
        await asyncio.to_thread(desk.close)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, UnavailableError) for result in results)
        with pytest.raises(UnavailableError):
            await reply_to(desk, "kin", "x")


async def test_an_evaluation_that_fails_ends_no_server(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    seen, decode, fails = Seen(), Context._decode, [WsdError("the device failed at /secret"), ValueError("/secret")]

    def failing(self: Context, parts: Any) -> None:
        if fails:
            raise fails.pop()
        decode(self, parts)

    monkeypatch.setattr(Context, "_decode", failing)
    async with opened(entry("kin", kin), seen=seen) as desk:
        for _ in range(2):
            with pytest.raises(WsdError, match="the evaluation failed; the server's log says why"):
                await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)
        assert await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)
    assert [kind for kind, _ in seen.of("loaded", "unloaded")] == ["loaded", "unloaded"] * 3
    assert len(seen.of("failed")) == 2


async def test_what_an_observer_receives(kin: tuple[Path, Path]) -> None:
    seen = Seen()
    async with opened(entry("kin", kin), seen=seen) as desk:
        await reply_to(desk, "kin:base", PROMPTS[0], max_tokens=10, ignore_eos=True)
        tokens = await desk.texts.tokenize("kin", "word after word", bos=True)
        await desk.score(ScoreRequest("kin", tokens, 2))
        again = await desk.score(ScoreRequest("kin", tokens, len(tokens) - 1))
    kinds = [one[0] for one in seen.all if one[0] not in ("loaded", "unloaded")]
    assert kinds == ["queued", "started", "first_text", "finished", *["queued", "started", "scored"] * 2]
    assert again.cached >= len(tokens) - 2


async def test_slots(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    decode, both, go = Context._decode, threading.Event(), threading.Event()
    async with opened(entry("kin", kin), loading=replace(LOADING, parallel=2)) as desk:
        await desk.texts.tokenize("kin", "x")
        assert [(slot.phase, slot.n_ctx) for slot in desk.status.slots()] == [("idle", 512)] * 2

        def held(self: Context, parts: Any) -> None:
            if all(slot.reply_tokens for slot in desk.status.slots()):
                both.set()
                while not go.wait(0.002):
                    self._cancellation.check()
            decode(self, parts)

        monkeypatch.setattr(Context, "_decode", held)
        settings = {"mode": "base", "max_tokens": 400, "ignore_eos": True}
        tasks = [asyncio.create_task(reply_to(desk, "kin", "Hello there", **settings)) for _ in range(3)]
        await until(both.is_set)
        assert {(slot.phase, slot.model, slot.n_ctx) for slot in desk.status.slots()} == {("continue", "kin", 512)}
        assert all(slot.prompt_tokens for slot in desk.status.slots())
        await until(lambda: desk.status.waiting == 1)
        go.set()
        for task in tasks:
            task.cancel()
        await until(lambda: desk.status.idle)


async def test_tokens_and_prompts(demo_f32: tuple[Path, Path]) -> None:
    async with opened(entry("demo", demo_f32)) as desk:
        plain = await desk.texts.tokenize("demo", "Zwölf größere Hühner 🐔")
        assert b"".join(await desk.texts.pieces("demo", plain)).decode() == "Zwölf größere Hühner 🐔"
        first, *rest = await desk.texts.tokenize("demo", "Hello", bos=True)
        assert rest == await desk.texts.tokenize("demo", "Hello") and first not in rest
        prompts = await desk.texts.prompts("demo", "Grüße 🐔")
        assert "Grüße 🐔" in prompts["draft"] and "[User]\nGrüße 🐔" in prompts["base"]
        assert set(await desk.texts.prompts("demo:base", "x")) == {"base"}
        control = "<|im_start|>"
        assert len(await desk.texts.tokenize("demo:draft", control, special=True)) == 1
        assert len(await desk.texts.tokenize("demo:draft", control)) > 1


def test_a_pair_that_is_given_twice_is_served_once(kin: tuple[Path, Path]) -> None:
    desk = Desk([entry("kin", kin)] * 2)
    assert [model.id for model in desk.models()] == ["kin", "kin:base", "kin:draft"]


@pytest.mark.parametrize("reply", [{"rule": "return"}, {"rule": "return", "return_": 0.5}, {"rule": "entropy"}])
async def test_a_model_alone_follows_no_rule_of_the_server(kin: tuple[Path, Path], reply: dict[str, Any]) -> None:
    async with opened(entry("kin", kin), reply=replace(PLAIN, **reply)) as desk:
        for model in ("kin", "kin:base", "kin:draft"):
            assert await reply_to(desk, model, PROMPTS[0], max_tokens=3)
        with pytest.raises(UsageError, match="rules hold in the mode wsd alone"):
            await reply_to(desk, "kin:base", PROMPTS[0], rule="return")


@pytest.mark.parametrize("kind", ["text", "constraint", "tokens"])
async def test_who_asks_for_what_takes_long_delays_nobody(
    kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    came, go = threading.Event(), threading.Event()

    def held(original: Callable[..., Any], is_long: Callable[..., bool]) -> Callable[..., Any]:
        def work(*given: Any, **named: Any) -> Any:
            if is_long(*given):
                came.set()
                go.wait()
            return original(*given, **named)

        return work

    monkeypatch.setattr(Model, "tokenize_text", held(Model.tokenize_text, lambda model, text: len(text) > orders.LONG))
    monkeypatch.setattr(grammars, "compiled", held(compiled, lambda *_: True))
    text = "word " * orders.LONG
    async with opened(entry("kin", kin)) as desk:
        await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)
        asked: dict[str, Callable[[], Awaitable[Any]]] = {
            "text": lambda: desk.texts.tokenize("kin", text),
            "constraint": lambda: reply_to(desk, "kin", PROMPTS[0], max_tokens=3, grammar='root ::= "a"'),
            "tokens": lambda: desk.texts.count_tokens("kin", text),
        }
        long = asyncio.ensure_future(asked[kind]())
        try:
            await until(lambda: came.is_set() or long.done())
            assert await desk.texts.tokenize("kin", "x")
            assert await reply_to(desk, "kin", PROMPTS[0], max_tokens=3)
            assert await desk.texts.count_tokens("kin", "x")
            assert not long.done()
        finally:
            go.set()
        assert await long


async def test_models_are_freed_once_nobody_uses_them(kin: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    came, go, tokenize = threading.Event(), threading.Event(), Model.tokenize_text

    def held(self: Model, text: str, *, special: bool = False) -> list[int]:
        if len(text) > orders.LONG:
            came.set()
            go.wait()
        return tokenize(self, text, special=special)

    monkeypatch.setattr(Model, "tokenize_text", held)
    desk = Desk([entry("kin", kin)], PLAIN, LOADING)
    desk.start()
    asked = asyncio.create_task(desk.texts.tokenize("kin", "word " * orders.LONG))
    await until(came.is_set)
    loaded = desk._room.loaded
    closing = asyncio.create_task(asyncio.to_thread(desk.close))
    try:
        await until(lambda: desk._room.loaded is None)
        assert loaded is not None and loaded.pair.models.loaded
    finally:
        go.set()
    await closing
    assert not loaded.pair.models.loaded
    assert isinstance((await asyncio.gather(asked, return_exceptions=True))[0], list | UnavailableError)


def test_wrong_pairs_are_refused_before_anything_is_loaded(kin: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="there is no pair 'demi'; did you mean 'demo'"):
        Desk(["demi"])
    with pytest.raises(UsageError, match="no pair is given"):
        Desk([])
    with pytest.raises(UsageError, match="its name has a colon"):
        Desk([entry("a:b", kin)])
