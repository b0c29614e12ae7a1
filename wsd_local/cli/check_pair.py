"""`wsd-local check-pair`: whether two models make a good pair."""

from __future__ import annotations

from collections.abc import Mapping
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
from wsd_local.errors import CancelledError

if TYPE_CHECKING:
    from wsd_local.reports.pair_check.judging import Judgement


SETTINGS = (
    "draft_lora",
    "draft_lora_scale",
    "base_lora",
    "base_lora_scale",
    "window",
    "threshold",
    "threads",
    "ubatch",
    "n_gpu_layers",
    "draft_n_gpu_layers",
    "base_n_gpu_layers",
    "cache_type_k",
    "cache_type_v",
    "flash_attn",
    "load_mode",
    "resident",
)


@takes(models=models_named("draft", "base", "base_format"), settings=settings_named(*SETTINGS))
def check_pair(
    pair: PairName = None,
    /,
    *,
    models: Given = NOTHING,
    settings: Given = NOTHING,
    as_json: Json = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> int:
    """Examine whether two models make a good pair; 1 if a fault was found."""
    from wsd_local.cli.tables import print_json
    from wsd_local.config import read_config
    from wsd_local.reports.pair_check.measuring import CTX, OVERRIDES, PARALLEL

    terminal.require_output()
    show_native_log(verbose)
    config = read_config()
    fixed = OVERRIDES | {"ctx": CTX, "parallel": PARALLEL, "prompt_cache": "off"}
    values = {**config.settings_of(pair, models), **setting_values(settings)} | fixed
    judged = _judged(config.pair if pair is None else pair, models_of(models), values)
    if as_json:
        print_json(judged.as_dict())
    else:
        for finding in judged.findings:
            terminal.line(finding.line())
        terminal.line(judged.summary())
    return 0 if judged.is_pair else 1


def _judged(pair: str | None, models: Mapping[str, Any], settings: Mapping[str, Any]) -> Judgement:
    from rich.progress import Progress

    from wsd_local.events import Source
    from wsd_local.reports.pair_check.judging import judge
    from wsd_local.reports.pair_check.measuring import measure, probes_for, steps
    from wsd_local.runtime.pair import load
    from wsd_local.system.interrupt import interruptible

    console = terminal.console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    with interruptible() as interrupt, bar as progress:
        task = progress.add_task("loading", total=1.0)

        def loading(role: Source, fraction: float) -> bool:
            progress.update(task, description=f"loading the {role} model", completed=fraction)
            return not interrupt.requested

        def step(what: str) -> None:
            if interrupt.requested:
                raise CancelledError("interrupted")
            progress.update(task, description=what, advance=1)

        with load(pair, progress=loading, **models, **settings) as loaded:
            interrupt.on_request(loaded.cancel)
            probes = probes_for(loaded)
            progress.update(task, completed=0, total=steps(len(probes)))
            return judge(measure(loaded, step, probes))
