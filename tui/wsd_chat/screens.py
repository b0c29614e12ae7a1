"""Smaller screens: a question, help, the log, the model picker, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Label, OptionList, ProgressBar, RichLog, Select, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from wsd_chat.keys import COMMANDS
from wsd_local.errors import ModelError, WsdError
from wsd_local.store import Preset, Store

_CLOSE: list[Any] = [Binding("escape", "dismiss_nothing", "close")]

BOX = """
    align: center middle;
    & > .box { width: 90%; max-width: 100; height: auto; max-height: 90%; border: round $primary;
        background: $surface; padding: 1 2; }
    & .title { text-style: bold; margin: 0 0 1 0; }
    & .hint { color: $text-muted; margin: 1 0 0 0; height: auto; }
"""


READING = (
    "Italic text is the draft's, plain text the base's; the mark between them says how confident the base was when it "
    "took over. Select text with the mouse."
)


class Box(ModalScreen[Any]):
    """A box over the chat; Esc closes it."""

    BINDINGS: ClassVar[list[Any]] = _CLOSE

    def action_dismiss_nothing(self) -> None:
        """Close without a result."""
        self.dismiss(None)


class Ask(Box):
    """One question with one line as its answer."""

    DEFAULT_CSS = f"Ask {{ {BOX} }}"

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__()
        self._question, self._value = question, value

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Label(self._question, classes="title", markup=False)
            yield Input(self._value)
            yield Static("Enter takes it, Esc leaves it", classes="hint")

    @on(Input.Submitted)
    def answered(self, event: Input.Submitted) -> None:
        """Take the answer."""
        self.dismiss(event.value)


class HelpScreen(Box):
    """All keys and slash commands."""

    DEFAULT_CSS = f"HelpScreen {{ {BOX} }}"

    def compose(self) -> ComposeResult:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=True, header_style="bold")
        for column in ("key", "command", "what it does"):
            table.add_column(column)
        fixed = [
            ("enter", "", "send"),
            ("ctrl+j", "", "a new line in your message (also Shift+Enter, Alt+Enter)"),
            ("up, down", "", "your earlier messages"),
            ("ctrl+c", "", "stop; twice: leave"),
            ("ctrl+p", "", "command palette, themes"),
            ("", "/threshold N", "another threshold, also for the reply that is being drafted"),
            ("", "/system TEXT", "system prompt"),
            ("", "/title TEXT", "title of the chat"),
        ]
        for command in COMMANDS:
            table.add_row(command.keys, f"/{command.slash}" if command.slash else "", command.help)
        for row in fixed:
            table.add_row(*row)
        with VerticalScroll(classes="box"):
            yield Static("Keys", classes="title")
            yield Static(table)
            yield Static(
                "Italic text is the draft's, plain text the base's; the mark between them says how", classes="hint"
            )
            yield Static("confident the base was when it took over. Select text with the mouse.", classes="hint")


class LogScreen(Box):
    """What llama.cpp and the program said."""

    DEFAULT_CSS = f"LogScreen {{ {BOX} & > .box {{ height: 90%; max-width: 200; }} }}"

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Log", classes="title")
            yield RichLog(wrap=True, markup=False)
            yield Static(str(self._path or "no log file"), classes="hint", markup=False)

    def on_mount(self) -> None:
        """Show the end of the file."""
        log = self.query_one(RichLog)
        if self._path is not None and self._path.exists():
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines[-2000:]:
                log.write(line)
        log.focus()


class ModelPicker(Box):
    """Pairs: which are here, which fit; a pair that is not here is fetched."""

    DEFAULT_CSS = (
        f"ModelPicker {{ {BOX} & ProgressBar {{ display: none; }} & OptionList {{ height: auto; max-height: 20; }} }}"
    )

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current
        self._pulling = False
        self._trouble = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Pairs", classes="title")
            yield OptionList(markup=False)
            yield ProgressBar(show_eta=True)
            yield Static("looking…", classes="hint", id="said", markup=False)

    def on_mount(self) -> None:
        """Look in the background."""
        self.query_one(OptionList).focus()
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        from wsd_local.inventory import inventory

        try:
            pairs = inventory().pairs
        except WsdError as error:
            self.app.call_from_thread(self._say, str(error))
            return
        rows = []
        for pair in pairs:
            here = "here" if pair.ready else "fetch" + (f" {pair.size / 1e9:.1f} GB" if pair.size else "")
            fits = _fits(pair.draft, pair.base)
            mark = "▸" if pair.name == self._current else " "
            rows.append((pair.name, f"{mark} {pair.name:<14} {here:<14} {fits:<18} {pair.description}"))
        self.app.call_from_thread(self._show, rows)

    def _show(self, rows: list[tuple[str, str]]) -> None:
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(text, id=name) for name, text in rows])
        if rows:
            options.highlighted = 0
        self._say(self._trouble or "Enter loads a pair that is here and fetches one that is not · Esc closes")

    def _say(self, text: str) -> None:
        self.query_one("#said", Static).update(text)

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        """Load, or fetch first."""
        name = event.option.id or ""
        if self._pulling:
            return
        if " here " in str(event.option.prompt):
            self.dismiss(name)
            return
        self._pulling = True
        self.query_one(ProgressBar).display = True
        self._say(f"fetching {name}; Esc stops, the next time goes on from there")
        self._pull(name)

    @work(thread=True, exclusive=True, group="pull")
    def _pull(self, name: str) -> None:
        from wsd_local.config import read_config
        from wsd_local.hub import Hub

        worker = get_current_worker()

        def progress(done: int, total: int, _phase: str) -> None:
            if worker.is_cancelled:
                raise WsdError("stopped")
            self.app.call_from_thread(self._progress, done, total)

        try:
            hub = Hub()
            plan = hub.plan(name, None, read_config().pairs)
            for download in plan.downloads:
                hub.fetch(download, progress)
        except WsdError as error:
            self.app.call_from_thread(self._ended, str(error))
            return
        missing = ", ".join(entry.name for entry in plan.to_convert)
        self.app.call_from_thread(self._ended, f"{missing} must be converted: see the README" if missing else "")

    def _progress(self, done: int, total: int) -> None:
        self.query_one(ProgressBar).update(total=total, progress=done)

    def _ended(self, trouble: str) -> None:
        self._pulling, self._trouble = False, trouble
        self.query_one(ProgressBar).display = False
        self._look()

    def action_dismiss_nothing(self) -> None:
        """Stop fetching, and close."""
        self.workers.cancel_group(self, "pull")
        self.dismiss(None)


def _fits(draft: str, base: str) -> str:
    """Whether two models fit this machine, in a few words."""
    from wsd_local.placing import expected, placed
    from wsd_local.settings import LoadSettings

    try:
        plan = placed({"draft": expected(draft)[0], "base": expected(base)[0]}, LoadSettings())
    except ModelError:
        return "a file is missing"
    except WsdError:
        return "does not fit"
    if plan.given_up:
        return "fits, with less"
    layers = [placement.gpu_layers for placement in plan.placements.values()]
    return "fits, on the GPU" if plan.machine.devices and all(layers) else "fits"


class SettingsScreen(Box):
    """Threshold, sampling, system prompt; presets keep them under a name."""

    DEFAULT_CSS = f"""SettingsScreen {{ {BOX}
        & .row {{ height: 3; }} & .row Label {{ width: 18; padding: 1 0; }} & .row Input {{ width: 1fr; }}
        & Button {{ min-width: 4; }}
    }}"""
    FIELDS = (
        ("threshold", "threshold γ"),
        ("temperature", "temperature"),
        ("top_p", "top-p"),
        ("draft_temperature", "draft temperature"),
        ("max_tokens", "longest reply"),
        ("system", "system prompt"),
    )

    def __init__(self, values: dict[str, Any], store: Store, pair: str) -> None:
        super().__init__()
        self._values, self._store, self._pair = values, store, pair

    def compose(self) -> ComposeResult:
        presets = [(preset.name, preset.name) for preset in self._store.presets()]
        with VerticalScroll(classes="box"):
            yield Static("Settings of the next replies", classes="title")
            yield Select(presets, prompt="presets", id="preset")
            for name, label in self.FIELDS:
                with Horizontal(classes="row"):
                    yield Label(label)
                    if name == "threshold":
                        yield Button("-", id="less")
                    yield Input(str(self._values.get(name, "")), id=name, placeholder="default")
                    if name == "threshold":
                        yield Button("+", id="more")
            with Horizontal(classes="row"):
                yield Button("use", variant="primary", id="use")
                yield Button("save as a preset", id="save")
            yield Static(
                "an empty field is the default · Esc leaves all as it was", classes="hint", id="said", markup=False
            )

    def on_mount(self) -> None:
        """Begin with the threshold."""
        self.query_one("#threshold", Input).focus()

    @on(Button.Pressed, "#less")
    def less(self) -> None:
        """A lower threshold: the base takes over earlier."""
        self._step(-0.05)

    @on(Button.Pressed, "#more")
    def more(self) -> None:
        """A higher threshold: the draft writes more."""
        self._step(0.05)

    def _step(self, by: float) -> None:
        field = self.query_one("#threshold", Input)
        try:
            field.value = f"{max(0.0, float(field.value or 0.8) + by):.2f}"
        except ValueError:
            field.value = "0.8"

    def _read(self) -> dict[str, Any] | None:
        from wsd_local.errors import UsageError
        from wsd_local.settings import ReplySettings, changed, read_text

        found: dict[str, Any] = {}
        for name, _ in self.FIELDS:
            text = self.query_one(f"#{name}", Input).value.strip()
            if text:
                found[name] = text if name == "system" else read_text(name, text)
        try:
            changed(ReplySettings(), {name: value for name, value in found.items() if name != "system"})
        except UsageError as error:
            self.query_one("#said", Static).update(str(error))
            return None
        return found | {"system": found.get("system", "")}

    @on(Button.Pressed, "#use")
    @on(Input.Submitted)
    def use(self) -> None:
        """Take the values."""
        values = self._read()
        if values is not None:
            self.dismiss(values)

    @on(Button.Pressed, "#save")
    def save(self) -> None:
        """Keep the values under a name."""
        values = self._read()
        if values is None:
            return

        def named(name: str | None) -> None:
            if name:
                settings = {key: value for key, value in values.items() if key != "system"}
                try:
                    self._store.save_preset(Preset(name, self._pair, values["system"] or None, settings))
                    said = f"kept as {name}"
                except WsdError as error:
                    said = str(error)
                self.query_one("#said", Static).update(said)

        self.app.push_screen(Ask("Name of the preset"), named)

    @on(Select.Changed, "#preset")
    def preset(self, event: Select.Changed) -> None:
        """Show the values of a preset."""
        for preset in self._store.presets():
            if preset.name == event.value:
                values = {**preset.settings, "system": preset.system or ""}
                for name, _ in self.FIELDS:
                    self.query_one(f"#{name}", Input).value = str(values.get(name, ""))
