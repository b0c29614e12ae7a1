"""Where files live. Nothing else builds a path."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def data_dir() -> Path:
    """Folder of the catalog and the embedded pair: beside the package if installed, else the repository's."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def demo_dir() -> Path:
    """Folder of the embedded pair, its card and its questions."""
    return data_dir() / "demo"


def cache_dir() -> Path:
    """Folder for what can be made again; `WSD_LOCAL_CACHE` names another one."""
    if (named := os.environ.get("WSD_LOCAL_CACHE")) is not None:
        return Path(named)
    return platformdirs.user_cache_path("wsd-local", appauthor=False)
