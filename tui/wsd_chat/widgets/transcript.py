"""The conversation on the screen: messages as widgets, the last ones mounted, older ones on scrolling up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.reactive import reactive
from textual.widgets import Button, Static

from wsd_chat.entries import Entry
from wsd_chat.widgets.message import MessageView

WINDOW = 6
"""Messages mounted at first, and with each step upwards: each of them slows down every change of the layout."""

BEFORE = "Ask something. A small aligned model opens the reply (italic); the base model takes over at the mark."
"""The text of an empty chat before a pair is loaded."""


class Transcript(VerticalScroll):
    """The branch that is shown. Follows new text unless a person has scrolled away."""

    DEFAULT_CSS = """
    Transcript { padding: 1 2 0 2; scrollbar-gutter: stable; }
    Transcript > #earlier { width: 100%; margin: 0 0 1 0; display: none; }
    Transcript > #empty { color: $text-muted; width: 100%; height: auto; text-align: center; padding: 2 0; }
    """

    can_focus = True
    first: reactive[int] = reactive(0)

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.entries: list[Entry] = []
        self.greeting = BEFORE
        self._chosen: int | None = None

    def compose(self) -> ComposeResult:
        yield Button("earlier messages", id="earlier")
        yield Static(self.greeting, id="empty", markup=False)

    def greet(self, text: str) -> None:
        """Set the text of an empty chat."""
        self.greeting = text
        self.query_one("#empty", Static).update(text)

    async def show(self, entries: Iterable[Entry]) -> None:
        """Show another branch, its end first; messages that are there already stay."""
        self.entries = list(entries)
        self.first = max(0, len(self.entries) - WINDOW)
        wanted, views = self.entries[self.first :], list(self.query(MessageView))
        kept = 0
        while kept < min(len(wanted), len(views)) and views[kept].entry == wanted[kept]:
            kept += 1
        with self.app.batch_update():
            for view in views[kept:]:
                await view.remove()
            await self.mount_all([MessageView(entry) for entry in wanted[kept:]])
        self._note()
        self.anchor()
        self.scroll_end(animate=False)

    async def add(self, entry: Entry) -> MessageView:
        """Put a message at the end."""
        self.entries.append(entry)
        view = MessageView(entry)
        await self._drop_oldest()
        await self.mount(view)
        self._note()
        self.anchor()
        return view

    async def echo(self, text: str, parent: int | None) -> None:
        """Show a question that is being saved, below what it answers."""
        ids = [entry.id for entry in self.entries]
        above = self.entries[: ids.index(parent) + 1] if parent in ids else []
        await self.show([*above, Entry(-1, parent, "user", text, "saving")])

    async def warn(self, message: str) -> None:
        """Show an error below the conversation; it is no part of it."""
        await self.add(Entry(-1, None, "error", message))
        self.entries.pop()

    async def _drop_oldest(self) -> None:
        """Keep the window small while a person reads its end."""
        views = list(self.query(MessageView))
        if len(views) >= WINDOW and self.is_vertical_scroll_end:
            for view in views[: len(views) - WINDOW + 1]:
                await view.remove()
                self.first += 1

    @property
    def chosen(self) -> Entry | None:
        """The message that was chosen with the mouse."""
        return next((entry for entry in self.entries if entry.id == self._chosen), None)

    @property
    def question(self) -> Entry | None:
        """The chosen question, else the last one."""
        return self._chosen_or_last([entry for entry in self.entries if entry.role == "user" and entry.id >= 0])

    @property
    def reply(self) -> Entry | None:
        """The chosen reply, else the last one; one without text does not count."""
        return self._chosen_or_last([entry for entry in self.entries if entry.role == "assistant" and entry.text])

    def choose(self, entry_id: int | None) -> None:
        """Mark a message as chosen; None marks none."""
        self._chosen = entry_id
        for view in self.query(MessageView):
            view.set_class(view.entry.id == entry_id, "chosen")

    def on_message_view_chosen(self, message: MessageView.Chosen) -> None:
        """A click chooses a message; a second click takes that back."""
        self.choose(None if self._chosen == message.entry.id else message.entry.id)

    def _chosen_or_last(self, entries: list[Entry]) -> Entry | None:
        return next((entry for entry in entries if entry.id == self._chosen), entries[-1] if entries else None)

    def view_of(self, entry_id: int) -> MessageView | None:
        """The widget of a message, if it is mounted."""
        return next((view for view in self.query(MessageView) if view.entry.id == entry_id), None)

    @on(Button.Pressed, "#earlier")
    async def earlier(self) -> None:
        """Mount older messages above; what is on the screen stays in place."""
        if not self.first:
            return
        begin = max(0, self.first - WINDOW)
        older = [MessageView(entry) for entry in self.entries[begin : self.first]]
        below = self.virtual_size.height - self.scroll_y
        await self.mount_all(older, after=self.query_one("#empty"))
        self.first = begin
        self._note()
        self.call_after_refresh(lambda: self.scroll_to(y=self.virtual_size.height - below, animate=False))

    def watch_scroll_y(self, old: float, new: float) -> None:
        """Scrolling to the top brings older messages."""
        super().watch_scroll_y(old, new)
        if new <= 0 < old and self.first:
            self.run_worker(self.earlier(), exclusive=True, group="earlier")

    def _note(self) -> None:
        self.query_one("#earlier", Button).display = self.first > 0
        self.query_one("#earlier", Button).label = f"{self.first} earlier messages"
        self.query_one("#empty", Static).display = not self.entries
