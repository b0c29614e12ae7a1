"""One pair and many threads: turns, waiting, refusing, stopping, closing."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from exactness import EXACT, PLAIN, exact_pair

from wsd_local.core.contexts import Question
from wsd_local.errors import BusyError, CancelledError, UsageError, WsdError
from wsd_local.events import Text
from wsd_local.llama import Cancellation
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.queueing import ReplyQueue
from wsd_local.runtime.reply import Finished, Reply

QUESTIONS = (
    "How do I boil an egg?",
    "What is the capital of France?",
    "How do I tie a knot?",
    "Thank you!",
    "What is the capital of Japan?",
    "Who are you?",
    "What do bees make?",
    "Hello!",
)
OWN: dict[str, Any] = {"max_tokens": 40, "draft_max_tokens": 30}


@pytest.fixture
def pair(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    """The embedded pair in F32: the same tokens whatever was asked before."""
    with exact_pair(demo_f32) as pair:
        yield pair


@pytest.fixture(scope="module")
def alone(demo_f32: tuple[Path, Path]) -> dict[str, Reply]:
    """What a pair answers that nobody else uses."""
    found = {}
    for question in QUESTIONS:
        with exact_pair(demo_f32) as pair:
            found[question] = pair.reply(question, **OWN)
    return found


def in_threads(*works: Callable[[], object]) -> None:
    """Run functions at once; the first error of any of them is raised."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def said(reply: Reply) -> tuple[Any, ...]:
    return reply.text, reply.tokens, reply.switch, reply.finish_reason


# -- replies -------------------------------------------------------------------------------------------------


def test_eight_threads_and_stops_at_random_leave_every_finished_reply_as_it_is_alone(
    pair: Pair, alone: dict[str, Reply]
) -> None:
    finished: list[tuple[str, Reply]] = []
    stopped: list[tuple[str, Reply]] = []

    def asks(seed: int) -> Callable[[], None]:
        chance = random.Random(seed)

        def work() -> None:
            for _ in range(6):
                question = chance.choice(QUESTIONS)
                way = chance.randrange(4)
                if way == 0:
                    reply = pair.reply(question, **OWN)
                elif way == 1:
                    reply = pair.session().send(question, **OWN)
                elif way == 2:
                    [(_, reply)] = pair.replies([question], **OWN)
                else:
                    run, limit = pair.start(question, **OWN), chance.randrange(12)
                    for count, _ in enumerate(run):
                        if count == limit:
                            chance.choice((pair.cancel, run.cancel))()
                    reply = run.reply
                    stopped.append((question, reply))
                    while run.reply.finish_reason == "cancelled":
                        list(run)
                    reply = run.reply
                if reply.finish_reason != "cancelled":
                    finished.append((question, reply))

        return work

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def until_not_stopped() -> None:
            with suppress(CancelledError):  # of a batch, by somebody's `pair.cancel()`
                work()

        return until_not_stopped

    in_threads(*(guarded(asks(seed)) for seed in range(8)))
    assert len(finished) > 20 and any(reply.finish_reason == "cancelled" for _, reply in stopped)
    for question, reply in finished:
        assert said(reply) == said(alone[question])
    for question, reply in stopped:
        assert alone[question].text.startswith(reply.text)
    assert said(pair.reply(QUESTIONS[0], **OWN)) == said(alone[QUESTIONS[0]])


def test_threads_that_all_find_nothing_loaded_share_one_pair(demo_f32: tuple[Path, Path]) -> None:
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=PLAIN, loading=EXACT) as pair:
        engines: list[Any] = []
        barrier = threading.Barrier(4)

        def work() -> None:
            barrier.wait()
            pair.reply("Hello!", max_tokens=5)
            engines.append(pair.engine)

        in_threads(*[work] * 4)
        assert len(set(map(id, engines))) == 1


def test_streams_that_alternate_in_one_thread_do_not_mix(pair: Pair, alone: dict[str, Reply]) -> None:
    open_streams = {question: pair.stream(question, **OWN) for question in QUESTIONS[:3]}
    texts, replies = dict.fromkeys(open_streams, ""), {}
    while open_streams:
        for question, events in list(open_streams.items()):
            event = next(events, None)
            if event is None:
                del open_streams[question]
            elif isinstance(event, Text):
                texts[question] += event.text
            elif isinstance(event, Finished):
                replies[question] = event.reply
    assert replies.keys() == texts.keys()
    for question, reply in replies.items():
        assert said(reply) == said(alone[question])
        assert texts[question] == reply.text


def test_a_stream_that_nobody_goes_on_with_holds_up_nobody(pair: Pair, alone: dict[str, Reply]) -> None:
    left = pair.stream(QUESTIONS[0], **OWN)
    next(left)
    replies: list[Reply] = []
    in_threads(lambda: replies.append(pair.reply(QUESTIONS[1], **OWN)))
    assert said(replies[0]) == said(alone[QUESTIONS[1]])
    *_, last = left
    assert isinstance(last, Finished) and said(last.reply) == said(alone[QUESTIONS[0]])


def test_a_pair_in_use_is_an_error_where_that_is_wanted(pair: Pair, demo_f32: tuple[Path, Path]) -> None:
    events = pair.stream(QUESTIONS[0], **OWN)
    next(events)
    with pytest.raises(BusyError, match="in use"):
        pair.reply(QUESTIONS[1], busy="error", **OWN)
    with pytest.raises(BusyError):
        pair.session().send(QUESTIONS[1], busy="error", **OWN)
    with pytest.raises(BusyError):
        list(pair.replies([QUESTIONS[1]], busy="error"))
    events.close()
    assert pair.reply(QUESTIONS[1], busy="error", **OWN).text
    with pytest.raises(UsageError, match="busy"):
        pair.reply("x", busy="later")
    with pytest.raises(UsageError, match="busy"):
        Pair(draft=demo_f32[0], base=demo_f32[1], busy="later")  # type: ignore[arg-type]


def test_an_answer_asked_for_inside_an_answer_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    errors, draft = [], pair.models.context("draft")
    step = draft.step

    def asking(questions: Sequence[Question]) -> None:
        try:
            pair.reply("Hello!")
        except BusyError as error:
            errors.append(error)
        step(questions)

    monkeypatch.setattr(draft, "step", asking)
    assert pair.reply("word " * 200, max_tokens=5).finish_reason == "length"
    assert errors


# -- stopping ------------------------------------------------------------------------------------------------


class Slow:
    """Holds an evaluation until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        real = llama_cpp.llama_decode

        def decode(*arguments: object) -> int:
            self.begun.set()
            self.go_on.wait()
            return int(real(*arguments))

        monkeypatch.setattr(llama_cpp, "llama_decode", decode)


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.001)


@pytest.mark.parametrize("whom", ["running", "waiting"])
def test_a_stop_is_for_one_of_them(
    pair: Pair, alone: dict[str, Reply], monkeypatch: pytest.MonkeyPatch, whom: str
) -> None:
    first, second = pair.start(QUESTIONS[0], **OWN), pair.start(QUESTIONS[1], **OWN)
    slow = Slow(monkeypatch)

    def stop() -> None:
        slow.begun.wait()
        wait_for(lambda: pair.models.queue.waiting == 1)
        pair.cancel() if whom == "running" else second.cancel()
        if whom == "waiting":
            wait_for(lambda: pair.models.queue.waiting == 0)
        slow.go_on.set()

    def ask_second() -> None:
        slow.begun.wait()
        list(second)

    in_threads(lambda: list(first), ask_second, stop)
    stopped, other = (first, second) if whom == "running" else (second, first)
    assert (stopped.reply.finish_reason, stopped.reply.text) == ("cancelled", "")
    assert said(other.reply) == said(alone[QUESTIONS[0 if other is first else 1]])
    list(stopped)
    assert said(stopped.reply) == said(alone[QUESTIONS[0 if stopped is first else 1]])


def test_a_batch_goes_on_after_a_stop_without_more_ado(pair: Pair, alone: dict[str, Reply]) -> None:
    fleet: Fleet[str] = Fleet(pair)
    for question in QUESTIONS[:3]:
        fleet.add(question, question, **OWN)
    found: dict[str, Reply] = {}
    with pytest.raises(CancelledError):
        for _ in fleet.events():
            pair.cancel()
    for key, event in fleet.events():
        if isinstance(event, Finished):
            found[key] = event.reply
    assert {key: said(reply) for key, reply in found.items()} == {key: said(alone[key]) for key in QUESTIONS[:3]}


def test_closing_stops_what_runs_and_what_waits(demo_f32: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pair = exact_pair(demo_f32)
    runs = [pair.start(question, **OWN) for question in QUESTIONS[:2]]
    slow = Slow(monkeypatch)
    errors: list[WsdError] = []

    def ask(number: int) -> Callable[[], None]:
        def work() -> None:
            if number:
                slow.begun.wait()
            try:
                list(runs[number])
            except WsdError as error:
                errors.append(error)

        return work

    def close() -> None:
        slow.begun.wait()
        wait_for(lambda: pair.models.queue.waiting == 1)
        closing = threading.Thread(target=pair.close)
        closing.start()
        wait_for(lambda: pair.models.cancellation.is_set)
        slow.go_on.set()
        closing.join()

    in_threads(ask(0), ask(1), close)
    assert len(errors) == 2 and all("closed" in str(error) for error in errors)
    assert [run.reply.finish_reason for run in runs] == ["cancelled"] * 2
    pair.close()


# -- conversations -------------------------------------------------------------------------------------------


def test_two_threads_in_one_conversation_ask_one_after_the_other(pair: Pair, demo_f32: tuple[Path, Path]) -> None:
    chat = pair.session()
    in_threads(*[partial(chat.send, question, **OWN) for question in QUESTIONS[:4]])
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 4
    assert {message["content"] for message in chat.messages[::2]} == set(QUESTIONS[:4])
    for end in range(1, 8, 2):
        with exact_pair(demo_f32) as fresh:
            assert fresh.reply(chat.messages[:end], **OWN).text == chat.messages[end]["content"]


def test_a_conversation_that_is_answering_cannot_be_asked_again_by_who_reads_the_answer(pair: Pair) -> None:
    chat = pair.session()
    events = chat.stream(QUESTIONS[0], **OWN)
    next(events)
    for ask in (chat.send, chat.stream):
        with pytest.raises(BusyError, match="conversation"):
            for _ in ask(QUESTIONS[1], **OWN):  # type: ignore[union-attr]
                pass
    list(events)
    assert [message["role"] for message in chat.messages] == ["user", "assistant"]
    assert chat.send(QUESTIONS[1], **OWN).text


def test_reading_ahead_leaves_a_pair_in_use_alone(pair: Pair) -> None:
    chat = pair.session()
    chat.send(QUESTIONS[1], **OWN)
    events = pair.stream(QUESTIONS[0], **OWN)
    next(events)
    before = pair.models.context("draft").evaluated
    assert not chat.prepare()
    assert pair.models.context("draft").evaluated == before
    events.close()
    assert chat.prepare()


# -- turns alone ---------------------------------------------------------------------------------------------


def test_turns_come_in_the_order_in_which_they_were_waited_for() -> None:
    turns, order = ReplyQueue("it", Cancellation()), []
    holding, let_go = threading.Event(), threading.Event()

    def first() -> None:
        with turns.held():
            holding.set()
            let_go.wait()

    def later(number: int) -> Callable[[], None]:
        def work() -> None:
            holding.wait()
            wait_for(lambda: turns.waiting == number)
            with turns.held():
                order.append(number)

        return work

    def open_gate() -> None:
        wait_for(lambda: turns.waiting == 5)
        let_go.set()

    in_threads(first, *map(later, range(5)), open_gate)
    assert order == list(range(5))


def test_a_turn_whose_consumer_stays_away_is_given_to_another_thread_only_when_patience_is_over() -> None:
    now = [0.0]
    turns = ReplyQueue("it", Cancellation(), patience=1.0, clock=lambda: now[0])
    away = turns.hold(turns.place(), iter(range(3)))
    assert next(away) == 0
    took: list[int] = []
    thread = threading.Thread(target=lambda: took.extend(turns.hold(turns.place(), iter([7]))))
    thread.start()
    wait_for(lambda: turns.waiting == 1)
    assert not took and next(away) == 1 and not took
    now[0] = 5.0
    thread.join()
    assert took == [7] and list(away) == [2]
