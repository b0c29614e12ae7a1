"""Settings of the next replies: every setting of a reply, and presets that keep them under a name.

Contract: the fields are read off `ReplySettings`, so none is missing; the result is the values that differ from the
pair's own, and `system`; or None.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Button, Input, Label, Select, Static

from wsd_chat.next_settings import check
from wsd_chat.screens.box import BOX, Ask, Box
from wsd_local.errors import UsageError, WsdError
from wsd_local.settings import ReplySettings, read_text
from wsd_local.store import Preset
from wsd_local.system.visible import visible

Keep = Callable[[Preset], Awaitable[None]]

_FIRST = (
    "threshold",
    "window",
    "temperature",
    "top_k",
    "top_p",
    "repeat_penalty",
    "seed",
    "draft_temperature",
    "max_tokens",
    "mode",
)
"""The most common ones; all others follow them."""

_LABELS = {
    "threshold": "threshold γ",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "max_tokens": "longest reply",
    "draft_max_tokens": "longest opening",
    "system": "system prompt",
}


def names() -> tuple[str, ...]:
    """All fields in their order: the system prompt and every setting of a reply."""
    declared = [field.name for field in fields(ReplySettings)]
    first = [name for name in _FIRST if name in declared]
    return (first[0], "system", *first[1:], *(name for name in declared if name not in first))


class SettingsScreen(Box):
    """Settings of the next replies."""

    DEFAULT_CSS = f"""SettingsScreen {{ {BOX}
        & > .box {{ height: 90%; }}
        & VerticalScroll {{ height: 1fr; margin: 1 0 0 0; }}
        & .row {{ height: 1; }} & .row Label {{ width: 26; }} & .row Input {{ width: 1fr; }}
        & .buttons {{ height: auto; margin: 1 0 0 0; & Button {{ margin: 0 2 0 0; }} }}
        & .row Button {{ min-width: 5; margin: 0 0 0 1; }}
    }}"""

    def __init__(
        self, values: Mapping[str, Any], presets: Sequence[Preset], keep: Keep, pair: str, own: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self._values, self._keep, self._pair, self._own = values, keep, pair, own
        self._presets = {preset.name: preset for preset in presets}
        self._defaults = {field.name: own.get(field.name, field.default) for field in fields(ReplySettings)}

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Settings for the next replies", classes="title")
            yield Select(self._choices(), prompt="presets", id="preset", compact=True)
            with VerticalScroll(can_focus=False):
                for name in names():
                    with Horizontal(classes="row"):
                        yield Label(_LABELS.get(name, name.replace("_", " ")))
                        yield Input(
                            _text(self._values.get(name)), id=name, placeholder=self._default(name), compact=True
                        )
                        if name == "threshold":
                            yield Button("-", id="less", compact=True)
                            yield Button("+", id="more", compact=True)
            with Horizontal(classes="buttons"):
                yield Button("use", variant="primary", id="use", compact=True)
                yield Button("save as a preset", id="save", compact=True)
            yield Static(
                "an empty field means the default, shown in grey · Esc cancels",
                classes="hint",
                id="message",
                markup=False,
            )

    def on_mount(self) -> None:
        """Begin with the threshold."""
        self.query_one("#threshold", Input).focus()

    def _choices(self) -> list[tuple[str, str]]:
        return [(visible(name, keep_newlines=False), name) for name in self._presets]

    def _default(self, name: str) -> str:
        return "none" if name == "system" else visible(_text(self._defaults[name]) or "none", keep_newlines=False)

    @on(Button.Pressed, "#less")
    def less(self) -> None:
        """A lower threshold: the base takes over earlier."""
        self._step(-0.05)

    @on(Button.Pressed, "#more")
    def more(self) -> None:
        """A higher threshold: the draft writes more."""
        self._step(0.05)

    def _step(self, by: float) -> None:
        threshold = self.query_one("#threshold", Input)
        try:
            threshold.value = f"{max(0.0, float(threshold.value or self._defaults['threshold']) + by):.2f}"
        except ValueError:
            threshold.value = str(ReplySettings().threshold)

    def _read(self) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        try:
            for name in names():
                text = self.query_one(f"#{name}", Input).value.strip()
                if text:
                    found[name] = text if name == "system" else read_text(name, text)
            check(self._own, {name: value for name, value in found.items() if name != "system"})
        except UsageError as error:
            self._say(str(error))
            return None
        return found | {"system": found.get("system", "")}

    def _say(self, text: str) -> None:
        self.query_one("#message", Static).update(visible(text))

    @on(Button.Pressed, "#use")
    @on(Input.Submitted)
    def use(self) -> None:
        """Close, with the values."""
        values = self._read()
        if values is not None:
            self.dismiss(values)

    @on(Button.Pressed, "#save")
    def save(self) -> None:
        """Keep the values under a name."""
        values = self._read()
        if values is None:
            return
        settings = {key: value for key, value in values.items() if key != "system"}

        def named(name: str | None) -> None:
            if name:
                self.run_worker(self._save(Preset(name, self._pair, values["system"] or None, settings)))

        self.app.push_screen(Ask("Name of the preset"), named)

    async def _save(self, preset: Preset) -> None:
        try:
            await self._keep(preset)
        except WsdError as error:
            self._say(str(error))
            return
        self._presets[preset.name] = preset
        with self.prevent(Select.Changed):
            self.query_one(Select).set_options(self._choices())
        self._say(f"saved as {preset.name}")

    @on(Select.Changed, "#preset")
    def preset(self, event: Select.Changed) -> None:
        """Show the values of a preset."""
        if isinstance(event.value, str) and (preset := self._presets.get(event.value)) is not None:
            values = {**preset.settings, "system": preset.system or ""}
            for name in names():
                self.query_one(f"#{name}", Input).value = _text(values.get(name))


def _text(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(value) if isinstance(value, list | tuple) else str(value)
