"""The threads between event loops and models: one that evaluates, one that prepares.

Contract: the engine's thread owns the pair that is loaded, and works on all that was admitted, in shared evaluations.
What needs no evaluation (rendering, tokenising, compiling a constraint) is done by the preparing thread, so that no
other request waits for it. One pair is loaded at a time: orders for another wait until those admitted are over; a
pair is admitted no more orders once another's has waited for `TURN_S`, so that each gets its turn. A step's events are
handed to each event loop in one call.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from wsd_local.errors import CancelledError, WsdError
from wsd_local.events import Event, Source, Text
from wsd_local.runtime.fleet import Failed
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.run import Run
from wsd_local.runtime.scoring import Scored
from wsd_local.server.observing import Observer
from wsd_local.server.orders import Crew, Key, Order
from wsd_local.server.served import Serving, files_of
from wsd_local.server.service import Slot, State, UnavailableError

LOGGER = logging.getLogger(__name__)

TURN_S = 10.0
"""Seconds for which an order waits for a pair while another pair is admitted further orders."""
RETRY_S = 10.0
"""Seconds after which the loading of a pair that failed is tried again for a new order."""

ENDING = "the server is about to end"


class EngineRoom:
    """The loaded pair and the orders that need it or wait for another one.

    Args:
        serving: what is served.
        observer: receives what happens to requests.
        keep_alive: seconds without work after which the pair is freed; None: never.
    """

    def __init__(self, serving: Serving, observer: Observer, keep_alive: float | None = None) -> None:
        self.serving = serving
        self.state: State = "loading"
        self.progress: dict[str, Any] = {}
        """While models are loaded: the pair, the model's role, and the loaded fraction."""
        self.failure: WsdError | None = None
        """Why a pair could not be loaded, in full."""
        self._has_answered = False
        self.loaded: tuple[str, Pair] | None = None
        self._observer, self._keep_alive = observer, keep_alive
        self._kept: dict[str, float | None] = {}
        self._idle_since = time.monotonic()
        self._changed = threading.Condition()
        self._orders: deque[Order] = deque()
        self._crew: Crew | None = None
        self._admitted: str | None = None
        self._stale = False
        self._live: set[Order] = set()
        self.seconds_per_order = 1.0
        """Seconds between the ends of two orders, while there are more of them: a moving average."""
        self._last_end = 0.0
        self._failures: dict[str, tuple[float, WsdError]] = {}
        self._begun: dict[Key, float] = {}
        self._spoke: set[Key] = set()
        self._to_prepare: queue.SimpleQueue[tuple[Order, Pair, Crew] | None] = queue.SimpleQueue()
        self._preparing = 0
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, name="engine", daemon=True),
            threading.Thread(target=self._prepare, name="preparing", daemon=True),
        ]

    # -- from any thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; the first pair is loaded at once."""
        for thread in self._threads:
            thread.start()

    def submit(self, order: Order) -> None:
        """Accept an order."""
        with self._changed:
            if self._closing:
                order.fail(UnavailableError(ENDING))
                return
            self._live.add(order)
            if order.pair == self._admitted and not self._turn_is_over() and self.loaded and self._crew:
                self._admit(order)
            else:
                self._orders.append(order)
            self._changed.notify_all()

    def withdraw(self, order: Order) -> None:
        """Stop the work on an order, in whatever phase it is."""
        order.stop()
        with self._changed:
            if order in self._orders:
                self._orders.remove(order)
                self._live.discard(order)

    @property
    def outstanding(self) -> list[Order]:
        """Orders that are not over."""
        with self._changed:
            return list(self._live)

    def keep(self, pair: str, seconds: float | None) -> None:
        """Free a pair after so many seconds without work, this time; None: never."""
        with self._changed:
            self._kept[pair] = seconds
            self._changed.notify_all()

    @property
    def freed_after(self) -> float | None:
        """Seconds until the loaded pair is freed if no order comes; None: it stays, or none is loaded."""
        with self._changed:
            return self._seconds_left(time.monotonic() if self._live else self._idle_since)

    def reload(self, serving: Serving) -> None:
        """Serve something else from now on; what is in progress goes on as it began."""
        with self._changed:
            self._stale = self.loaded is not None and _differs(self.serving, serving, self.loaded[0])
            self.serving = serving
            if self.loaded is not None:
                self.loaded[1].settings = serving.reply
            self._failures.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop all work and free the models."""
        with self._changed:
            self._closing = True
            self.state = "ending"
            crew = self._crew
            self._changed.notify_all()
        if crew is not None:
            crew.cancel()
        for order in self.outstanding:
            order.stop()
        self._to_prepare.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def slots(self) -> list[Slot]:
        """What each place for a request in progress does."""
        found: list[Slot] = []
        now, crew = time.monotonic(), self._crew
        for key, work in {} if crew is None else crew.live.items():
            seconds = now - self._begun.get(key, now)
            if isinstance(work, Run):
                progress = work.progress
                phase: Any = "draft" if progress.phase.value == "draft" else "continue"
                prompt = work.machine.prompt_length
                reply = max(0, progress.context_tokens - prompt)
                found.append(Slot(len(found), phase, key[0].model, prompt, reply, progress.n_ctx, seconds))
            else:
                found.append(Slot(len(found), "score", key[0].model, seconds=seconds))
        return found + [Slot(index) for index in range(len(found), self.serving.loading.parallel)]

    # -- the preparing thread --------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        while (job := self._to_prepare.get()) is not None:
            order, pair, crew = job
            try:
                if order.stopped:
                    raise CancelledError("stopped")
                order.admit(pair, crew)
            except WsdError as error:
                self._fail(order, error)
            except Exception as error:
                LOGGER.exception("a request could not be prepared")
                self._fail(order, WsdError(f"the request could not be prepared: {type(error).__name__}"))
            with self._changed:
                self._preparing -= 1
                if order.over:
                    self._live.discard(order)
                self._changed.notify_all()

    def _admit(self, order: Order) -> None:
        assert self.loaded is not None and self._crew is not None
        self._preparing += 1
        self._to_prepare.put((order, self.loaded[1], self._crew))

    def _fail(self, order: Order, error: WsdError) -> None:
        if isinstance(error, CancelledError) and order.stopped:
            self._observer.cancelled(order.model, None, order.waited)
        elif order.counts:
            self._observer.failed(order.model, error, order.waited)
        order.fail(error)
        with self._changed:
            self._live.discard(order)

    # -- the engine's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        pair: str | None = next(iter(self.serving.pairs))
        try:
            while pair is not None:
                if self._ready(pair):
                    self._serve()
                pair = self._next()
        except Exception:
            LOGGER.exception("the engine failed")
            self.state = "failed"
        finally:
            self._closing = True
            self._unload()
            for order in self.outstanding:
                self._fail(order, UnavailableError(ENDING))

    def _next(self) -> str | None:
        """The pair that is needed next; None: no more work. Meanwhile, the models are freed when their time is over."""
        self._idle_since = time.monotonic()
        while True:
            with self._changed:
                if self._closing:
                    return None
                if self._orders:
                    return self._orders[0].pair
                if self.loaded is not None and (self._preparing or self._has_work()):
                    return self.loaded[0]
                left = self._seconds_left(self._idle_since)
                if left is None or left > 0:
                    self._changed.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
                    continue
                self._admitted = None
            self._unload()

    def _seconds_left(self, idle_since: float) -> float | None:
        """Seconds until the models are to be freed if no order comes; None: they stay."""
        if self.loaded is None:
            return None
        if self._stale:
            return 0.0
        seconds = self._kept.get(self.loaded[0], self._keep_alive)
        return None if seconds is None else idle_since + seconds - time.monotonic()

    def _has_work(self) -> bool:
        return self._crew is not None and bool(self._crew.waiting or self._crew.live)

    def _ready(self, pair: str) -> bool:
        """Whether the pair is loaded and its orders are admitted; else they have failed."""
        if self.loaded is None or self.loaded[0] != pair or self._stale:
            self._unload()
            if pair not in self.serving.pairs:
                self._refuse(pair, UnavailableError(f"the model {pair!r} is not served any more"))
                return False
            if not self._load(pair):
                return False
        with self._changed:
            self._admitted = pair
            for order in [order for order in self._orders if order.pair == pair]:
                self._orders.remove(order)
                self._admit(order)
        return True

    def _load(self, name: str) -> bool:
        at, error = self._failures.get(name, (0.0, None))
        if error is not None and time.monotonic() - at < RETRY_S:
            self._refuse(name, error)
            return False
        begun, self.state = time.monotonic(), "loading"
        try:
            pair = self._opened(name)
        except CancelledError:
            self._refuse(name, UnavailableError(ENDING))
            return False
        except Exception as failure:
            if isinstance(failure, WsdError):
                self.failure = failure
                if self._has_answered:  # the first failure is for who started the server, and no line of a log
                    LOGGER.error("the pair %s cannot be loaded: %s", name, failure)
            else:
                LOGGER.exception("the pair %s cannot be loaded", name)
            refused = UnavailableError(f"the models of {name} cannot be loaded; the server's log says why")
            self._failures[name] = (time.monotonic(), refused)
            self.state = "ending" if self._closing else "failed"
            self._refuse(name, refused)
            return False
        finally:
            self.progress = {}
        with self._changed:
            self._failures.pop(name, None)
            self.loaded, self._crew, self._stale = (name, pair), Crew(pair), False
            self.state = "ending" if self._closing else "ready"
            self._has_answered = True
        self._observer.loaded(name, time.monotonic() - begun)
        return True

    def _opened(self, name: str) -> Pair:
        entry = self.serving.pairs[name]
        files = files_of(entry)

        def progress(role: Source, fraction: float) -> bool:
            self.progress = {"pair": name, "role": role, "fraction": fraction}
            return not self._closing

        models = LoadedModels(
            files["draft"], files["base"], self.serving.loading, base_format=entry.base_format, vets=True
        )
        try:
            models.start_template("wsd")
            models.fit("wsd", progress)
            models.load("wsd", progress)
        except BaseException:
            models.close()
            raise
        return Pair.over(models, reply=self.serving.reply)

    def _unload(self) -> None:
        with self._changed:
            self._admitted = None
            while self._preparing and not self._closing:
                self._changed.wait()
            loaded, self.loaded, self._crew, self._stale = self.loaded, None, None, False
            self._begun.clear()
            self._spoke.clear()
            if loaded is not None:
                self._kept.pop(loaded[0], None)
        if loaded is not None:
            loaded[1].close()
            self._observer.unloaded(loaded[0])

    def _refuse(self, pair: str, error: WsdError) -> None:
        """Fail all orders that wait for a pair."""
        with self._changed:
            orders = [order for order in self._orders if order.pair == pair]
            for order in orders:
                self._orders.remove(order)
        for order in orders:
            self._fail(order, error)

    def _serve(self) -> None:
        """Work on what is admitted, until there is nothing left."""
        crew = self._crew
        assert crew is not None
        while not self._closing:
            try:
                for step in crew.steps():
                    self._post(crew, step)
                    if self._turn_is_over():
                        self._admitted = None
            except CancelledError:
                continue  # the server ends
            except Exception as error:
                self._give_up(error)
                return
            with self._changed:
                if self._has_work():
                    continue
                if not self._preparing:
                    return
                self._changed.wait()

    def _give_up(self, error: Exception) -> None:
        """An evaluation failed, and so all that took part; the models are loaded again for the next order."""
        if isinstance(error, WsdError):
            LOGGER.error("an evaluation failed: %s", error)
        else:
            LOGGER.exception("an evaluation failed")
        with self._changed:
            self._admitted = None
            waiting = set(self._orders)
        for order in self.outstanding:
            if order not in waiting:
                order.stop()
                self._fail(order, WsdError("the evaluation failed; the server's log says why"))
        self._unload()

    def _turn_is_over(self) -> bool:
        """Whether the loaded pair is admitted no more orders."""
        if self._stale or self._closing:
            return True
        first = self._orders[0] if self._orders else None
        return first is not None and first.waited > TURN_S

    def _post(self, crew: Crew, step: Sequence[tuple[Key, Event]]) -> None:
        """Hand the events of a step to the event loops of their orders."""
        now = time.monotonic()
        for key in crew.live.keys() - self._begun.keys():
            self._begun[key] = now
            self._observer.started(key[0].model, key[0].waited)
        loops: dict[Any, list[tuple[Order, int, Event]]] = {}
        for key, event in step:
            order, index = key
            loops.setdefault(order.loop, []).append((order, index, event))
        for loop, events in loops.items():
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(_deliver, events)
        for key, event in step:
            self._observe(key, event)

    def _observe(self, key: Key, event: Event) -> None:
        order, seconds = key[0], key[0].waited
        match event:
            case Finished():
                stopped = event.reply.finish_reason == "cancelled"
                report: Callable[..., None] = self._observer.cancelled if stopped else self._observer.finished
                report(order.model, event.reply, seconds)
            case Scored():
                self._observer.scored(order.model, len(event.tokens), event.cached, seconds)
            case Failed() if order.stopped:
                self._observer.cancelled(order.model, None, seconds)
            case Failed():
                self._observer.failed(order.model, event.error, seconds)
            case Text() if key not in self._spoke:
                self._spoke.add(key)
                self._observer.first_text(order.model, seconds)
        if isinstance(event, Finished | Scored | Failed):
            self._spoke.discard(key)
            self._begun.pop(key, None)
            if order.ends(key[1]):
                self._ended(order)

    def _ended(self, order: Order) -> None:
        with self._changed:
            self._live.discard(order)
            now = time.monotonic()
            if self._live and self._last_end:
                self.seconds_per_order += 0.1 * (min(now - self._last_end, order.waited) - self.seconds_per_order)
            self._last_end = now


def _deliver(events: Iterable[tuple[Order, int, Event]]) -> None:
    for order, index, event in events:
        order.receive(index, event)


def _differs(old: Serving, new: Serving, pair: str) -> bool:
    """Whether a loaded pair must be loaded again to be served as `new` says."""
    return old.loading != new.loading or old.pairs.get(pair) != new.pairs.get(pair)
