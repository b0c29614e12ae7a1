"""What the controllers need of the screen.

Contract: `ChatLayout` implements it. The controllers (`chats`, `replies`, `reply_end`, `pair_loading`) know this
protocol and the widgets in it, never the app itself.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from wsd_chat.widgets.composer import Composer
from wsd_chat.widgets.status_line import StatusLine
from wsd_chat.widgets.transcript import Transcript

Severity = Literal["information", "warning", "error"]


class View(Protocol):
    """The chat's screen."""

    sub_title: str
    """The title of the chat that is open."""

    @property
    def transcript(self) -> Transcript:
        """The conversation on the screen."""

    @property
    def composer(self) -> Composer:
        """The text field for the next message."""

    @property
    def status(self) -> StatusLine:
        """The line at the bottom."""

    def say(self, message: str, severity: Severity = "information") -> None:
        """Show a message for some seconds."""

    def copy_to_clipboard(self, text: str) -> None:
        """Send a text to the terminal's clipboard."""

    def ask_for(self, question: str, value: str, then: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Ask for one line, with `value` in the field, and start `then` with the answer unless it is empty."""

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something without waiting for it. An error that people can act on is shown, and ends nothing."""

    def start_later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """`start` after some seconds."""

    def refresh_list(self, current: int | None) -> None:
        """Read the list of chats again; `current` is the chat that is open."""
