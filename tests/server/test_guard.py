"""What stands between the network and the application."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import queue
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import Request
from fastapi.responses import JSONResponse, StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from serving import ScriptedService, listening

from wsd_local.errors import UsageError
from wsd_local.server import connection as connections
from wsd_local.server.app import create_app
from wsd_local.server.bodies import DEEPEST, Bodies, checked
from wsd_local.server.errors import ApiError
from wsd_local.server.guard import Access, Guard
from wsd_local.server.site import Plan, access_of

KEY = "sesame-0123"
SECOND = "another-key"


def guarded(access: Access | None = None) -> Guard:
    """The application with a few endpoints that say what reached them."""
    app = create_app(ScriptedService())

    @app.api_route("/v1/echo", methods=["GET", "POST"], include_in_schema=False)
    @app.post("/v1/messages/echo")
    @app.post("/api/echo")
    async def echo(request: Request) -> JSONResponse:
        body = await request.body()
        return JSONResponse({"length": len(body), "json": json.loads(body) if body else None})

    @app.get("/probe")
    @app.get("/page/script.js")
    async def probe() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/fails")
    async def fails() -> None:
        raise RuntimeError("no such file: /home/somewhere/secret")

    @app.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError("in the middle")

        return StreamingResponse(parts())

    return Guard(app, access)


@pytest.fixture(scope="module")
def open_url() -> Iterator[str]:
    """A server without keys."""
    with listening(guarded(Access(origins=("https://chat.example",), max_body=1000))) as url:
        yield url


@pytest.fixture(scope="module")
def locked_url() -> Iterator[str]:
    """A server with two keys."""
    with listening(guarded(Access(keys=(KEY, SECOND), origins=("https://chat.example",)))) as url:
        yield url


@pytest.fixture(scope="module")
def everywhere() -> Iterator[str]:
    """A server that is used from everywhere."""
    with listening(guarded(Access(hosts=("*",), origins=("*",)))) as url:
        yield url


# -- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer   {SECOND}"},
        {"X-Api-Key": KEY},
        {"x-api-key": "wrong", "Authorization": f"Bearer {KEY}"},
    ],
)
def test_a_key_opens(locked_url: str, headers: dict[str, str]) -> None:
    assert httpx.get(f"{locked_url}/v1/echo", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"X-Api-Key": ""},
        {"X-Api-Key": f"{KEY},{SECOND}"},
        {"Cookie": f"key={KEY}"},
        {b"X-Api-Key": "schlüssel".encode()},
    ],
)
def test_without_a_valid_key_nothing_is_answered(locked_url: str, headers: Any) -> None:
    answer = httpx.get(f"{locked_url}/v1/echo", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"
    assert KEY not in answer.text


def test_a_refusal_has_the_shape_of_the_protocol(locked_url: str) -> None:
    assert httpx.post(f"{locked_url}/v1/messages/echo").json()["error"]["type"] == "authentication_error"
    assert isinstance(httpx.post(f"{locked_url}/api/echo").json()["error"], str)
    assert httpx.get(f"{locked_url}/no/such/path").status_code == 401


@pytest.mark.parametrize("path", ["/health", "/page/script.js", "/"])
def test_health_and_the_page_need_no_key(locked_url: str, path: str) -> None:
    assert httpx.get(f"{locked_url}{path}").status_code in (200, 404)
    assert httpx.post(f"{locked_url}{path}").status_code == 401


@pytest.mark.parametrize("path", ["/health/../v1/echo", "//v1/echo", "/page/../v1/echo", "/%2e/v1/echo", "/probe"])
def test_no_spelling_of_a_path_goes_around_the_keys(locked_url: str, path: str) -> None:
    answer = raw(locked_url, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.partition(b" ")[2][:3] in (b"401", b"404")
    assert b'"length"' not in answer


def test_keys_can_be_replaced_while_it_serves() -> None:
    guard = guarded(Access(keys=(KEY,)))
    with listening(guard) as url:
        guard.access = Access(keys=(SECOND,))
        assert httpx.get(f"{url}/v1/echo", headers={"X-Api-Key": KEY}).status_code == 401
        assert httpx.get(f"{url}/v1/echo", headers={"X-Api-Key": SECOND}).status_code == 200


# -- hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.:1", "127.0.0.1:8080", "[::1]:8080", "[::1]", "192.168.1.7", "[fe80::1]:80", "0.0.0.0"],
)
def test_names_of_this_machine_are_known(open_url: str, host: str) -> None:
    assert httpx.get(f"{open_url}/v1/echo", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "evil:8080"])
def test_another_name_is_refused(open_url: str, host: str) -> None:
    answer = httpx.get(f"{open_url}/v1/echo", headers={"Host": host})
    assert answer.status_code == 403
    assert "--allow-host" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "host", ["", "[::1", "::1", "[evil.example]", "a b", "localhost:99999", "localhost:x", "user@localhost", "a/b"]
)
def test_what_is_no_name_is_refused(open_url: str, host: str) -> None:
    assert httpx.get(f"{open_url}/v1/echo", headers={"Host": host}).status_code in (400, 403)


def test_a_host_that_was_allowed(everywhere: str) -> None:
    with listening(guarded(Access(hosts=("Chat.Example",)))) as url:
        assert httpx.get(f"{url}/v1/echo", headers={"Host": "chat.example:443"}).status_code == 200
        assert httpx.get(f"{url}/v1/echo", headers={"Host": "x.chat.example"}).status_code == 403
    assert httpx.get(f"{everywhere}/v1/echo", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize("host", ["box.example", "127.0.0.1", "::1", "::"])
def test_the_name_at_which_it_listens_is_known(host: str) -> None:
    with listening(guarded(access_of(Plan(["demo"], host=host, insecure=True)))) as url:
        assert httpx.get(f"{url}/v1/echo", headers={"Host": "box.example:80"}).status_code == (
            200 if host == "box.example" else 403
        )


def test_a_request_has_one_host(open_url: str) -> None:
    for headers in (b"", b"Host: localhost\r\nHost: localhost\r\n"):
        answer = raw(open_url, b"GET /v1/echo HTTP/1.0\r\n" + headers + b"\r\n")
        assert answer.split()[1] == b"400"


# -- origins ---------------------------------------------------------------------------------------------------------

PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://chat.example.evil", "http://chat.example"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_an_unknown_origin_is_never_reflected(locked_url: str, origin: str, method: str) -> None:
    headers = {"Origin": origin, "X-Api-Key": KEY, **(PREFLIGHT if method == "OPTIONS" else {})}
    answer = httpx.request(method, f"{locked_url}/v1/echo", headers=headers)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.status_code == (200 if method == "GET" else 403)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_origin_that_was_allowed(locked_url: str, method: str) -> None:
    headers = {"Origin": "https://chat.example"}
    answer = httpx.request(method, f"{locked_url}/v1/echo", headers={**headers, "X-Api-Key": KEY})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    refused = httpx.request(method, f"{locked_url}/v1/echo", headers=headers)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://chat.example"
    assert "access-control-allow-credentials" not in answer.headers


def test_a_preflight_needs_no_key(locked_url: str) -> None:
    headers = {"Origin": "https://chat.example", **PREFLIGHT}
    answer = httpx.options(f"{locked_url}/v1/echo", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://chat.example"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()


def test_any_origin_where_that_was_wanted(everywhere: str) -> None:
    answer = httpx.post(f"{everywhere}/v1/echo", headers={"Origin": "https://any.example"})
    assert answer.headers["access-control-allow-origin"] == "*"


def test_the_servers_own_page_may_use_it(open_url: str) -> None:
    assert httpx.post(f"{open_url}/v1/echo", json={}, headers={"Origin": open_url}).status_code == 200
    proxied = {"Host": "localhost", "Origin": "https://localhost:443"}
    assert httpx.post(f"{open_url}/v1/echo", json={}, headers=proxied).status_code == 200
    other_port = {"Host": "localhost:1", "Origin": "http://localhost:2"}
    assert httpx.post(f"{open_url}/v1/echo", json={}, headers=other_port).status_code == 403


# -- bodies ----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_too_long_is_refused(open_url: str) -> None:
    text = json.dumps("x" * 1000).encode()

    def in_chunks() -> Iterator[bytes]:
        yield text[:600]
        yield text[600:]

    kind = {"Content-Type": "application/json"}
    for content in (text, in_chunks()):
        answer = httpx.post(f"{open_url}/v1/echo", content=content, headers=kind)
        assert answer.status_code == 413
        assert "--max-body" in answer.json()["error"]["message"]
    assert httpx.post(f"{open_url}/v1/messages/echo", content=text, headers=kind).json()["error"]["type"] == (
        "request_too_large"
    )
    assert httpx.post(f"{open_url}/v1/echo", content=json.dumps("x" * 998), headers=kind).json()["length"] == 1000


@pytest.mark.parametrize(
    ("headers", "size", "status"),
    [
        ({}, 15_000_000, 413),
        ({"X-Api-Key": "wrong"}, 2_000_000, 401),
        ({"Origin": "https://evil.example"}, 900_000, 403),
    ],
)
def test_a_client_that_sends_everything_first_receives_the_answer(
    headers: dict[str, str], size: int, status: int
) -> None:
    """More than the system's buffers hold, so that the rest is sent only if somebody reads it."""
    with listening(guarded(Access(keys=(KEY,), max_body=2_000_000))) as url:
        for _ in range(3):
            connection = http.client.HTTPConnection(urlsplit(url).netloc)
            connection.request("POST", "/v1/echo", b"x" * size, {"X-Api-Key": KEY, **headers})
            assert connection.getresponse().status == status
            connection.close()


def test_a_client_that_asks_first_sends_nothing(open_url: str) -> None:
    request = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n"
    assert raw(open_url, request).split()[1] == b"413"


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999999", "\u0661"])
def test_a_length_that_is_none(open_url: str, length: str) -> None:
    request = f"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{{}}"
    assert raw(open_url, request.encode("utf-8")).split()[1] in (b"400", b"413")


def test_a_client_that_goes_away_while_it_sends(open_url: str) -> None:
    with socket.create_connection((urlsplit(open_url).hostname, urlsplit(open_url).port or 0)) as connection:
        connection.sendall(b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{")
    assert httpx.post(f"{open_url}/v1/echo", json=[1]).json() == {"length": 3, "json": [1]}


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 40\r\n",
        b"Transfer-Encoding: Chunked\r\nContent-Length: 0\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4, 5\r\n",
        b"Content-Length: +4\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"GET"])
def test_a_body_that_ends_in_two_places_is_refused_and_the_connection_closed(
    open_url: str, method: bytes, framing: bytes
) -> None:
    smuggled = b"GET /v1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    request = method + b" /v1/echo HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n0\r\n\r\n" + smuggled
    answer = raw(open_url, request)
    assert answer.split()[1] == b"400"
    assert answer.count(b"HTTP/1.1 ") == 1 and b'"length"' not in answer


def test_chunks_are_of_http_1_1(open_url: str) -> None:
    request = b"POST /v1/echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert raw(open_url, request).split()[1] == b"400"


@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\nContent-Length: 2", b"Content-Length: 2, 2"])
def test_a_length_that_is_repeated_is_one(open_url: str, framing: bytes) -> None:
    head = b"POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + framing
    assert raw(open_url, head + b"\r\n\r\n{}").split()[1] == b"200"


@pytest.mark.parametrize(("patience", "whole"), [(0.01, 60.0), (60.0, 0.05)])
async def test_a_body_that_does_not_arrive_in_time(patience: float, whole: float) -> None:
    async def slowly() -> Any:
        await (asyncio.sleep(0.001) if patience > 1 else asyncio.Event().wait())
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def nothing(*_: Any) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": "/v1/echo", "headers": []}
    bodies = Bodies(nothing, 10**9, patience_s=patience, whole_s=whole)
    for read in (bodies(scope, slowly, nothing), bodies.discard(scope, slowly)):
        with pytest.raises(ApiError, match="the body did not arrive in time") as raised:
            await read
        assert raised.value.status == 408


@pytest.mark.parametrize("begun", [b"", b"GET /v1/echo HTTP/1.1\r\nHost: lo"])
def test_a_head_that_does_not_arrive_ends_the_connection(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.05)
    with listening(guarded()) as url:
        assert raw(url, begun) == b""
        answer = raw(url, b"GET /v1/echo HTTP/1.1\r\nHost: localhost\r\n\r\nGET /v1/echo HT")
        assert answer.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "JSON"),
        (b"{} {}", "JSON"),
        (b"{'a': 1}", "JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": [-Infinity]}', "Infinity"),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": -1' + b"0" * 400 + b"}", "too large"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "too large"),
        (b'{"a": "\xff\xfe"}', "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (rb'{"a": "\ud800"}', "surrogate"),
        (rb'{"\udc00x": 1}', "surrogate"),
        (b'{"a": 1, "b": {"c": 1, "d": 2, "c": 1}}', "'c' is there twice"),
        (rb'{"a": 1, "\u0061": 2}', "'a' is there twice"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), "deeply"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "deeply"),
        (b"[" * 900_000, "deeply"),
    ],
)
def test_a_body_that_is_not_sound(body: bytes, word: str) -> None:
    with pytest.raises(ApiError, match=word) as raised:
        checked(body)
    assert raised.value.status == 400
    assert len(raised.value.message) < 200


@pytest.mark.parametrize("path", ["/v1/echo", "/v1/messages/echo", "/api/echo"])
def test_a_refused_body_in_the_shape_of_each_protocol(open_url: str, path: str) -> None:
    answer = httpx.post(f"{open_url}{path}", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert "JSON" in (error if isinstance(error, str) else error["message"])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_sound_json_arrives_as_it_was(value: Any, escaped: bool) -> None:
    body = json.dumps(value, ensure_ascii=escaped).encode()
    assert json.loads(checked(body)) == value
    assert checked(b"\xef\xbb\xbf" + body) == body


def test_depth_that_is_just_allowed() -> None:
    deepest = b"[" * DEEPEST + b"]" * DEEPEST
    assert checked(deepest) == deepest


@pytest.mark.parametrize(
    ("kind", "path", "status"),
    [
        ("application/json; charset=UTF-8", "/v1/echo", 200),
        ("application/problem+json", "/v1/echo", 200),
        ("text/plain", "/v1/echo", 400),
        ("multipart/form-data; boundary=x", "/v1/echo", 400),
        ("application/json; charset=latin-1", "/v1/echo", 400),
        ("application/x-www-form-urlencoded", "/v1/echo", 200),
        ("application/x-www-form-urlencoded", "/api/echo", 200),
    ],
)
def test_content_types(open_url: str, kind: str, path: str, status: int) -> None:
    answer = httpx.post(f"{open_url}{path}", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == status


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("Identity", 200), ("br, gzip", 415)])
def test_a_compressed_body_is_refused(open_url: str, coding: str, status: int) -> None:
    answer = httpx.post(f"{open_url}/v1/echo", content=b"{}", headers={"Content-Encoding": coding})
    assert answer.status_code == status
    assert (coding in answer.text) == (status == 415)


def test_a_form_of_a_page_is_refused(open_url: str) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "https://chat.example"}
    assert httpx.post(f"{open_url}/v1/echo", content=b"{}", headers=headers).status_code == 400


def test_a_body_without_a_type_is_json(open_url: str) -> None:
    assert httpx.post(f"{open_url}/v1/echo", content=b"{}").json()["json"] == {}


# -- failures --------------------------------------------------------------------------------------------------------


class Logged(logging.Handler):
    """The first record of a logger."""

    def __init__(self) -> None:
        super().__init__()
        self._text: queue.Queue[str] = queue.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._text.put(logging.Formatter().format(record))

    def text(self) -> str:
        """Waits for it."""
        return self._text.get()


@pytest.fixture
def logged() -> Iterator[Logged]:
    """What the guard logs."""
    handler, logger = Logged(), logging.getLogger("wsd_local.server.guard")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_what_nobody_foresaw_is_logged_and_not_shown(open_url: str, logged: Logged) -> None:
    answer = httpx.get(f"{open_url}/fails")
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "secret" in logged.text()


def test_an_answer_that_breaks_off_is_not_taken_for_a_whole_one(open_url: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{open_url}/breaks")


def test_answers_are_not_taken_for_another_type(open_url: str) -> None:
    for path in ("/v1/echo", "/nothing", "/fails"):
        assert httpx.get(f"{open_url}{path}").headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("method", "path", "status", "word"),
    [
        ("POST", "/chat/completions", 404, "/v1/chat/completions"),
        ("POST", "/v1/v1/chat/completions", 404, "/v1/chat/completions"),
        ("GET", "/wp-login.php", 404, "/openapi.json"),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("DELETE", "/v1/score", 405, "POST"),
    ],
)
def test_an_address_that_is_not_quite_right(open_url: str, method: str, path: str, status: int, word: str) -> None:
    answer = httpx.request(method, f"{open_url}{path}")
    assert answer.status_code == status
    assert word in answer.json()["error"]["message"]


UPGRADE = b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"


def test_a_websocket_is_refused_and_no_library_is_recommended(open_url: str, caplog: pytest.LogCaptureFixture) -> None:
    request = b"GET /v1/echo HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE
    for name in (b"websocket", b"WebSocket"):
        answer = raw(open_url, request + b"Upgrade: " + name + b"\r\nConnection: close\r\n\r\n")
        assert answer.split()[1] == b"400" and b"no WebSockets" in answer
    assert not caplog.records


def test_another_wish_to_upgrade_is_ignored(open_url: str) -> None:
    request = b"GET /v1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    assert raw(open_url, request + b"Connection: close\r\n\r\n").split()[1] == b"200"


READ = ("/health", "/v1/health", "/v1/models", "/v1/models/demo", "/props", "/slots", "/metrics", "/openapi.json")


@pytest.mark.parametrize("path", [*READ, "/api/version", "/api/tags", "/api/ps", "/probe", "/no/such", "/v1/score"])
def test_head_answers_as_get_without_a_body(open_url: str, path: str) -> None:
    head, get = httpx.head(f"{open_url}{path}"), httpx.get(f"{open_url}{path}")
    assert (head.status_code, head.content) == (get.status_code, b"")
    kept = {name: value for name, value in get.headers.items() if name not in ("date", "content-length")}
    assert kept.items() <= dict(head.headers).items()
    assert "content-length" in head.headers


def test_what_takes_get_takes_head() -> None:
    with listening(guarded()) as url:
        assert httpx.post(f"{url}/v1/models", json={}).headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "values",
    [
        {"keys": ("",)},
        {"keys": ("two words",)},
        {"keys": ("schlüssel",)},
        {"hosts": ("http://a.example",)},
        {"hosts": ("",)},
        {"origins": ("chat.example",)},
        {"origins": ("https://chat.example/",)},
        {"max_body": 0},
    ],
)
def test_values_that_can_never_match(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Access(**values)


def raw(url: str, request: bytes) -> bytes:
    """The bytes that a server answers to bytes."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port or 0)) as connection:
        connection.sendall(request)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)
