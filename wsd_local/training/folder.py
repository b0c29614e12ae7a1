"""The folder of a prepared preference set, written whole.

Contract: a new folder appears under its name only when all its files are there. Over a folder that was prepared before,
each file is replaced whole, and the record of what was prepared (`prepared.json`) is written last: until then it says
that the folder is not complete. Nothing else in the folder is touched.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from wsd_local.errors import UsageError, reason
from wsd_local.files import flush_folder, write_text
from wsd_local.paths import make_folder
from wsd_local.system.inputs import read_json

RECORD = "prepared.json"
"""The file that says how a folder was prepared."""
_INCOMPLETE = '{"complete": false}\n'


def check_folder(folder: Path, *, force: bool) -> None:
    """Raise `UsageError` if a folder of this name cannot be written, or holds something and may not be."""
    try:
        filled = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise UsageError(f"{folder}: cannot be written: {why}; choose another --out") from error
    if not filled:
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file; name a folder with --out")
    if not force:
        raise UsageError(
            f"{folder}: holds something already; --force replaces what was prepared, or choose another --out"
        )
    if not (folder / RECORD).is_file():
        raise UsageError(f"{folder}: holds files that were not prepared by this command; choose another --out")


def check_complete(folder: Path) -> None:
    """Raise `UsageError` unless a folder was prepared, and wholly."""
    record = folder / RECORD
    if not record.is_file():
        raise UsageError(f"{folder}: is a folder that wsd-local train prepare did not make; name one, or a file")
    values = read_json(record)
    if not isinstance(values, dict) or values.get("complete") is not True:
        raise UsageError(f"{folder}: is not complete: prepare it again, with --force")


def write_folder(folder: Path, files: Mapping[str, str], known: Iterable[str] = ()) -> None:
    """Write all files of a folder, `prepared.json` among them.

    Args:
        folder: a new one, an empty one, or one that was prepared before.
        files: texts by their names in it.
        known: names that an earlier preparation may have used: those files go, if they are not among the new ones.

    Raises:
        OSError: it cannot be written.
    """
    if folder.exists() and any(folder.iterdir()):
        _replace(folder, files, known)
        return
    make_folder(folder.parent)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    part.mkdir()
    try:
        _write(part, files)
        if folder.exists():
            folder.rmdir()
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    flush_folder(folder.parent)


def _replace(folder: Path, files: Mapping[str, str], known: Iterable[str]) -> None:
    write_text(folder / RECORD, _INCOMPLETE)
    for name in set(known) - set(files):
        (folder / name).unlink(missing_ok=True)
    _write(folder, files)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name in sorted(files, key=lambda name: name == RECORD):
        write_text(folder / name, files[name])
