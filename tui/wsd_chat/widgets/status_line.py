"""The line at the bottom: pair, phase, speed, context, time to the first text."""

from __future__ import annotations

from rich.text import Text
from textual.reactive import reactive
from textual.widgets import Static

from wsd_chat.model_jobs import Pulse
from wsd_local.settings import ReplySettings
from wsd_local.system.visible import visible


class StatusLine(Static):
    """What the models do. Parts that do not fit are left out from the right."""

    DEFAULT_CSS = """
    StatusLine {
        height: 1; background: $panel; color: $text; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    """

    pair: reactive[str] = reactive("")
    phase: reactive[str] = reactive("")
    threshold: reactive[float] = reactive(ReplySettings().threshold)
    pulse: reactive[Pulse | None] = reactive(None)
    note: reactive[str] = reactive("")

    def render(self) -> Text:
        """All parts on one line."""
        parts = [f"{self.pair or 'no pair'}", self.phase or "ready"]
        if self.note:
            parts.append(self.note)
        if (pulse := self.pulse) is not None:
            rates = [
                f"{name} {rate:.0f} t/s"
                for name, rate in (("draft", pulse.draft_rate), ("base", pulse.base_rate))
                if rate is not None
            ]
            parts += rates
            parts.append(f"context {pulse.used}/{pulse.n_ctx}")
            if pulse.first_text_s is not None:
                parts.append(f"first text {pulse.first_text_s:.2f} s")
        parts.insert(2, f"γ {slider(self.threshold)} {self.threshold:g}")
        return Text(visible(" │ ".join(parts), keep_newlines=False), no_wrap=True, overflow="ellipsis")


def slider(value: float, width: int = 8) -> str:
    """A number between 0 and 1 as a bar; above 1 the bar is full and marked."""
    if value > 1:
        return "━" * width + "▸"
    at = round(value * (width - 1))
    return "━" * at + "●" + "─" * (width - 1 - at)
