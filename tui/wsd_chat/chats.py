"""The list of chats, with search."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from wsd_local.errors import WsdError
from wsd_local.store import Store

_MOST = 200


class ChatList(Vertical):
    """Chats that are kept, newest first; the field above finds words in titles and messages."""

    DEFAULT_CSS = """
    ChatList { border-right: solid $panel; }
    ChatList > Input { border: none; height: 1; margin: 0 1; background: $boost; }
    ChatList > OptionList { border: none; height: 1fr; background: transparent; }
    """

    class Opened(Message):
        """A chat was chosen."""

        def __init__(self, chat_id: int) -> None:
            super().__init__()
            self.chat_id = chat_id

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._current: int | None = None

    def compose(self) -> ComposeResult:
        yield Input(placeholder="search chats", id="search")
        yield OptionList(id="chats", markup=False)

    def on_mount(self) -> None:
        """Show what there is."""
        self.refresh_rows(None)

    def focus_search(self) -> None:
        """Begin to search."""
        self.query_one(Input).focus()

    def refresh_rows(self, current: int | None) -> None:
        """Show the chats that match."""
        self._current = current
        rows = self.query_one(OptionList)
        try:
            chats = self._store.chats(self.query_one(Input).value, limit=_MOST)
        except WsdError as error:
            self.app.notify(str(error), severity="error", markup=False)
            return
        rows.clear_options()
        for chat in chats:
            mark = "▸ " if chat.id == current else "  "
            rows.add_option(Option(f"{mark}{chat.title or 'untitled'}", id=str(chat.id)))

    @on(Input.Changed)
    def searched(self) -> None:
        """Another word is searched."""
        self.refresh_rows(self._current)

    @on(Input.Submitted)
    def to_rows(self) -> None:
        """Enter goes to what was found."""
        rows = self.query_one(OptionList)
        rows.focus()
        if rows.option_count:
            rows.highlighted = 0

    @on(OptionList.OptionSelected)
    def selected(self, event: OptionList.OptionSelected) -> None:
        """Open a chat."""
        if event.option.id is not None:
            self.post_message(self.Opened(int(event.option.id)))
