"""The conversation on the screen: messages as widgets, the last ones mounted, older ones on scrolling up."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Button, Static

from wsd_chat.markdown import source_of
from wsd_chat.reply_view import ReplyMarkdown
from wsd_local.system.visible import visible
from wsd_local.units import plural

WINDOW = 6
"""Messages mounted at first, and with each step upwards: each mounted block makes each change of the layout slower."""

BEFORE = "Ask something. A small aligned model opens the reply (italic); the base model takes over at the mark."
"""What stands in an empty chat before a pair is loaded."""

_BREATH = 4
"""Parts of the time between two drawings that are left for everything else, to one for the drawing."""


@dataclass(slots=True)
class Entry:
    """One message as the screen needs it.

    `drafted` characters at its beginning are the draft's; `alone`: all of it is the base's. `report` is the reply's
    JSON object without its texts, as far as there is one. `place` is its number among its siblings, and their number.
    """

    id: int
    parent: int | None
    role: str
    text: str
    state: str = "finished"
    drafted: int = 0
    label: str = ""
    alone: bool = False
    place: tuple[int, int] = (1, 1)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Markdown with the mark where the base took over."""
        return source_of(self.text, self.drafted if self.role == "assistant" and self.label else None)


class MessageView(Vertical):
    """One message. Clicking it chooses it."""

    DEFAULT_CSS = """
    MessageView {
        height: auto; padding: 0 1; margin: 0 0 1 0; border-left: wide $surface-lighten-2;
        & > .head { color: $text-muted; height: 1; }
        & > .foot { color: $text-muted; height: auto; }
        &.user { border-left: wide $primary; }
        &.user > .body { color: $text; }
        &.assistant { border-left: wide $success; }
        &.notice { border-left: wide $warning; color: $warning; }
        &.error { border-left: wide $error; color: $error; }
        &.chosen { background: $boost; }
    }
    """

    class Chosen(Message):
        """A person clicked a message."""

        def __init__(self, entry: Entry) -> None:
            super().__init__()
            self.entry = entry

    def __init__(self, entry: Entry) -> None:
        super().__init__(classes=entry.role)
        self.entry = entry
        self._changed = False
        self._next = 0.0
        self._footed = self._foot()

    def compose(self) -> ComposeResult:
        entry = self.entry
        if entry.role == "assistant":
            yield ReplyMarkdown(entry.source, label=entry.label, drafted=not entry.alone)
        else:
            yield Static(visible(entry.text), classes="body", markup=False)
        foot = Static(self._footed, classes="foot", markup=False)
        foot.display = bool(self._footed)
        yield foot

    def say(self, text: str) -> None:
        """Add text; shown with the next `flush`."""
        self.entry.text += text
        self._changed = True

    def switch(self, label: str) -> None:
        """The base takes over here."""
        self.entry.label, self.entry.drafted = label, len(self.entry.text)
        self._changed = True

    def flush(self) -> None:
        """Show what was said since the last time, as often as it leaves the screen time for other things."""
        now = time.monotonic()
        if not self._changed or now < self._next:
            return
        self._show()
        self._next = now + _BREATH * (time.monotonic() - now)

    def close(self, entry: Entry) -> None:
        """Nothing more comes: the reply as it was kept."""
        self.entry = entry
        self._show()

    def _show(self) -> None:
        self._changed = False
        entry = self.entry
        for reply in self.query(ReplyMarkdown):  # gone if the chat was left meanwhile
            reply.show(entry.source, label=entry.label, drafted=not entry.alone)
        for foot in self.query(".foot").results(Static):
            text = self._foot()
            if text != self._footed:
                self._footed = text
                foot.update(text)
                foot.display = bool(text)

    def _foot(self) -> str:
        entry, parts = self.entry, []
        if entry.place[1] > 1:
            parts.append(f"‹ {entry.place[0]}/{entry.place[1]} ›")
        if entry.role == "assistant" and "draft" in entry.report:
            draft, base = entry.report["draft"], entry.report["base"]
            if draft["kept_tokens"] and base["tokens"]:
                parts.append(f"opened by {draft['model']} ({plural(draft['kept_tokens'], 'token')})")
                parts.append(f"continued by {base['model']} ({base['tokens']})")
            else:
                writer = draft["model"] if draft["kept_tokens"] or not base["model"] else base["model"]
                parts.append(f"{writer} alone")
            parts.append(f"{entry.report['timings']['total_s']:.1f} s")
        if note := self._state():
            parts.append(note)
        return visible(" · ".join(parts), keep_newlines=False)

    def _state(self) -> str:
        entry = self.entry
        if entry.state == "saving":
            return "is being saved…"
        if entry.state == "unsaved":
            return "not saved yet; it is tried again"
        if entry.state == "cancelled":
            return "stopped — F6 goes on" if entry.text else "stopped before its first word — F5 answers anew"
        if entry.state == "failed":
            return "failed — F6 tries to go on"
        return "cut at the length limit" if entry.report.get("finish_reason") == "length" else ""

    def on_click(self) -> None:
        """Choose this message."""
        self.post_message(self.Chosen(self.entry))


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

    def compose(self) -> ComposeResult:
        yield Button("earlier messages", id="earlier")
        yield Static(self.greeting, id="empty", markup=False)

    def greet(self, text: str) -> None:
        """What stands here while nothing was said."""
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

    def view_of(self, entry_id: int) -> MessageView | None:
        """The widget of a message, if it is mounted."""
        return next((view for view in self.query(MessageView) if view.entry.id == entry_id), None)

    @on(Button.Pressed, "#earlier")
    async def earlier(self) -> None:
        """Mount older messages above; what is read stays where it is."""
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
