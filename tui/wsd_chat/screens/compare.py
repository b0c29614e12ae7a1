"""Base alone, draft alone and both, side by side, on the same question."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from wsd_chat.entries import label
from wsd_chat.markdown.source import SWITCH, source_of
from wsd_chat.model_jobs import loaded
from wsd_chat.widgets.reply_markdown import ReplyMarkdown
from wsd_local.events import Switched, Text
from wsd_local.prompts.messages import Message
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.worker import Worker
from wsd_local.settings import of_mode

MODES = (("base", "base alone"), ("draft", "draft alone"), ("wsd", "draft, then base"))


class CompareScreen(Screen[None]):
    """Three replies one after the other, each in its column."""

    DEFAULT_CSS = """
    CompareScreen Horizontal { height: 1fr; }
    CompareScreen VerticalScroll { width: 1fr; border: round $panel; padding: 0 1; }
    CompareScreen .name { text-style: bold; }
    CompareScreen .took { color: $text-muted; }
    CompareScreen.-narrow Horizontal { layout: vertical; }
    CompareScreen.-narrow VerticalScroll { width: 100%; height: 1fr; }
    """
    BINDINGS: ClassVar[list[Any]] = [Binding("escape", "close", "stop and close")]

    def __init__(self, models: Worker, messages: list[Message], overrides: dict[str, Any]) -> None:
        super().__init__()
        self.models, self.messages, self.overrides = models, messages, overrides
        self.replies: dict[str, str] = {}
        self._news: deque[tuple[str, str]] = deque()
        self._left = False

    def compose(self) -> ComposeResult:
        with Horizontal():
            for mode, name in MODES:
                with VerticalScroll(id=f"column-{mode}"):
                    yield Static(name, classes="name", markup=False)
                    yield ReplyMarkdown(drafted=mode != "base")
                    yield Static("waiting", classes="took", markup=False)
        yield Footer(compact=True)

    def on_mount(self) -> None:
        """Begin with the first of them."""
        self.models.submit(self._job)
        self.set_interval(1 / 20, self._flush)

    def _job(self, worker: Worker) -> None:
        pair = loaded(worker)
        for mode, _ in MODES:
            if self._left or worker.stopped:
                return
            for event in pair.stream(self.messages, **{**self.overrides, **of_mode(mode)}):
                if isinstance(event, Text):
                    self._news.append((mode, source_of(event.text, None)))
                elif isinstance(event, Switched) and mode == "wsd":
                    self.call_later(self._relabel, label(event.reason, event.confidence))
                    self._news.append((mode, SWITCH))
                elif isinstance(event, Finished):
                    self.replies[mode] = event.reply.text
                    timings = event.reply.timings
                    first = "" if timings.first_text_s is None else f", first text {timings.first_text_s:.2f} s"
                    self.call_later(self._took, mode, f"{timings.total_s:.1f} s{first}")

    def _relabel(self, text: str) -> None:
        column = self.query_one("#column-wsd ReplyMarkdown", ReplyMarkdown)
        column.show(column.source, label=text, drafted=True)

    def _took(self, mode: str, text: str) -> None:
        self.query_one(f"#column-{mode} .took", Static).update(text)

    def _flush(self) -> None:
        added: dict[str, str] = {}
        while self._news:
            mode, text = self._news.popleft()
            added[mode] = added.get(mode, "") + text
        for mode, text in added.items():
            if self.is_attached:
                self.query_one(f"#column-{mode} ReplyMarkdown", ReplyMarkdown).append(text)

    def action_close(self) -> None:
        """Stop, and back to the chat."""
        self._left = True
        self.models.stop()
        self.dismiss()
