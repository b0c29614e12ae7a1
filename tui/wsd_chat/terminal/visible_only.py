"""A filter that keeps drawn text from controlling the terminal.

Contract: `VISIBLE` is the last filter of every line of every widget. Control and hidden characters become symbols of
`wsd_local.system.visible`, links become plain text, and a line keeps its width.
"""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from wsd_local.system.visible import visible


class Visible(LineFilter):
    """Shows symbols for characters that a terminal would interpret or hide."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """One line."""
        shown: list[Segment] = []
        before = ""
        for segment in segments:
            text, style, control = segment
            new = visible(text, keep_newlines=False, before=before)
            before = text
            if style is not None and style.link:
                style = style.update_link(None)
            shown.append(segment if control or (new == text and style is segment.style) else Segment(new, style))
        if all(new is old for new, old in zip(shown, segments, strict=True)):
            return segments
        # A symbol takes a cell where the character took none.
        return Segment.adjust_line_length(shown, Segment.get_line_length(segments), pad=False)


VISIBLE = Visible()
