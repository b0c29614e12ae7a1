"""What may be sent where, and what of an address, a log or a failure may be shown."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_stand_in import COMMIT, GOOD_TOKEN, Fault, HubStandIn, Repo
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.errors import ModelError, WsdError
from wsd_local.library.hub import Hub
from wsd_local.system.network import (
    http_package,
    hub_token,
    is_open,
    one_line,
    same_origin,
    session,
    withheld,
    without_secrets,
)
from wsd_local.system.redaction import redacted, without_home

REPO = "owner/Name-GGUF"
FILE = "Name.Q4_K_M.gguf"
CANARY = "canary-secret-7f3a"


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has folders of its own, and no token but its own."""
    for variable, name in {"HOME": "home", "WSD_LOCAL_DATA": "data", "WSD_LOCAL_CACHE": "cache"}.items():
        monkeypatch.setenv(variable, str(tmp_path / name))
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)


# -- what may be shown -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ann:canary@host/a", "https://host/a"),
        ("see http://ann:can@ary@host:80/a and https://x/y", "see http://host:80/a and https://x/y"),
        ("https://canary@host", "https://host"),
        ("'http://ann:can/ary@host/a'", "'http://host/a'"),
        ("ann:canary@host.example is no address", "host.example is no address"),
        ("https://host/a?token=canary&x=1", "https://host/a?token=***&x=1"),
        ("https://host/a?x=1&X-Amz-Signature=canary#access_token=canary", None),
        ("Authorization: Bearer canary-canary", "Authorization: Bearer ***"),
        ("hf_canarycanarycanary", "hf_***"),
        ("http://127.0.0.1:8080/owner/name@rev", "http://127.0.0.1:8080/owner/name@rev"),
        ("http://[::1]:8080/owner/name@rev", "http://[::1]:8080/owner/name@rev"),
        ("owner/name:Q4_K_M is 5 GB; 3@4", "owner/name:Q4_K_M is 5 GB; 3@4"),
        ("C:\\models\\a.gguf: is damaged", "C:\\models\\a.gguf: is damaged"),
    ],
)
def test_addresses_without_secrets(text: str, shown: str | None) -> None:
    assert without_secrets(text) == shown or (shown is None and "canary" not in without_secrets(text))


@given(st.text(st.characters(exclude_characters="/?#@\\", exclude_categories=["Z", "C"]), min_size=1))
def test_no_password_of_an_address_is_shown(password: str) -> None:
    assert without_secrets(f"<https://ann:{password}@host/x>") == "<https://host/x>"


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("SOME_API_KEY", "short")
    monkeypatch.setenv("SOME_CREDENTIALS", str(tmp_path))
    for name in ("AWS_SECRET_ACCESS_KEY", "PGPASS", "GITHUB_PAT", "NPM_AUTH"):
        monkeypatch.setenv(name, f"value of {name}")
        assert without_secrets(f"-value of {name}-") == "-***-"
    assert without_secrets(f"{CANARY}, short, {tmp_path}") == f"***, short, {tmp_path}"


def test_a_line_of_a_server() -> None:
    assert one_line("a\n\x1b[2J b\u202e https://x:canary@y/\t") == "a [2J b https://y/"


@pytest.mark.parametrize(
    ("home", "text", "shown"),
    [
        ("/home/ann", "/home/ann/x, /home/ann: '/home/ann'", "~/x, ~: '~'"),
        ("/home/ann", "/home/anna /home/ann2 /home/ann-b /home/ann.old", None),
        ("/home/ann", "/mnt/home/ann/x ../home/ann", None),
        ("/home/ann", "is in /home/ann. Then file:///home/ann/x", "is in ~. Then file://~/x"),
        ("/home/a.b", "/home/axb /home/a.b", "/home/axb ~"),
    ],
)
def test_the_home_folder_as_a_whole(home: str, text: str, shown: str | None) -> None:
    assert without_home(text, [Path(home)]) == (text if shown is None else shown)


@pytest.mark.parametrize("home", ["/", ""])
def test_a_home_folder_that_says_nothing(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert redacted({"paths": ["data: /data/x", "a/b"]}) == {"paths": ["data: /data/x", "a/b"]}


@pytest.mark.skipif(os.name == "nt", reason="expected: users of POSIX")
def test_the_home_folder_that_only_the_system_knows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pwd

    user = pwd.struct_passwd(("ann", "x", 1, 1, "", "/srv/people/ann", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: user)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert redacted([f"{tmp_path}/x", "/srv/people/ann/x", "/srv/people/anna"]) == ["~/x", "~/x", "/srv/people/anna"]


def test_a_home_folder_that_is_a_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "home-link").symlink_to(tmp_path / "real")
    monkeypatch.setenv("HOME", str(tmp_path / "home-link"))
    assert redacted([f"{tmp_path}/real/x", f"{tmp_path}/home-link/x"]) == ["~/x", "~/x"]


# -- what may be sent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://127.0.0.1.example.org", "http://127.1", "http://10.0.0.1"]
)
def test_plain_http_is_open(url: str) -> None:
    assert is_open(url)
    assert hub_token(url, "hf_x") is None


@pytest.mark.parametrize("url", ["https://example.org", "http://127.0.0.1:8", "http://LOCALHOST", "http://[::1]:80/x"])
def test_tls_and_this_machine_are_not(url: str) -> None:
    assert not is_open(url)
    assert hub_token(url, "hf_x") == "hf_x"


@pytest.mark.parametrize(
    ("proxy", "exceptions", "exposed"),
    [
        ("http_proxy", "", True),
        ("all_proxy", "", True),
        ("https_proxy", "", False),
        ("http_proxy", "other, LOCALHOST", False),
        ("http_proxy", "*", False),
        ("http_proxy", ".localhost", True),
    ],
)
def test_a_proxy_is_no_part_of_this_machine(
    proxy: str, exceptions: str, exposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(proxy, "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", exceptions)
    url = "http://localhost:8080"
    assert is_open(url) is exposed and (hub_token(url, "hf_x") is None) is exposed
    assert ("put localhost in NO_PROXY" in (withheld(url, "hf_x") or "")) is exposed
    assert not is_open("https://hub.example")


@pytest.mark.parametrize("url", ["http://evil.example\\@localhost", "https://evil.example\\@hub", "http://local\thost"])
def test_addresses_that_programs_read_in_different_ways(url: str) -> None:
    assert is_open(url) and not same_origin(url, url)


def test_origins() -> None:
    assert same_origin("https://Host/a", "https://host:443/b")
    for other in ("http://host", "https://host:8443", "https://host.example", "https://other", "host"):
        assert not same_origin("https://host", other)


class Web:
    """A web of scripted answers, without a network: `pages` are what to answer by address."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def client(self) -> Any:
        """What `huggingface_hub` is to use."""
        http = http_package()

        def answer(request: Any) -> Any:
            self.asked.append((str(request.url), {name.lower(): value for name, value in request.headers.items()}))
            status, headers, body = self.pages.get(str(request.url).partition("?")[0], (404, {}, b""))
            return http.Response(status, headers=headers, content=body, request=request)

        return http.Client(transport=http.MockTransport(answer), follow_redirects=True)


@pytest.fixture
def web() -> Iterator[Web]:
    found = Web()
    huggingface_hub.set_client_factory(found.client)
    yield found
    from huggingface_hub.utils._http import default_client_factory

    huggingface_hub.set_client_factory(default_client_factory)


def listing(endpoint: str, data: bytes) -> dict[str, tuple[int, dict[str, str], bytes]]:
    """The pages of a repository with one file in git."""
    import hashlib

    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    row = {"rfilename": FILE, "size": len(data), "blobId": blob}
    info = {"id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": [row]}
    head = {"X-Repo-Commit": COMMIT, "ETag": f'"{blob}"', "Content-Length": str(len(data))}
    return {
        f"{endpoint}/api/models/{REPO}": (200, {}, json.dumps(info).encode()),
        f"{endpoint}/{REPO}/resolve/{COMMIT}/{FILE}": (200, head, data),
    }


@pytest.mark.parametrize("endpoint", ["http://hub.example", "https://hub.example"])
def test_a_token_goes_over_tls_alone(web: Web, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", False)
    web.pages = listing(endpoint, b"GGUF")
    hub = Hub(endpoint, tmp_path / "hub", waits=())
    (download,) = hub.plan(REPO).downloads
    hub.fetch(download)
    tokens = {headers.get("authorization") for _, headers in web.asked}
    assert tokens == ({None} if endpoint.startswith("http:") else {f"Bearer {CANARY}"})
    assert {headers["user-agent"] for _, headers in web.asked} == {"wsd-local"}
    assert {url.partition("/owner")[0].partition("/api")[0] for url, _ in web.asked} == {endpoint}, "nobody else"
    note = hub.note
    assert (note is None) == endpoint.startswith("https:")
    assert note is None or ("plain HTTP" in note and CANARY not in note)


def test_a_refusal_says_that_no_token_was_sent(web: Web, tmp_path: Path) -> None:
    web.pages = {f"http://hub.example/api/models/{REPO}": (401, {}, b"")}
    with pytest.raises(ModelError, match="no token is sent over plain HTTP"):
        Hub("http://hub.example", tmp_path / "hub", CANARY, ()).plan(REPO)


@pytest.mark.parametrize("where", ["api", "file"])
def test_no_redirect_leads_from_https_to_http(web: Web, tmp_path: Path, where: str) -> None:
    endpoint = "https://hub.example"
    web.pages = listing(endpoint, b"GGUF")
    pages = list(web.pages)
    moved = pages[0 if where == "api" else 1]
    for target in ("http://hub.example/x", "//hub.example/x", "http://cdn.example/x"):
        secure = target.startswith("//")
        web.pages[moved] = (302, {"Location": target}, b"")
        web.pages["https://hub.example/x"], web.asked = listing(endpoint, b"GGUF")[moved], []
        hub = Hub(endpoint, tmp_path / "hub", CANARY, ())
        if secure:
            assert hub.plan(REPO).downloads
        else:
            with pytest.raises(WsdError, match="leads from https to http") as caught:
                hub.plan(REPO)
            assert CANARY not in str(caught.value)
            assert not [url for url, _ in web.asked if url.startswith("http:")]


def test_a_redirect_of_the_bytes_to_http(web: Web, tmp_path: Path) -> None:
    endpoint = "https://hub.example"
    web.pages = listing(endpoint, b"GGUF")
    hub = Hub(endpoint, tmp_path / "hub", waits=())
    (download,) = hub.plan(REPO).downloads
    web.pages[list(web.pages)[1]] = (302, {"Location": "http://cdn.example/x?sig=canary"}, b"")
    web.pages["http://cdn.example/x"] = (200, {"Content-Length": "4"}, b"GGUF")
    with pytest.raises(WsdError, match="leads from https to http") as caught:
        hub.fetch(download)
    assert "canary" not in str(caught.value)


def test_a_redirect_to_another_host_loses_the_token(web: Web, tmp_path: Path) -> None:
    endpoint = "https://hub.example"
    web.pages = listing(endpoint, b"GGUF")
    hub = Hub(endpoint, tmp_path / "hub", CANARY, ())
    (download,) = hub.plan(REPO).downloads
    page = list(web.pages)[1]
    for host in ("https://cdn.example", "https://hub.example:8443", "https://hub.example.evil"):
        web.pages |= {page: (302, {"Location": f"{host}/x"}, b""), f"{host}/x": (200, {"Content-Length": "4"}, b"GGUX")}
        web.asked = []
        with pytest.raises(WsdError, match="bytes are wrong"):
            hub.fetch(download)
        assert [headers.get("authorization") for _, headers in web.asked] == [f"Bearer {CANARY}", None]


def test_requests_of_others_are_left_alone(web: Web) -> None:
    web.pages = {"http://intranet.example/x": (200, {}, b"")}
    session().get("http://intranet.example/x", headers={"Authorization": "Bearer x", "User-Agent": "other"})
    assert web.asked[0][1]["authorization"] == "Bearer x" and web.asked[0][1]["user-agent"] == "other"


# -- canaries --------------------------------------------------------------------------------------------------------


def run(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, with secrets wherever the environment may hold some."""
    secrets = {
        "HF_TOKEN": f"hf_{CANARY}",
        "PIP_INDEX_URL": f"http://ann:{CANARY}@127.0.0.1:9/simple",
        "HTTPS_PROXY": f"http://ann:{CANARY}@127.0.0.1:9",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_DEBUG": "1",
        "HF_HUB_VERBOSITY": "debug",
    }
    command = [sys.executable, "-m", "wsd_local", *arguments]
    environment = {**os.environ, **secrets, **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)


@pytest.mark.parametrize("fault", [None, Fault(status=403), Fault(status=500, headers={"Retry-After": "9999"})])
def test_no_secret_of_a_pull_is_shown(tmp_path: Path, fault: Fault | None) -> None:
    with HubStandIn(**{REPO: Repo({FILE: b"GGUF"})}) as stand_in:
        if fault is not None:
            stand_in.always["api"] = fault
        for endpoint in (
            stand_in.url,
            stand_in.url.replace("//", f"//ann:{CANARY}@"),
            f"http://ann:{CANARY}@127.0.0.1:9",
        ):
            done = run(tmp_path, "models", "pull", REPO, "--debug", HF_ENDPOINT=endpoint)
            assert done.stdout + done.stderr and CANARY not in done.stdout + done.stderr, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("models", "list", "--json"),
        ("config", "show"),
        ("doctor",),
        ("doctor", "--json"),
        ("run", "--debug", "--draft", "nowhere.gguf", "Hi"),
        ("run", "--json", "Hi"),
        ("run", "--input", "gsm8k", "--debug", "--output", "x.jsonl"),
    ],
    ids=" ".join,
)
def test_no_secret_of_the_environment_is_shown(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    own = {"HOME": str(home), "WSD_LOCAL_DATA": str(home / "data"), "HTTPS_PROXY": ""}
    done = run(tmp_path, *arguments, HF_ENDPOINT=f"http://ann:{CANARY}@127.0.0.1:9", **own)
    assert done.stdout + done.stderr and CANARY not in done.stdout + done.stderr, done.stderr
    if arguments[0] == "doctor":
        assert str(home) not in done.stdout and "~" in done.stdout


def test_no_secret_is_in_a_failure_of_the_library(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hub = Hub(f"http://ann:{CANARY}@127.0.0.1:9", tmp_path / "hub", waits=())
    with pytest.raises(WsdError, match="cannot be reached") as caught:
        hub.plan(REPO)
    assert CANARY not in str(caught.value)
    assert CANARY not in without_secrets("".join(traceback.format_exception(caught.value)))


def test_a_warning_of_a_server_cannot_steer_a_terminal(tmp_path: Path) -> None:
    with HubStandIn(**{REPO: Repo({FILE: b"GGUF"})}) as stand_in:
        stand_in.next["head"].append(Fault(status=500, headers={"X-HF-Warning": f"w; {GOOD_TOKEN} \x1b[2J\x9b2J"}))
        done = run(tmp_path, "models", "pull", REPO, HF_ENDPOINT=stand_in.url, HF_TOKEN=GOOD_TOKEN)
    assert "\x1b" not in done.stderr and "\x9b" not in done.stderr


@pytest.mark.parametrize("body", [b"[" * 200_000, b'{"siblings":' * 100_000, b"{}", b"[]", b"5", b"\xff", b""])
def test_answers_of_any_form_are_one_line(web: Web, body: bytes) -> None:
    web.pages[f"https://hub.example/api/models/{REPO}"] = (200, {}, body)
    with pytest.raises(WsdError, match="does not answer as the Hub does"):
        Hub(endpoint="https://hub.example", waits=()).plan(REPO)
