"""The theme that the chat remembers from one start to the next.

Contract: a small file beside the chats; one that is missing or damaged is no error, and the usual theme holds.
"""

from __future__ import annotations

import json
from pathlib import Path

from wsd_local.files import write_text

USUAL = "textual-dark"


class KeptTheme:
    """`name` is the theme that was kept last; with a path of None nothing is remembered."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.name = self._read()

    def keep(self, name: str) -> None:
        """Remember a theme.

        Raises:
            OSError: the file cannot be written.
        """
        self.name = name
        if self._path is not None:
            write_text(self._path, json.dumps({"theme": name}) + "\n", private=True)

    def _read(self) -> str:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))["theme"] if self._path is not None else USUAL
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return USUAL
        return found if isinstance(found, str) else USUAL
