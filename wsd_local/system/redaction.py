"""Redaction of text for a bug report: the user's home folder, and secrets.

Contract: pure but for where the home folder is. A path counts as the home folder only as a whole: `/home/ann` is no
part of `/home/anna` or `/mnt/home/ann`. A home folder such as `/` is left alone: it identifies nobody.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsd_local.system.network import without_secrets


def redacted(value: Any) -> Any:
    """Text, or lists and dictionaries of text, without secrets and with the home folder as `~`."""
    if isinstance(value, str):
        return without_home(without_secrets(value), homes())
    if isinstance(value, dict):
        return {redacted(key): redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return value


def without_home(text: str, folders: list[Path]) -> str:
    """The text with each of the folders written as `~`, where it is a whole path or the beginning of one."""
    for folder in folders:
        name = re.escape(str(folder))
        # A dot may end a sentence; before a letter it is part of the name.
        text = re.sub(rf"(?<![\w.~-]){name}(?=[/\\]|[^\w.~-]|\.(?!\w)|$)", "~", text)
    return text


def homes() -> list[Path]:
    """The home folder as HOME and the system name it, and as it really is; none if it is the root of a disk."""
    named: list[str | Path] = []
    with suppress(RuntimeError):
        named.append(Path.home())
    with suppress(ImportError, KeyError):  # Windows; a user whom the system does not know
        import pwd

        named.append(pwd.getpwuid(os.getuid()).pw_dir)
    named += [os.path.realpath(home) for home in named]
    found = dict.fromkeys(Path(os.path.abspath(path)) for path in named)  # noqa: PTH100
    return sorted((path for path in found if path != path.parent), key=lambda path: -len(str(path)))
