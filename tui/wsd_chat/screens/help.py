"""The help: all keys and slash commands."""

from __future__ import annotations

from rich.table import Table
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from wsd_chat.commands import COMMANDS
from wsd_chat.screens.box import BOX, Box

READING = (
    "Italic text is the draft's, plain text the base's; the mark between them shows the base's confidence at the "
    "switch. Select text with the mouse; a click chooses a message for Alt+C, F2, F7, Alt+Left and Alt+Right. A reply "
    "with “2/3” below it is the second of three branches at that place."
)
OTHERS = (
    ("enter", "", "send"),
    ("ctrl+j", "", "new line in your message (also Shift+Enter, Alt+Enter)"),
    ("up, down", "", "your earlier messages"),
    ("ctrl+c", "", "stop; twice: quit"),
    ("pageup, pagedown", "", "scroll the conversation"),
    ("ctrl+p", "", "command palette, themes"),
    ("", "/threshold N", "another threshold, also for the reply that is being drafted"),
    ("", "/system TEXT", "system prompt"),
    ("", "/title TEXT", "title of the chat"),
)
"""Rows for keys that belong to widgets, and for commands with a value."""


class HelpScreen(Box):
    """All keys and slash commands."""

    DEFAULT_CSS = f"HelpScreen {{ {BOX} }}"

    def compose(self) -> ComposeResult:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="bold")
        for column in ("key", "command", "what it does"):
            table.add_column(column)
        for command in COMMANDS:
            table.add_row(command.keys.replace(",", ", "), f"/{command.slash}" if command.slash else "", command.help)
        for row in OTHERS:
            table.add_row(*row)
        with VerticalScroll(classes="box"):
            yield Static("Keys", classes="title")
            yield Static(table)
            yield Static(READING, classes="hint")
