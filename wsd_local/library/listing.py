"""All models and pairs: those on this machine, and those of the catalog.

Contract: reads nothing but the headers of files on this machine; a damaged file is listed as such and is no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsd_local.errors import ModelError
from wsd_local.library.catalog import ModelEntry, PairEntry, catalog_models
from wsd_local.library.description import describe
from wsd_local.library.gguf import read_model
from wsd_local.library.registry import known
from wsd_local.library.resolve import all_pairs, local_path, model_path
from wsd_local.units import amount


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model. `usable` is None if it is not here, False if its file is damaged. `size` is in bytes.

    `pinned` says whether the catalog knows the SHA-256, so that `pull` accepts no other bytes; None for models that are
    not in the catalog, and for those that are part of the program.
    """

    name: str
    role: str
    quantization: str
    size: int | None
    licence: str
    parameters: str
    context: int | None
    path: str | None
    usable: bool | None
    description: str = ""
    pinned: bool | None = None


@dataclass(frozen=True, slots=True)
class ListedPair:
    """One pair; `ready` if both models are here, `size` in bytes of both."""

    name: str
    draft: str
    base: str
    ready: bool
    size: int | None
    description: str


@dataclass(frozen=True, slots=True)
class Inventory:
    """Models and pairs, those on this machine first."""

    models: tuple[ListedModel, ...]
    pairs: tuple[ListedPair, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def inventory(own: Mapping[str, PairEntry] | None = None) -> Inventory:
    """Look at everything that has a name; `own` are the user's pairs."""
    entries = catalog_models()
    models = {name: _of_catalog(entry) for name, entry in entries.items()}
    for name, entry in known().items():
        models[name] = _of_file(name, entry.path, entries.get(name))
    pairs = [_pair(entry, models) for entry in all_pairs(own).values()]
    return Inventory(
        models=tuple(sorted(models.values(), key=lambda model: model.usable is None)),
        pairs=tuple(sorted(pairs, key=lambda pair: not pair.ready)),
    )


def _of_catalog(entry: ModelEntry) -> ListedModel:
    path = local_path(entry)
    if path is not None:
        return _of_file(entry.name, path, entry)
    return ListedModel(
        name=entry.name,
        role=entry.role,
        quantization=entry.quantization,
        size=entry.size,
        licence=entry.licence,
        parameters=entry.parameters,
        context=entry.context,
        path=None,
        usable=None,
        description=entry.description,
        pinned=entry.pinned,
    )


def _of_file(name: str, path: Path, entry: ModelEntry | None) -> ListedModel:
    role, description = (entry.role, entry.description) if entry else ("", "")
    pinned = None if entry is None else entry.pinned
    try:
        found = describe(read_model(path))
    except ModelError as error:
        return ListedModel(name, role, "", None, "", "", None, str(path), False, str(error), pinned)
    if found.is_adapter:
        role = "adapter"
    licence = entry.licence if entry else found.licence or ""
    return ListedModel(
        name=name,
        role=role,
        quantization=found.quantization,
        size=found.size,
        licence=licence,
        parameters=amount(found.parameters),
        context=found.n_ctx_train,
        path=str(path),
        usable=True,
        description=description,
        pinned=pinned,
    )


def _pair(entry: PairEntry, models: dict[str, ListedModel]) -> ListedPair:
    sizes, ready = [], True
    for name in (entry.draft, entry.base):
        model = models.get(name)
        sizes.append(model.size if model is not None else _file_size(name))
        ready = ready and (bool(model.usable) if model is not None else sizes[-1] is not None)
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return ListedPair(entry.name, entry.draft, entry.base, ready, total, entry.description)


def _file_size(name: str) -> int | None:
    try:
        return sum(part.file_size for part in read_model(model_path(name)))
    except ModelError:
        return None
