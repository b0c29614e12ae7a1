"""One connection to a client: uvicorn's protocol over h11, with a bound on the time that a request's head may take.

Contract: a request reaches the application once its head is complete; a connection on which none is complete within
`HEAD_S` is closed. A request that wishes to change the protocol is a request like any other; the application decides.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 60.0
"""Seconds from the first byte (of a new connection: from its beginning) to the end of a request's head."""


class Connection(H11Protocol):
    """HTTP/1.1 with one client."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """From here on the time is measured that an idle connection stays open."""
        self._stop_timer()
        super().on_response_complete()

    def _expect_head(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing: the advice would be to install what is not used here."""
