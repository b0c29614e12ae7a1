"""Smaller screens: a question, help, the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, RichLog, Static

from wsd_chat.commands import COMMANDS
from wsd_local.system.visible import visible

_CLOSE: list[Any] = [Binding("escape", "dismiss_nothing", "close")]

BOX = """
    align: center middle;
    & > .box { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round $primary;
        background: $surface; padding: 1 2; }
    & .title { text-style: bold; margin: 0 0 1 0; }
    & .hint { color: $text-muted; margin: 1 0 0 0; height: auto; }
"""


READING = (
    "Italic text is the draft's, plain text the base's; the mark between them says how confident the base was when it "
    "took over. Select text with the mouse; a click chooses a message for Alt+C, F2, F7 and Alt+Left."
)


class Box(ModalScreen[Any]):
    """A box over the chat; Esc closes it."""

    BINDINGS: ClassVar[list[Any]] = _CLOSE

    def action_dismiss_nothing(self) -> None:
        """Close without a result."""
        self.dismiss(None)


class Ask(Box):
    """One question with one line as its answer."""

    DEFAULT_CSS = f"Ask {{ {BOX} }}"

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question, self._value = question, value

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Label(visible(self._question), classes="title", markup=False)
            yield Input(self._value)
            yield Static("Enter takes it, Esc leaves it", classes="hint")

    @on(Input.Submitted)
    def answered(self, event: Input.Submitted) -> None:
        """Take the answer."""
        self.dismiss(event.value)


class HelpScreen(Box):
    """All keys and slash commands."""

    DEFAULT_CSS = f"HelpScreen {{ {BOX} }}"

    def compose(self) -> ComposeResult:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="bold")
        for column in ("key", "command", "what it does"):
            table.add_column(column)
        fixed = [
            ("enter", "", "send"),
            ("ctrl+j", "", "a new line in your message (also Shift+Enter, Alt+Enter)"),
            ("up, down", "", "your earlier messages"),
            ("ctrl+c", "", "stop; twice: leave"),
            ("pageup, pagedown", "", "scroll the conversation"),
            ("ctrl+p", "", "command palette, themes"),
            ("", "/threshold N", "another threshold, also for the reply that is being drafted"),
            ("", "/system TEXT", "system prompt"),
            ("", "/title TEXT", "title of the chat"),
        ]
        for command in COMMANDS:
            table.add_row(command.keys, f"/{command.slash}" if command.slash else "", command.help)
        for row in fixed:
            table.add_row(*row)
        with VerticalScroll(classes="box"):
            yield Static("Keys", classes="title")
            yield Static(table)
            yield Static(READING, classes="hint")


class LogScreen(Box):
    """What llama.cpp and the program said."""

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
        """Show the end of the file, once it is read."""
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
        self.app.call_from_thread(self._show, [visible(line) for line in lines[-2000:]])

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            self.query_one(RichLog).write(line)
