"""The server as a service of a person's own systemd: a unit file that is written, and removed again.

Contract: the unit starts what was asked for, from any folder, as the person who installed it; no key is in it. A unit
that this program did not write is left alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from wsd_local.errors import UsageError, WsdError
from wsd_local.files import write_text
from wsd_local.paths import config_file
from wsd_local.system.child import use

NAME = "wsd-local.service"
_MARK = "# Written by `wsd-local serve --install-service`; `wsd-local serve --uninstall-service` removes it."
_PREFIX = "WSD_LOCAL_"
_VARIABLES = ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
_KEY_VARIABLE = "WSD_LOCAL_API_KEY"
_PERMANENT = (2, 3, 4)
"""Exit codes that another start would not change."""


def unit_path() -> Path:
    """Where the unit of this person lies."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "systemd" / "user" / NAME


def keys_path() -> Path:
    """The file with the keys that were given as options or in the environment; its owner's alone."""
    return config_file().parent / "server.keys"


def unit(arguments: Sequence[str], environment: Mapping[str, str], stop_s: float) -> str:
    """The text of a unit.

    Args:
        arguments: those of `wsd-local serve`; paths are absolute.
        environment: variables that the server needs.
        stop_s: seconds that the server takes to end at most.

    Raises:
        UsageError: an argument holds a line feed.
    """
    command = [sys.executable, "-m", "wsd_local", "serve", *arguments]
    lines = [
        _MARK,
        "[Unit]",
        "Description=wsd-local server",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={' '.join(_quoted(word).replace('$', '$$') for word in command)}",
        "ExecReload=/bin/kill -HUP $MAINPID",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(environment.items())),
        "Restart=on-failure",
        "RestartSec=2",
        f"RestartPreventExitStatus={' '.join(map(str, _PERMANENT))}",
        f"TimeoutStopSec={stop_s:g}",
        "NoNewPrivileges=yes",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return "\n".join(lines) + "\n"


def _quoted(word: str) -> str:
    """A word as systemd reads it: nothing in it is a specifier or the end of the word.

    Only commands have variables in them, `$`.
    """
    if any(ord(sign) < 32 for sign in word):
        raise UsageError(f"{word!r} holds a control character: a unit of systemd cannot hold it")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def environment_here() -> dict[str, str]:
    """The variables of this process that decide what the server does, its key excepted."""
    return {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(_PREFIX) and name != _KEY_VARIABLE) or name in _VARIABLES
    }


def install(arguments: Sequence[str], keys: Sequence[str], stop_s: float) -> list[str]:
    """Write the unit; nothing is started.

    Args:
        arguments: see `unit`; without keys.
        keys: go into a file of their own.
        stop_s: see `unit`.

    Returns:
        lines that say what was written, how it is started, and how it is undone.

    Raises:
        UsageError: this system has no systemd, or the unit cannot be written as one.
        WsdError: a unit of that name is there that this program did not write.
    """
    if not sys.platform.startswith("linux"):
        raise UsageError("install-service writes a unit for systemd, and this system has none")
    path = unit_path()
    _require_own(path)
    if keys:
        arguments = [*arguments, "--api-key-file", str(keys_path())]
    text = unit(arguments, environment_here(), stop_s)
    if keys:
        write_text(keys_path(), "".join(f"{key}\n" for key in keys), private=True)
    write_text(path, text)
    return [
        f"wrote {path}",
        *([f"wrote {keys_path()} (the keys; readable by you alone)"] if keys else []),
        "start it, now and at every login:  systemctl --user daemon-reload && systemctl --user enable --now wsd-local",
        "also while you are not logged in:  loginctl enable-linger",
        "see its log:                       journalctl --user -u wsd-local -f",
        "reload the configuration:          systemctl --user reload wsd-local",
        "undo:                              wsd-local serve --uninstall-service",
    ]


def uninstall() -> list[str]:
    """Stop the service and remove the unit.

    Returns:
        lines that say what was removed.

    Raises:
        WsdError: there is none, or this program did not write it.
    """
    path = unit_path()
    if not path.exists():
        raise WsdError(f"no service is installed: there is no {path}")
    _require_own(path)
    stopped = _systemctl("disable", "--now", NAME)
    path.unlink()
    removed = [f"removed {path}"]
    if keys_path().exists():
        keys_path().unlink()
        removed.append(f"removed {keys_path()}")
    if not stopped or not _systemctl("daemon-reload"):
        removed.append("systemd could not be reached; if the service runs:  systemctl --user stop wsd-local")
    return removed


def _require_own(path: Path) -> None:
    with suppress(FileNotFoundError):
        if not path.read_text("utf-8", "replace").startswith(_MARK):
            raise WsdError(f"{path} was not written by this program: remove it, or keep it and start the server by it")


def _systemctl(*arguments: str) -> bool:
    """Whether systemd of this person did what was asked."""
    done = use(["systemctl", "--user", *arguments], needs=("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"), patience=60)
    return done is not None and done[0] == 0
