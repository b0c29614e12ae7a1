"""The models' thread: order, errors, what `stop` reaches, idle work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from wsd_local.errors import WsdError
from wsd_local.runtime.worker import TaskFailed, Worker


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A thread whose pair can only be cancelled."""
    worker = Worker()
    cancelled = threading.Event()
    clearing = SimpleNamespace(clear=cancelled.clear)
    models = SimpleNamespace(cancellation=clearing)
    pair = SimpleNamespace(cancel=cancelled.set, models=models, close=lambda: None, cancelled=cancelled)
    worker.pair = pair  # type: ignore[assignment]
    yield worker
    worker.close()


def test_jobs_run_in_order_and_errors_are_news(worker: Worker) -> None:
    done = threading.Event()

    def fails(_worker: Worker) -> None:
        raise WsdError("no")

    worker.submit(lambda worker: worker.publish(1))
    failing = worker.submit(fails)
    worker.submit(lambda worker: worker.publish(2))
    worker.submit(lambda worker: done.set())
    assert done.wait(20)
    first, second, third = worker.news()
    assert (first, third) == (1, 2)
    assert isinstance(second, TaskFailed) and second.message == "no" and second.task is failing
    assert list(worker.news()) == []


def test_an_error_of_another_kind_ends_no_thread(worker: Worker) -> None:
    done = threading.Event()

    def fails(_worker: Worker) -> None:
        raise ZeroDivisionError("by zero")

    worker.submit(fails)
    worker.submit(lambda worker: done.set())
    assert done.wait(20)
    (news,) = worker.news()
    assert isinstance(news, TaskFailed) and news.message.startswith("internal error: ZeroDivisionError")


def test_stop_reaches_the_job_that_runs(worker: Worker) -> None:
    pair: Any = worker.pair
    runs, ended = threading.Event(), threading.Event()

    def job(worker: Worker) -> None:
        runs.set()
        assert pair.cancelled.wait(20)
        worker.publish("stopped")
        ended.set()

    worker.submit(job)
    assert runs.wait(20)
    worker.stop()
    assert ended.wait(20)
    assert list(worker.news()) == ["stopped"]


def test_a_job_that_waits_is_stopped_and_no_other(worker: Worker) -> None:
    pair: Any = worker.pair
    going, seen, done = threading.Event(), [], threading.Event()

    def first(worker: Worker) -> None:
        going.wait(20)
        seen.append(worker.stopped)

    def second(worker: Worker) -> None:
        seen.append(worker.stopped)
        done.set()

    worker.submit(first)
    worker.stop(worker.submit(second))
    assert not pair.cancelled.is_set()
    going.set()
    assert done.wait(20) and seen == [False, True]


def test_idle_work_ends_when_a_job_comes_and_does_not_cancel_it(worker: Worker) -> None:
    pair: Any = worker.pair
    idling, done = threading.Event(), threading.Event()
    seen: list[bool] = []

    def idle(_worker: Worker) -> None:
        idling.set()
        assert pair.cancelled.wait(20), "a job must interrupt this"

    def job(_worker: Worker) -> None:
        seen.append(pair.cancelled.is_set())
        done.set()

    worker.idle = idle
    worker.submit(lambda worker: None)
    for _ in range(20):
        assert idling.wait(20)
        idling.clear()
        done.clear()
        worker.submit(job)
        assert done.wait(20)
    assert seen == [False] * 20
    worker.idle = None


def test_closing_stops_what_runs_drops_what_waits_and_closes_the_pair() -> None:
    worker, closed = Worker(), threading.Event()
    pair: Any = SimpleNamespace(cancel=lambda: None, close=closed.set)
    worker.pair = pair
    runs, ran = threading.Event(), []

    def first(worker: Worker) -> None:
        runs.set()
        while not worker.stopped:
            runs.wait(0.01)

    worker.submit(first)
    worker.submit(lambda worker: ran.append(True))
    assert runs.wait(20)
    worker.close()
    assert closed.is_set() and not ran
