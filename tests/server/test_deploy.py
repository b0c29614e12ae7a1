"""The server as a service: the unit that is written, and how it is undone."""

from __future__ import annotations

import configparser
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import complains, wsd
from hypothesis import given
from hypothesis import strategies as st

from wsd_local.server.deploy import NAME, unit

if not sys.platform.startswith("linux"):
    pytest.skip("expected: systemd is Linux's", allow_module_level=True)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without services, and a systemd that writes down what it is asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    systemctl = programs / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(tmp_path / "own" / "config.toml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def installed(home: Path) -> Path:
    """Where the unit lies."""
    return home / "config" / "systemd" / "user" / NAME


def words(text: str) -> list[str]:
    """The words of a line as systemd reads it."""
    found, at = [], 0
    while at < len(text):
        assert text[at] == '"'
        word, at = "", at + 1
        while text[at] != '"':
            if text[at] == "\\":
                at += 1
            elif text[at] in "%$":
                assert text[at + 1] == text[at]
                at += 1
            word, at = word + text[at], at + 1
        found.append(word)
        at += 2
    return found


def command(text: str) -> list[str]:
    """The command of a unit."""
    (line,) = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    return words(line.partition("=")[2])


def test_a_unit_with_the_options_that_were_given(own_home: Path) -> None:
    (own_home / "adapter.gguf").write_bytes(b"")
    options = ["--pair", "demo", "--port", "0", "--allow-host", "a.example", "--allow-host", "b.example"]
    more = ["--shutdown-timeout", "5.0", "--threshold", "0.7", "--draft-lora", "adapter.gguf"]
    done = wsd("serve", *options, *more, "--install-service")
    assert done.returncode == 0, done.stderr
    text = installed(own_home).read_text()
    ran = command(text)
    assert ran[:4] == [sys.executable, "-m", "wsd_local", "serve"]
    assert sorted(ran[4:]) == sorted([*options, *more[:-1], str(own_home / "adapter.gguf")])
    assert wsd(*ran[3:]).returncode == 3  # the adapter is empty: the options are read as they were given
    assert "TimeoutStopSec=15\n" in text
    assert f'Environment="WSD_LOCAL_CONFIG={own_home}/own/config.toml"\n' in text
    shown = done.stdout.decode()
    for part in (str(installed(own_home)), "enable --now wsd-local", "journalctl --user -u wsd-local", "--uninstall"):
        assert part in shown


def test_the_unit_is_one(own_home: Path) -> None:
    assert wsd("serve", "--install-service").returncode == 0
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(installed(own_home))
    assert parser["Service"]["Type"] == "exec"
    assert parser["Service"]["RestartPreventExitStatus"] == "2 3 4"
    assert parser["Install"]["WantedBy"] == "default.target"


def test_variables_of_the_server_and_no_others(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_THRESHOLD", "0.7")
    monkeypatch.setenv("WSD_LOCAL_STOP", "100% $HOME")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/somewhere")
    assert wsd("serve", "--install-service").returncode == 0
    text = installed(own_home).read_text()
    assert 'Environment="WSD_LOCAL_THRESHOLD=0.7"\n' in text
    assert 'Environment="WSD_LOCAL_STOP=100%% $HOME"\n' in text
    assert "secret" not in text
    assert "RUNTIME" not in text


def test_paths_hold_in_any_folder(own_home: Path) -> None:
    (own_home / "keys").write_text("sesame\n")
    assert wsd("serve", "--api-key-file", "keys", "--install-service").returncode == 0
    assert command(installed(own_home).read_text())[-2:] == ["--api-key-file", str(own_home / "keys")]


def test_keys_are_in_no_unit(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_API_KEY", "from-the-environment")
    done = wsd("serve", "--host", "0.0.0.0", "--api-key", "sesame-1", "--api-key", "sesame-2", "--install-service")
    assert done.returncode == 0, done.stderr
    text = installed(own_home).read_text()
    keys = own_home / "own" / "server.keys"
    assert command(text)[-2:] == ["--api-key-file", str(keys)]
    assert "sesame" not in text
    assert "from-the-environment" not in text
    assert keys.read_text().split() == ["sesame-1", "sesame-2", "from-the-environment"]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    monkeypatch.delenv("WSD_LOCAL_API_KEY")
    assert wsd("serve", "--uninstall-service").returncode == 0
    assert not keys.exists()


def test_undoing_it(own_home: Path) -> None:
    assert wsd("serve", "--install-service").returncode == 0
    done = wsd("serve", "--uninstall-service")
    assert done.returncode == 0
    assert not installed(own_home).exists()
    assert (own_home / "asked").read_text().splitlines() == [f"--user disable --now {NAME}", "--user daemon-reload"]
    assert str(installed(own_home)) in done.stdout.decode()
    complains(wsd("serve", "--uninstall-service"), 1, "no service is installed")


def test_where_systemd_cannot_be_reached(own_home: Path) -> None:
    assert wsd("serve", "--install-service").returncode == 0
    (own_home / "programs" / "systemctl").write_text("#!/bin/sh\nexit 1\n")
    done = wsd("serve", "--uninstall-service")
    assert done.returncode == 0
    assert not installed(own_home).exists()
    assert "stop wsd-local" in done.stdout.decode()


def test_a_unit_of_somebody_else_is_left_alone(own_home: Path) -> None:
    installed(own_home).parent.mkdir(parents=True)
    installed(own_home).write_text("[Service]\nExecStart=/usr/bin/true\n")
    complains(wsd("serve", "--install-service"), 1, NAME)
    complains(wsd("serve", "--uninstall-service"), 1, NAME)
    assert "true" in installed(own_home).read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["--pair", "nothing"], 2, "'nothing'"),
        (["--host", "0.0.0.0"], 2, "--api-key"),
        (["--ssl-certfile", "nothing.pem"], 2, "nothing.pem"),
        (["--allow-host", "a\nb"], 2, "allow-host"),
    ],
)
def test_nothing_is_written_for_what_cannot_be_served(
    own_home: Path, arguments: Sequence[str], code: int, word: str
) -> None:
    complains(wsd("serve", "--install-service", *arguments), code, word)
    assert not (own_home / "config").exists()


@pytest.mark.parametrize("option", ["--port", "--threshold", "--install-service", "--insecure"])
def test_undoing_takes_no_other_option(option: str) -> None:
    value = [] if option in ("--install-service", "--insecure") else ["1"]
    complains(wsd("serve", "--uninstall-service", option, *value), 2, option)


@given(st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1))
def test_any_argument_arrives_as_it_was(arguments: list[str]) -> None:
    assert command(unit(arguments, {}, 1.0))[4:] == arguments
