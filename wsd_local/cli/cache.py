"""`wsd-local cache list|clear`: prompts that are kept so that later processes need not read them again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsd_local.cli import terminal
from wsd_local.cli.app import COMMANDS, group, in_order
from wsd_local.cli.options import NOTHING, Debug, Given, Json, settings_named, takes
from wsd_local.cli.tables import plain_table, print_json, print_tables

if TYPE_CHECKING:
    from wsd_local.runtime.prompt_files import PromptFiles

app = group("cache", COMMANDS["cache"][1])


@app.command(name="list")
@takes(settings=settings_named("prompt_cache"))
def list_prompts(*, settings: Given = NOTHING, as_json: Json = False, debug: Debug = False) -> None:
    """List what is kept, the prompt that was used last first."""
    from datetime import datetime

    from wsd_local.units import gb

    files = _files(settings)
    states = files.all()
    kept = [
        {
            "model": state.facts.model,
            "tokens": len(state.tokens),
            "bytes": state.total,
            "used": datetime.fromtimestamp(state.used / 1e9).astimezone().isoformat(timespec="seconds"),
        }
        for state in states
    ]
    total = sum(state.total for state in states)
    if as_json:
        print_json({"folder": str(files.folder), "bytes": total, "prompts": kept})
        return
    table = plain_table(f"{files.folder}: {gb(total)}", ("model", "tokens", "size", "last used"), {1, 2})
    for state, one in zip(states, kept, strict=True):
        table.add_row(state.facts.model, f"{len(state.tokens):,}", gb(state.total), str(one["used"]))
    print_tables(table)


@app.command
@takes(settings=settings_named("prompt_cache"))
def clear(*, settings: Given = NOTHING, debug: Debug = False) -> None:
    """Remove everything that is kept."""
    from wsd_local.units import gb, plural

    count, freed = _files(settings).clear()
    terminal.line(f"{plural(count, 'prompt')} removed, {gb(freed)} freed")


def _files(settings: Given) -> PromptFiles:
    """The files in the folder of the option, else of the configuration."""
    from wsd_local.config import read_config
    from wsd_local.runtime.prompt_cache import prompt_folder
    from wsd_local.runtime.prompt_files import PromptFiles

    chosen = settings.get("prompt_cache", read_config().settings.get("prompt_cache", "auto"))
    return PromptFiles(prompt_folder(str(chosen)), 0)


in_order(app)
