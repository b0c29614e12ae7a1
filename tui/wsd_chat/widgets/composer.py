"""The text field for messages: it grows with the text, Enter sends, arrow keys walk through the history."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea


class Composer(TextArea):
    """A text field of one to eight lines. Enter sends; Ctrl+J, Shift+Enter or Alt+Enter begin a new line."""

    DEFAULT_CSS = """
    Composer { height: auto; min-height: 3; max-height: 10; border: round $primary; padding: 0 1; }
    Composer:focus { border: round $accent; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("ctrl+j,shift+enter,alt+enter", "newline", "new line", show=False),
        Binding("pageup", "page(-1)", "earlier text", show=False),
        Binding("pagedown", "page(1)", "later text", show=False),
    ]

    class Submitted(Message):
        """A message is to be sent."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Paged(Message):
        """The conversation is to be scrolled up (-1) or down (1)."""

        def __init__(self, step: int) -> None:
            super().__init__()
            self.step = step

    def __init__(self, **arguments: Any) -> None:
        super().__init__(soft_wrap=True, tab_behavior="focus", show_line_numbers=False, **arguments)
        self.sent: list[str] = []
        self._at = 0
        self._kept = ""

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.prevent_default()
            event.stop()
            if self.text.strip():
                self.post_message(self.Submitted(self.text))
            return
        if event.key in ("up", "down") and self._walks(event.key):
            event.prevent_default()
            event.stop()
            return
        await super()._on_key(event)

    def action_newline(self) -> None:
        """Begin a new line."""
        self.insert("\n")

    def action_page(self, step: int) -> None:
        """Scroll the conversation."""
        self.post_message(self.Paged(step))

    def remember(self, text: str) -> None:
        """Put a text at the end of the history and empty the field."""
        if not self.sent or self.sent[-1] != text:
            self.sent.append(text)
        self._at = len(self.sent)
        self.text = ""

    def put(self, text: str) -> None:
        """Show a text, the cursor at its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def put_back(self, text: str) -> None:
        """Show a text that could not be sent, above what was written since."""
        self.put(f"{text}\n{self.text}" if self.text.strip() and self.text != text else text)

    def _walks(self, key: str) -> bool:
        row, last = self.cursor_location[0], self.document.line_count - 1
        step = -1 if key == "up" else 1
        if (key == "up" and row > 0) or (key == "down" and row < last) or not 0 <= self._at + step <= len(self.sent):
            return False
        if self._at == len(self.sent):
            self._kept = self.text
        self._at += step
        self.put(self._kept if self._at == len(self.sent) else self.sent[self._at])
        return True
