"""Models on this machine that are known by a name: pulled, imported, or made here.

Contract: `models.json` in the data folder, changed under a lock and replaced as a whole, so that two programs can
use it at once. It records where files are, and never holds them. The catalog's names are in it once they are pulled. It
also records which files transfers wrote (see `fetched`): no other file is ever deleted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from wsd_local.errors import UsageError, WsdError, reason
from wsd_local.files import write_text
from wsd_local.paths import data_dir, make_folder
from wsd_local.system.inputs import decoded, json_value

Origin = Literal["pulled", "unpacked", "imported", "made"]
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Known:
    """One model by name.

    `paths` are its files: one, or the parts of a split model in their order; the first is the one to load.
    `origin`: `pulled` from the Hub into its cache, `unpacked` from packages of the package index, `imported` from where
    somebody else keeps it, or `made` here by converting or quantising. `repo` and `revision` are its source. `written`
    identifies the file that was made or unpacked here (see `fetched.mark`); without it the file is never deleted.
    """

    name: str
    paths: tuple[Path, ...]
    origin: Origin
    repo: str | None = None
    revision: str | None = None
    written: tuple[int, ...] | None = None

    @property
    def path(self) -> Path:
        """The file to load."""
        return self.paths[0]


def known() -> dict[str, Known]:
    """All models by name.

    Raises:
        WsdError: the file that lists them is damaged.
    """
    return _models(_contents())


def transfers() -> list[Any]:
    """Records of the files that transfers wrote.

    Raises:
        WsdError: the file is damaged.
    """
    rows = _contents().get("transfers")
    return rows if isinstance(rows, list) else []


def change_transfers(change: Callable[[list[Any]], list[Any]]) -> None:
    """Replace the records of transfers."""
    _change(transfers=change)


def _contents() -> dict[str, Any]:
    path = _file()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {"models": []}
    except OSError as error:
        raise WsdError(f"{path}: cannot be read: {reason(error)}") from error
    try:
        contents = json_value(decoded(data, str(path)))
    except (UsageError, ValueError) as error:
        raise _damaged(error) from error
    if not isinstance(contents, dict):
        raise _damaged("it holds no object")
    return contents


def _models(contents: dict[str, Any]) -> dict[str, Known]:
    try:
        entries = [_known(row) for row in contents["models"]]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(error) from error
    return {entry.name: entry for entry in entries}


def _known(row: dict[str, Any]) -> Known:
    """A model from its row; the file may have been edited, and hold anything.

    Raises:
        KeyError, TypeError, ValueError: it cannot be one.
    """
    written, paths = row.get("written"), row["paths"]
    texts = [row["name"], *paths, *(row[key] for key in ("repo", "revision") if row.get(key) is not None)]
    if not all(isinstance(text, str) and text and "\0" not in text for text in texts):
        raise TypeError("a name or a path is no text")
    if not isinstance(paths, list) or not paths or row["origin"] not in get_args(Origin):
        raise ValueError(f"{row['name']!r} has no files, or an unknown origin")
    if written is not None and not (isinstance(written, list) and all(type(number) is int for number in written)):
        raise TypeError(f"{row['name']!r} was written as {written!r}")
    return Known(**{**row, "paths": tuple(map(Path, paths)), "written": None if written is None else tuple(written)})


def _damaged(error: object) -> WsdError:
    return WsdError(f"{_file()}: is damaged ({error}); move it away, and pull or import the models again")


def is_file_name(name: str) -> bool:
    """Whether a file of that name is the same file on every system: not a device of Windows, no end that it drops."""
    return bool(name) and name[-1] not in ". " and not _DEVICE.fullmatch(name)


def remember(entry: Known) -> None:
    """Add a model, or replace the one of that name."""
    _change(models=lambda entries: entries.update({entry.name: entry}))


def forget(name: str) -> None:
    """Drop a name; nothing happens to the files."""
    _change(models=lambda entries: entries.pop(name, None))


def _change(
    models: Callable[[dict[str, Known]], object] = lambda _: None,
    transfers: Callable[[list[Any]], list[Any]] = lambda rows: rows,
) -> None:
    from filelock import FileLock

    path = _file()
    make_folder(path.parent)
    with FileLock(path.with_suffix(".lock")):
        contents = _contents()
        entries, rows = _models(contents), contents.get("transfers")
        models(entries)
        kept = {
            "models": [_row(entry) for _, entry in sorted(entries.items())],
            "transfers": transfers(rows if isinstance(rows, list) else []),
        }
        write_text(path, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def _row(entry: Known) -> dict[str, Any]:
    row = asdict(entry) | {"paths": [str(path) for path in entry.paths]}
    return {key: value for key, value in row.items() if key != "written" or value is not None}


def _file() -> Path:
    return data_dir() / "models.json"
