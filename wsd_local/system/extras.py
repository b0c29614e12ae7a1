"""The extras of this package, and how to install them.

Contract: read from the installed package's own metadata, so that it works from a checkout, a wheel or an index alike:
the packages are named themselves, not this one.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires


def install_command(extra: str) -> str:
    """The command that installs what `wsd-local[extra]` needs into this environment."""
    try:
        lines = requires("wsd-local") or []
    except PackageNotFoundError:
        lines = []
    wanted = [line.partition(";")[0].strip() for line in lines if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    if not wanted:  # run from a folder that was never installed
        return f'"{sys.executable}" -m pip install ".[{extra}]"'
    return f'"{sys.executable}" -m pip install ' + " ".join(f'"{one}"' for one in wanted)
