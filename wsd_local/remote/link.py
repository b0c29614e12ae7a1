"""The connection to one server: requests that are answered whole, and streams of events.

Contract: knows no server's protocol. All waiting happens in one thread of the link's own, so a caller can stop at any
time: `check` is called while it waits, and what it raises ends the request. A request that got no answer is made again
after 429, 502, 503, 504 and a lost connection, with growing random pauses; a stream that has begun is never made again
here. Errors are one line and hold no secret. Whatever a server sends, no more than a request's `most` bytes are kept,
and no wait is longer than `Patience` allows.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from wsd_local.errors import WsdError
from wsd_local.remote.address import Address
from wsd_local.system.network import AGENT, http_package, one_line, requested_wait

T = TypeVar("T")
Check = Callable[[], None]
"""Raises what ends the waiting."""

MIB = 1 << 20
_LOOK_S = 0.05
_BUSY = (429, 502, 503, 504)
_WAITING_EVENTS = 256


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that a server may take: to connect, until an answer begins, and between its parts.

    A request is repeated after `attempts` lost connections at most, and while the server is busy for `busy_s`.
    """

    connect_s: float = 10.0
    first_s: float = 900.0
    idle_s: float = 120.0
    busy_s: float = 180.0
    attempts: int = 5
    pause_s: float = 0.25
    longest_pause_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: a path under the server's address, a body (None: GET), and the most bytes of an answer or event."""

    path: str
    body: Mapping[str, Any] | None = None
    most: int = MIB


class AnswerError(WsdError):
    """The server answers, and not with what was asked for; `status` is 200 where only the content is wrong."""

    def __init__(self, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.status = status


class LostError(WsdError):
    """A stream ended before it was complete."""


class _TryAgainError(Exception):
    def __init__(self, error: WsdError, after: float | None = None, *, busy: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.after, self.busy = error, after, busy


class Link:
    """The connection to a server.

    Args:
        address: the server.
        patience: how long to wait for it.
        randomly: a number from 0 to 1, for the pauses between attempts.
    """

    def __init__(
        self, address: Address, patience: Patience | None = None, *, randomly: Callable[[], float] = random.random
    ) -> None:
        self.address = address
        self.patience = patience or Patience()
        self._randomly = randomly
        self._http = http_package()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wsd-local remote base", daemon=True)
        self._thread.start()
        self._closed = False
        key = {} if address.key is None else {"Authorization": f"Bearer {address.key}"}
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity", **key}
        wait = self._http.Timeout(None, connect=self.patience.connect_s)
        limits = self._http.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = self._http.AsyncClient(headers=headers, timeout=wait, limits=limits, follow_redirects=False)

    @property
    def url(self) -> str:
        """The server's address, for messages."""
        return self.address.url

    def close(self) -> None:
        """End what is in progress, and the link."""
        if self._closed:
            return
        self._closed = True

        async def end() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._client.aclose()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- whole answers -----------------------------------------------------------------------------------------------

    def ask(self, asked: Asked, check: Check = lambda: None) -> Any:
        """The JSON of one answer.

        Raises:
            AnswerError: the server refuses, or answers with something else.
            WsdError: it cannot be reached, or takes too long.
        """
        return self.ask_all([asked], check)[0]

    def ask_all(self, asked: Sequence[Asked], check: Check = lambda: None) -> list[Any]:
        """The JSON of several answers, asked for together; errors as of `ask`."""

        async def answers() -> list[Any]:
            return await asyncio.gather(*(self._retried(partial(self._answer, one)) for one in asked))

        return self.wait(answers(), check)

    def clock(self, path: str, saw: Callable[[float], None]) -> None:
        """Measure how long a small request takes, without waiting for it; an error counts as nothing."""

        async def measured() -> None:
            begun = time.perf_counter()
            with suppress(WsdError, _TryAgainError):
                await self._answer(Asked(path))
                saw(time.perf_counter() - begun)

        if not self._closed:
            asyncio.run_coroutine_threadsafe(measured(), self._loop)

    def ask_bytes(self, path: str, most: int, check: Check = lambda: None) -> bytes:
        """The bytes of one answer, `most` of them; errors as of `ask`."""
        return self.wait(self._retried(lambda: self._read(Asked(path, most=most))), check)

    async def _read(self, asked: Asked) -> bytes:
        response = await self._begun(asked)
        try:
            async with asyncio.timeout(self.patience.idle_s):
                return await self._body(response, asked.most)
        except TimeoutError:
            raise AnswerError(f"{self.url} sends its answer to {asked.path} too slowly: it was given up") from None
        except self._http.TransportError as error:
            raise _TryAgainError(self._unreachable(error)) from error
        finally:
            await response.aclose()

    async def _answer(self, asked: Asked) -> Any:
        data = await self._read(asked)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise AnswerError(f"{self.url} answers {asked.path} with something else than JSON") from error

    async def _body(self, response: Any, most: int) -> bytes:
        found = bytearray()
        async for part in response.aiter_raw():
            found += part
            if len(found) > most:
                raise AnswerError(
                    f"{self.url} sends more than {most >> 10} KiB where less was asked for: it was given up"
                )
        return bytes(found)

    # -- streams -----------------------------------------------------------------------------------------------------

    def stream(self, asked: Asked) -> Stream:
        """The events of an answer, which is asked for at once; nothing is waited for."""
        return Stream(self, asked)

    async def events(self, asked: Asked) -> AsyncIterator[Any]:
        """The JSON of each server-sent event.

        Raises:
            LostError: the connection was lost after the answer began.
            WsdError: as `ask`.
        """
        response = await self._retried(lambda: self._begun(asked))
        try:
            lines = self._lines(response, asked)
            while (line := await self._next_line(lines)) is not None:
                data = line.removeprefix(b"data:").strip()
                if not line.startswith(b"data:") or not data:
                    continue
                if data == b"[DONE]":
                    return
                try:
                    event = json.loads(data)
                except (ValueError, RecursionError) as error:
                    raise AnswerError(f"{self.url} streams something else than JSON") from error
                if isinstance(event, dict) and event.get("error"):
                    raise AnswerError(f"{self.url} ends the stream: {one_line(message_in(event))}")
                yield event
        finally:
            await response.aclose()

    async def _next_line(self, lines: AsyncIterator[bytes]) -> bytes | None:
        try:
            async with asyncio.timeout(self.patience.idle_s):
                return await anext(lines, None)
        except TimeoutError:
            raise LostError(f"{self.url} has sent nothing for {self.patience.idle_s:g} s") from None
        except self._http.TransportError as error:
            raise LostError(f"{self.url}: the connection was lost ({_why(error)})") from error

    async def _lines(self, response: Any, asked: Asked) -> AsyncIterator[bytes]:
        """The lines that say something: comments keep a connection alive and no more."""
        rest = bytearray()
        async for part in response.aiter_raw():
            rest += part
            *lines, end = rest.split(b"\n")
            rest = bytearray(end)
            if len(rest) > asked.most:
                raise AnswerError(f"{self.url} streams an event of more than {asked.most >> 10} KiB: it was given up")
            for line in lines:
                if line.strip() and not line.startswith(b":"):
                    yield bytes(line)

    # -- parts -------------------------------------------------------------------------------------------------------

    async def _begun(self, asked: Asked) -> Any:
        """A response whose body is still to be read; it has the status 200."""
        request = self._client.build_request(
            "GET" if asked.body is None else "POST",
            f"{self.url}{asked.path}",
            **({} if asked.body is None else {"json": asked.body}),
        )
        try:
            async with asyncio.timeout(self.patience.first_s):
                response = await self._client.send(request, stream=True)
        except TimeoutError:
            raise WsdError(f"{self.url} has not answered for {self.patience.first_s:g} s") from None
        except self._http.TransportError as error:
            raise _TryAgainError(self._unreachable(error)) from error
        except (self._http.HTTPError, self._http.InvalidURL) as error:
            raise self._unreachable(error) from error
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        if response.status_code == 200 and not encoded:
            return response
        try:
            await self._refused(response, asked)
        finally:
            await response.aclose()

    async def _refused(self, response: Any, asked: Asked) -> None:
        status = response.status_code
        try:
            async with asyncio.timeout(self.patience.connect_s):
                text = await self._body(response, MIB)
        except (TimeoutError, WsdError, self._http.TransportError):
            text = b""
        try:
            reason = one_line(message_in(json.loads(text)))
        except (ValueError, RecursionError):
            reason = one_line(text.decode(errors="replace"))
        if status == 200:
            raise AnswerError(f"{self.url} compresses its answer, although that was not asked for")
        if status in (401, 403):
            name = self.address.key_variable
            what = "no key: name the variable that holds one with --base-api-key-env" if name is None else "the key"
            raise AnswerError(f"{self.url} refuses {what if name is None else f'{what} in {name}'}", status)
        error = AnswerError(f"{self.url} answers {asked.path} with {status}{f': {reason}' if reason else ''}", status)
        if status in _BUSY:
            raise _TryAgainError(error, requested_wait(response), busy=True)
        raise error

    def _unreachable(self, error: Exception) -> WsdError:
        return WsdError(f"{self.url} cannot be reached ({_why(error)}): is the server running there?")

    async def _retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What an attempt gives; another one is made where it failed before anything was answered."""
        patience, lost, waited = self.patience, 0, 0.0
        while True:
            try:
                return await attempt()
            except _TryAgainError as again:
                lost += not again.busy
                if lost >= patience.attempts or waited >= patience.busy_s:
                    raise again.error from again
                after = again.after
            growing = patience.pause_s * 2 ** min(10, lost + int(waited))
            pause = min(patience.longest_pause_s, (after or 0.0) + self._randomly() * growing)
            waited += pause
            await asyncio.sleep(pause)

    def wait(self, work: Coroutine[Any, Any, T], check: Check) -> T:
        """The result of `work` in the link's thread; `check` is called while it goes on."""
        if self._closed:
            work.close()
            raise WsdError(f"{self.url}: the connection is closed")
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while True:
                try:
                    return future.result(_LOOK_S)
                except TimeoutError:
                    if future.done():
                        raise
                    check()
        except BaseException:
            future.cancel()
            raise


@dataclass(slots=True, eq=False)
class Stream:
    """The events of one answer, read ahead in the link's thread as far as somebody takes them."""

    link: Link
    asked: Asked
    _queue: asyncio.Queue[Any] = field(default_factory=lambda: asyncio.Queue(_WAITING_EVENTS))
    _task: Future[None] | None = None
    _given_up: bool = False

    def __post_init__(self) -> None:
        self._task = asyncio.run_coroutine_threadsafe(self._read(), self.link._loop)

    async def _read(self) -> None:
        try:
            async for event in self.link.events(self.asked):
                async with asyncio.timeout(self.link.patience.idle_s):  # nobody takes them any more
                    await self._queue.put(event)
            await self._queue.put(None)
        except WsdError as error:
            await self._queue.put(error)
        except TimeoutError:
            self._given_up = True

    async def _taken(self) -> Any:
        if self._given_up and self._queue.empty():
            return LostError(f"{self.link.url}: a stream was not read for {self.link.patience.idle_s:g} s")
        return await self._queue.get()

    def next(self, check: Check) -> Any | None:
        """The next event; None after the last one.

        Raises:
            LostError: the stream ended before it was complete.
            WsdError: as `Link.ask`.
        """
        found = self.link.wait(self._taken(), check)
        if isinstance(found, WsdError):
            raise found
        return found

    def close(self) -> None:
        """Hang up: the server stops as soon as it notices."""
        if self._task is not None:
            self._task.cancel()


def message_in(answer: Any) -> Any:
    """The message in an error's body, as OpenAI's, vLLM's, SGLang's and FastAPI's servers have it."""
    for name in ("error", "message", "detail"):
        if isinstance(answer, dict) and answer.get(name):
            return message_in(answer[name])
    return answer


def _why(error: Exception) -> str:
    return one_line(error) or type(error).__name__
