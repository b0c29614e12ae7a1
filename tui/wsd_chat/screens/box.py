"""Boxes over the chat, and the one that asks for a line of text."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from wsd_local.system.visible import visible

_CLOSE: list[Any] = [Binding("escape", "dismiss_nothing", "close")]

BOX = """
    align: center middle;
    & > .box { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round $primary;
        background: $surface; padding: 1 2; }
    &.-low > .box { max-height: 100%; padding: 0 1; }
    & .title { text-style: bold; margin: 0 0 1 0; }
    & .hint { color: $text-muted; margin: 1 0 0 0; height: auto; }
"""


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
            yield Static("Enter accepts, Esc cancels", classes="hint")

    @on(Input.Submitted)
    def answered(self, event: Input.Submitted) -> None:
        """Take the answer."""
        self.dismiss(event.value)
