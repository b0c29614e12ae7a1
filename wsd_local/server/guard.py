"""What stands between the network and the application: hosts, origins, keys, bodies, failures.

Contract: pure ASGI, and no answer is held back. A request is refused before it reaches a protocol, with an error in the
shape of the protocol that its path belongs to. In order: where its body ends has one meaning (else a proxy before this
server could take a part of it for another request), its `Host` names this server (else another site's name could be
made to lead here), its `Origin` is this server's own page or one that was allowed, it asks for no WebSocket, it brings
a key if there are keys, its body is sound. What fails unexpectedly is logged, and the client learns only that it
failed.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wsd_local.errors import UsageError, short
from wsd_local.server.bodies import Bodies
from wsd_local.server.errors import ApiError, body_of

MAX_BODY = 8 * 1024 * 1024

_log = logging.getLogger(__name__)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_SAFE = ("GET", "HEAD")
_WITHOUT_KEY = ("/health", "/v1/health", "/", "/favicon.ico")
_PAGE = "/page/"
"""The page's own files: they hold nothing but the page, which asks for the key."""

_HOST = re.compile(r"(?P<name>\[[^\[\]]+\]|[^\[\]:]+)(:(?P<port>[0-9]{1,5}))?")
_DEFAULT_PORTS = re.compile(r":(80|443)$")


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the server, and how much may be sent.

    Args:
        keys: any of them is enough; without keys everybody may use it.
        hosts: names under which the server is reached, beside those of this machine and addresses; `*`: any.
        origins: pages of other sites that may use the server from a browser, as `https://name`; `*`: any.
        max_body: the longest body in bytes.

    Raises:
        UsageError: a value can never match.
    """

    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: int = MAX_BODY

    def __post_init__(self) -> None:
        for key in self.keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise UsageError("a key of the server is empty or holds a character that a header cannot carry")
        for host in self.hosts:
            if host != "*" and host_name(host) is None:
                raise UsageError(f"allow-host is {short(host)}: it must be a host name, without scheme and path")
        for origin in self.origins:
            parts = urlsplit(origin)
            if origin not in ("*", "null") and not (parts.scheme and parts.netloc and origin.count("/") == 2):
                raise UsageError(f"allow-origin is {short(origin)}: it must be like https://name or https://name:8443")
        if self.max_body < 1:
            raise UsageError(f"max-body is {self.max_body}: it counts bytes and must be at least 1")


class Guard:
    """An application and what protects it. `access` may be replaced while it serves."""

    def __init__(self, app: ASGIApp, access: Access | None = None) -> None:
        self._app = app
        self.access = access or Access()

    @property
    def access(self) -> Access:
        """Who may use the server."""
        return self._access

    @access.setter
    def access(self, access: Access) -> None:
        self._access = access
        self._hosts = _own_names() | {name for host in access.hosts if (name := host_name(host)) is not None}
        self._origins = {origin.lower() for origin in access.origins}
        self._keys = [key.encode() for key in access.keys]
        self._bodies = Bodies(self._app, access.max_body)
        self._shared = CORSMiddleware(
            self._checked,
            allow_origins=list(access.origins),
            allow_methods=_METHODS,
            allow_headers=["*"],
            expose_headers=["Retry-After"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1003})
            return
        answer = _Answer(send)
        try:
            await self._require(
                scope, receive, _require_framing, self._require_host, self._require_origin, _require_no_upgrade
            )
            await self._shared(scope, receive, answer.send)
        except ClientDisconnect:
            return
        except ApiError as error:
            await _refuse(scope, receive, answer, error)
        except Exception:
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if answer.complete:
                return
            if answer.started:
                raise  # the connection is closed, so that the client does not take the part for the whole
            await _refuse(scope, receive, answer, ApiError(500, "the server failed; its log says why"))

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is checked of requests that are no preflights; a page of an allowed origin can read the refusal."""
        answer = _Answer(send)
        try:
            await self._require(scope, receive, self._require_key)
            await (self._app if scope["method"] in _SAFE else self._bodies)(scope, receive, answer.send)
        except ApiError as error:
            await _refuse(scope, receive, answer, error)

    async def _require(self, scope: Scope, receive: Receive, *checks: Callable[[Scope], None]) -> None:
        try:
            for check in checks:
                check(scope)
        except ApiError:
            await self._bodies.discard(scope, receive)
            raise

    def _require_host(self, scope: Scope) -> None:
        given = _headers(scope, b"host")
        if len(given) != 1:
            raise ApiError(400, f"the request has {len(given)} Host headers: it must have one")
        name = host_name(given[0])
        if name is None:
            raise ApiError(400, f"the Host header is {short(given[0])}: that is no host name")
        if not _is_address(name) and name not in self._hosts and "*" not in self._access.hosts:
            raise ApiError(
                403, f"this server is not known as {short(name)}; start it with --allow-host {name} to allow that"
            )

    def _require_origin(self, scope: Scope) -> None:
        """Refuse what a page of a site that was not allowed would change or start here."""
        for origin in _headers(scope, b"origin"):
            known = origin.lower() in self._origins or "*" in self._origins
            if scope["method"] not in _SAFE and not known and not _is_own(origin, _headers(scope, b"host")[0]):
                raise ApiError(
                    403, f"pages of {short(origin)} may not use this server; --allow-origin {origin} would allow it"
                )

    def _require_key(self, scope: Scope) -> None:
        if not self._keys or (scope["method"] in _SAFE and is_open(scope["path"])):
            return
        given = [value.encode("latin-1") for value in _headers(scope, b"x-api-key")]
        for value in _headers(scope, b"authorization"):
            scheme, _, key = value.partition(" ")
            if scheme.lower() == "bearer":
                given.append(key.strip().encode("latin-1"))
        # All are compared, so that the time says nothing about which key resembles one.
        matches = [hmac.compare_digest(one, key) for one in given for key in self._keys]
        if not any(matches):
            what = "the key is not valid" if given else "a key is needed"
            raise ApiError(
                401,
                f"{what}: send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def is_open(path: str) -> bool:
    """Whether a path may be read without a key."""
    return path in _WITHOUT_KEY or path.startswith(_PAGE)


class _Answer:
    """An answer that goes out: whether it was begun and ended; pages of it are never taken for another type."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = self.complete = False

    async def send(self, message: Message) -> None:
        """Send one message of it."""
        if message["type"] == "http.response.start":
            self.started = True
            kept = [pair for pair in message.get("headers", []) if pair[0] != b"x-content-type-options"]
            message = {**message, "headers": [*kept, (b"x-content-type-options", b"nosniff")]}
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)


async def _refuse(scope: Scope, receive: Receive, answer: _Answer, error: ApiError) -> None:
    response = JSONResponse(body_of(scope["path"], error), error.status, headers=error.headers)
    await response(scope, receive, answer.send)


def _require_framing(scope: Scope) -> None:
    """Refuse a request whose body's end two readers could find in two places; its connection is closed."""
    lengths = set(_headers(scope, b"content-length"))
    codings = [coding.strip().lower() for coding in _headers(scope, b"transfer-encoding")]
    fault = None
    if lengths and codings:
        fault = "has a Content-Length and a Transfer-Encoding: it must have one of them"
    elif len(lengths) > 1:
        fault = "has several Content-Lengths: it must have one"
    elif codings and (codings != ["chunked"] or scope["http_version"] == "1.0"):
        fault = f"has the Transfer-Encoding {short(', '.join(codings))}: only chunked is known, from HTTP/1.1 on"
    if fault is not None:
        raise ApiError(400, f"the request {fault}", headers={"Connection": "close"})


def _require_no_upgrade(scope: Scope) -> None:
    """Refuse a WebSocket; other wishes to change the protocol are ignored, as HTTP lets a server do."""
    if any(value.strip().lower() == "websocket" for value in _headers(scope, b"upgrade")):
        raise ApiError(400, "there are no WebSockets here: send a plain request, with stream: true for a stream")


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for known, value in scope["headers"] if known == name]


def host_name(host: str) -> str | None:
    """The name of a `Host` header, in small letters and without its port; None if it is none."""
    found = _HOST.fullmatch(host)
    if found is None or (found["port"] is not None and int(found["port"]) > 65535):
        return None
    name = found["name"].lower().removesuffix(".")
    if name.startswith("["):
        return name[1:-1] if _is_address(name[1:-1]) else None
    return name if re.fullmatch(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", name) else None


def _is_address(name: str) -> bool:
    """Whether it is an IP address: no site's name can be made to lead to it."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_names() -> set[str]:
    own = socket.gethostname().lower()
    return {"localhost", own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}


def _is_own(origin: str, host: str) -> bool:
    """Whether a page was loaded from this server: the names are the same, also where a proxy before it speaks TLS."""
    scheme, separator, place = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and _place(place) == _place(host)


def _place(text: str) -> str:
    return _DEFAULT_PORTS.sub("", text.lower())
