"""What a service reports about its requests while it works on them: counts and times for metrics and logs.

Contract: each method is called once at its time, from any thread, and must return at once: the engine waits for it.
`model` is the name that the client gave.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from wsd_local.errors import WsdError
from wsd_local.runtime.reply import Reply

LOGGER = logging.getLogger(__name__)


class Observer(Protocol):
    """Receives what happens to requests."""

    def queued(self, model: str) -> None:
        """A request was accepted; a request for several replies counts as one."""

    def started(self, model: str, waited_s: float) -> None:
        """Work on one of its replies, or on its scores, has begun, so many seconds after the request came."""

    def first_text(self, model: str, seconds: float) -> None:
        """The first text of a reply, so many seconds after the request came."""

    def finished(self, model: str, reply: Reply, seconds: float) -> None:
        """A reply is complete."""

    def scored(self, model: str, tokens: int, cached: int, seconds: float) -> None:
        """Tokens were scored; `cached` ones before them did not have to be evaluated."""

    def cancelled(self, model: str, reply: Reply | None, seconds: float) -> None:
        """A reply was stopped; None: before work on it began."""

    def failed(self, model: str, error: WsdError, seconds: float) -> None:
        """A reply, or scores, failed."""

    def loaded(self, pair: str, seconds: float) -> None:
        """The models of a pair are in memory."""

    def unloaded(self, pair: str) -> None:
        """The models of a pair were freed."""


class Nobody:
    """An observer that records nothing."""

    def queued(self, model: str) -> None:
        """See `Observer`."""

    def started(self, model: str, waited_s: float) -> None:
        """See `Observer`."""

    def first_text(self, model: str, seconds: float) -> None:
        """See `Observer`."""

    def finished(self, model: str, reply: Reply, seconds: float) -> None:
        """See `Observer`."""

    def scored(self, model: str, tokens: int, cached: int, seconds: float) -> None:
        """See `Observer`."""

    def cancelled(self, model: str, reply: Reply | None, seconds: float) -> None:
        """See `Observer`."""

    def failed(self, model: str, error: WsdError, seconds: float) -> None:
        """See `Observer`."""

    def loaded(self, pair: str, seconds: float) -> None:
        """See `Observer`."""

    def unloaded(self, pair: str) -> None:
        """See `Observer`."""


class Watched:
    """An observer whose failures are logged and change nothing else: what it observes goes on."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def queued(self, model: str) -> None:
        """See `Observer`."""
        self._report(self._observer.queued, model)

    def started(self, model: str, waited_s: float) -> None:
        """See `Observer`."""
        self._report(self._observer.started, model, waited_s)

    def first_text(self, model: str, seconds: float) -> None:
        """See `Observer`."""
        self._report(self._observer.first_text, model, seconds)

    def finished(self, model: str, reply: Reply, seconds: float) -> None:
        """See `Observer`."""
        self._report(self._observer.finished, model, reply, seconds)

    def scored(self, model: str, tokens: int, cached: int, seconds: float) -> None:
        """See `Observer`."""
        self._report(self._observer.scored, model, tokens, cached, seconds)

    def cancelled(self, model: str, reply: Reply | None, seconds: float) -> None:
        """See `Observer`."""
        self._report(self._observer.cancelled, model, reply, seconds)

    def failed(self, model: str, error: WsdError, seconds: float) -> None:
        """See `Observer`."""
        self._report(self._observer.failed, model, error, seconds)

    def loaded(self, pair: str, seconds: float) -> None:
        """See `Observer`."""
        self._report(self._observer.loaded, pair, seconds)

    def unloaded(self, pair: str) -> None:
        """See `Observer`."""
        self._report(self._observer.unloaded, pair)

    def _report(self, report: Callable[..., None], *values: object) -> None:
        try:
            report(*values)
        except Exception:
            LOGGER.exception("what happened to a request could not be recorded")
