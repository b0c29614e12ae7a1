"""The system's clipboard.

Contract: a text counts as copied only if a program took it and exited with 0; terminals (OSC 52) do not report that.
"""

from __future__ import annotations

import os
import sys

from wsd_local.system.child import use

_PATIENCE_S = 2.0
_DISPLAY = ("DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "TMUX", "TMUX_TMPDIR")
"""Environment variables from which a program learns which clipboard is meant."""


def programs() -> list[list[str]]:
    """Commands that put standard input into the clipboard, for this system, the best first."""
    if sys.platform == "darwin":
        return [["pbcopy"]]
    if sys.platform == "win32":
        return [["clip"]]
    wayland = [["wl-copy"]] if os.environ.get("WAYLAND_DISPLAY") else []
    x11 = [["xclip", "-selection", "clipboard"], ["xsel", "-ib"]] if os.environ.get("DISPLAY") else []
    tmux = [["tmux", "load-buffer", "-w", "-"]] if os.environ.get("TMUX") else []
    return wayland + x11 + tmux


def copy(text: str) -> str | None:
    """Put a text into the clipboard; the name of the program that took it, None if none did."""
    for command in programs():
        data = text.encode("utf-16" if command == ["clip"] else "utf-8")
        done = use(command, given=data, needs=_DISPLAY, patience=_PATIENCE_S)
        if done is not None and done[0] == 0:
            return command[0]
    return None
