"""The model picker: pairs, and any two models on this machine.

Contract: finds and fetches models in threads of its own; the result is a `Choice`, or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import OptionList, ProgressBar, Static
from textual.widgets.option_list import Option
from textual.worker import get_current_worker

from wsd_chat.screens.box import BOX, Box
from wsd_local.errors import ModelError, WsdError
from wsd_local.library.catalog import DEFAULT_PAIR
from wsd_local.system.visible import visible
from wsd_local.units import gb

Choice = str | tuple[str, str]
"""A pair's name, or a draft and a base."""

_TWO = "two models"
_HINT = "Enter loads a pair that is here and fetches one that is not · Esc closes"


@dataclass(slots=True)
class _Found:
    """Rows of the list: pairs by name, models by name or path; `ready` are the pairs that are here."""

    pairs: dict[str, str] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=dict)


class ModelPicker(Box):
    """Pairs: which are here, which fit; one that is not here is fetched. Or a draft and a base."""

    DEFAULT_CSS = (
        f"ModelPicker {{ {BOX} & ProgressBar {{ display: none; }} & OptionList {{ height: auto; max-height: 60vh;"
        " text-wrap: nowrap; text-overflow: ellipsis; }"
        " &.-low OptionList { max-height: 45vh; } }"
    )

    def __init__(self, current: str) -> None:
        super().__init__()
        self._current = current
        self._pulling = False
        self._trouble = ""
        self._found = _Found()
        self._draft: str | None = None
        self._choosing = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Pairs", classes="title", id="title", markup=False)
            yield OptionList(markup=False)
            yield ProgressBar(show_eta=True)
            yield Static("looking…", classes="hint", id="message", markup=False)

    def on_mount(self) -> None:
        """Look for models in the background."""
        self.query_one(OptionList).focus()
        self._look()

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        from wsd_local.config import read_config
        from wsd_local.library.listing import inventory
        from wsd_local.library.local import found_elsewhere

        try:
            there, elsewhere = inventory(read_config().pairs), found_elsewhere()
        except WsdError as error:
            self.app.call_from_thread(self._say, str(error))
            return
        found = _Found()
        rows: dict[str, tuple[str, ...]] = {}
        for pair in sorted(there.pairs, key=lambda pair: pair.name == DEFAULT_PAIR):  # which is for a first try
            here = "here" if pair.ready else "fetch" + (f" {pair.size / 1e9:.1f} GB" if pair.size else "")
            mark = "▸" if pair.name == self._current else " "
            rows[pair.name] = (f"{mark} {pair.name}", here, _fits(pair.draft, pair.base), pair.description)
            if pair.ready:
                found.ready.add(pair.name)
        found.pairs, rows = _lined_up(rows), {}
        for model in there.models:
            if model.usable:
                size = "" if model.size is None else gb(model.size)
                rows[model.name] = (f"  {model.name}", model.quantization, size, model.description)
        known = {model.path for model in there.models}
        for other in elsewhere:
            if str(other.path) not in known:
                rows[str(other.path)] = (f"  {other.name}", "", "", f"of {other.program}")
        found.models = _lined_up(rows)
        self.app.call_from_thread(self._show_pairs, found)

    def _show_pairs(self, found: _Found) -> None:
        self._found = found
        rows = [Option(text, id=name) for name, text in found.pairs.items()]
        if found.models:
            rows += [Option("  two models on this machine: choose the draft, then the base …", id=_TWO)]
        self._fill("Pairs", rows, self._trouble or _HINT)

    def _show_models(self) -> None:
        """All models on this machine, for one of the two roles."""
        role = "draft: small, tuned to chat" if self._draft is None else f"base that continues after {self._draft}"
        rows = [Option(text, id=name) for name, text in self._found.models.items()]
        self._fill(f"The {role}", rows, "Enter chooses · Esc goes back")

    def _fill(self, title: str, rows: list[Option], hint: str) -> None:
        self.query_one("#title", Static).update(visible(title, keep_newlines=False))
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options(rows)
        if rows:
            options.highlighted = 0
        self._say(hint)

    def _say(self, text: str) -> None:
        self.query_one("#message", Static).update(visible(text))

    @on(OptionList.OptionSelected)
    def chosen(self, event: OptionList.OptionSelected) -> None:
        """Load, or fetch first; or choose the second model."""
        if self._pulling:
            return
        name = event.option.id or ""
        if name == _TWO:
            self._choosing = True
            self._show_models()
        elif self._choosing and self._draft is None:
            self._draft = name
            self._show_models()
        elif self._choosing and self._draft is not None:
            self.dismiss((self._draft, name))
        elif name in self._found.ready:
            self.dismiss(name)
        else:
            self._pulling = True
            self.query_one(ProgressBar).display = True
            self._say(f"fetching {name}; Esc stops; fetching it again resumes")
            self._pull(name)

    @work(thread=True, exclusive=True, group="pull")
    def _pull(self, name: str) -> None:
        from wsd_local.config import read_config
        from wsd_local.library.fetching import Fetching, licence_line
        from wsd_local.library.resolve import how_to_get

        worker = get_current_worker()

        def progress(done: int, total: int, _phase: str) -> None:
            if worker.is_cancelled:
                raise WsdError("stopped")
            self.app.call_from_thread(self._progress, done, total)

        try:
            fetching = Fetching(note=lambda line: self.app.call_from_thread(self._say, line))
            if fetching.hub.note is not None:
                self.app.call_from_thread(self._say, fetching.hub.note)
            plan = fetching.plan(name, None, read_config().pairs)
            for download in plan.downloads:
                if (terms := licence_line(download)) is not None:
                    self.app.call_from_thread(self._say, terms)
                fetching.fetch(download, progress)
        except WsdError as error:
            self.app.call_from_thread(self._ended, str(error))
            return
        missing = "; ".join(f"{entry.name} is still missing: {how_to_get(entry)}" for entry in plan.to_convert)
        self.app.call_from_thread(self._ended, missing)

    def _progress(self, done: int, total: int) -> None:
        self.query_one(ProgressBar).update(total=total, progress=done)

    def _ended(self, trouble: str) -> None:
        self._pulling, self._trouble = False, trouble
        self.query_one(ProgressBar).display = False
        self._look()

    def action_dismiss_nothing(self) -> None:
        """One step back; from the pairs: stop fetching, and close."""
        if self._choosing:
            self._choosing = self._draft is not None
            self._draft = None
            if self._choosing:
                self._show_models()
            else:
                self._show_pairs(self._found)
            return
        self.workers.cancel_group(self, "pull")
        self.dismiss(None)


def _lined_up(rows: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Rows with columns as wide as their texts, so that the last one has as much room as there is."""
    columns = [[visible(text, keep_newlines=False) for text in column] for column in zip(*rows.values(), strict=True)]
    wide = [max(map(cell_len, column)) for column in columns]
    return {
        key: "  ".join(map(set_cell_size, row, wide)).rstrip()
        for key, row in zip(rows, zip(*columns, strict=True), strict=True)
    }


def _fits(draft: str, base: str) -> str:
    """Whether two models fit this machine, in a few words."""
    from wsd_local.placement.fit import expected, placed
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
