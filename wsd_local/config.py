"""The user's configuration: a default pair, settings, and pairs of one's own.

Contract: `config.toml` (see `paths.config_file`), overridden by the environment variables `WSD_LOCAL_PAIR` and
`WSD_LOCAL_<SETTING>`; command-line options override both. In the file, a pair's own settings override the common ones.
An unknown key is an error with a suggestion. Writing keeps what a person wrote, comments included.

    pair = "mine"
    [settings]
    threshold = 0.7
    [pairs.mine]
    draft = "llama-3.2-3b-instruct"
    base = "~/models/base.gguf"
    [pairs.mine.settings]
    threshold = 0.6
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsd_local.core.rule_settings import by_itself
from wsd_local.errors import UsageError, nearest
from wsd_local.fields import field_name
from wsd_local.files import write_text
from wsd_local.library.catalog import PairEntry, with_catalog
from wsd_local.library.resolve import all_pairs, named_pair
from wsd_local.paths import config_file
from wsd_local.settings import names, read_text, split
from wsd_local.system.inputs import read_text as read_file
from wsd_local.system.inputs import read_toml

PREFIX = "WSD_LOCAL_"
_OTHER_VARIABLES = ("PAIR", "CACHE", "DATA", "CONFIG", "LLAMA_CPP", "API_KEY", "JUDGE_API_KEY")


@dataclass(frozen=True, slots=True)
class Config:
    """What is configured. `sources` holds for each name whether it comes from the file or from the environment."""

    path: Path
    pair: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    pairs: Mapping[str, PairEntry] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "path": str(self.path),
            "pair": self.pair,
            "settings": dict(self.settings),
            "pairs": {
                name: {"draft": entry.draft, "base": entry.base, "settings": dict(entry.settings)}
                for name, entry in self.pairs.items()
            },
            "sources": dict(self.sources),
        }

    def settings_of(self, pair: str | None, models: Collection[str] = ()) -> dict[str, Any]:
        """The settings for a pair, None for the default one: the common ones, the pair's own, and the environment's.

        Of a pair of which both `models`, draft and base, are replaced, nothing is left that its own could be for.

        Raises:
            UsageError: there is no such pair, or its settings contradict the common ones.
        """
        if {"draft", "base"} <= set(models):
            return dict(self.settings)
        entry = named_pair(self.pair if pair is None else pair, self.pairs)
        own = {name: value for name, value in entry.settings.items() if self.sources.get(name) != "environment"}
        settings = {**self.settings, **own}
        if own:
            try:
                split(settings)
            except UsageError as error:
                raise UsageError(f"{self.path}: pairs.{entry.name}.settings: {error}") from error
        return settings


def read_config(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Config:
    """Read the configuration; without a file it is empty.

    Raises:
        UsageError: the file is not TOML, a key or variable is unknown, or a value is of the wrong kind.
    """
    path = path or config_file()
    tables = read_toml(path) if path.exists() else {}
    try:
        config = _from_tables(path, tables)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    return _over(config, os.environ if environment is None else environment)


def _from_tables(path: Path, tables: dict[str, Any]) -> Config:
    keys = ["pair", "settings", "pairs"]
    for key in tables:
        if key not in keys:
            hint = "; it is a setting: put it under [settings]" if field_name(key) in names() else nearest(key, keys)
            raise UsageError(f"there is no key {key!r}{hint}")
    settings, pairs = tables.get("settings", {}), tables.get("pairs", {})
    for key, table in (("settings", settings), ("pairs", pairs)):
        if not isinstance(table, dict) or (key == "pairs" and not all(isinstance(row, dict) for row in table.values())):
            raise UsageError(f"{key} must be a table: [{key}{'.NAME' if key == 'pairs' else ''}]")
    pair = tables.get("pair")
    if pair is not None and not isinstance(pair, str):
        raise UsageError(f"pair is {pair!r}: it must be the name of a pair")
    settings = {field_name(name): value for name, value in settings.items()}
    split(settings)
    own = {name: PairEntry.of(name, with_catalog(name, table)) for name, table in pairs.items()}
    if pair is not None and pair not in (pairs_by_name := all_pairs(own)):
        raise UsageError(f"pair: there is no pair {pair!r}{nearest(pair, list(pairs_by_name))}")
    sources = dict.fromkeys([*settings, *(["pair"] if pair else [])], "file")
    return Config(path, pair, settings, own, sources)


def _over(config: Config, environment: Mapping[str, str]) -> Config:
    """The configuration with what environment variables override."""
    pair, settings, sources = config.pair, dict(config.settings), dict(config.sources)
    known = {f"{PREFIX}{name.rstrip('_').upper()}": name for name in names()}
    others = [f"{PREFIX}{name}" for name in _OTHER_VARIABLES]
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or not text:
            continue
        if variable == f"{PREFIX}PAIR":
            pair, sources["pair"] = text, "environment"
        elif variable in known:
            name = known[variable]
            try:
                settings[name], sources[name] = read_text(name, text), "environment"
                split(by_itself(name, settings[name]))
            except UsageError as error:
                raise UsageError(f"{variable}: {error}") from error
        elif variable not in others:
            raise UsageError(f"there is no environment variable {variable}{nearest(variable, [*known, *others])}")
    return Config(config.path, pair, settings, config.pairs, sources)


def write_pair_settings(
    pair: str, values: Mapping[str, Any], path: Path | None = None, *, draft: str | None = None
) -> Path:
    """Write settings of a pair into the file, which is made if it is not there; returns its path.

    Everything else in it stays as it is. A pair of the catalog gets a table with nothing but its settings, unless it
    gets another `draft`: then its base is named too.

    Raises:
        UsageError: there is no such pair, a value is wrong, or the file is written so that it cannot be added to.
        OSError: it cannot be written; the old file stays.
    """
    import tomlkit

    path = path or config_file()
    entry = named_pair(pair, read_config(path, {}).pairs)
    text = read_file(path) if path.exists() else ""
    before = tomllib.loads(text)
    named = {} if draft is None else _models_of(entry, draft, before.get("pairs", {}).get(pair, {}))
    document: Any = tomlkit.parse(text)
    table = document
    for key in ("pairs", pair):
        table = table.setdefault(key, tomlkit.table(is_super_table=key == "pairs" or not named))
    table.update(named)
    if values:
        settings = table.setdefault("settings", tomlkit.table())
        for name, value in values.items():
            settings[_key_of(settings, name)] = value
    written = tomlkit.dumps(document)
    if tomllib.loads(written) != _with_settings(before, pair, named, values):
        lines = "; ".join(f"{name} = {value}" for name, value in {**named, **values}.items())
        raise UsageError(
            f"{path}: is written so that nothing can be added to it; under [pairs.{pair}.settings] put {lines}"
        )
    _from_tables(path, tomllib.loads(written)).settings_of(pair)
    write_text(path, written)
    return path


def _models_of(entry: PairEntry, draft: str, table: Mapping[str, Any]) -> dict[str, str]:
    """What a pair's table says of its models with another draft."""
    missing = {"base": entry.base, "description": entry.description}
    return {"draft": draft} if "base" in table else {"draft": draft, **missing}


def _with_settings(
    tables: dict[str, Any], pair: str, named: Mapping[str, str], values: Mapping[str, Any]
) -> dict[str, Any]:
    table = tables.setdefault("pairs", {}).setdefault(pair, {})
    table.update(named)
    settings = table.setdefault("settings", {}) if values else {}
    for name, value in values.items():
        settings[_key_of(settings, name)] = value
    return tables


def _key_of(table: Mapping[str, Any], name: str) -> str:
    """How a setting is spelled in a table; its own name where it is not there."""
    return next((str(key) for key in table if field_name(key) == name), name)
