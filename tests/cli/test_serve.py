"""`wsd-local serve` as a process: addresses, keys, certificates, signals, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import complains, started, wsd
from makers import random_llama
from wire import Wire

if sys.platform == "win32":
    pytest.skip("expected: no signals for one process on Windows", allow_module_level=True)

KEY = "sesame-0123"


class Process:
    """A server in a process of its own. Its standard error is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._changed:
                self.lines.append(line.decode().rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, words: str, times: int = 1) -> str:
        """The line with these words, once there are so many of them."""

        def found() -> list[str]:
            return [line for line in self.lines if words in line]

        with self._changed:
            self._changed.wait_for(lambda: len(found()) >= times or self._ended)
        assert len(found()) >= times, self.lines
        return found()[-1]

    @property
    def url(self) -> str:
        return self.wait_for("listening on").split()[-1]

    def ready(self) -> Process:
        """Waits until the models are loaded."""
        self.wait_for("ready")
        return self

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Waits for the exit code."""
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def serving(*arguments: str, **settings: Any) -> Iterator[Process]:
    """A server that ends with the test, however that ends."""
    process = Process(started("serve", "--port", "0", *arguments, **settings))
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes slowly enough to be interrupted."""
    return random_llama(tmp_path_factory.mktemp("slow") / "slow.gguf", n_embd=768, n_ff=3072, n_layer=4)


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the configuration; may be called again."""
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(tmp_path / "config.toml"))

    def write(text: str) -> None:
        (tmp_path / "config.toml").write_text(text)

    return write


def pair(name: str, model: Path) -> str:
    """A pair of one's own, as it is configured."""
    return f'[pairs.{name}]\ndraft = "{model}"\nbase = "{model}"\n'


def body(**more: Any) -> dict[str, Any]:
    """A request for a reply."""
    return {"messages": [{"role": "user", "content": "How do I boil an egg?"}], **more}


LONG = {"stream": True, "max_tokens": 1900, "wsd": {"ignore_eos": True}}


@contextmanager
def a_reply_in_progress(url: str) -> Iterator[Iterator[str]]:
    """The lines of a stream, the first of which has come."""
    with (
        httpx.Client(timeout=None) as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=body(**LONG)) as answer,
    ):
        assert answer.status_code == 200
        lines = answer.iter_lines()
        assert next(lines).startswith("data: ")
        yield lines


# -- what is said, and what is refused -------------------------------------------------------------------------------


def test_a_server_from_its_start_to_its_end() -> None:
    with serving() as server:
        server.ready()
        assert server.lines[0].endswith("serving the models demo, demo:base and demo:draft")
        assert f"curl {server.url}/v1/chat/completions" in server.wait_for("try it:")
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=body(max_tokens=8))
        assert answer.json()["usage"]["completion_tokens"] == 8
        server.send(signal.SIGTERM)
        assert server.end() == 0
        assert "Traceback" not in "\n".join(server.lines)


def test_the_command_that_is_shown_works() -> None:
    with serving() as server:
        server.ready()
        command = server.wait_for("try it:").partition("try it: ")[2]
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]


def test_a_port_that_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        complains(wsd("serve", "--port", str(other.getsockname()[1])), 1, "in use", "--port")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--pair", "nothing"], 2, "'nothing'"),
        (["--pair", "demo", "--pair", "laptop"], 3, "models pull laptop"),
        (["--host", "0.0.0.0"], 2, "--api-key"),
        (["--host", "::"], 2, "--api-key"),
        (["--host", "192.0.2.1", "--insecure"], 2, "192.0.2.1"),
        (["--host", "no.such.host.invalid", "--insecure"], 2, "host"),
        (["--port", "65536"], 2, "port"),
        (["--parallel", "0"], 2, "parallel"),
        (["--queue", "-1"], 2, "queue"),
        (["--keep-alive", "nan"], 2, "keep-alive"),
        (["--shutdown-timeout", "-1"], 2, "shutdown-timeout"),
        (["--max-body", "0"], 2, "max-body"),
        (["--api-key", ""], 2, "key"),
        (["--api-key-file", "nothing.txt"], 2, "nothing.txt"),
        (["--allow-origin", "chat.example"], 2, "allow-origin"),
        (["--allow-host", "http://chat.example"], 2, "allow-host"),
        (["--ssl-certfile", "nothing.pem"], 2, "nothing.pem"),
        (["--ssl-keyfile", "nothing.pem"], 2, "ssl-certfile"),
        (["--threshold", "2x"], 2, "threshold"),
        (["--mode", "base"], 2, "--mode"),
    ],
)
def test_what_cannot_be_served(arguments: Sequence[str], code: int, word: str) -> None:
    complains(wsd("serve", "--port", "0", *arguments), code, word)


def test_a_file_with_keys_that_holds_none(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n\n")
    complains(wsd("serve", "--api-key-file", str(tmp_path / "keys")), 2, "no key")


def test_models_that_do_not_fit_end_the_server() -> None:
    with serving("--ctx", "100000000") as server:
        assert server.end() == 4
        assert "memory" in server.wait_for("not enough")
        assert "Traceback" not in "\n".join(server.lines)


def test_a_model_that_is_damaged_ends_the_server(tmp_path: Path, configure: Callable[[str], None]) -> None:
    model = random_llama(tmp_path / "damaged.gguf")
    model.write_bytes(model.read_bytes()[:-5000])
    configure(pair("damaged", model))
    with serving("--pair", "damaged") as server:
        assert server.end() == 3
        assert sum("damaged.gguf" in line for line in server.lines) == 1, server.lines


def test_help_needs_no_server() -> None:
    done = wsd("serve", "--help")
    assert done.returncode == 0
    for option in (b"--allow-origin", b"--install-service", b"--threshold", b"--threads"):
        assert option in done.stdout


def test_without_its_packages_it_says_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *more: None if name == "uvicorn" else find(name, *more))
    complains(wsd("serve"), 2, "uvicorn", "pip install 'wsd-local[serve]'")


# -- keys and certificates -------------------------------------------------------------------------------------------


def test_keys_from_all_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text(f"# for the phone\n{KEY}-file\r\n\n")
    monkeypatch.setenv("WSD_LOCAL_API_KEY", f"{KEY}-environment")
    places = ("--api-key", f"{KEY}-option", "--api-key", f"{KEY}-second", "--api-key-file", str(tmp_path / "keys"))
    with serving("--host", "0.0.0.0", *places) as server:
        server.ready()
        assert server.url.startswith("http://127.0.0.1:")
        for key in ("file", "environment", "option", "second"):
            answer = httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {KEY}-{key}"})
            assert answer.status_code != 401
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        for path in ("/health", "/", "/page/main.js"):
            assert httpx.get(f"{server.url}{path}").status_code == 200
        assert httpx.get(f"{server.url}/ui/chats").status_code == 401
        assert KEY not in "\n".join(server.lines)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates `one` and `two` for localhost with their keys, and a key that has a password."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("one", "two"):
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem", "-subj", f"/O={name}/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        )
    openssl("ec", "-aes128", "-passout", "pass:secret", "-in", f"{folder}/one.key", "-out", f"{folder}/locked.key")
    return folder


def openssl(*arguments: str) -> None:
    """Run openssl."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certified(url: str) -> bytes:
    """The certificate that a server shows."""
    return ssl.get_server_certificate(("127.0.0.1", int(url.rpartition(":")[2]))).encode()


def test_https(certificates: Path, tmp_path: Path, configure: Callable[[str], None]) -> None:
    (tmp_path / "own.pem").write_bytes((certificates / "one.pem").read_bytes())
    (tmp_path / "own.key").write_bytes((certificates / "one.key").read_bytes())
    with serving("--ssl-certfile", str(tmp_path / "own.pem"), "--ssl-keyfile", str(tmp_path / "own.key")) as server:
        server.ready()
        assert server.url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=str(certificates / "one.pem"))
        assert httpx.get(f"{server.url}/health", verify=trusting).json() == {"status": "ok"}
        with pytest.raises(httpx.HTTPError):
            httpx.get(server.url.replace("https", "http") + "/health")
        for ending in ("pem", "key"):
            (tmp_path / f"own.{ending}").write_bytes((certificates / f"two.{ending}").read_bytes())
        server.send(signal.SIGHUP)
        server.wait_for("was reloaded")
        assert certified(server.url).split() == (certificates / "two.pem").read_bytes().split()
        configure("[settings]\nthreshold = 0.5\n")
        (tmp_path / "own.pem").write_text("none")
        server.send(signal.SIGHUP)
        assert "own.pem" in server.wait_for("was not reloaded")
        assert certified(server.url).split() == (certificates / "two.pem").read_bytes().split()
        props = httpx.get(f"{server.url}/props", verify=False).json()
        assert props["default_generation_settings"]["params"]["threshold"] == 0.8


@pytest.mark.parametrize(
    ("certificate", "key", "word"),
    [
        ("one.pem", "two.key", "is not the key of"),
        ("one.key", "one.pem", "PEM"),
        ("one.pem", None, "PEM"),
        ("one.pem", "locked.key", "password"),
        ("one.pem", "nothing.key", "nothing.key"),
        (".", None, "ssl-certfile"),
    ],
)
def test_certificates_that_cannot_be_used(certificates: Path, certificate: str, key: str | None, word: str) -> None:
    keys = [] if key is None else ["--ssl-keyfile", str(certificates / key)]
    complains(wsd("serve", "--port", "0", "--ssl-certfile", str(certificates / certificate), *keys), 2, word)


# -- while models are loaded -----------------------------------------------------------------------------------------


def test_the_port_answers_while_models_are_loaded(slow_model: Path, configure: Callable[[str], None]) -> None:
    configure(pair("slow", slow_model))
    with serving("--pair", "slow") as server:
        answer = httpx.get(f"{server.url}/health")
        assert (answer.status_code, answer.json()["status"]) in {(503, "loading"), (200, "ok")}  # it may be quick
        early = httpx.post(f"{server.url}/v1/chat/completions", json=body(max_tokens=1), timeout=None)
        assert early.status_code in (200, 503)
        server.ready()
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_signal_ends_the_loading(slow_model: Path, configure: Callable[[str], None]) -> None:
    configure(pair("slow", slow_model))
    with serving("--pair", "slow") as server:
        server.wait_for("listening on")
        server.send(signal.SIGTERM)
        assert server.end() == 0
        assert not any("Traceback" in line for line in server.lines)


# -- signals ---------------------------------------------------------------------------------------------------------

STRIKES = """
import importlib, os, signal, sys
from wsd_local.cli import main
module, _, path = {place!r}.partition(":")
owner = importlib.import_module(module)
*parents, name = path.split(".")
for parent in parents:
    owner = getattr(owner, parent)
original = getattr(owner, name)
def struck(*given, **named):
    os.kill(os.getpid(), signal.{number})
    return original(*given, **named)
setattr(owner, name, struck)
sys.argv = ["wsd-local", "serve", "--port", "0", "--threads", "1"]
main()
"""
EARLY = [
    "wsd_local.cli.app:command_line",
    "wsd_local.cli.serve:_require_packages",
    "wsd_local.cli.serve:_plan",
    "wsd_local.server.site:Site.__init__",
    "wsd_local.server.site:Site.open",
    "wsd_local.server.running:run",
    "asyncio:run",
    "wsd_local.server.desk:Desk.start",
    "uvicorn:Server.serve",
    "wsd_local.server.loaded:opened",
    "wsd_local.server.engine:EngineRoom._load",
]


@pytest.mark.parametrize("place", EARLY)
@pytest.mark.parametrize("number", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow)])
def test_a_signal_in_the_first_moments_ends_it_in_order(place: str, number: str) -> None:
    script = STRIKES.format(place=place, number=number)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr and b"Error" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_reply_in_progress_ends_in_its_time(number: signal.Signals) -> None:
    with serving() as server:
        server.ready()
        with a_reply_in_progress(server.url) as lines:
            server.send(number)
            server.wait_for("ending")
            rest = list(lines)
        assert rest[-2] == "data: [DONE]" or rest[-1] == "data: [DONE]"
        assert server.end() == 0


@pytest.mark.parametrize("seconds", ["0", "0.5"])
def test_a_reply_that_takes_longer_is_stopped(slow_model: Path, configure: Callable[[str], None], seconds: str) -> None:
    configure(pair("slow", slow_model))
    with serving("--pair", "slow", "--shutdown-timeout", seconds) as server:
        server.ready()
        with a_reply_in_progress(server.url) as lines:
            server.send(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert "the server is about to end" in rest[-1]
        assert server.end() == 0
        assert not any("Traceback" in line for line in server.lines), server.lines


def test_nothing_is_accepted_any_more_once_it_ends(slow_model: Path, configure: Callable[[str], None]) -> None:
    configure(pair("slow", slow_model))
    with serving("--pair", "slow", "--shutdown-timeout", "60") as server:
        server.ready()
        with a_reply_in_progress(server.url) as lines:
            server.send(signal.SIGTERM)
            server.wait_for("ending")
            next(lines)
            with pytest.raises(httpx.TransportError):  # it may take a moment until the socket is closed
                for _ in range(1000):
                    httpx.get(f"{server.url}/health")
            server.send(signal.SIGKILL)


def test_a_second_signal_ends_it_at_once(slow_model: Path, configure: Callable[[str], None]) -> None:
    configure(pair("slow", slow_model))
    with serving("--pair", "slow", "--shutdown-timeout", "600") as server:
        server.ready()
        with a_reply_in_progress(server.url):
            ended = threading.Event()

            def send() -> None:  # one that comes within half a second of the first is the same one
                while not ended.wait(0.1):
                    server.send(signal.SIGINT)

            sender = threading.Thread(target=send)
            sender.start()
            code = server.end()
            ended.set()
            sender.join()
        assert code == 130


def test_the_configuration_is_reloaded(tmp_path: Path, configure: Callable[[str], None]) -> None:
    def threshold() -> float:
        props = httpx.get(f"{server.url}/props", headers={"X-Api-Key": f"{KEY}-new"}).json()
        return float(props["default_generation_settings"]["params"]["threshold"])

    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}-old\n")
    configure("[settings]\nthreshold = 0.7\nwindow = 4\n")
    with serving("--api-key-file", str(keys), "--window", "5") as server:
        server.ready()
        assert httpx.get(f"{server.url}/props", headers={"X-Api-Key": f"{KEY}-new"}).status_code == 401
        keys.write_text(f"{KEY}-new\n")
        configure("[settings]\nthreshold = 0.6\n")
        server.send(signal.SIGHUP)
        server.wait_for("was reloaded")
        assert threshold() == 0.6
        assert httpx.get(f"{server.url}/props", headers={"X-Api-Key": f"{KEY}-old"}).status_code == 401
        configure("[settings]\nthreshold = 'high'\n")
        server.send(signal.SIGHUP)
        assert "threshold" in server.wait_for("was not reloaded")
        assert threshold() == 0.6
        configure("")
        server.send(signal.SIGHUP)
        server.wait_for("was reloaded", times=2)
        assert threshold() == 0.8
        server.send(signal.SIGTERM)
        assert server.end() == 0


def test_a_reader_that_goes_away_ends_nothing() -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "wsd_local", "serve", "--port", "0", "--threads", "1"], stdout=writing, stderr=writing
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as output:
            text = ""
            while (found := re.search(r"listening on (\S+)", text)) is None:
                text += output.readline()
        url = found[1]
        answer = httpx.post(f"{url}/v1/chat/completions", json=body(max_tokens=4), timeout=None)
        assert answer.status_code == 200
        process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{url}/health").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.kill()


def test_clients_that_break_their_connections_end_nothing() -> None:
    asked = {**body(max_tokens=500), "ignore_eos": True}
    with serving() as server:
        server.ready()
        for stream in (True, False):
            with Wire(server.url, "/v1/chat/completions", **(asked | {"stream": stream})) as client:
                if stream:
                    client.until(b"data: ")
                client.reset()
        assert httpx.post(f"{server.url}/v1/chat/completions", json=body(max_tokens=4), timeout=None).status_code == 200
        server.send(signal.SIGTERM)
        assert server.end() == 0
        assert not [line for line in server.lines if "Traceback" in line or "ERROR" in line]


def test_settings_of_the_configuration(configure: Callable[[str], None]) -> None:
    configure('[settings]\nmode = "base"\nparallel = 3\n')
    for arguments, slots in (([], 3), (["--parallel", "2"], 2)):
        with serving(*arguments) as server:
            server.ready()
            assert "mode" in server.wait_for("is not used")
            props = httpx.get(f"{server.url}/props").json()
            assert props["default_generation_settings"]["params"]["mode"] == "wsd"
            assert props["total_slots"] == slots
