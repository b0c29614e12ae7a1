"""`wsd-local tune`: what this machine does with a pair, and which settings make its replies faster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from wsd_local.cli import terminal
from wsd_local.cli.options import (
    NOTHING,
    Debug,
    Given,
    Json,
    PairName,
    Verbose,
    models_named,
    models_of,
    setting_values,
    settings_named,
    show_native_log,
    takes,
)
from wsd_local.cli.progress import Reporter
from wsd_local.errors import CancelledError, UsageError
from wsd_local.fields import declared

if TYPE_CHECKING:
    from wsd_local.reports.tune.tuning import Tuned

LEAST_MINUTES, MOST_MINUTES = 0.05, 60.0
_REPORT_EVERY_S = 10.0

SETTINGS = (
    "draft_lora",
    "draft_lora_scale",
    "base_lora",
    "base_lora_scale",
    "window",
    "threshold",
    "check_chunk",
    "speculation",
    "ctx",
    "threads",
    "ubatch",
    "n_gpu_layers",
    "draft_n_gpu_layers",
    "base_n_gpu_layers",
    "cache_type_k",
    "cache_type_v",
    "flash_attn",
    "load_mode",
)


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How long it may take, and where the result goes.

    Raises:
        UsageError: the time or the length of replies is outside its range.
    """

    minutes: float = 5.0
    """Time of the measurement, after loading."""
    tokens: int = 64
    """Longest whole reply, in base tokens; shorter where the base is slow."""
    keep_draft: bool = False
    """Measure no drafts of other types."""
    write: bool = False
    """Write what is recommended to the pair in config.toml; a draft of another type is made and gets a name."""
    quiet: bool = False
    """Show no progress."""

    def __post_init__(self) -> None:
        if not LEAST_MINUTES <= self.minutes <= MOST_MINUTES:
            raise UsageError(f"minutes is {self.minutes}: it must lie between {LEAST_MINUTES:g} and {MOST_MINUTES:g}")
        if self.tokens < 8:
            raise UsageError(f"tokens is {self.tokens}: it must be at least 8")


@takes(
    how=declared(TuneOptions).values(),
    models=models_named("draft", "base", "base_format"),
    settings=settings_named(*SETTINGS),
)
def tune(
    pair: PairName = None,
    /,
    *,
    how: Given = NOTHING,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Find the settings with which a pair is fastest on this machine."""
    from wsd_local.cli.tables import print_json
    from wsd_local.config import read_config
    from wsd_local.library.catalog import DEFAULT_PAIR

    wanted = TuneOptions(**how)
    if wanted.write and models:
        raise UsageError(
            "--write is given with models in place of the pair's: make a pair of them in config.toml first"
        )
    show_native_log(verbose)
    config = read_config()
    name = (config.pair if pair is None else pair) or DEFAULT_PAIR
    values = {**config.settings_of(pair, models), **setting_values(settings), "parallel": 1, "prompt_cache": "off"}
    reporter = Reporter(wanted.quiet)
    try:
        found = _tuned(wanted, name, models_of(models), values, [*settings], reporter)
    finally:
        reporter.close()
    written = _write(name, found, reporter) if wanted.write else None
    if as_json:
        print_json({"pair": name, "written": None if written is None else str(written)} | found.as_dict())
    else:
        files = {role: Path(models[role]).stem for role in ("draft", "base") if role in models}
        _show(found, name, wanted, files)


def _tuned(
    wanted: TuneOptions,
    name: str,
    models: Mapping[str, Any],
    values: Mapping[str, Any],
    held: list[str],
    reporter: Reporter,
) -> Tuned:
    from wsd_local.datasets import read
    from wsd_local.events import Source
    from wsd_local.paths import cache_dir, make_folder, own_prompts
    from wsd_local.reports.tune.tuning import Hooks, Tuning, Wanted
    from wsd_local.runtime.pair import load
    from wsd_local.system.interrupt import interruptible

    make_folder(cache_dir())
    if wanted.keep_draft:
        held.append("draft")
    with interruptible() as interrupt, TemporaryDirectory(prefix="tune-", dir=cache_dir()) as folder:

        def loading(role: Source, fraction: float) -> bool:
            reporter.wait(f"loading the {role} model: {fraction:.0%}")
            return not interrupt.requested

        with load(name, progress=loading, **models, **values) as pair, _shown(reporter, wanted) as show:
            stops: list[Callable[[], None]] = []

            def progress(what: str) -> None:
                if interrupt.requested:
                    raise CancelledError("interrupted")
                show(what)

            measuring = Tuning(
                pair,
                read(own_prompts()).items,
                Path(folder),
                Wanted(wanted.minutes * 60, held, wanted.tokens),
                Hooks(progress, stops.append),
                time.perf_counter,
            )
            stops.append(measuring.cancel)

            def stop_all() -> None:
                for stop in list(stops):
                    stop()

            interrupt.on_request(stop_all)
            return measuring.run()


@contextmanager
def _shown(reporter: Reporter, wanted: TuneOptions) -> Iterator[Callable[[str], None]]:
    """Show what is measured now and how much of the time is left; call what this gives with what is next."""
    from rich.progress import BarColumn, Progress, TextColumn

    reporter.close()
    console = terminal.console(stderr=True)
    shows = console.is_terminal and not wanted.quiet
    begun, seconds = time.monotonic(), wanted.minutes * 60
    reported = begun
    columns = (
        BarColumn(bar_width=12),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=not shows) as bar:
        task = bar.add_task("", total=seconds, left="")

        def show(what: str) -> None:
            nonlocal reported
            now = time.monotonic()
            left = f"{max(0.0, seconds - (now - begun)):.0f} s left"
            bar.update(task, completed=min(now - begun, seconds), description=what, left=left)
            if not shows and not wanted.quiet and now - reported >= _REPORT_EVERY_S:
                reported = now
                terminal.message(f"{left} · {what}")

        yield show


def _show(found: Tuned, name: str, wanted: TuneOptions, files: Mapping[str, str]) -> None:
    from wsd_local.cli.tables import plain_table, print_tables
    from wsd_local.reports.tune.words import PART_COLUMNS, REPLY_COLUMNS, part_rows, reply_rows, sentences

    what = " and ".join(files.values()) if len(files) > 1 else ", ".join([name, *files.values()])
    title = f"{what} on this machine, in {found.seconds:.0f} s, draft in {found.source.kind}"
    parts = plain_table(title, PART_COLUMNS, {3, 5})
    for row in part_rows(found):
        parts.add_row(*row)
    replies = plain_table(f"Whole replies of {found.lengths.reply} tokens, in turns", REPLY_COLUMNS, {1, 3})
    for row in reply_rows(found):
        replies.add_row(*row)
    print_tables(parts, *([replies] if found.confirmed else []))
    terminal.line("")
    for line in sentences(found):
        terminal.line(line)
    if found.recommended and not wanted.write and not files:
        terminal.line(f"wsd-local tune {name} --write measures again, and writes what it recommends to config.toml.")


def _write(name: str, found: Tuned, reporter: Reporter) -> Path | None:
    """Make the recommended draft, if it is another one, and write the settings; None if there is nothing to write."""
    from wsd_local.config import write_pair_settings

    values = dict(found.recommended)
    if not values:
        reporter.report("nothing is written: the recommendation is to stay with the present settings")
        return None
    kind = values.pop("draft", None)
    draft = None if kind is None else _made_draft(name, found, kind)
    path = write_pair_settings(name, values, draft=draft)
    reporter.report(f"written: [pairs.{name}] in {path}" + ("" if draft is None else f", with the draft {draft}"))
    return path


def _made_draft(name: str, found: Tuned, kind: str) -> str:
    """The name of the draft in another type, which is made and registered unless it is here already."""
    from wsd_local.cli.convert import steps_shown
    from wsd_local.config import read_config
    from wsd_local.library.made import free_target, quantised_name, remember_made
    from wsd_local.library.quantize import quantize
    from wsd_local.library.registry import known
    from wsd_local.library.resolve import named_pair
    from wsd_local.system.child import Observer
    from wsd_local.system.interrupt import interruptible

    present = named_pair(name, read_config().pairs).draft
    made = quantised_name(present, found.source.path, kind)
    path = free_target(made, None, None, force=True)
    origin = known().get(present)
    with interruptible() as stop, steps_shown("quantising") as progress:
        observer = Observer(progress, stop.on_request)
        quantize(found.source.path, path, kind, allow_requantize=True, force=True, observer=observer)
    remember_made(made, path, *((None, None) if origin is None else (origin.repo, origin.revision)))
    return made
