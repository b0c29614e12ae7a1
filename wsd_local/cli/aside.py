"""A note after the text of an unfinished line on a terminal, removed before the text continues.

Contract: the note is shown only where text and notes share a terminal and the rest of the line has room for it, so that
the cursor never leaves the line; what was written before it is not touched. `written` must receive all that is written.
"""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size

from wsd_local.cli import terminal

_LEAST = 24
"""Columns that a note needs to be of use."""
_SAVE, _BACK, _DIM, _PLAIN, _ERASE = "\x1b7", "\x1b8", "\x1b[2m", "\x1b[0m", "\x1b[K"


class Aside:
    """Notes at the end of the current line of a terminal that is `width` columns wide."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._line = ""
        self._shown = False

    def written(self, text: str) -> None:
        """Text was written, which moves the end of the line; a note must have been removed before."""
        self._line = (self._line + text).rpartition("\n")[2]

    def show(self, note: str) -> None:
        """Show a note in place of the one that is there, if it has room."""
        room = self._width - cell_len(self._line) % self._width - 2
        self.clear()
        if room >= _LEAST:
            fitting = note if cell_len(note) <= room else set_cell_size(note, room - 1).rstrip() + "…"
            terminal.control(f"{_SAVE} {_DIM}{fitting}{_PLAIN}")
            self._shown = True

    def clear(self) -> None:
        """Remove the note."""
        if self._shown:
            self._shown = False
            terminal.control(f"{_BACK}{_ERASE}")
