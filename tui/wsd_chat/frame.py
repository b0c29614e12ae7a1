"""The frame of the chat's app: what is on the screen, and how something is done without holding it up.

Contract: everything that takes time happens in the models' thread (`worker`), in the store's (`desk`), or in a thread
of Textual's; a handler of keys never waits for one of them. What the store does for the conversation is done in the
order in which it was asked for (`in_turn`).
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.filter import LineFilter
from textual.widgets import Footer, Header

from wsd_chat import commands as keys
from wsd_chat import theme as look
from wsd_chat.conversation import Conversation
from wsd_chat.entries import Entry
from wsd_chat.model_jobs import Answering, Wanted
from wsd_chat.store_thread import Desk
from wsd_chat.terminal.alt_f import tell_apart
from wsd_chat.terminal.visible_only import VISIBLE
from wsd_chat.widgets.chat_list import ChatList
from wsd_chat.widgets.composer import Composer
from wsd_chat.widgets.status_line import StatusLine
from wsd_chat.widgets.transcript import Transcript
from wsd_local.errors import WsdError, message_of
from wsd_local.runtime.worker import Task, Worker
from wsd_local.settings import ReplySettings
from wsd_local.store import Store
from wsd_local.system.visible import visible

Own = TypeVar("Own", bound="Frame")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
WIDE = 120
"""Columns from which the list of chats is shown unasked."""


def in_turn(
    method: Callable[Concatenate[Own, Parameters], Awaitable[Result]],
) -> Callable[Concatenate[Own, Parameters], Coroutine[Any, Any, Result]]:
    """A method that begins when those asked for before it are done."""

    @functools.wraps(method)
    async def waits(self: Own, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        async with self.turns:
            return await method(self, *arguments, **named)

    return waits


class Frame(App[None]):
    """The screen of the chat, and what belongs to it."""

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
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-middle"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (24, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[Any]] = [
        *keys.bindings(),
        Binding("ctrl+c", "interrupt", "stop, twice quits", show=False, priority=True),
    ]

    def __init__(
        self,
        wanted: Wanted,
        store: Store,
        *,
        chat: int | None = None,
        log: Path | None = None,
        system: str | None = None,
        off_record: bool = False,
    ) -> None:
        tell_apart()
        super().__init__()
        self.wanted = wanted
        self.store = store
        self.talk = Conversation(store, system, Store(":memory:") if off_record else None)
        self.desk = Desk()
        self.turns = asyncio.Lock()
        self.models = Worker()
        self.answering = Answering()
        self.log_file = log
        self.overrides: dict[str, Any] = {}
        self.chosen: int | None = None
        self._first_chat, self._first_system = chat, system
        self._loading: Task | None = None
        self._listed: bool | None = None
        self._look = look.Look(None if store.path is None else store.path.with_name("wsd-chat.json"))

    def compose(self) -> ComposeResult:
        yield Header(icon="")
        with Horizontal(id="middle"):
            yield ChatList(self.store)
            with Vertical(id="talk"):
                yield Transcript(id="transcript")
                yield Composer(id="composer")
        yield StatusLine()
        yield Footer(compact=True, show_command_palette=False)

    @property
    def transcript(self) -> Transcript:
        """The conversation on the screen."""
        return self.query_one(Transcript)

    @property
    def composer(self) -> Composer:
        """Where a person writes."""
        return self.query_one(Composer)

    @property
    def status(self) -> StatusLine:
        """The line at the bottom."""
        return self.screen_stack[0].query_one(StatusLine)

    @property
    def chat_id(self) -> int | None:
        """The chat that is open; None before the first question."""
        return self.talk.chat

    @property
    def threshold(self) -> float:
        """The threshold that the next reply begins with."""
        return float(self.overrides.get("threshold", self.wanted.settings.get("threshold", ReplySettings().threshold)))

    def say(self, message: str, severity: str = "information") -> None:
        """Show a message in passing."""
        self.notify(visible(message), severity=severity, markup=False)  # type: ignore[arg-type]

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do something without waiting for it; what the store or a model cannot do is shown, and ends nothing."""
        self.run_worker(self._guarded(work), group="turns")

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except (WsdError, OSError) as error:
            self.say(message_of(error), "error")

    async def run_action(self, *arguments: Any, **named: Any) -> bool:
        """Do something; what the store or a model cannot do is shown, and ends nothing."""
        try:
            return await super().run_action(*arguments, **named)
        except WsdError as error:
            self.say(str(error), "error")
            return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While another screen is over the chat, its keys do nothing to the chat below."""
        names = {command.action.partition("(")[0] for command in keys.COMMANDS} - {"quit"}
        if len(self.screen_stack) > 1 and action in names:
            return False
        return super().check_action(action, parameters)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The guard comes last: no text can steer the terminal."""
        return [*super().get_line_filters(), VISIBLE]

    # -- the list of chats, the theme ------------------------------------------------------------------------

    def show_list(self, shown: bool | None) -> None:
        """Show or hide the list of chats; None leaves it to the width. It can be focused at once."""
        self._listed = shown
        visible_now = self.size.width >= WIDE if shown is None else shown
        screen = self.screen_stack[0]
        screen.query_one(ChatList).styles.display = "block" if visible_now else "none"
        narrow = self.size.width < 80 and visible_now
        screen.query_one("#talk").styles.display = "none" if narrow else "block"

    def on_resize(self) -> None:
        """Another size of the terminal."""
        if self.screen_stack and self.screen_stack[0].query(ChatList):
            self.show_list(self._listed)

    def refresh_list(self) -> None:
        """Read the list of chats again."""
        self.screen_stack[0].query_one(ChatList).refresh_rows(self.talk.chat)

    def watch_theme(self, theme: str) -> None:
        """A theme that a person chose is taken again the next time."""
        if self.is_running and self._look.theme != theme:
            self.start(self.desk.do(self._look.keep, theme))

    def asked(self) -> Entry | None:
        """The question that was chosen with the mouse, else the last one."""
        questions = [entry for entry in self.transcript.entries if entry.role == "user" and entry.id >= 0]
        return next((one for one in questions if one.id == self.chosen), questions[-1] if questions else None)
