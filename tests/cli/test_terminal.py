"""What the command line writes to a terminal, and that no text steers it; streams that are closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("expected: there are no pseudo-terminals on Windows", allow_module_level=True)

from command_line import complains, wsd
from makers import packed, packed_string, raw_entries
from terminals import OnTerminal, shown

from wsd_local.paths import demo_dir
from wsd_local.store import Store

HOSTILE = "A\x1b]0;TITLE\x07\x1b[2J\x9b2J\u202eB\x7f [red]C[/nothing]"
SHOWN = "A␛]0;TITLE␇␛[2J�2J�B␡ [red]C[/nothing]"
STEERING = ("\x1b]0", "\x1b[2J", "\x9b", "\u202e", "\x07", "\x7f")


def steers(text: str) -> list[str]:
    """Sequences of a hostile text in it."""
    return [sequence for sequence in STEERING if sequence in text]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chats and models of its own."""
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))


@pytest.fixture
def chat() -> int:
    """A chat with hostile texts."""
    with Store() as store:
        chat = store.chats.create(pair=HOSTILE, system=None)
        store.messages.add(chat, None, "user", f"{HOSTILE}\nline two")
        return chat


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model whose header is hostile, and as long as it was."""
    path, template = tmp_path / "model.gguf", "tokenizer.chat_template"
    old = raw_entries(demo_dir() / "draft-q8_0.gguf")
    new = {key: packed_string(key) + packed(HOSTILE) for key in ("general.name", "general.license", template)}
    room = sum(len(old[key]) - len(new[key]) for key in new)
    new[template] = packed_string(template) + packed(HOSTILE + " " * room)
    data = (demo_dir() / "draft-q8_0.gguf").read_bytes()
    for key in new:
        data = data.replace(old[key], new[key], 1)
    path.write_bytes(data)
    return path


PRINT = """
import sys
from wsd_local.cli import terminal
from wsd_local.cli.output import Printer
from wsd_local.events import Notice, Text

terminal.prepare()
printer = Printer(as_json=False, tokens=False, trace="trace" in sys.argv)
for piece in sys.argv[-1].partition("]0;"):
    printer.show(Text(piece, "draft", None))
printer.show(Text("\\U0001f3f4", "base", None))
printer.show(Text("\\U000e0067\\U000e007f", "base", None))
printer.show(Notice("no room: " + sys.argv[-1]))
printer.close()
"""


@pytest.mark.parametrize("trace", ["", "trace"])
def test_a_streamed_reply_and_notices(trace: str) -> None:
    running = OnTerminal(["-c", PRINT, trace, HOSTILE])
    assert running.end() == 0
    assert not steers(running.said)
    plain = running.said.replace("\x1b[3;36m", "").replace("\x1b[0m", "")
    assert SHOWN + "\U0001f3f4\U000e0067\U000e007f" in plain
    assert f"no room: {SHOWN}" in plain


def test_a_pipe_gets_every_byte() -> None:
    done = subprocess.run([sys.executable, "-c", PRINT, "", HOSTILE], capture_output=True, check=True)
    assert done.stdout.decode() == HOSTILE + "\U0001f3f4\U000e0067\U000e007f"
    assert not steers(done.stderr.decode())


def test_error_lines() -> None:
    running = OnTerminal(["-m", "wsd_local", "run", "hi", "--pair", HOSTILE, "--debug"])
    assert running.end() == 2
    assert not steers(running.said)
    running = OnTerminal(["-m", "wsd_local", "run", "hi", "--base", HOSTILE])
    assert running.end() == 3
    assert not steers(running.said) and SHOWN in running.said
    assert not steers(wsd("run", "hi", "--base", HOSTILE).stderr.decode())
    assert not steers(wsd("run", f"--{HOSTILE}").stderr.decode())


def test_chats(chat: int) -> None:
    for arguments in (["list"], ["show", str(chat)], ["export", str(chat)], ["search", "line"]):
        text = shown("chats", *arguments)
        assert not steers(text), arguments
        assert arguments[0] == "search" or "␛]0;TITLE␇␛[2J" in text, arguments
    with Store() as store:
        assert wsd("chats", "export", str(chat)).stdout.decode() == store.export(chat, "markdown")
    for arguments in (["list", "--json"], ["show", str(chat), "--json"], ["export", str(chat), "--format", "json"]):
        text = shown("chats", *arguments)
        assert not steers(text)
        assert json.loads(text) == json.loads(wsd("chats", *arguments).stdout)


def test_a_model_s_header(model: Path) -> None:
    text = shown("models", "show", str(model))
    assert not steers(text) and SHOWN in text and "[/nothing]" in text
    text = shown("models", "show", str(model), "--template")
    assert not steers(text) and SHOWN in text
    assert wsd("models", "show", str(model), "--template").stdout.decode().startswith(HOSTILE)
    assert not steers(shown("models", "show", str(model), "--json"))


def test_names_in_tables_are_no_markup(tmp_path: Path, model: Path) -> None:
    name = tmp_path / "a\x1b[2J[link=file:x]b.gguf"
    model.rename(name)
    imported = shown("models", "import", str(name), "--as", "mine")
    assert not steers(imported) and "a␛[2J[link=file:x]b.gguf" in imported
    assert os.fsencode(name) in wsd("models", "import", str(name), "--as", "twice").stdout
    assert "a␛[2J[link=file:x]b.gguf" in "".join(shown("models", "show", "mine").split())


def test_undecodable_names() -> None:
    done = wsd("run", "hi", "--file", os.fsdecode(b"/nope/\xff\x1b[2J"))
    complains(done, 2, "No such file")
    assert b"\x1b" not in done.stderr


CLOSED = [
    ("run", "hi", "--max-tokens", "3"),
    ("run", "--input", "-"),
    ("doctor",),
    ("models", "list"),
    ("fit",),
    ("config", "path"),
    ("config", "show", "--json"),
    ("--help",),
    ("--version",),
]


def with_closed(descriptor: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command with a standard stream closed."""
    command = 'exec "$0" -m wsd_local "$@" ' + descriptor
    return subprocess.run(
        ["sh", "-c", command, sys.executable, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


@pytest.mark.parametrize("arguments", CLOSED, ids=" ".join)
def test_a_closed_standard_output(arguments: tuple[str, ...]) -> None:
    complains(with_closed(">&-", *arguments), 2, "standard output is closed")


def test_what_needs_no_standard_output_runs_without_it(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "hi"}\n', encoding="utf-8")
    options = ("--input", str(source), "--output", str(target), "--max-tokens", "3", "--threads", "1")
    assert with_closed(">&- 2>&- <&-", "run", *options).returncode == 0
    assert json.loads(target.read_text(encoding="utf-8"))["text"]


def test_closed_standard_error_and_input() -> None:
    done = with_closed("2>&- <&-", "run", "hi", "--max-tokens", "3", "--threads", "1")
    assert done.returncode == 0 and done.stdout.strip() and not done.stderr
    assert with_closed("2>&-", "run", "hi", "--pair", "nope").returncode == 2
    complains(with_closed("<&-", "run"), 2, "there is no prompt")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="expected: no device that is full")
@pytest.mark.parametrize("arguments", [("config", "path"), ("models", "list"), ("--help",)], ids=" ".join)
def test_a_full_disk_is_said_in_words(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "wsd_local", *arguments], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [done.stderr.decode().strip()]
    assert "the disk is full" in done.stderr.decode() and "Errno" not in done.stderr.decode()


@pytest.mark.parametrize("arguments", [("--help",), ("models", "list"), ("config", "path"), ("fit",)], ids=" ".join)
def test_a_reader_that_is_gone_is_no_error(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "wsd_local", *arguments], stdout=output, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 0, done.stderr
    assert b"Error" not in done.stderr


def test_the_chat_draws_no_stored_sequence(chat: int) -> None:
    running = OnTerminal(["-m", "wsd_local", "chat", "--open", str(chat)])
    running.wait_for("line two")
    running.process.terminate()
    assert running.end() == 143
    assert "␛]0;TITLE" in running.said
    assert not steers(running.said.replace("\x07", ""))  # the app itself may ring
