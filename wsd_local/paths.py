"""Where files live. Nothing else builds a path."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_APP = "wsd-local"


def package_models_dir() -> Path:
    """Folder of the catalog and the embedded pair: beside the package if installed, else the repository's."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def demo_dir() -> Path:
    """Folder of the embedded pair, its card and its questions."""
    return package_models_dir() / "demo"


def cache_dir() -> Path:
    """Folder for what can be made again; `WSD_LOCAL_CACHE` names another one."""
    return _named("WSD_LOCAL_CACHE") or platformdirs.user_cache_path(_APP, appauthor=False)


def data_dir() -> Path:
    """Folder for what cannot be made again without work; `WSD_LOCAL_DATA` names another one."""
    return _named("WSD_LOCAL_DATA") or platformdirs.user_data_path(_APP, appauthor=False)


def made_models_dir() -> Path:
    """Folder for models that were converted or quantised here."""
    return data_dir() / "models"


def config_file() -> Path:
    """The user's configuration; `WSD_LOCAL_CONFIG` names another file."""
    return _named("WSD_LOCAL_CONFIG") or platformdirs.user_config_path(_APP, appauthor=False) / "config.toml"


def _named(variable: str) -> Path | None:
    named = os.environ.get(variable)
    return Path(named).expanduser() if named else None
