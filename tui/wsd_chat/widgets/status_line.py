"""The line at the bottom: pair, phase, speed, context, time to the first text."""

from __future__ import annotations

from rich.text import Text
from textual.reactive import reactive
from textual.widgets import Static

from wsd_local.runtime.reply import ReplyProgress
from wsd_local.settings import ReplySettings
from wsd_local.system.visible import visible

_WIDTH = 8
"""Cells of the threshold's bar."""


class StatusLine(Static):
    """What the models do; the end of a line that is too long is cut."""

    DEFAULT_CSS = """
    StatusLine {
        height: 1; background: $panel; color: $text; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    pair: reactive[str] = reactive("")
    phase: reactive[str] = reactive("")
    bound: reactive[tuple[str, float]] = reactive(("threshold", ReplySettings().threshold))
    progress: reactive[ReplyProgress | None] = reactive(None)
    note: reactive[str] = reactive("")
    branch: reactive[str] = reactive("")

    def render(self) -> Text:
        """All parts on one line."""
        parts = [f"{self.pair or 'no pair'}", self.phase or "ready"]
        parts += [part for part in (self.note, self.branch) if part]
        if (progress := self.progress) is not None:
            timings = progress.timings
            rates = (("draft", timings.draft_tokens_per_s), ("base", timings.base_tokens_per_s))
            parts += [f"{name} {rate:.0f} t/s" for name, rate in rates if rate is not None]
            parts.append(f"context {progress.context_tokens}/{progress.n_ctx}")
            if timings.first_text_s is not None:
                parts.append(f"first text {timings.first_text_s:.2f} s")
        name, value = self.bound
        parts.insert(2, f"γ {slider(value)} {value:g}" if name == "threshold" else f"{name} {value:g}")
        return Text(visible(" │ ".join(parts), keep_newlines=False), no_wrap=True, overflow="ellipsis")


def slider(value: float) -> str:
    """A number between 0 and 1 as a bar; above 1 the bar is full and marked."""
    if value > 1:
        return "━" * _WIDTH + "▸"
    at = round(value * (_WIDTH - 1))
    return "━" * at + "●" + "─" * (_WIDTH - 1 - at)
