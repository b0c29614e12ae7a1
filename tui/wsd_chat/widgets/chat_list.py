"""The list of chats, with search."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from wsd_chat.store_thread import StoreThread
from wsd_local.errors import WsdError
from wsd_local.store import ChatRow, Store
from wsd_local.system.visible import visible

_MOST = 200
_PAUSE_S = 0.1
"""Pause in typing after which a search begins."""


class ChatList(Vertical):
    """Chats that are kept, newest first; the field above finds words in titles and messages.

    It reads in a thread of its own, so that it is shown while a change waits for another program.
    """

    DEFAULT_CSS = """
    ChatList { border-right: solid $panel; }
    ChatList > Input { margin: 0 1; background: $boost; }
    ChatList > OptionList {
        border: none; height: 1fr; background: transparent; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """
    BINDINGS: ClassVar[list[Any]] = [Binding("escape", "leave", "back to your message", show=False)]

    class Opened(Message):
        """A chat was chosen."""

        def __init__(self, chat_id: int) -> None:
            super().__init__()
            self.chat_id = chat_id

    class Left(Message):
        """Back to the message."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._current: int | None = None
        self._reading = StoreThread("list")

    def compose(self) -> ComposeResult:
        yield Input(placeholder="search chats", id="search", compact=True)
        yield OptionList(id="chats", markup=False)

    def on_mount(self) -> None:
        """Show all chats."""
        self.refresh_rows(None)

    def on_unmount(self) -> None:
        """Stop reading."""
        self._reading.close()

    def focus_search(self) -> None:
        """Focus the search field."""
        self.query_one(Input).focus()

    def refresh_rows(self, current: int | None, pause_s: float = 0.0) -> None:
        """Show the chats that match, once they are read."""
        self._current = current
        self.run_worker(self._refresh(pause_s), exclusive=True, group="rows")

    async def _refresh(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        try:
            chats = await self._reading.do(self._store.chats.find, self.query_one(Input).value, limit=_MOST)
        except WsdError as error:
            self.app.notify(visible(str(error)), severity="error", markup=False)
            return
        self._show(chats)

    def _show(self, chats: list[ChatRow]) -> None:
        rows = self.query_one(OptionList)
        at = rows.highlighted
        rows.clear_options()
        for chat in chats:
            mark = "▸ " if chat.id == self._current else "  "
            title = visible(chat.title, keep_newlines=False) or "untitled"
            rows.add_option(Option(f"{mark}{title}", id=str(chat.id)))
        if at is not None and rows.has_focus and rows.option_count:
            rows.highlighted = min(at, rows.option_count - 1)

    def action_leave(self) -> None:
        """Back to the composer."""
        self.post_message(self.Left())

    @on(Input.Changed)
    def searched(self) -> None:
        """Search again."""
        self.refresh_rows(self._current, _PAUSE_S)

    @on(Input.Submitted)
    def to_rows(self) -> None:
        """Enter goes to the results."""
        rows = self.query_one(OptionList)
        rows.focus()
        if rows.option_count:
            rows.highlighted = 0

    @on(OptionList.OptionSelected)
    def selected(self, event: OptionList.OptionSelected) -> None:
        """Open a chat."""
        if event.option.id is not None:
            self.post_message(self.Opened(int(event.option.id)))
