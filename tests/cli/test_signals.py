"""Signals: whatever the program does, the terminal is restored and what was written is kept."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("expected: no signals for one process on Windows", allow_module_level=True)

from makers import random_llama
from terminals import OnTerminal

from wsd_local.store import Store
from wsd_local.system.interrupt import Interrupted, signals_raise

NUMBERS = [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT]
LONG = ["--mode", "draft", "--ignore-eos", "--max-tokens", "1800", "--threads", "1"]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chats and models of its own."""
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))


def defaults() -> None:
    """In a child: no signal is ignored, whatever this process inherited."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)


def left_on(said: str) -> set[str]:
    """Modes of the terminal that were turned on (the cursor: off) last."""
    last = dict(re.findall(r"\x1b\[\?(\d+)([hl])", said))
    return {mode for mode, way in last.items() if mode != "7" and way != ("h" if mode == "25" else "l")}


def on_terminal(module: str, *arguments: str, ignored: signal.Signals | None = None) -> OnTerminal:
    """A command on a terminal."""

    def prepare() -> None:
        defaults()
        if ignored is not None:
            signal.signal(ignored, signal.SIG_IGN)

    return OnTerminal(["-m", module, *arguments], preexec_fn=prepare)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_chat_keeps_what_was_said_and_restores_the_terminal(number: signal.Signals) -> None:
    chat = on_terminal("wsd_local", "chat", "--threads", "1", "--max-tokens", "1800")
    chat.wait_for("ready")
    chat.types("How do I boil an egg?\r")
    chat.wait_for("egg")
    chat.wait_for("▐")
    chat.process.send_signal(number)
    assert chat.end() == 128 + number
    assert not left_on(chat.said)
    with Store() as store:
        (row,) = store.chats.find()
        assert row.head is not None
        branch = store.messages.branch(row.head)
    assert [message.role for message in branch] == ["user", "assistant"]
    assert branch[1].text
    assert branch[1].state in ("cancelled", "finished")


def test_the_chat_ends_while_it_loads(tmp_path: Path) -> None:
    large = random_llama(tmp_path / "large.gguf", n_embd=1024, n_ff=4096, n_layer=4)
    chat = on_terminal("wsd_local", "chat", "--off-record", "--draft", str(large), "--base", str(large))
    chat.wait_for("\x1b[?1049h")
    chat.process.send_signal(signal.SIGTERM)
    assert chat.end() == 143
    assert not left_on(chat.said)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_reply_that_is_streamed(number: signal.Signals) -> None:
    run = on_terminal("wsd_local", "run", "hi", *LONG)
    run.wait_for("a")
    run.process.send_signal(number)
    assert run.end() == 128 + number
    assert not left_on(run.said)


def test_the_examination_of_a_pair() -> None:
    run = on_terminal("wsd_local", "check-pair", "demo", "--threads", "1")
    run.wait_for(" write")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 130
    assert "ok  " not in run.said
    assert not left_on(run.said)


def test_a_reply_in_json_is_printed_as_far_as_it_came(tmp_path: Path) -> None:
    large = random_llama(tmp_path / "large.gguf", n_embd=1024, n_ff=4096, n_layer=4)
    run = OnTerminal(
        ["-m", "wsd_local", "run", "hi " * 300, "--json", "--draft", str(large), *LONG],
        preexec_fn=defaults,
        stdout=subprocess.PIPE,
    )
    run.wait_for(" reads ")
    # As `timeout` does: to the process and to its group.
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.stdout is not None
    reply = json.loads(run.process.stdout.read())
    assert run.end() == 143
    assert reply["finish_reason"] == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("command", [["run", "hi"], ["bench"], ["check-pair"], ["run", "hi", "--json"]], ids=" ".join)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_while_a_model_is_loaded(tmp_path: Path, command: list[str], number: signal.Signals) -> None:
    large = random_llama(tmp_path / "large.gguf", n_embd=1024, n_ff=4096, n_layer=4)
    run = on_terminal("wsd_local", *command, "--draft", str(large), "--base", str(large), "--threads", "1")
    run.wait_for("loading")
    run.process.send_signal(number)
    assert run.end() == 128 + number
    assert not left_on(run.said)


@pytest.mark.parametrize("option", ["--input", "--file", "--messages", "--base-format", "--grammar"])
def test_while_a_pipe_is_read_that_says_nothing(tmp_path: Path, option: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    prompt = ["hi"] if option in ("--base-format", "--grammar") else []
    process = subprocess.Popen(
        [sys.executable, "-m", "wsd_local", "run", *prompt, option, str(pipe)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=defaults,
    )
    with process, pipe.open("wb"):  # opens when the program has opened it, too
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143


def test_at_a_question() -> None:
    with Store() as store:
        chat = store.chats.create(pair="demo", system=None)
        store.messages.add(chat, None, "user", "hi")
    asked = on_terminal("wsd_local", "chats", "rm", str(chat))
    asked.wait_for("[y/N]")
    asked.process.send_signal(signal.SIGHUP)
    assert asked.end() == 129
    with Store() as store:
        assert store.chats.get(chat).messages == 1


def test_nohup_is_obeyed() -> None:
    run = on_terminal("wsd_local", "run", "hi", "--max-tokens", "40", "--threads", "1", ignored=signal.SIGHUP)
    run.wait_for("Hello")
    run.process.send_signal(signal.SIGHUP)
    assert run.end() == 0


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_arrives_in_a_finalizer_is_not_lost(number: signal.Signals) -> None:
    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(number)

    reported = sys.unraisablehook
    with pytest.raises(Interrupted) as ended, signals_raise():
        Finalized()
        threading.Event().wait(60)
    assert ended.value.exit_code == 128 + number
    assert sys.unraisablehook is reported
