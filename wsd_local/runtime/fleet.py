"""Many replies at once over one pair: continuous batching.

Contract: prompts wait in order; as many replies as the contexts have sequences are in progress, and a finished one
makes room for the next at once. Every reply is what it would be alone, up to near ties of quantised weights in batches
of another shape: its samplers, limits and errors are its own. The result is one flat stream of all replies' events,
each with the key of its prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from wsd_local.errors import CancelledError, WsdError
from wsd_local.events import Event
from wsd_local.prompts.messages import Prompt
from wsd_local.runtime.queueing import Busy, waits
from wsd_local.runtime.run import Run
from wsd_local.runtime.setup import Setup, start

K = TypeVar("K")

STAGE = 256
"""Replies that are drafted before the base is loaded, if one model is in memory at a time."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A reply failed; the others go on."""

    kind: ClassVar[str] = "failed"
    error: WsdError

    def as_dict(self) -> dict[str, Any]:
        """The error's message."""
        return {"event": self.kind, "error": str(self.error)}


class Fleet(Generic[K]):
    """Replies in progress over one pair. Together they have one place in its queue.

    Args:
        pair: the pair that answers.
        parallel: replies at once; None: as many as its contexts have sequences.
        busy: what they do if the pair is in use; None: the pair's default.
    """

    def __init__(self, pair: Setup, parallel: int | None = None, busy: Busy | None = None) -> None:
        self._pair, self._models, self._engine = pair, pair.models, pair.engine
        self._place, self._wait = self._models.queue.place(), waits(pair.busy if busy is None else busy)
        self.parallel = parallel or self._models.loading.parallel
        self._waiting: deque[tuple[K, Prompt, dict[str, Any]]] = deque()
        self._live: dict[K, Run] = {}

    def add(self, key: K, prompt: Prompt, *, first: bool = False, **overrides: Any) -> None:
        """Add a prompt, before all that wait if it is `first`. Possible while others are answered."""
        (self._waiting.appendleft if first else self._waiting.append)((key, prompt, overrides))

    @property
    def shown_tokens(self) -> int:
        """Tokens of the replies in progress that are final."""
        return sum(run.machine.shown_tokens for run in list(self._live.values()))

    def events(self) -> Generator[tuple[K, Event], None, None]:
        """Work until all prompts are answered.

        Raises:
            BusyError: the pair is in use, and waiting was not wanted or could never end.
            CancelledError: `Pair.cancel` was called. Called again, `events` goes on.
        """
        return self._models.queue.hold(self._place, self._work(), wait=self._wait)

    def _work(self) -> Iterator[tuple[K, Event]]:
        while self._waiting or self._live:
            yield from self._begin()
            self._engine.advance([run.job for run in self._live.values()])
            for key, run in list(self._live.items()):
                for event in run.job.events():
                    yield key, event
                if run.job.over:
                    del self._live[key]
                    yield from self._end(key, run)

    def _begin(self) -> Iterator[tuple[K, Event]]:
        apart = self._models.loading.resident == "one"
        most = max(self.parallel, STAGE) if apart else self.parallel
        if apart and self._live:  # a prompt that joins now would have the draft loaded again
            return
        while self._waiting and len(self._live) < most:
            key, prompt, overrides = self._waiting.popleft()
            try:
                run = start(self._pair, prompt, **overrides)
            except CancelledError:
                self._waiting.appendleft((key, prompt, overrides))
                raise
            except WsdError as error:
                yield key, Failed(error)
                continue
            run.job.stopwatch.resume()
            self._live[key] = run
            for event in run.opening():
                yield key, event

    def _end(self, key: K, run: Run) -> Iterator[tuple[K, Event]]:
        run.job.stopwatch.update()
        if run.job.error is not None:
            yield key, Failed(run.job.error)
            return
        for event in run.closing():
            yield key, event
