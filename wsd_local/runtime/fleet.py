"""Many replies at once over one pair: continuous batching.

Contract: what is asked waits in a queue; as many replies as the contexts have sequences are in progress, and a finished
one makes room for the next at once. Every reply is what it would be alone, up to near ties of quantised weights in
batches of another shape: its samplers, limits and errors are its own. What comes out is the flat stream of each reply's
events, with the key under which it was asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from wsd_local.core.decoding import Phase
from wsd_local.errors import CancelledError, WsdError
from wsd_local.events import Event
from wsd_local.runtime.turns import Busy, waits

if TYPE_CHECKING:
    from wsd_local.runtime.pair import Pair, Prompt
    from wsd_local.runtime.run import Run

K = TypeVar("K")

STAGE = 256
"""Replies that are drafted before the base is loaded, where only one model is in memory at a time."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A reply could not be made, or not to its end; the others go on."""

    kind: ClassVar[str] = "failed"
    error: WsdError

    def as_dict(self) -> dict[str, Any]:
        """The error's message."""
        return {"event": self.kind, "error": str(self.error)}


class Fleet(Generic[K]):
    """Replies in progress over `pair`, `parallel` at once: as many as its contexts have sequences if not given.

    Together they take one turn at the pair; `busy` is what they do if it is in use.
    """

    def __init__(self, pair: Pair, parallel: int | None = None, busy: Busy | None = None) -> None:
        self._pair = pair
        self._turn, self._wait = pair.turns.turn(), waits(pair.busy if busy is None else busy)
        self.parallel = parallel or pair.loading.parallel
        self._waiting: deque[tuple[K, Prompt, dict[str, Any]]] = deque()
        self._live: dict[K, Run] = {}

    def ask(self, key: K, prompt: Prompt, *, first: bool = False, **overrides: Any) -> None:
        """Ask something, in front of what waits if it shall be `first`. Possible while others are answered."""
        (self._waiting.appendleft if first else self._waiting.append)((key, prompt, overrides))

    @property
    def waiting(self) -> int:
        """Questions that have not begun."""
        return len(self._waiting)

    @property
    def drafting(self) -> int:
        """Replies in progress that the draft still writes."""
        return sum(1 for run in list(self._live.values()) if run.machine.phase is Phase.DRAFT)

    @property
    def continuing(self) -> int:
        """Replies in progress that the base writes."""
        return sum(1 for run in list(self._live.values()) if run.machine.phase is Phase.CONTINUE)

    @property
    def shown_tokens(self) -> int:
        """Tokens of the replies in progress that are out."""
        return sum(run.machine.shown_tokens for run in list(self._live.values()))

    def events(self) -> Generator[tuple[K, Event], None, None]:
        """Work until all is answered.

        Raises:
            BusyError: the pair is in use, and waiting was not wanted or could never end.
            CancelledError: `Pair.cancel` was called. Called again, the work goes on.
        """
        return self._pair.turns.hold(self._turn, self._work(), wait=self._wait)

    def _work(self) -> Iterator[tuple[K, Event]]:
        engine = self._pair.engine
        while self._waiting or self._live:
            yield from self._begin()
            engine.advance([run.job for run in self._live.values()])
            for key, run in list(self._live.items()):
                for event in run.job.events():
                    yield key, event
                if run.job.over:
                    del self._live[key]
                    yield from self._end(key, run)

    def _begin(self) -> Iterator[tuple[K, Event]]:
        apart = self._pair.loading.resident == "one"
        most = max(self.parallel, STAGE) if apart else self.parallel
        if apart and self._live:  # one who comes later would have the draft loaded again
            return
        while self._waiting and len(self._live) < most:
            key, prompt, overrides = self._waiting.popleft()
            try:
                run = self._pair.start(prompt, **overrides)
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
        run.job.stopwatch.now()
        if run.job.error is not None:
            yield key, Failed(run.job.error)
            return
        for event in run.closing():
            yield key, event
