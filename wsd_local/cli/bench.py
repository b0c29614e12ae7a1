"""`wsd-local bench`: how fast a pair is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from wsd_local.cli import options, terminal
from wsd_local.errors import CancelledError, UsageError

if TYPE_CHECKING:
    from wsd_local.reports.bench import Results


def bench(
    context: typer.Context,
    pair: Annotated[str | None, typer.Argument(help="Pair by name. [default: the configuration's, else demo]")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Length of the prompt, in base tokens.")] = 200,
    tokens: Annotated[int, typer.Option(help="Length of each reply, in base tokens.")] = 128,
    drafted: Annotated[
        int | None, typer.Option(help="Force a draft of so many draft tokens. [default: as the reply comes]")
    ] = None,
    repeat: Annotated[int, typer.Option(help="Repetitions; medians of them are shown.")] = 3,
    goals: Annotated[
        bool, typer.Option("--goals", help="Also compare with this project's own goals (docs/performance.md).")
    ] = False,
    as_json: options.AsJson = False,
    draft: options.Draft = None,
    base: options.Base = None,
    draft_lora: options.DraftLora = None,
    draft_lora_scale: options.DraftLoraScale = 1.0,
    base_lora: options.BaseLora = None,
    base_lora_scale: options.BaseLoraScale = 1.0,
    base_format: options.BaseFormatFile = None,
    window: options.Window = 6,
    threshold: options.Threshold = 0.8,
    check_chunk: options.CheckChunk = 8,
    ctx: options.Ctx = None,
    threads: options.Threads = None,
    n_gpu_layers: options.GpuLayers = "auto",
    draft_n_gpu_layers: options.DraftGpuLayers = None,
    base_n_gpu_layers: options.BaseGpuLayers = None,
    cache_type_k: options.CacheK = options.CacheKind.AUTO,
    cache_type_v: options.CacheV = options.CacheKind.AUTO,
    flash_attn: options.Flash = options.FlashAttn.AUTO,
    load_mode: options.Load = options.LoadKind.AUTO,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Measure how fast a pair is on this machine: its parts, whole replies, and the base alone beside them.

    Some minutes for models of usual size on a CPU. Nothing else should run meanwhile.
    """
    if repeat < 1:
        raise UsageError(f"repeat is {repeat}: it must be at least 1")
    import psutil
    from rich.progress import Progress

    from wsd_local.cli.run import given_settings, show_native_log
    from wsd_local.cli.tables import print_json
    from wsd_local.config import read_config
    from wsd_local.events import Source
    from wsd_local.library.catalog import read_base_format
    from wsd_local.reports.bench import OVERRIDES, Bench, measure, steps
    from wsd_local.runtime.pair import load
    from wsd_local.system.interrupt import interruptible

    show_native_log(verbose)
    config = read_config()
    settings: dict[str, Any] = {**config.settings, **given_settings(context)} | OVERRIDES
    own = None if base_format is None else read_base_format(base_format)
    resident = psutil.Process().memory_info
    before = resident().rss
    console = terminal.console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with interruptible() as interrupt, bar as progress:
        task = progress.add_task("loading", total=steps(repeat) + 1)

        def loading(role: Source, fraction: float) -> bool:
            progress.update(task, description=f"loading the {role} model", completed=fraction)
            return not interrupt.asked

        def next_one(what: str) -> None:
            if interrupt.asked:
                raise CancelledError("interrupted")
            progress.update(task, description=what, advance=1)

        with load(
            config.pair if pair is None else pair, draft=draft, base=base, base_format=own, progress=loading, **settings
        ) as loaded:
            interrupt.calls(loaded.cancel)
            progress.update(task, completed=0)
            measuring = Bench(loaded, prompt_tokens=prompt_tokens, tokens=tokens, drafted=drafted)
            results = measure(measuring, repeat, next_one, lambda: int(resident().rss), before)
    if as_json:
        print_json(results.as_dict())
    else:
        _show(results, goals=goals)


def _show(results: Results, *, goals: bool) -> None:
    from wsd_local.cli.tables import plain_table, print_tables
    from wsd_local.reports.bench import COLUMNS

    shown = len(COLUMNS) if goals else COLUMNS.index("goal")
    table = plain_table(_title(results), COLUMNS[:shown], {1, 3})
    for row in results.rows:
        table.add_row(*row.cells()[:shown])
    print_tables(table)
    for line in _notes(results):
        terminal.line(line)


def _title(results: Results) -> str:
    about = results.about
    return f"{about['models']['draft']} and {about['models']['base']}, threads: {about['threads']}"


def _notes(results: Results) -> list[str]:
    """What the reader must know of the table."""
    from wsd_local.reports.bench import about_proposals

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
        results.elsewhere.said(),
    ]
