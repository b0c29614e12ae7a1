"""`wsd-local config`: where the configuration is, and which settings are in effect."""

from __future__ import annotations

from wsd_local.cli import terminal
from wsd_local.cli.app import COMMANDS, group
from wsd_local.cli.options import Debug, Json
from wsd_local.cli.tables import plain_table, print_json, print_tables

app = group("config", COMMANDS["config"][1])


@app.command(name="path")
def show_path(*, debug: Debug = False) -> None:
    """Print where config.toml is, or would be."""
    from wsd_local.paths import config_file

    terminal.line(str(config_file()))


@app.command(name="show")
def show(*, as_json: Json = False, debug: Debug = False) -> None:
    """Print the settings in effect, and where each comes from."""
    from wsd_local.config import read_config
    from wsd_local.fields import spelled
    from wsd_local.library.catalog import DEFAULT_PAIR
    from wsd_local.settings import LoadSettings, ReplySettings, plain

    config = read_config()
    in_effect = config.settings_of(None)
    # A data set is answered with as many replies at once as pay; the library's own default is one.
    defaults = plain(ReplySettings(), LoadSettings()) | {"parallel": "auto"}
    if as_json:
        print_json(config.as_dict() | {"settings": {**defaults, **in_effect}})
        return
    settings = plain_table(f"{config.path}{'' if config.path.exists() else ' (not there)'}", ("", "value", "from"))
    settings.add_row("pair", config.pair or DEFAULT_PAIR, config.sources.get("pair", "default"))
    for name, default in defaults.items():
        value = in_effect.get(name, default)
        source = "the pair" if value != config.settings.get(name, default) else config.sources.get(name, "default")
        settings.add_row(
            name, "" if value in (None, ()) else str(value), source, style=None if source != "default" else "dim"
        )
    pairs = plain_table("Your pairs", ("name", "draft", "base", "its own settings", "for"))
    for entry in config.pairs.values():
        own = ", ".join(f"{spelled(name)} {value}" for name, value in entry.settings.items())
        pairs.add_row(entry.name, entry.draft, entry.base, own, entry.description)
    print_tables(settings, *([pairs] if config.pairs else []))
