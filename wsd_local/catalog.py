"""Names of pairs and models.

Contract: reads `models/catalog.toml`, which is data; a name that is not in it may be a path.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.errors import ModelError, UsageError
from wsd_local.paths import data_dir
from wsd_local.prompts import BaseFormat
from wsd_local.settings import nearest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def catalog() -> dict[str, dict[str, dict[str, Any]]]:
    """The tables `models` and `pairs` of the catalog."""
    with (data_dir() / "catalog.toml").open("rb") as file:
        tables: dict[str, Any] = tomllib.load(file)
    return tables


def model_path(name: str | Path) -> Path:
    """File of a model that is named in the catalog, or given as a path.

    Raises:
        ModelError: it is neither.
    """
    models = catalog()["models"]
    if str(name) in models:
        return data_dir() / str(models[str(name)]["path"])
    path = Path(os.path.expanduser(name))  # noqa: PTH111 - the method raises for a user who does not exist
    if path.exists() or path.suffix == ".gguf" or len(path.parts) > 1:
        return path
    raise ModelError(f"{name}: neither a model's name nor a file{nearest(str(name), list(models))}")


@dataclass(frozen=True, slots=True)
class PairEntry:
    """What the catalog says of a pair."""

    draft: Path
    base: Path
    base_format: BaseFormat


def named_pair(name: str) -> PairEntry:
    """Files and formats of a pair that is named in the catalog.

    Raises:
        UsageError: there is no such pair; the nearest name is suggested.
    """
    pairs = catalog()["pairs"]
    if name not in pairs:
        raise UsageError(f"there is no pair {name!r}{nearest(name, list(pairs))}")
    entry = pairs[name]
    form = BaseFormat.of(entry.get("base_format", {}))
    return PairEntry(model_path(entry["draft"]), model_path(entry["base"]), form)


def read_base_format(path: Path) -> BaseFormat:
    """A base format from a TOML file with `headings`, `stop` and `prefix`.

    Raises:
        UsageError: the file cannot be read, or does not hold such a format.
    """
    try:
        with path.open("rb") as file:
            return BaseFormat.of(tomllib.load(file))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is not TOML: {error}") from error
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
