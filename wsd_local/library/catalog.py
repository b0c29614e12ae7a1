"""Names of models and pairs: the program's own catalog, what is on this machine, and the user's pairs.

Contract: `models/catalog.toml` is data. A model's name is looked up in the registry (pulled, imported, made here), then
in the catalog; a name that is in neither may be a path. A pair's name is looked up in the user's configuration, then
in the catalog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from wsd_local.errors import ModelError, UsageError, nearest
from wsd_local.library.registry import known
from wsd_local.paths import expanded, package_models_dir
from wsd_local.placement.footprint import Shape
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.system.inputs import read_toml
from wsd_local.units import gb

Role = Literal["draft", "base"]


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """What the catalog says of a model.

    `path` is a file of the package; `repo` and `file` one on the Hub; `repo` alone a checkpoint that must be converted.
    `revision` is the commit to take and `sha256` that of the file, where they are known: then nothing else is accepted.
    `size` is in bytes, about right for what is on the Hub; `parameters` is for people ("3.2B"), `context` in tokens.
    """

    name: str
    role: Role
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

    @property
    def pinned(self) -> bool | None:
        """Whether the bytes are known before they are fetched; None for a part of the program."""
        return None if self.path is not None else self.sha256 is not None

    @classmethod
    def of(cls, name: str, table: dict[str, Any]) -> ModelEntry:
        """A model from its table in the catalog."""
        shape = table.get("shape")
        return cls(name=name, **{**table, "shape": None if shape is None else Shape(**shape)})


@dataclass(frozen=True, slots=True)
class PairEntry:
    """A named pair: models by name or path, and how the base is shown a conversation."""

    name: str
    draft: str
    base: str
    base_format: BaseFormat
    description: str = ""

    @classmethod
    def of(cls, name: str, table: dict[str, Any]) -> PairEntry:
        """A pair from its table in a TOML file.

        Raises:
            UsageError: a key is unknown or missing, or a value of the wrong kind.
        """
        keys = ("draft", "base", "description", "base_format")
        for key, value in table.items():
            if key not in keys:
                raise UsageError(f"pairs.{name}: there is no key {key!r}{nearest(key, list(keys))}")
            if key != "base_format" and not isinstance(value, str):
                raise UsageError(f"pairs.{name}.{key} is {value!r}: it must be text")
        for key in ("draft", "base"):
            if not table.get(key):
                raise UsageError(f"pairs.{name}: {key} is missing: name a model or a file")
        form = BaseFormat.of(table.get("base_format", {}))
        return cls(name, table["draft"], table["base"], form, table.get("description", ""))


@cache
def _tables() -> dict[str, Any]:
    return read_toml(package_models_dir() / "catalog.toml")


def catalog_models() -> dict[str, ModelEntry]:
    """All models of the catalog."""
    return {name: ModelEntry.of(name, table) for name, table in _tables()["models"].items()}


def catalog_pairs() -> dict[str, PairEntry]:
    """All pairs of the catalog."""
    return {name: PairEntry.of(name, table) for name, table in _tables()["pairs"].items()}


def local_path(entry: ModelEntry) -> Path | None:
    """Where a model of the catalog is on this machine: ours, pulled, or fetched by another program. None if nowhere."""
    if entry.path is not None:
        return package_models_dir() / entry.path
    if (found := known().get(entry.name)) is not None:
        return found.path
    if entry.repo is None or entry.file is None:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(entry.repo, entry.file, revision=entry.revision)
    return Path(cached) if isinstance(cached, str) else None


def model_path(name: str | Path) -> Path:
    """File of a model by its name, or by its path.

    Raises:
        ModelError: there is no such model, or it is not on this machine yet; the message says how to get it.
    """
    text = str(name)
    if (found := known().get(text)) is not None:
        return found.path
    models = catalog_models()
    if text in models:
        path = local_path(models[text])
        if path is None:
            raise ModelError(f"{text} is not on this machine: {how_to_get(models[text])}")
        return path
    path = expanded(name)
    if path.exists() or path.suffix == ".gguf" or len(path.parts) > 1:
        return path
    raise ModelError(f"{text}: neither a model's name nor a file{nearest(text, [*known(), *models])}")


def how_to_get(entry: ModelEntry) -> str:
    """The command that brings a model of the catalog here."""
    size = "" if entry.size is None else f" ({gb(entry.size)})"
    if entry.file is None:
        return f"convert it with: wsd-local models convert {entry.repo} --as {entry.name}{size}"
    return f"fetch it with: wsd-local models pull {entry.name}{size}"


def named_pair(name: str, own: Mapping[str, PairEntry] | None = None) -> PairEntry:
    """A pair by its name; `own` are the user's, which win.

    Raises:
        UsageError: there is no such pair; the nearest name is suggested.
    """
    pairs = {**catalog_pairs(), **(own or {})}
    if name not in pairs:
        raise UsageError(f"there is no pair {name!r}{nearest(name, list(pairs))}")
    return pairs[name]


def read_base_format(path: Path) -> BaseFormat:
    """A base format from a TOML file with `headings`, `stop` and `prefix`.

    Raises:
        UsageError: the file cannot be read, or does not hold such a format.
    """
    try:
        return BaseFormat.of(read_toml(path))
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
