"""What a name stands for: the only place where names of models and pairs are looked up.

Contract: a model's name is looked up in the registry (pulled, imported, made here), then in the catalog; a name that is
in neither may be a path. A pair's name is looked up among the user's pairs, which the caller passes, then in the
catalog. Nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from wsd_local.errors import ModelError, UsageError, nearest
from wsd_local.library.catalog import DEFAULT_PAIR, ModelEntry, PairEntry, catalog_models, catalog_pairs
from wsd_local.library.registry import is_file_name, known
from wsd_local.paths import expanded, package_models_dir
from wsd_local.units import gb

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)


# -- pairs -------------------------------------------------------------------------------------------------------


def all_pairs(own: Mapping[str, PairEntry] | None = None) -> dict[str, PairEntry]:
    """All pairs by name; `own` are the user's, which win."""
    return {**catalog_pairs(), **(own or {})}


def named_pair(name: str | None, own: Mapping[str, PairEntry] | None = None) -> PairEntry:
    """A pair by its name, the embedded one without a name; `own` are the user's, which win.

    Raises:
        UsageError: there is no such pair; the nearest name is suggested.
    """
    pairs = all_pairs(own)
    name = DEFAULT_PAIR if name is None else name
    if name not in pairs:
        raise UsageError(f"there is no pair {name!r}{nearest(name, list(pairs))}")
    return pairs[name]


# -- models ------------------------------------------------------------------------------------------------------


def catalog_model(name: str) -> ModelEntry | None:
    """The catalog's model of this name, None if it has none."""
    return catalog_models().get(name)


def is_catalog_name(name: str) -> bool:
    """Whether the catalog has a model or a pair of this name."""
    return name in catalog_models() or name in catalog_pairs()


def models_of(repo: str) -> list[ModelEntry]:
    """The catalog's models that are files of a repository on the Hub, or the checkpoint in it."""
    return [entry for entry in catalog_models().values() if entry.repo == repo]


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
        UsageError: it is the address of a server.
        ModelError: there is no such model, or it is not on this machine yet; the message says how to get it.
    """
    text = str(name)
    if text.lower().startswith(("http://", "https://", "http:/", "https:/")):
        raise UsageError(f"{text}: is the address of a server, and a model on this machine is wanted here")
    if (found := known().get(text)) is not None:
        return found.path
    if (entry := catalog_model(text)) is not None:
        here = local_path(entry)
        if here is None:
            raise ModelError(f"{text} is not on this machine: {how_to_get(entry)}")
        return here
    path = expanded(name)
    if path.exists() or path.suffix == ".gguf" or len(path.parts) > 1:
        return path
    if (pair := catalog_pairs().get(text)) is not None:
        raise ModelError(f"{text} is a pair, and one model is wanted: {pair.draft} or {pair.base}")
    names = dict.fromkeys([*known(), *catalog_models()])
    raise ModelError(f"{text}: neither a model's name nor a file{nearest(text, list(names))}")


def model_of_pair(pair: PairEntry, model: str | Path) -> Path:
    """File of a model that a pair names.

    Raises:
        ModelError: see `model_path`; where one command fetches the whole pair, the message names that.
    """
    try:
        return model_path(model)
    except ModelError:
        parts = [catalog_model(pair.draft), catalog_model(pair.base)]
        missing = [part for part in parts if part is not None and local_path(part) is None]
        is_fetched_whole = catalog_pairs().get(pair.name) == pair and all(part.file is not None for part in missing)
        if not is_fetched_whole or len(missing) < len(parts):
            raise
        size = f" ({gb(sum(part.size or 0 for part in missing))})" if all(part.size for part in missing) else ""
        raise ModelError(
            f"the pair {pair.name} is not on this machine: fetch it with: wsd-local models pull {pair.name}{size}"
        ) from None


def how_to_get(entry: ModelEntry) -> str:
    """The command that brings a model of the catalog here."""
    size = "" if entry.size is None else f" ({gb(entry.size)})"
    if entry.file is None:
        return f"convert it with: wsd-local models convert {entry.repo} --as {entry.name}{size}"
    return f"fetch it with: wsd-local models pull {entry.name}{size}"


# -- new names ---------------------------------------------------------------------------------------------------


def checked_name(name: str, repo: str | None = None, *, replace: bool = False) -> str:
    """The name, if a model can be given it. `repo` is where the model comes from.

    A model that was pulled from `repo` may have it already, and so may any known model if `replace` is true. A name of
    the catalog is free only where it means a checkpoint, for what is made here or comes from that checkpoint's `repo`.

    Raises:
        UsageError: it could be taken for a path, or a model or a pair has it.
    """
    if not _NAME.fullmatch(name) or name.lower().endswith(".gguf") or not is_file_name(name):
        raise UsageError(f"{name!r} cannot be a model's name: give --as letters, digits and . _ + -, without .gguf")
    meant = catalog_model(name)
    ours = meant is not None and meant.repo is not None and meant.file is None and (replace or meant.repo == repo)
    if name in catalog_pairs() or (meant is not None and not ours):
        raise UsageError(f"the catalog has something named {name!r} already; choose another name with --as")
    taken = known().get(name)
    if taken is not None and not replace and (taken.origin != "pulled" or taken.repo != repo):
        raise UsageError(f"there is a model {name!r} already ({taken.path}); choose another name with --as")
    return name
