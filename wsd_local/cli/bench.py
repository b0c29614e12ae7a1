"""`wsd-local bench`: how fast a pair is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from wsd_local.errors import CancelledError, UsageError
from wsd_local.fields import declared

if TYPE_CHECKING:
    from wsd_local.reports.measurement import BenchResults


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured."""

    prompt_tokens: int = 200
    """Length of the prompt, in base tokens."""
    tokens: int = 128
    """Length of each reply, in base tokens."""
    drafted: int | None = None
    """Force a draft of this many draft tokens. [default: as the reply comes]"""
    repeat: int = 3
    """Repetitions; medians of them are shown."""
    goals: bool = False
    """Also compare with this project's own goals (docs/performance.md)."""

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise UsageError(f"repeat is {self.repeat}: it must be at least 1")


SETTINGS = (
    "draft_lora",
    "draft_lora_scale",
    "base_lora",
    "base_lora_scale",
    "window",
    "threshold",
    "check_chunk",
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


@takes(
    how=declared(Measurement).values(),
    models=models_named("draft", "base", "base_format"),
    settings=settings_named(*SETTINGS),
)
def bench(
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
    """Measure how fast a pair is on this machine."""
    from wsd_local.cli.tables import print_json
    from wsd_local.config import read_config
    from wsd_local.reports.bench import OVERRIDES

    wanted = Measurement(**how)
    show_native_log(verbose)
    config = read_config()
    values = {**config.settings_of(pair, models), **setting_values(settings)} | OVERRIDES | {"prompt_cache": "off"}
    results = _measured(wanted, config.pair if pair is None else pair, models_of(models), values)
    if as_json:
        print_json(results.as_dict())
    else:
        _show(results, goals=wanted.goals)


def _measured(
    wanted: Measurement, pair: str | None, models: Mapping[str, Any], settings: Mapping[str, Any]
) -> BenchResults:
    import psutil
    from rich.progress import Progress

    from wsd_local.events import Source
    from wsd_local.reports.bench import Bench
    from wsd_local.reports.measurement import measure, steps
    from wsd_local.runtime.pair import load
    from wsd_local.system.interrupt import interruptible

    resident = psutil.Process().memory_info
    before = resident().rss
    console = terminal.console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with interruptible() as interrupt, bar as progress:
        task = progress.add_task("loading", total=steps(wanted.repeat) + 1)

        def loading(role: Source, fraction: float) -> bool:
            progress.update(task, description=f"loading the {role} model", completed=fraction)
            return not interrupt.requested

        def next_one(what: str) -> None:
            if interrupt.requested:
                raise CancelledError("interrupted")
            progress.update(task, description=what, advance=1)

        with load(pair, progress=loading, **models, **settings) as loaded:
            interrupt.on_request(loaded.cancel)
            progress.update(task, completed=0)
            measuring = Bench(loaded, prompt_tokens=wanted.prompt_tokens, tokens=wanted.tokens, drafted=wanted.drafted)
            return measure(measuring, wanted.repeat, next_one, lambda: int(resident().rss), before)


def _show(results: BenchResults, *, goals: bool) -> None:
    from wsd_local.cli.tables import plain_table, print_tables
    from wsd_local.reports.figures import COLUMNS

    shown = len(COLUMNS) if goals else COLUMNS.index("goal")
    table = plain_table(_title(results), COLUMNS[:shown], {1, 3})
    for row in results.rows:
        table.add_row(*row.cells()[:shown])
    print_tables(table)
    for line in _notes(results):
        terminal.line(line)


def _title(results: BenchResults) -> str:
    about = results.about
    return f"{about['models']['draft']} and {about['models']['base']}, threads: {about['threads']}"


def _notes(results: BenchResults) -> list[str]:
    """What the reader must know of the table."""
    from wsd_local.reports.figures import about_proposals

    about, reply = results.about, results.about["reply"]
    mode = about["load_mode"]
    loaded = mode if isinstance(mode, str) else ", ".join(f"{role} {how}" for role, how in mode.items())
    prompts = about["prompt_tokens"]
    return [
        "",
        f"Medians of {len(results.repetitions)}; each ratio is measured / against within a repetition.",
        f"Prompt: {prompts['draft']} draft tokens, {prompts['base']} base tokens. Reply: {reply['drafted_tokens']} "
        f"drafted, {reply['checked_tokens']} checked, {reply['kept_tokens']} kept, {reply['continued_tokens']} "
        f"continued (switch: {reply['switch']}).",
        f"Parts: both prompts + drafted x draft token + checked x check ({about['check_chunk']} a chunk) + continued x "
        "base token.",
        *about_proposals(results.repetitions),
        f"Load mode: {loaded or 'as given'}.",
        results.elsewhere.sentence(),
    ]
