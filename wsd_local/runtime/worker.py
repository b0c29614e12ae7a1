"""One thread in which models work, for programs that must not wait for them: a screen, a server.

Contract: tasks run one after the other, in the order in which they were submitted. The work of a task is a function
of the worker; what it publishes is taken with `news`, whenever the other side likes, so models never wait for a
consumer. `stop` ends one task and no other: a task that still waits finds itself stopped when its turn comes. While no
task waits, `idle` runs, and it is interrupted as soon as one is submitted. The worker owns its pair and closes it at
its end.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator

from wsd_local.errors import WsdError, message_of
from wsd_local.runtime.pair import Pair

Work = Callable[["Worker"], None]


class Task:
    """Submitted work: it waits, runs or is done."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether its end was requested."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Request its end."""
        self._stop.set()


class TaskFailed:
    """News: a task raised `error`; `message` is the error in one line for people."""

    def __init__(self, error: Exception, task: Task) -> None:
        self.error, self.task = error, task
        self.message = message_of(error) if isinstance(error, WsdError | OSError) else f"internal error: {error!r}"


class Worker:
    """A thread, its queue of tasks, and the pair that they work with; `pair` is set and replaced by tasks alone."""

    def __init__(self) -> None:
        self.pair: Pair | None = None
        self.idle: Work | None = None
        """Runs while no task waits."""
        self.busy = False
        """Whether a task runs."""
        self._tasks: deque[Task] = deque()
        self._closing = False
        self._queue: queue.Queue[Work | None] = queue.Queue()
        self._news: deque[object] = deque()
        self._lock = threading.Lock()
        self._is_idle = False
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> Task:
        """Run work after all that was submitted before; idle work ends at once."""
        task = Task()
        with self._lock:
            self._tasks.append(task)
            self._queue.put(work)
            if self._is_idle:
                self._interrupt()
        return task

    def stop(self, task: Task | None = None) -> None:
        """End a task; None is the one that runs, or is about to."""
        with self._lock:
            first = self._tasks[0] if self._tasks else None
            if task is None:
                task = first
            if task is not None:
                task.stop()
        if task is first:
            self._interrupt()

    @property
    def stopped(self) -> bool:
        """Whether the task that runs should end."""
        return self._closing or bool(self._tasks and self._tasks[0].stopped)

    @property
    def waits(self) -> bool:
        """Whether a task waits, so that idle work should end."""
        return not self._queue.empty()

    def publish(self, news: object) -> None:
        """Add to what `news` returns."""
        self._news.append(news)

    def news(self) -> Iterator[object]:
        """What was published since the last call, in its order; a task's error is `TaskFailed`."""
        with contextlib.suppress(IndexError):
            while True:
                yield self._news.popleft()

    def close(self) -> None:
        """Stop the running task, drop those that wait, and wait for the thread's end."""
        self._closing = True
        self.stop()
        self._queue.put(None)
        self._thread.join()

    def _interrupt(self) -> None:
        if (pair := self.pair) is not None:
            pair.cancel()

    def _run(self) -> None:
        while (work := self._next()) is not None:
            self.busy = True
            try:
                if not self._closing:
                    work(self)
            except Exception as error:  # the thread outlives a task's error, whatever it is
                self.publish(TaskFailed(error, self._tasks[0]))
            finally:
                self.busy = False
                with self._lock:
                    self._tasks.popleft()
        if self.pair is not None:
            self.pair.close()

    def _next(self) -> Work | None:
        with contextlib.suppress(queue.Empty):
            return self._queue.get_nowait()
        if self.idle is not None:
            self._while_idle(self.idle)
        return self._queue.get()

    def _while_idle(self, idle: Work) -> None:
        with self._lock:
            self._is_idle = True
        try:
            if not self.waits:
                idle(self)
        except WsdError:
            pass  # what could not be prepared is repeated by the task that needs it, and fails there
        finally:
            with self._lock:
                self._is_idle = False
                if self.pair is not None:
                    self.pair.models.cancellation.clear()
