"""The switch view: a reply token by token, with the base's scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import DataTable, Footer, Static
from textual_plotext import PlotextPlot

from wsd_chat.entries import Entry
from wsd_chat.model_jobs import loaded
from wsd_local.core.written import ReplyToken
from wsd_local.prompts.messages import Message
from wsd_local.runtime.worker import Worker
from wsd_local.system.visible import visible

_REASONS = {
    "threshold": "a window of the base's probabilities reached the threshold",
    "draft_end": "the draft had ended and no window had passed",
    "draft_limit": "the draft had reached its limit and no window had passed",
    "loop": "the draft only repeated itself",
    "length": "the reply had reached its limit",
    "stop": "the draft wrote a stop string",
    "user": "you handed over",
    "match": "the draft's next word began with the base's most probable token",
    "veto": "the base replaced a word of the draft",
    "cancelled": "it was stopped while the draft was writing",
    "none": "one model wrote alone",
}
_REACHED = {
    "entropy": "the mean entropy of a window was low enough",
    "nudging": "the base's largest probability reached the threshold",
}
"""The reason `threshold` by rules other than the usual one."""
_DISTANCES = ("veto", "bet")
"""Rules whose confidence is how far the base's probability lies below what the draft claims."""


class SwitchView(Screen[None]):
    """Per token its writer, the base's probability and the window's mean; a chart; the reason of the switch."""

    DEFAULT_CSS = """
    SwitchView > #why { height: auto; padding: 0 1; background: $panel; }
    SwitchView > PlotextPlot { height: 40%; min-height: 8; }
    SwitchView > DataTable { height: 1fr; }
    SwitchView.-low > PlotextPlot { display: none; }
    """
    BINDINGS: ClassVar[list[Any]] = [
        Binding("escape,f2", "close", "close"),
        Binding("o", "others", "the base's top tokens"),
    ]

    def __init__(self, entry: Entry, tokens: Sequence[ReplyToken], messages: list[Message], models: Worker) -> None:
        super().__init__()
        self.entry = entry
        self.models = models
        self.messages = messages
        self.tokens = tokens
        self._switch: dict[str, Any] = entry.report.get("switch") or {}

    def compose(self) -> ComposeResult:
        yield Static(self._why(), id="why", markup=False)
        yield PlotextPlot()
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Footer(compact=True)

    def _why(self) -> str:
        switch = self._switch
        rule, why = switch.get("rule", "window"), switch.get("reason") or "cancelled"
        reason = (_REACHED if why == "threshold" else {}).get(rule) or _REASONS.get(why, str(why))
        at = "" if switch.get("index") is None else f" at token {switch['index']}"
        confidence = "" if switch.get("confidence") is None else f", {switch['confidence']:.3f}"
        lines = [f"switch: {reason}{at}{confidence}{self._settings(rule)}"]
        lines += self._turns()
        if self.entry.state in ("cancelled", "failed"):
            lines.append(f"the reply was {'stopped' if self.entry.state == 'cancelled' else 'cut by an error'}")
        if discarded := self.entry.report.get("discarded"):
            lines.append(f"discarded draft text: {_shown(discarded)}")
        return "\n".join(lines)

    def _settings(self, rule: str) -> str:
        """What the rule went by."""
        if "window" not in self._switch:
            return ""
        name = "" if rule == "window" else f"rule {rule}, "
        window = "" if rule == "nudging" or rule in _DISTANCES else f"window {self._switch['window']}, "
        return f" ({name}{window}threshold {self._switch['threshold']:.3g})"

    def _turns(self) -> list[str]:
        """Who wrote which tokens, where the draft came back."""
        turns = self.entry.report.get("turns") or []
        if len(turns) <= 2:
            return []
        parts = []
        for turn in turns:
            confidence = "" if turn["confidence"] is None else f" {turn['confidence']:.2f}"
            parts.append(f"{turn['who']} {turn['from']}-{turn['to'] - 1} ({turn['reason']}{confidence})")
        return ["turns: " + ", ".join(parts)]

    def on_mount(self) -> None:
        """Fill table and chart."""
        table = self.query_one(DataTable)
        table.add_columns("#", "token", "written by", "base's probability", self._measure("window"), "")
        threshold = self._switch.get("threshold")
        for index, token in enumerate(self.tokens):
            prob, window = token.prob, token.window
            here = "◀ switch" if index == self._switch.get("index") else ""
            bar = "" if prob is None else "█" * round(prob * 10)
            passed = window is not None and threshold is not None and window >= threshold
            table.add_row(
                str(index),
                _shown(token.text),
                token.source,
                "" if prob is None else f"{prob:.3f} {bar}",
                "" if window is None else f"{window:.3f}{' ≥' if passed else ''}",
                here,
            )
        self._draw(threshold)
        table.focus()

    def _measure(self, usual: str) -> str:
        """What the rule holds against its threshold."""
        return "below the draft's claim" if self._switch.get("rule") in _DISTANCES else usual

    def _draw(self, threshold: float | None) -> None:
        plot = self.query_one(PlotextPlot)
        drafted = [token for token in self.tokens if token.source == "draft"]
        probs = [(index, token.prob) for index, token in enumerate(drafted) if token.prob is not None]
        windows = [(index, token.window) for index, token in enumerate(drafted) if token.window is not None]
        plt = plot.plt
        plt.ylim(0, 1)
        plt.xlabel("token of the draft")
        if probs:
            plt.scatter(*map(list, zip(*probs, strict=True)), label="base's probability", marker="dot")
        if windows:
            plt.plot(*map(list, zip(*windows, strict=True)), label=self._measure("mean of the window"))
        if threshold is not None and threshold <= 1 and drafted:
            plt.plot([0, max(1, len(drafted) - 1)], [threshold, threshold], label="threshold")

    def action_close(self) -> None:
        """Back to the chat."""
        self.dismiss()

    def action_others(self) -> None:
        """Compute the base's most probable token at each place of the draft."""
        from wsd_local.runtime.alternatives import favourites

        if any(token.id < 0 for token in self.tokens):
            self.app.notify("this reply was cut before its tokens were kept", severity="warning", markup=False)
            return

        def job(worker: Worker) -> None:
            found = favourites(loaded(worker).models, self.messages, [token.id for token in self.tokens])
            self.call_later(self._favour, found)

        self.models.submit(job)

    def _favour(self, found: list[tuple[str, float]]) -> None:
        table = self.query_one(DataTable)
        if len(table.columns) == 6:
            table.add_column("base's favourite", key="favourite")
        for row, (text, prob) in zip(list(table.rows), found, strict=False):
            table.update_cell(row, "favourite", f"{_shown(text)} {prob:.2f}")


def _shown(text: str) -> str:
    return visible(text.replace("\n", "⏎").replace("\t", "⇥")) or "·"
