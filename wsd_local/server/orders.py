"""Requests on their way through the service.

Contract: an order is made in the event loop of its client. It is admitted by the thread that prepares, worked on by the
engine's thread, and answered in its own event loop. `stop` may be called from any thread, in every phase.
"""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from wsd_local.constraints.constraint import KINDS
from wsd_local.errors import UsageError, WsdError
from wsd_local.events import Event
from wsd_local.prompts.messages import Prompt
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.fleet import Failed, Fleet, Work
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.scoring import Scored, Scoring, ScoringWork
from wsd_local.runtime.setup import start
from wsd_local.server.outbox import Outbox
from wsd_local.server.service import ReplyRequest

T = TypeVar("T")

Key = tuple["Order", int]
Crew = Fleet[Key]

LONG = 1 << 15
"""Characters or tokens from which on a text is long: it takes some hundredths of a second to divide it into tokens."""


def size_of(prompt: Prompt | RawPrompt) -> int:
    """Characters or tokens of a prompt, about."""
    if isinstance(prompt, RawPrompt):
        return len(prompt.text or prompt.tokens or ())
    if isinstance(prompt, str):
        return len(prompt)
    return sum(_length(message.get("content")) for message in prompt)


def _length(content: object) -> int:
    if isinstance(content, list):
        return sum(_length(part.get("text")) for part in content if isinstance(part, Mapping))
    return len(content) if isinstance(content, str) else 0


class Order(ABC):
    """A request.

    Args:
        pair: the pair that it needs.
        model: the model as the client named it.
        counts: whether it takes up a place in the queue.
        long: whether its preparation may take so long that others do not wait for it.
    """

    def __init__(self, pair: str, model: str, *, counts: bool = True, long: bool = False) -> None:
        self.pair, self.model, self.counts, self.long = pair, model, counts, long
        self.loop = asyncio.get_running_loop()
        self.came = time.monotonic()
        self.over = False
        self._stopped = threading.Event()
        self._crew: Crew | None = None
        self._open = set(self.parts)
        self.prepared: asyncio.Future[None] = self.loop.create_future()
        self.prepared.add_done_callback(_seen)

    @property
    def waited(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.came

    @property
    def stopped(self) -> bool:
        """Whether its client went away."""
        return self._stopped.is_set()

    def abandon(self) -> None:
        """End its preparation; what is in progress already goes on."""
        self._stopped.set()

    def stop(self) -> bool:
        """Stop the work on it; return whether none has begun."""
        self._stopped.set()
        crew = self._crew
        waited = [] if crew is None else [crew.stop((self, index)) for index in self.parts]
        return all(waited)

    @property
    def parts(self) -> Iterable[int]:
        """Numbers of its parts, each of which is worked on by itself."""
        return (0,)

    def ends(self, index: int) -> bool:
        """Record that a part is over; whether it was the last one."""
        self._open.discard(index)
        self.over = self.over or not self._open
        return self.over

    def admit(self, pair: Pair, crew: Crew) -> None:
        """Prepare the work on it, and hand it over to the engine.

        Raises:
            WsdError: it cannot be answered.
        """
        works = [self.work(pair, index) for index in self.parts]
        self._crew = crew
        for index, work in enumerate(works):
            crew.enter((self, index), work)
        if self.stopped:  # meanwhile
            self.stop()
        self.call(partial(_resolve, self.prepared))

    @abstractmethod
    def work(self, pair: Pair, index: int) -> Work:
        """The work on one of its parts, prepared."""

    @abstractmethod
    def receive(self, index: int, event: Event) -> None:
        """Take an event. In the order's event loop."""

    def fail(self, error: WsdError) -> None:
        """It cannot be answered. From any thread."""
        self.over = True
        self.call(partial(self._failed, error))

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the order's event loop, if that has not ended."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(function)

    def _failed(self, error: WsdError) -> None:
        if not self.prepared.done():
            self.prepared.set_exception(error)


class ReplyOrder(Order):
    """A request for replies."""

    def __init__(self, pair: str, request: ReplyRequest, settings: Mapping[str, Any], count: int) -> None:
        self._request, self._settings, self._count = request, dict(settings), count
        constrained = any(settings.get(kind) is not None for kind in KINDS)
        super().__init__(pair, request.model, long=constrained or size_of(request.prompt) > LONG)
        self.outbox = Outbox()
        self._left = set(range(count))

    @property
    def parts(self) -> Iterable[int]:
        """See `Order`."""
        return range(self._count)

    def work(self, pair: Pair, index: int) -> Work:
        """See `Order`."""
        settings, request = self._settings, self._request
        if settings.get("seed") is not None and index:
            settings = settings | {"seed": settings["seed"] + index}
        try:
            return start(
                pair,
                request.prompt,
                whole=not request.truncate,
                details=request.details,
                stopped=self._stopped.is_set,
                **settings,
            )
        except UsageError as error:
            raise request.named(error) from None

    def receive(self, index: int, event: Event) -> None:
        """See `Order`."""
        if isinstance(event, Failed):
            self.outbox.end(event.error)
            return
        self.outbox.put(index, event)
        if isinstance(event, Finished):
            self._left.discard(index)
            if not self._left:
                self.outbox.end()

    def _failed(self, error: WsdError) -> None:
        super()._failed(error)
        self.outbox.end(error)


class ScoreOrder(Order):
    """A request for scores; `result` is what came out."""

    def __init__(self, pair: str, model: str, scoring: Scoring) -> None:
        super().__init__(pair, model)
        self.result: asyncio.Future[Scored] = self.loop.create_future()
        self._scoring = scoring

    def work(self, pair: Pair, index: int) -> Work:
        """See `Order`."""
        return ScoringWork(pair.models, self._scoring)

    def receive(self, index: int, event: Event) -> None:
        """See `Order`."""
        if self.result.done():
            return
        if isinstance(event, Failed):
            self.result.set_exception(event.error)
        elif isinstance(event, Scored):
            self.result.set_result(event)

    def _failed(self, error: WsdError) -> None:
        super()._failed(error)
        if not self.result.done():
            self.result.set_exception(error)


class CallOrder(Order, Generic[T]):
    """A question about a pair that needs no evaluation, such as the tokens of a text; `size` is how much is asked."""

    def __init__(self, pair: str, model: str, ask: Callable[[Pair, Callable[[], bool]], T], size: int = 0) -> None:
        super().__init__(pair, model, counts=False, long=size > LONG)
        self.result: asyncio.Future[T] = self.loop.create_future()
        self._ask = ask

    def admit(self, pair: Pair, crew: Crew) -> None:
        """See `Order`."""
        with pair.models.ready(pair.settings.mode):
            answer = self._ask(pair, self._stopped.is_set)
        self.over = True
        self.call(partial(_resolve, self.result, answer))

    def work(self, pair: Pair, index: int) -> Work:
        """See `Order`."""
        raise NotImplementedError

    def receive(self, index: int, event: Event) -> None:
        """See `Order`."""
        raise NotImplementedError

    def _failed(self, error: WsdError) -> None:
        super()._failed(error)
        if not self.result.done():
            self.result.set_exception(error)


def _resolve(future: asyncio.Future[Any], value: Any = None) -> None:
    if not future.done():
        future.set_result(value)


def _seen(future: asyncio.Future[None]) -> None:
    """An error that nobody waits for any more is no fault of the program."""
    if not future.cancelled():
        future.exception()
