"""One message on the screen."""

from __future__ import annotations

import time

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import Static

from wsd_chat.entries import Entry
from wsd_chat.widgets.reply_markdown import ReplyMarkdown
from wsd_local.events import RETURNS
from wsd_local.system.visible import visible
from wsd_local.units import plural

_BREATH = 4
"""Time left between two drawings for everything else, in multiples of what a drawing takes."""


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
        """A message was clicked."""

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

    def append(self, text: str) -> None:
        """Add text; the next `flush` shows it."""
        self.entry.text += text
        self._changed = True

    def switch(self, label: str) -> None:
        """The base takes over here."""
        self.entry.label, self.entry.drafted = label, len(self.entry.text)
        self._changed = True

    def flush(self) -> None:
        """Show what was added since the last time, unless drawing would leave too little time for everything else."""
        now = time.monotonic()
        if not self._changed or now < self._next:
            return
        self._show()
        self._next = now + _BREATH * (time.monotonic() - now)

    def close(self, entry: Entry) -> None:
        """Show the reply as it is kept; nothing more is added."""
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
        if entry.state == "writing":  # what is known of a reply that is continued no longer holds
            return " · ".join(parts)
        if entry.role == "assistant" and "draft" in entry.report:
            draft, base = entry.report["draft"], entry.report["base"]
            if draft["kept_tokens"] and base["tokens"]:
                parts.append(f"opened by {draft['model']} ({plural(draft['kept_tokens'], 'token')})")
                parts.append(f"continued by {base['model']} ({base['tokens']})")
            elif entry.text:
                writer = draft["model"] if draft["kept_tokens"] or not base["model"] else base["model"]
                parts.append(f"{writer} alone")
            if returns := sum(turn["reason"] in RETURNS for turn in entry.report.get("turns") or ()):
                parts.append(plural(returns, "return") + " of the draft")
            parts.append(f"{entry.report['timings']['total_s']:.1f} s")
        if note := self._state():
            parts.append(note)
        return visible(" · ".join(parts), keep_newlines=False)

    def _state(self) -> str:
        entry = self.entry
        if entry.state == "saving":
            return "saving…"
        if entry.state == "unsaved":
            return "not saved yet; trying again"
        if entry.state == "cancelled":
            return "stopped — F6 continues" if entry.text else "stopped before its first word — F5 answers again"
        if entry.state == "finished" and entry.role == "assistant" and not entry.text:
            return "an empty reply: the model ended it before its first word"
        if entry.state == "failed":
            return "failed — F6 tries to continue"
        if entry.report.get("finish_reason") == "loop":
            return "ended: it only repeated itself"
        return "cut at the length limit — F6 continues" if entry.report.get("finish_reason") == "length" else ""

    def on_click(self) -> None:
        """Choose this message."""
        self.post_message(self.Chosen(self.entry))
