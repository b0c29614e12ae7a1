"""The log: what llama.cpp and the program have written to it."""

from __future__ import annotations

from pathlib import Path

from textual import work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import RichLog, Static

from wsd_chat.screens.box import BOX, Box
from wsd_local.system.visible import visible

_LINES = 2000
"""Lines that are shown, counted from the end."""


class LogScreen(Box):
    """The end of the log file."""

    DEFAULT_CSS = f"LogScreen {{ {BOX} & > .box {{ height: 90%; max-width: 200; }} }}"

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Log", classes="title")
            yield RichLog(wrap=True, markup=False)
            yield Static(visible(str(self._path or "no log file")), classes="hint", markup=False)

    def on_mount(self) -> None:
        """Read the file in the background."""
        self.query_one(RichLog).focus()
        self._read()

    @work(thread=True)
    def _read(self) -> None:
        if self._path is None:
            return
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            lines = [f"{self._path}: cannot be read: {error.strerror or error}"]
        self.app.call_from_thread(self._show, [visible(line) for line in lines[-_LINES:]])

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            self.query_one(RichLog).write(line)
