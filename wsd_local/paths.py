"""Where files live. Nothing else builds a path."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

import platformdirs

_APP = "wsd-local"
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-")


def package_models_dir() -> Path:
    """Folder of the catalog and the embedded pair: beside the package if installed, else the repository's."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def demo_dir() -> Path:
    """Folder of the embedded pair, its card and its questions."""
    return package_models_dir() / "demo"


def own_prompts() -> Path:
    """The program's own prompts, which pairs are calibrated with."""
    return package_models_dir() / "prompts.jsonl"


def cache_dir() -> Path:
    """Folder for what can be made again; `WSD_LOCAL_CACHE` names another one."""
    return _named("WSD_LOCAL_CACHE") or platformdirs.user_cache_path(_APP, appauthor=False)


def data_dir() -> Path:
    """Folder for what cannot be made again without work; `WSD_LOCAL_DATA` names another one."""
    return _named("WSD_LOCAL_DATA") or platformdirs.user_data_path(_APP, appauthor=False)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; the data folder and what is below it are their owner's alone (0700).

    A data folder that was open to others is closed to them, unless `WSD_LOCAL_DATA` names it: that one may be shared.

    Raises:
        OSError: it cannot be made.
    """
    data = data_dir()
    above = [folder.absolute(), *folder.absolute().parents]
    for missing in reversed([one for one in above if not one.exists()]):
        missing.mkdir(mode=0o700 if missing.is_relative_to(data) else 0o777, exist_ok=True)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if data in above and not os.environ.get("WSD_LOCAL_DATA"):
        make_private(data, 0o700)


def make_private(path: Path, mode: int = 0o600) -> None:
    """Remove the permissions of other users; a file or folder of another owner stays as it is."""
    with contextlib.suppress(OSError):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(mode)


def made_models_dir() -> Path:
    """Folder for models that were converted or quantised here."""
    return data_dir() / "models"


def config_file() -> Path:
    """The user's configuration; `WSD_LOCAL_CONFIG` names another file."""
    return _named("WSD_LOCAL_CONFIG") or platformdirs.user_config_path(_APP, appauthor=False) / "config.toml"


def as_name(text: str) -> str:
    """Text as a part of a file's name: signs that are not safe there are underscores."""
    return "".join(sign if sign in _NAME_CHARACTERS else "_" for sign in text)


def evaluation_dir(pair: str) -> Path:
    """Where the evaluation of a pair keeps replies and verdicts."""
    return data_dir() / "evaluations" / as_name(pair)


def expanded(path: str | Path) -> Path:
    """A path whose `~` is a home folder; one of a user who does not exist stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the method raises for a user who does not exist


def _named(variable: str) -> Path | None:
    """Absolute, because child processes work in another folder."""
    named = os.environ.get(variable)
    return expanded(named).absolute() if named else None
