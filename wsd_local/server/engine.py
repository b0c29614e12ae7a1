"""The threads between event loops and models: one that evaluates, and those that prepare.

Contract: the engine's thread owns the pair that is loaded, and works on all that was admitted, in shared evaluations.
What needs no evaluation (rendering, tokenising, compiling a constraint) is done by preparing threads, so that no other
request waits for it; what may take long has threads of its own, so that no short one waits for that either. One pair is
loaded at a time: orders for another wait until those admitted are over; a pair is admitted no more orders once
another's has waited for `TURN_S`, so that each gets its turn. All threads live until `close`: whatever fails
unexpectedly is logged, the orders concerned fail, and the next order begins anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from wsd_local.errors import CancelledError, WsdError
from wsd_local.events import Source
from wsd_local.server.loaded import Loaded, opened
from wsd_local.server.observing import Observer
from wsd_local.server.orders import Order
from wsd_local.server.preparing import Preparing
from wsd_local.server.reporting import Reporter
from wsd_local.server.served import Serving
from wsd_local.server.service import State, UnavailableError

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
        observer: receives what happens to requests; it never fails.
        keep_alive: seconds without work after which the pair is freed; None: never.

    Attributes:
        state: whether the first pair is being loaded, orders are answered, loading failed, or all ends. While another
            pair is loaded it stays `ready`.
        progress: while models are loaded: the pair, the model's role, and the loaded fraction.
        failure: why a pair could not be loaded, in full.
        reporter: knows when work on what is in progress began.
        seconds_per_order: seconds between the ends of two orders while there are more of them, a moving average.
    """

    def __init__(self, serving: Serving, observer: Observer, keep_alive: float | None = None) -> None:
        self.serving = serving
        self.state: State = "loading"
        self.progress: dict[str, str | float] = {}
        self.failure: WsdError | None = None
        self.seconds_per_order = 1.0
        self.loaded: Loaded | None = None
        self._observer, self.reporter = observer, Reporter(observer)
        self._keep_alive = keep_alive
        self._kept: dict[str, float | None] = {}
        self._idle_since = time.monotonic()
        self._changed = threading.Condition()
        self._orders: deque[Order] = deque()
        self._live: set[Order] = set()
        self._admits = self._stale = self._closing = False
        self._failures: dict[str, tuple[float, WsdError]] = {}
        self._to_prepare = Preparing(self._prepare)
        self._preparing = 0
        self._last_end = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    # -- from any thread -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin; the first pair is loaded at once."""
        self._thread.start()
        self._to_prepare.start()

    def submit(self, order: Order) -> None:
        """Accept an order."""
        with self._changed:
            if self._closing:
                order.fail(UnavailableError(ENDING))
                return
            self._live.add(order)
            if self._admits and self.loaded is not None and self.loaded.name == order.pair and not self._turn_is_over():
                self._admit(order, self.loaded)
            else:
                self._orders.append(order)
            self._changed.notify_all()

    def withdraw(self, order: Order) -> None:
        """Stop the work on an order, in whatever phase it is; nothing happens if it is over."""
        has_not_begun = order.stop()
        with self._changed:
            if has_not_begun:
                self._live.discard(order)
            if order not in self._orders:
                return
            self._orders.remove(order)
        self._fail(order, CancelledError("stopped while waiting"))

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
            loaded = self.loaded
            if loaded is not None:
                self._stale = self._stale or _differs(self.serving, serving, loaded.name)
                if loaded.name in serving.pairs:
                    loaded.pair.settings = serving.reply_of(loaded.name)
            self.serving = serving
            self._failures.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop all work and free the models."""
        with self._changed:
            self._closing = True
            self.state = "ending"
            loaded = self.loaded
            self._changed.notify_all()
        if loaded is not None:
            loaded.crew.cancel()
        for order in self.outstanding:
            order.abandon()
        self._to_prepare.close()
        if self._thread.is_alive():
            self._thread.join()

    # -- the preparing threads -------------------------------------------------------------------------------------

    def _prepare(self, order: Order, loaded: Loaded) -> None:
        try:
            if order.stopped:
                raise CancelledError("stopped")
            order.admit(loaded.pair, loaded.crew)
        except WsdError as error:
            self._fail(order, error)
        except Exception:
            LOGGER.exception("a request could not be prepared")
            self._fail(order, WsdError("the request could not be prepared; the server's log says why"))
        with self._changed:
            self._preparing -= 1
            if order.over:
                self._live.discard(order)
            self._changed.notify_all()

    def _admit(self, order: Order, loaded: Loaded) -> None:
        self._preparing += 1
        self._to_prepare.put(order, loaded)

    def _fail(self, order: Order, error: WsdError) -> None:
        if self._closing and isinstance(error, CancelledError):
            error = UnavailableError(ENDING)
        with self._changed:
            self._live.discard(order)
            if order.over:  # by another thread
                return
            order.over = True
        if order.counts and order.stopped and isinstance(error, CancelledError):
            self._observer.cancelled(order.model, None, order.waited)
        elif order.counts:
            self._observer.failed(order.model, error, order.waited)
        order.fail(error)

    # -- the engine's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        pair: str | None = next(iter(self.serving.pairs))
        while True:
            try:
                if pair is not None and (loaded := self._ready(pair)) is not None:
                    self._serve(loaded)
                if (pair := self._next()) is None:
                    break
            except Exception as error:
                self._begin_anew(error)
                pair = None
        try:
            self._unload()
        finally:
            for order in self.outstanding:
                self._fail(order, UnavailableError(ENDING))

    def _next(self) -> str | None:
        """The pair that is needed next; None: no more work. Meanwhile, the models are freed when their time is over."""
        self._idle_since = time.monotonic()
        while True:
            with self._changed:
                if self._closing:
                    return None
                if self.loaded is not None and self._is_busy(self.loaded):
                    return self.loaded.name
                if self._orders:
                    self._admits = False  # nothing may join what is perhaps about to be freed
                    return self._orders[0].pair
                left = self._seconds_left(self._idle_since)
                if left is None or left > 0:
                    self._changed.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
                    continue
                self._admits = False
            self._unload()

    def _seconds_left(self, idle_since: float) -> float | None:
        """Seconds until the models are to be freed if no order comes; None: they stay."""
        if self.loaded is None:
            return None
        if self._stale:
            return 0.0
        seconds = self._kept.get(self.loaded.name, self._keep_alive)
        return None if seconds is None else idle_since + seconds - time.monotonic()

    def _ready(self, pair: str) -> Loaded | None:
        """The pair, loaded, with its orders admitted, after those admitted before; None: they have failed."""
        loaded = self.loaded
        if loaded is not None and loaded.name == pair and self._is_busy(loaded):
            return loaded
        if loaded is None or loaded.name != pair or self._stale:
            if (refusal := self._refusal(pair)) is not None:  # what is loaded stays
                self._refuse(pair, refusal)
                return None
            self._unload()
            if (loaded := self._load(pair)) is None:
                return None
        with self._changed:
            self._admits = True
            for order in [order for order in self._orders if order.pair == pair]:
                self._orders.remove(order)
                self._admit(order, loaded)
        return loaded

    def _refusal(self, pair: str) -> WsdError | None:
        """Why a pair is not even tried."""
        if pair not in self.serving.pairs:
            return UnavailableError(f"the model {pair!r} is not served any more")
        at, error = self._failures.get(pair, (0.0, None))
        return error if error is not None and time.monotonic() - at < RETRY_S else None

    def _load(self, name: str) -> Loaded | None:
        begun = time.monotonic()
        serving = self.serving

        def progress(role: Source, fraction: float) -> bool:
            self.progress = {"pair": name, "role": role, "fraction": fraction}
            return not self._closing

        try:
            loaded = opened(name, serving, progress)
        except Exception as failure:
            self._loading_failed(name, failure)
            return None
        finally:
            self.progress = {}
        with self._changed:
            self._failures.pop(name, None)
            self.loaded, self._stale = loaded, _differs(serving, self.serving, name)
            if name in self.serving.pairs:
                loaded.pair.settings = self.serving.reply_of(name)
            self.state = "ending" if self._closing else "ready"
        self._observer.loaded(name, time.monotonic() - begun)
        return loaded

    def _loading_failed(self, name: str, failure: Exception) -> None:
        if self._closing:
            self._refuse(name, UnavailableError(ENDING))
            return
        first = self.state == "loading"
        if isinstance(failure, WsdError):
            self.failure = failure
            if not first:  # the first failure is for who started the server, and no line of a log
                LOGGER.error("the pair %s cannot be loaded: %s", name, failure)
        else:
            LOGGER.error("the pair %s cannot be loaded", name, exc_info=failure)
        refused = UnavailableError(f"the models of {name} cannot be loaded; the server's log says why")
        self._failures[name] = (time.monotonic(), refused)
        self.state = "failed" if self.state in ("loading", "failed") else self.state
        self._refuse(name, refused)

    def _unload(self, *, keeps: bool = True) -> None:
        with self._changed:
            self._admits = False
            while self._preparing and not self._closing:
                self._changed.wait()
            loaded, self.loaded, self._stale = self.loaded, None, False
            self.reporter.forget()
            if loaded is not None:
                self._kept.pop(loaded.name, None)
        if loaded is None:
            return
        try:
            loaded.free(keeps=keeps)
        except Exception:
            LOGGER.exception("the models of %s could not be freed in order", loaded.name)
        self._observer.unloaded(loaded.name)

    def _refuse(self, pair: str, error: WsdError) -> None:
        """Fail all orders that wait for a pair."""
        with self._changed:
            orders = [order for order in self._orders if order.pair == pair]
            for order in orders:
                self._orders.remove(order)
        for order in orders:
            self._fail(order, error)

    def _serve(self, loaded: Loaded) -> None:
        """Work on what is admitted, until there is nothing left."""
        while not self._closing:
            try:
                for step in loaded.crew.steps():
                    self.reporter.report(loaded.crew, step, self._ended)
                    if self._turn_is_over():
                        self._admits = False
            except CancelledError:
                continue  # the server ends
            except Exception as error:
                self._give_up(error)
                return
            with self._changed:
                if not self._is_busy(loaded):
                    return
                if not (loaded.crew.waiting or loaded.crew.live):
                    self._changed.wait()

    def _give_up(self, error: Exception) -> None:
        """An evaluation failed, and so all that took part; the models are loaded again for the next order."""
        if isinstance(error, WsdError):
            LOGGER.error("an evaluation failed: %s", error)
        else:
            LOGGER.error("an evaluation failed", exc_info=error)
        self._abandon("the evaluation failed; the server's log says why")

    def _begin_anew(self, error: Exception) -> None:
        """Something else failed unexpectedly, and so all orders: what waits may be the cause."""
        LOGGER.error("the engine failed, and begins anew", exc_info=error)
        if self.state == "loading":
            self.failure, self.state = WsdError("the models could not be loaded: an unexpected error"), "failed"
        with self._changed:
            self._orders.clear()
        self._abandon("the server failed; its log says why")

    def _abandon(self, reason: str) -> None:
        """Fail all orders but those that wait, and free the models."""
        with self._changed:
            self._admits = False
            waiting = set(self._orders)
        for order in self.outstanding:
            if order not in waiting:
                self._fail(order, WsdError(reason))
                order.stop()
        self._unload(keeps=False)

    def _is_busy(self, loaded: Loaded) -> bool:
        """Whether anything that was admitted is not over."""
        return bool(self._preparing or loaded.crew.waiting or loaded.crew.live)

    def _turn_is_over(self) -> bool:
        """Whether the loaded pair is admitted no more orders."""
        if self._stale or self._closing:
            return True
        try:
            return self._orders[0].waited > TURN_S
        except IndexError:
            return False

    def _ended(self, order: Order) -> None:
        with self._changed:
            self._live.discard(order)
            now = time.monotonic()
            if self._live and self._last_end:
                self.seconds_per_order += 0.1 * (min(now - self._last_end, order.waited) - self.seconds_per_order)
            self._last_end = now


def _differs(old: Serving, new: Serving, pair: str) -> bool:
    """Whether a loaded pair must be loaded again to be served as `new` says."""
    if old.pairs.get(pair) != new.pairs.get(pair):
        return True
    return pair in new.pairs and old.loading_of(pair) != new.loading_of(pair)
