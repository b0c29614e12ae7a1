"""A file that is to be made: whether it may be, and whether there is room for it.

Contract: looks only; nothing is written or removed.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from wsd_local.errors import UsageError, WsdError
from wsd_local.units import gb

_OPEN_ALREADY = ("/dev/std", "/dev/fd/", "/proc/")
"""How the names begin by which a system knows what a program has open."""


def check_free(output: Path, force: bool) -> None:
    """Raise `UsageError` if a file is in the way and may not be replaced, or something that is no file."""
    check_regular(output)
    if output.exists() and not force:
        raise UsageError(f"{output}: exists already; --force replaces it, --as and --output choose another name")


def check_file(output: Path) -> None:
    """Raise `UsageError` unless a file can be written under this name in a folder that is there: none is made."""
    check_regular(output)
    if not output.parent.is_dir():
        what = " is no folder" if output.parent.exists() else ": there is no such folder; make it first"
        raise UsageError(f"{output}: cannot be written: {output.parent}{what}, or name another file")


def check_regular(output: Path) -> None:
    """Raise `UsageError` if there is something of this name that is no file: a folder, a pipe, a device."""
    if (what := irregular(output)) is not None:
        raise UsageError(f"{output}: is {what}; name a file")


def irregular(path: Path) -> str | None:
    """What a path names, if that is there and no file that can be written again and replaced.

    Raises:
        UsageError: no path can be like this.
    """
    if os.name != "nt" and str(path.absolute()).startswith(_OPEN_ALREADY):
        return "what some program has open"
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISREG(mode):
        return None
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((what for test, what in kinds if test(mode)), "a device")


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
