"""What is on the chat's main screen, and how something is shown on it.

Contract: implements `View` for the controllers. Knows no store and no model.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical
from textual.filter import LineFilter
from textual.widgets import Footer, Header

from wsd_chat.screens.box import Ask
from wsd_chat.terminal.visible_only import VISIBLE
from wsd_chat.view import Severity
from wsd_chat.widgets.chat_list import ChatList
from wsd_chat.widgets.composer import Composer
from wsd_chat.widgets.status_line import StatusLine
from wsd_chat.widgets.transcript import Transcript
from wsd_local.errors import WsdError, message_of
from wsd_local.store import Store
from wsd_local.system.visible import visible

WIDE, NARROW = 120, 80
"""Columns: from `WIDE` on the list of chats is shown by itself; below `NARROW` it takes the whole width."""


class ChatLayout(App[None]):
    """List of chats, conversation, composer, status line."""

    CSS = """
    Screen { layers: base; }
    #middle { height: 1fr; }
    #talk { width: 1fr; }
    ChatList { width: 30; }
    .-narrow ChatList { width: 100%; }
    .-low Footer, .-low Header { display: none; }
    ToastRack { dock: top; align: right top; margin: 1 0 0 0; max-height: 40%; overflow: hidden; }
    """
    TITLE = "wsd-chat"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-middle"), (WIDE, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (24, "-high")]  # noqa: RUF012

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self._list_shown: bool | None = None

    def compose(self) -> ComposeResult:
        yield Header(icon="")
        with Horizontal(id="middle"):
            yield ChatList(self.store)
            with Vertical(id="talk"):
                yield Transcript(id="transcript")
                yield Composer(id="composer")
        yield StatusLine()
        yield Footer(compact=True, show_command_palette=False)

    def on_resize(self) -> None:
        """Another size of the terminal."""
        if self.screen_stack and self.screen_stack[0].query(ChatList):
            self.show_list(self._list_shown)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The filter of control characters comes last: no text can steer the terminal."""
        return [*super().get_line_filters(), VISIBLE]

    def show_list(self, shown: bool | None) -> None:
        """Show or hide the list of chats; None leaves it to the width."""
        self._list_shown = shown
        shown_now = self.size.width >= WIDE if shown is None else shown
        screen = self.screen_stack[0]
        screen.query_one(ChatList).styles.display = "block" if shown_now else "none"
        covered = self.size.width < NARROW and shown_now
        screen.query_one("#talk").styles.display = "none" if covered else "block"

    # -- `View`, for the controllers ---------------------------------------------------------------------------------

    @property
    def transcript(self) -> Transcript:
        """The conversation on the screen."""
        return self.screen_stack[0].query_one(Transcript)

    @property
    def composer(self) -> Composer:
        """The text field for the next message."""
        return self.screen_stack[0].query_one(Composer)

    @property
    def status(self) -> StatusLine:
        """The line at the bottom."""
        return self.screen_stack[0].query_one(StatusLine)

    def say(self, message: str, severity: Severity = "information") -> None:
        """Show a message for some seconds."""
        self.notify(visible(message), severity=severity, markup=False)

    def ask_for(self, question: str, value: str, then: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Ask for one line, and start `then` with the answer unless it is empty."""

        def answered(answer: str | None) -> None:
            if answer:
                self.start(then(answer))

        self.push_screen(Ask(question, value), answered)

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something without waiting for it; an error that people can act on is shown, and ends nothing."""
        self.run_worker(self._guarded(work), group="turns")

    def start_later(self, seconds: float, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """`start` after some seconds."""
        self.set_timer(seconds, lambda: self.start(work()))

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (WsdError, OSError) as error:
            self.say(message_of(error), "error")

    def refresh_list(self, current: int | None) -> None:
        """Read the list of chats again; `current` is the chat that is open."""
        self.screen_stack[0].query_one(ChatList).refresh_rows(current)
