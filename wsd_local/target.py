"""A file that is to be made: whether it may be, and whether there is room for it.

Contract: looks only; nothing is written or removed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from wsd_local.errors import UsageError, WsdError
from wsd_local.units import gb


def check_free(output: Path, force: bool) -> None:
    """Raise `UsageError` if a file is in the way and may not be replaced, or something that is no file."""
    if output.is_dir():
        raise UsageError(f"{output}: is a folder; name a file")
    if output.exists() and not force:
        raise UsageError(f"{output}: exists already; --force replaces it, --as and --output choose another name")


def check_folder(output: Path) -> None:
    """Raise `UsageError` unless the folder that a person named for a file is there; it is not made."""
    if output.is_dir():
        raise UsageError(f"{output}: is a folder; name a file")
    if not output.parent.exists():
        raise UsageError(f"{output.parent}: there is no such folder; make it first, or name another file")


def check_disk(output: Path, needed: int) -> None:
    """Raise `WsdError` if the disk of `output` has not `needed` bytes free."""
    if (free := free_space(output.parent)) < needed:
        raise WsdError(
            f"{output.parent}: {gb(needed)} are needed and {gb(free)} are free; make room, or choose another disk"
        )


def free_space(folder: Path) -> int:
    """Free bytes of the disk on which a folder is, or would be made."""
    folder = folder.absolute()
    return shutil.disk_usage(next(above for above in (folder, *folder.parents) if above.exists())).free
