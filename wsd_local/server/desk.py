"""The service over real pairs: event loops in front, the engine's thread at the back.

Contract: that of `wsd_local.server.service.Service`. `start` returns at once, and models are loaded meanwhile; requests
that come before wait for them. It may be used from any number of event loops.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from wsd_local.errors import UsageError
from wsd_local.events import Event, Source
from wsd_local.library.catalog import PairEntry
from wsd_local.prompts.messages import conversation
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.scoring import Scoring
from wsd_local.server.desk_status import DeskStatus
from wsd_local.server.desk_texts import DeskTexts, Stopped
from wsd_local.server.engine import ENDING, EngineRoom
from wsd_local.server.observing import Nobody, Observer, Watched
from wsd_local.server.orders import CallOrder, Order, ReplyOrder, ScoreOrder
from wsd_local.server.served import Serving
from wsd_local.server.service import (
    ModelFacts,
    OverloadedError,
    ReplyRequest,
    ScoredToken,
    ScoreRequest,
    Scores,
    ServedModel,
    UnavailableError,
)
from wsd_local.settings import LoadSettings, ReplySettings, changed, of_mode

T = TypeVar("T")

QUEUE = 128
"""Requests that may wait, if nothing else is said."""
MOST_REPLIES = 128
"""Replies to one request."""
LONGEST_RETRY_S = 60
"""Seconds after which a client of a full queue is to try again, at most; else when the next place may be free."""
ENTER_S = 1.0
"""Seconds for which entering `replies` waits for what can be checked without an evaluation."""


class Desk:
    """A `Service` over pairs of the catalog and of the user's configuration.

    Args:
        pairs: their names, or entries; the first is loaded at the start.
        reply: defaults of every reply.
        loading: how models are loaded; `parallel` is the number of requests in progress at once.
        queue: requests that may wait besides.
        keep_alive: seconds without work after which the models are freed; None: never.
        observer: receives what happens to requests.

    Raises:
        UsageError: there is no such pair.
        ModelError: a model is not on this machine.
    """

    def __init__(
        self,
        pairs: Sequence[str | PairEntry],
        reply: ReplySettings | None = None,
        loading: LoadSettings | None = None,
        *,
        queue: int = QUEUE,
        keep_alive: float | None = None,
        observer: Observer | None = None,
    ) -> None:
        serving = Serving.of(pairs, reply or ReplySettings(), loading or LoadSettings())
        self._observer = Watched(observer or Nobody())
        self._room = EngineRoom(serving, self._observer, keep_alive)
        self._queue = queue
        self.status = DeskStatus(self._room)
        self.texts = DeskTexts(self._call, self._room)

    def start(self) -> None:
        """Start the threads, and the loading of the first pair, without waiting."""
        self._room.start()

    def refuse(self) -> None:
        """Accept no more requests; those in progress go on."""
        self.status.refusing = True

    def close(self) -> None:
        """Stop what is in progress, and free the models."""
        self.status.refusing = True
        self._room.close()

    def reload(
        self, pairs: Sequence[str | PairEntry], reply: ReplySettings | None = None, loading: LoadSettings | None = None
    ) -> None:
        """Serve these pairs with these settings from now on; what is in progress goes on as it began.

        Raises:
            UsageError, ModelError: as for a new desk; nothing changes then.
        """
        self._room.reload(Serving.of(pairs, reply or ReplySettings(), loading or LoadSettings()))

    @property
    def defaults(self) -> ReplySettings:
        """See `Service`: those of the loaded pair, else of the first."""
        loaded, serving = self._room.loaded, self._room.serving
        first = next(iter(serving.pairs))
        return serving.reply_of(first if loaded is None or loaded.name not in serving.pairs else loaded.name)

    @property
    def loading_settings(self) -> LoadSettings:
        """How models are loaded."""
        return self._room.serving.loading

    # -- the service -----------------------------------------------------------------------------------------------

    def models(self) -> Sequence[ServedModel]:
        """See `Service`."""
        loaded, models = self._room.loaded, self._room.serving.models.values()
        if loaded is None:
            return list(models)
        return [
            replace(model, n_ctx=loaded.n_ctx["draft" if model.mode == "draft" else "base"], loaded=True)
            if model.pair == loaded.name
            else model
            for model in models
        ]

    @asynccontextmanager
    async def replies(self, request: ReplyRequest, count: int = 1) -> AsyncIterator[AsyncIterator[tuple[int, Event]]]:
        """See `Service`. What takes longer to prepare than `ENTER_S` fails on iterating."""
        pair, mode = self._room.serving.find(request.model)
        if not 1 <= count <= MOST_REPLIES:
            raise UsageError(f"{count} replies are asked for: it must be 1 to {MOST_REPLIES}")
        settings = {**of_mode(mode), **request.settings}
        try:
            changed(self.defaults, settings)
        except UsageError as error:
            raise request.named(error) from None
        if not isinstance(request.prompt, RawPrompt):
            conversation(request.prompt)
        order = ReplyOrder(pair, request, settings, count)
        self._accept(order)
        try:
            await asyncio.wait([order.prepared], timeout=ENTER_S)
            if order.prepared.done():
                order.prepared.result()
            yield order.outbox.events()
        finally:
            self._room.withdraw(order)

    async def score(self, request: ScoreRequest) -> Scores:
        """See `Service`."""
        pair, mode = self._room.serving.find(request.model)
        role: Source = "draft" if mode == "draft" else "base"
        order = ScoreOrder(pair, request.model, Scoring(role, list(request.tokens), request.start, request.top))
        self._accept(order)
        try:
            found = await order.result
        finally:
            self._room.withdraw(order)
        return Scores(
            tuple(
                ScoredToken(
                    token.id, token.piece, -math.inf if token.logprob is None else token.logprob, token.alternatives
                )
                for token in found.tokens
            ),
            found.cached,
        )

    async def facts(self, model: str) -> Mapping[Source, ModelFacts]:
        """See `Service`."""
        return await asyncio.to_thread(self._room.serving.facts, model)

    async def load(self, model: str) -> None:
        """See `Service`."""
        await self._call(model, lambda pair, role, stopped: None)

    def keep(self, model: str, seconds: float | None) -> None:
        """See `Service`."""
        self._room.keep(self._room.serving.find(model)[0], seconds)

    @property
    def freed_after(self) -> float | None:
        """See `Service`."""
        return self._room.freed_after

    # -- parts -----------------------------------------------------------------------------------------------------

    async def _call(self, model: str, ask: Callable[[Pair, Source, Stopped], T], size: int = 0) -> T:
        """The answer of a function of the loaded pair, a model's role, and whether to stop; `size`: see `CallOrder`."""
        pair, mode = self._room.serving.find(model)
        role: Source = "draft" if mode == "draft" else "base"
        order: CallOrder[T] = CallOrder(pair, model, lambda pair, stopped: ask(pair, role, stopped), size)
        self._accept(order)
        try:
            return await order.result
        finally:
            self._room.withdraw(order)

    def _accept(self, order: Order) -> None:
        """Put an order into the queue.

        Raises:
            UnavailableError: the server is about to end, or models cannot be loaded.
            OverloadedError: too many wait.
        """
        if self.status.refusing:
            raise UnavailableError(ENDING)
        if order.counts:
            outstanding = sum(other.counts for other in self._room.outstanding)
            if outstanding >= self._queue + self.loading_settings.parallel:
                after = min(LONGEST_RETRY_S, max(1, math.ceil(self._room.seconds_per_order)))
                raise OverloadedError(f"{outstanding} requests are in progress or wait; try again later", after)
            self._observer.queued(order.model)
        self._room.submit(order)
