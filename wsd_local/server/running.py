"""A server from its start to its end: uvicorn in this thread, and the signals that end or reload it.

Contract: `run` returns when the server has ended in order. The first signal that asks it to end closes the sockets that
listen; requests in progress have until the time is over, then they are stopped and their clients receive an error. A
second signal, half a second later or more, ends the process at once. SIGHUP, where there is one, reloads.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from wsd_local.errors import WsdError
from wsd_local.server.connection import Connection
from wsd_local.system.interrupt import Stop, ending_signals, handled

if TYPE_CHECKING:
    from wsd_local.server.desk import Desk

_KEEP_ALIVE_S = 75
"""Time for which an idle connection stays open: longer than clients keep theirs, so that they close it."""
_LAST_S = 1.0
"""Of the time for ending, what is kept to send the last words of replies that were stopped."""
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a server reports while it runs; called in the thread of `run`.

    `loading` receives the pair, the model's role and the loaded fraction. `reload` is called for SIGHUP in a thread of
    its own. `ending` receives the seconds that requests in progress have at most.
    """

    loading: Callable[[str, str, float], None]
    ready: Callable[[], None]
    reload: Callable[[], None]
    ending: Callable[[float], None]


def run(
    app: Any,
    desk: Desk,
    listeners: Sequence[socket.socket],
    hooks: Hooks,
    *,
    tls: ssl.SSLContext | None = None,
    shutdown_s: float,
    access_log: bool = False,
) -> None:
    """Serve until a signal ends it. Main thread only.

    Args:
        app: the application.
        desk: its service; it is started, and closed at the end.
        listeners: sockets that listen already.
        hooks: what is reported.
        tls: encrypts connections.
        shutdown_s: seconds that requests in progress have after the signal.
        access_log: whether every request is logged.

    Raises:
        WsdError: the first pair could not be loaded.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=access_log,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        lifespan="off",
        http=Connection,
        ws="none",
    )
    config.timeout_graceful_shutdown = max(shutdown_s, _LAST_S)  # type: ignore[assignment]  # parts of seconds too
    config.load()
    config.ssl = tls
    running = _Running(_Server(config), desk, hooks, shutdown_s)
    with handled(running.handle, running.signals):  # before the loop begins: it would log what a handler raises
        try:
            asyncio.run(running.work(listeners))
        finally:
            desk.close()


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `run` handles them."""
        yield


class _Running:
    def __init__(self, server: uvicorn.Server, desk: Desk, hooks: Hooks, shutdown_s: float) -> None:
        self._server, self._desk, self._hooks, self._shutdown_s = server, desk, hooks, shutdown_s
        self._closing: asyncio.Task[None] | None = None
        self._stop = Stop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hangup = getattr(signal, "SIGHUP", None)
        self._reloads = False

    @property
    def signals(self) -> list[signal.Signals]:
        """Those that end or reload it."""
        return list({*ending_signals(), *([self._hangup] if self._hangup is not None else [])})

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """A signal came."""
        if number != self._hangup:
            self._stop.request(number)
        elif self._loop is None:
            self._reloads = True
        else:
            self._call(self._reload)

    def _call(self, function: Callable[[], None]) -> None:
        """Call a function in the loop, if that has not ended."""
        assert self._loop is not None
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def _reload(self) -> None:
        threading.Thread(target=self._hooks.reload, daemon=True).start()

    async def work(self, listeners: Sequence[socket.socket]) -> None:
        """Serve to the end."""
        self._loop = asyncio.get_running_loop()
        self._stop.on_request(lambda: self._call(self._end))
        if self._reloads:
            self._reload()
        self._desk.start()
        watching = asyncio.create_task(self._watch())
        await self._server.serve(list(listeners))
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        if self._closing is not None:
            self._closing.cancel()

    async def _watch(self) -> None:
        """Report how far the first pair is loaded.

        Raises:
            WsdError: it could not be loaded; the server ends.
        """
        try:
            while self._desk.status.state == "loading":
                if progress := self._desk.status.progress:
                    self._hooks.loading(progress["pair"], progress["role"], progress["fraction"])
                await asyncio.sleep(_LOOK_S)
            if self._desk.status.state == "failed":
                raise self._desk.status.failure or WsdError("the models could not be loaded")
        except WsdError:
            self._server.should_exit = True
            raise
        if self._desk.status.state == "ready":
            self._hooks.ready()

    def _end(self) -> None:
        """Accept nothing more, and stop what is in progress when the time is nearly over."""
        self._hooks.ending(self._shutdown_s)
        self._desk.refuse()
        self._server.should_exit = True
        self._closing = asyncio.create_task(self._close_in_time())

    async def _close_in_time(self) -> None:
        await asyncio.sleep(max(0.0, self._shutdown_s - min(_LAST_S, self._shutdown_s / 4)))
        await asyncio.to_thread(self._desk.close)
