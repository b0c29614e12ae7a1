"""Bodies of requests: bounded, and sound JSON before a protocol sees them.

Contract: pure ASGI. A body is read whole, with or without a Content-Length, and refused as soon as it is longer than
allowed, or takes longer. What reaches the application is UTF-8 without a byte order mark, JSON of moderate depth,
numbers that a float or 64 bits hold, and text that can be encoded again. Answers are not touched, so that streams stay
streams.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from typing import Any, NoReturn

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsd_local.errors import short
from wsd_local.server.errors import ApiError
from wsd_local.system.inputs import RepeatedError, unique
from wsd_local.units import plural

DEEPEST = 100
"""Objects and lists within each other."""

PATIENCE_S, WHOLE_S = 60.0, 300.0
"""Seconds to wait for the next piece of a body, and for all of it."""

DISCARDED = 16
"""How many times the longest body is read of one that is longer, so that its client comes to read the answer."""

LONG = 1 << 16
"""Bytes from which on a body takes some thousandths of a second to be checked."""

_DIGITS = 20
"""A whole number of more digits and signs does not fit into 64 bits."""

_JSON_TYPE = re.compile(r"application/([\w.-]+\+)?json")
_CURL_TYPE = "application/x-www-form-urlencoded"
"""What curl sends with `-d` unless it gets a header, and a form of another site's page, which has an `Origin`."""


class Bodies:
    """Reads and checks a request's body, then hands it on in one piece.

    Args:
        app: what receives the request.
        most: the longest body in bytes.
        patience_s: seconds to wait for the next piece of a body.
        whole_s: seconds to wait for all of it.

    Raises:
        ApiError: the body is refused.
    """

    def __init__(self, app: ASGIApp, most: int, patience_s: float = PATIENCE_S, whole_s: float = WHOLE_S) -> None:
        self._app, self._most = app, most
        self._patience_s, self._whole_s = patience_s, whole_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        length = _length(headers)
        body = bytearray()
        has_more, end = True, time.monotonic() + self._whole_s
        while has_more and len(body) <= self._most and length <= self._most:
            message = await self._piece(receive, end)
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        if max(length, len(body)) > self._most:
            if has_more:
                await self.discard(scope, receive, DISCARDED * self._most)
            raise self._too_long()
        if body:
            _require_plain(headers)
            _require_json_type(headers)
            body = bytearray(await _checked(bytes(body)))
            scope = {**scope, "headers": _as_json(scope["headers"])}
        await self._app(scope, _once(bytes(body), receive), send)

    async def _piece(self, receive: Receive, end: float) -> Message:
        """The next piece of a body that must be complete at the time `end`."""
        try:
            return await asyncio.wait_for(receive(), min(self._patience_s, end - time.monotonic()))
        except TimeoutError:
            times = f"{self._patience_s:g} s for each piece, {self._whole_s:g} s in all"
            raise ApiError(408, f"the body did not arrive in time: {times}", headers={"Connection": "close"}) from None

    async def discard(self, scope: Scope, receive: Receive, most: int | None = None) -> None:
        """Read what is left of a body, because many clients receive an answer only once they have sent everything.

        Args:
            scope: the request's.
            receive: what it is read from.
            most: bytes that are read; None: those of the longest body.
        """
        if any(name == b"expect" for name, _ in scope["headers"]):  # such a client asks first, and sends nothing
            return
        left = self._most if most is None else most
        has_more, end = True, time.monotonic() + self._whole_s
        while has_more and left >= 0:
            message = await self._piece(receive, end)
            left -= len(message.get("body", b""))
            has_more = message.get("more_body", False)

    def _too_long(self) -> ApiError:
        return ApiError(
            413,
            f"the body is longer than {plural(self._most, 'byte')}; send less, or start the server with --max-body",
            code="request_too_large",
            headers={"Connection": "close"},
        )


def _length(headers: dict[str, str]) -> int:
    """The length that a client announces; 0 if it announces none."""
    text = headers.get("content-length", "0")
    if not text.isdecimal():
        raise ApiError(400, f"Content-Length is {short(text)}: it must be a number")
    return int(text[:_DIGITS])


def _once(body: bytes, receive: Receive) -> Receive:
    """A source that gives the body that was read, then what comes after it."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _as_json(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers with the content type that the body was found to have."""
    return [(name, value) for name, value in headers if name != b"content-type"] + [
        (b"content-type", b"application/json")
    ]


def _require_plain(headers: dict[str, str]) -> None:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise ApiError(415, f"Content-Encoding is {short(coding)}: a body is sent uncompressed")


def _require_json_type(headers: dict[str, str]) -> None:
    kind, _, parameters = headers.get("content-type", "application/json").lower().partition(";")
    is_plain_curl = kind.strip() == _CURL_TYPE and "origin" not in headers
    if not _JSON_TYPE.fullmatch(kind.strip()) and not is_plain_curl:
        raise ApiError(400, f"Content-Type is {short(kind.strip())}: it must be application/json")
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters)
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise ApiError(400, f"the character set is {short(charset[1])}: JSON is sent in UTF-8")


async def _checked(body: bytes) -> bytes:
    """As `checked`; nobody else waits for a long one."""
    return checked(body) if len(body) <= LONG else await asyncio.to_thread(checked, body)


def checked(body: bytes) -> bytes:
    """A body that is sound JSON, without a byte order mark.

    Raises:
        ApiError: it is not; the message says what is wrong with it.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(
            text, parse_constant=_no_constant, parse_float=_float, parse_int=_int, object_pairs_hook=unique
        )
    except json.JSONDecodeError as error:
        raise ApiError(400, f"the body is not JSON: {error}") from None
    except RepeatedError as error:
        raise ApiError(400, f"the body holds an object that is ambiguous: {error}") from None
    except RecursionError:
        raise _too_deep() from None
    _require_shallow(value)
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ApiError(400, "the body is not Unicode: it holds half of a surrogate pair") from None
    return text.encode()


def _no_constant(name: str) -> NoReturn:
    raise ApiError(400, f"the body is not JSON: it holds {name}, and JSON has no such number")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _too_large(text)
    return value


def _int(text: str) -> int:
    if len(text) > _DIGITS:
        raise _too_large(text)
    return int(text)


def _too_large(text: str) -> ApiError:
    return ApiError(400, f"the body holds a number that is too large: {text[:24]}{'…' if len(text) > 24 else ''}")


def _too_deep() -> ApiError:
    return ApiError(400, f"the body is nested too deeply: at most {DEEPEST} objects and lists within each other")


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        within = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        if not within:
            return
        level = [part for parts in within for part in parts if isinstance(part, dict | list)]
    raise _too_deep()
