"""Completion as a shell makes it: commands, options, choices and names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import complains, wsd
from terminals import OnTerminal

from wsd_local.cli.reference import reference
from wsd_local.store import Store

Shell = Callable[[str], str]


def environment(home: Path) -> dict[str, str]:
    """An empty home folder, in which `wsd-local` is found."""
    folder = home / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "wsd-local"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wsd_local "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "HOME": str(home), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "ZDOTDIR": str(home)}


def bash(line: str, home: Path) -> str:
    """What bash offers for a line that ends with what is being typed."""
    done = subprocess.run(
        [
            "bash",
            "-c",
            'source ~/.bashrc; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; '
            "function=$(complete -p wsd-local | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); $function; "
            'printf "%s\\n" "${COMPREPLY[@]}"',
            "bash",
            *line.split(" "),
        ],
        env=environment(home),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode()


def fish(line: str, home: Path) -> str:
    """What fish offers."""
    command = ["fish", "-c", "complete -C $argv[1]", line]
    return subprocess.run(command, env=environment(home), capture_output=True, check=True).stdout.decode()


def zsh(line: str, home: Path) -> str:
    """What zsh shows when a person presses Tab."""
    with (home / ".zshrc").open("a") as file:
        file.write("autoload -U compinit && compinit -u\nPROMPT='ready> '\nsetopt NO_BEEP LIST_AMBIGUOUS\n")
    shell = OnTerminal(["-c", "import os; os.execvp('zsh', ['zsh', '-i'])"], env=environment(home))
    shell.wait_for("ready> ")
    shell.types(f"{line}\t\t")
    shell.types("\x15echo en''d\r")
    shell.wait_for("end")
    shell.types("exit\r")
    shell.end()
    return shell.said


def in_shell(name: str, tmp_path: Path) -> Shell:
    """A shell in which completion is installed."""
    if shutil.which(name) is None:
        pytest.skip(f"expected: no {name} here")
    done = wsd("--install-completion", "--shell", name, env=environment(tmp_path))
    assert done.returncode == 0, done.stderr
    ask = {"bash": bash, "zsh": zsh, "fish": fish}[name]
    return lambda line: ask(line, tmp_path)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("wsd-local ", ["bench", "doctor", "models"]),
        ("wsd-local run --thr", ["--threads", "--threshold"]),
        ("wsd-local run --cache-type-k q", ["q8_0", "q4_0"]),
        ("wsd-local run --pair ", ["demo", "laptop", "qwen3"]),
        ("wsd-local fit --draft demo", ["demo-draft", "demo-base"]),
        ("wsd-local run --input ", ["alpaca_eval", "truthfulqa"]),
        ("wsd-local run --format ", ["jsonl", "csv"]),
        ("wsd-local run --export ", ["arena_hard", "authors"]),
        ("wsd-local models pull ", ["laptop", "llama-3.2-3b-instruct"]),
    ],
)
def test_a_shell_offers(name: str, line: str, offered: list[str], tmp_path: Path) -> None:
    said = in_shell(name, tmp_path)(line)
    assert all(one in said for one in offered), said


def test_names_of_one_s_own_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(config))
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    config.write_text('[pairs.kitchen]\ndraft = "demo-draft"\nbase = "demo-base"\n')
    with Store() as store:
        chat = store.chats.create(title="Eggs")
    shell = in_shell("bash", tmp_path)
    assert "kitchen" in shell("wsd-local fit ")
    assert str(chat) in shell("wsd-local chats show ").split()


def test_titles_of_chats_cannot_steer_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    with Store() as store:
        chat = store.chats.create(title="red \x1b[31m\u202e")
    shell = in_shell("fish", tmp_path)
    offered = shell("wsd-local chats show ")
    assert str(chat) in offered.split() and "\x1b" not in offered and "\u202e" not in offered


def test_the_reference_has_every_command_and_option() -> None:
    commands = {command.name: command for command in reference()}
    assert {"wsd-local", "wsd-local run", "wsd-local models pull", "wsd-local eval report"} <= set(commands)
    for name in ("wsd-local run", "wsd-local chats export", "wsd-local models quantize"):
        shown = wsd(*name.split()[1:], "--help").stdout.decode()
        assert all(part in shown for option in commands[name].options for part in option.names)
    options = {option.names[0]: option for option in commands["wsd-local run"].options}
    assert options["--threshold"].default == "0.8" and options["--threshold"].type == "FLOAT"
    assert options["--resident"].choices == ("both", "one")
    assert options["PROMPT"].is_positional and not options["PROMPT"].is_required
    assert all(option.help.endswith((".", "]")) for command in commands.values() for option in command.options)


def test_of_an_option_that_is_given_twice_the_last_counts() -> None:
    complains(wsd("run", "hi", "--window", "six", "--window", "0"), 2, "window is 0")
    done = wsd("config", "show", "--json", "--json")
    assert done.returncode == 0 and "settings" in json.loads(done.stdout)


@pytest.mark.parametrize("text", ["2.5", "six", "0x", "1e3"])
def test_a_whole_number_is_written_as_one(text: str) -> None:
    complains(wsd("run", "hi", "--window", text), 2, "--window", "whole number")
    complains(wsd("eval", "demo", "--limit", text), 2, "--limit", "whole number")
