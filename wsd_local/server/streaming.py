"""Answers that are sent while they are written, and clients that go away.

Contract: whatever ends a response, what it holds is released: the replies of a client that went away are stopped, in
every phase. A stream that has begun reports an error in the protocol's own form and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from itertools import islice
from typing import Any, TypeVar

from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from wsd_local.errors import WsdError
from wsd_local.server.errors import ApiError, api_error, body_of

T = TypeVar("T")

PING_SECONDS = 5
"""Time without an event after which a comment keeps the connection alive, as while a long prompt is read."""

ITEMS = 2048
"""Items of a list that are written at once: some thousandths of a second."""

GONE = 499
"""Status of an answer that nobody receives, as other servers log it."""


class EventStream(EventSourceResponse):
    """A stream of server-sent events that releases what `held` holds when it ends, however it ends."""

    def __init__(self, held: AsyncExitStack, events: AsyncIterator[bytes], **options: Any) -> None:
        super().__init__(events, ping=PING_SECONDS, sep="\n", **options)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        async with self._held:
            await super().__call__(scope, receive, send)


class LineStream(EventStream):
    """A stream of JSON objects, one in each line. `ping` is the line that keeps the connection alive."""

    def __init__(self, held: AsyncExitStack, lines: AsyncIterator[bytes], ping: Callable[[], bytes]) -> None:
        super().__init__(held, lines, media_type="application/x-ndjson", ping_message_factory=ping)


def listed(
    fields: Mapping[str, Any],
    name: str,
    items: Iterable[Any],
    made: Callable[[Any], Any] = lambda item: item,
    *,
    at_once: int = ITEMS,
) -> Response:
    """A JSON object whose field `name` is a list of any length, written so that nobody waits for it.

    Args:
        fields: the object's other fields.
        name: the list's name.
        items: what its items are made of.
        made: makes one.
        at_once: items that are written before others have their turn.
    """
    head = "".join(f"{_json(name)}:{_json(value)}," for name, value in fields.items())

    async def parts() -> AsyncIterator[bytes]:
        yield f"{{{head}{_json(name)}:[".encode()
        left, before = iter(items), ""
        while some := [made(item) for item in islice(left, at_once)]:
            yield f"{before}{_json(some)[1:-1]}".encode()
            before = ","
            await asyncio.sleep(0)
        yield b"]}"

    return StreamingResponse(parts(), media_type="application/json")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def line(value: Any) -> bytes:
    """A value as a line of JSON."""
    return _json(value).encode() + b"\n"


def sent(value: Any, name: str | None = None) -> bytes:
    """A value as an event, with the event's name where the protocol has names."""
    text = _json(value)
    return f"event: {name}\ndata: {text}\n\n".encode() if name else f"data: {text}\n\n".encode()


async def with_errors(
    path: str, events: AsyncIterator[bytes], written: Callable[[Any], bytes] = sent
) -> AsyncIterator[bytes]:
    """The events, and an error that ends them as an event of its own.

    Args:
        path: the request's, which decides the error's form.
        events: those of the stream.
        written: the bytes of an event.
    """
    try:
        async for event in events:
            yield event
    except Exception as error:
        yield written(body_of(path, reported(error)))


def reported(error: Exception) -> ApiError:
    """An error as clients receive it; one that nobody expects is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, WsdError):
        return api_error(error)
    logging.getLogger(__name__).error("an answer ended with an error", exc_info=error)
    return ApiError(500, "the server failed; its log says why")


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client goes away.

    Raises:
        ApiError: the client went away; nobody receives it.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnect(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(GONE, "the client went away")
    finally:
        for one in (task, gone):
            one.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await one


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
