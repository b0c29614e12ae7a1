"""The widget of a reply: the lines of `LiveMarkdown`, which can be scrolled and selected.

Contract: the same widget shows a reply while it is written and afterwards, so nothing moves when it is complete. Only
visible lines are given to the screen.
"""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.geometry import Size
from textual.selection import Selection
from textual.strip import Strip
from textual.widget import Widget

from wsd_chat.markdown.live import Line, LiveMarkdown


class ReplyMarkdown(Widget):
    """Markdown of one reply. `label` is the text of the mark; `drafted`: a text without a mark is the draft's."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"reply--draft"}
    DEFAULT_CSS = """
    ReplyMarkdown { width: 1fr; height: auto; }
    ReplyMarkdown > .reply--draft { text-style: italic; color: $text-primary; }
    """

    def __init__(self, source: str = "", *, label: str = "", drafted: bool = True) -> None:
        super().__init__()
        self.source, self.label, self.drafted = source, label, drafted
        self._drawing: LiveMarkdown | None = None
        self._lines: list[Line] = []
        self._width = -1

    def show(self, source: str, *, label: str, drafted: bool) -> None:
        """Show another text."""
        if (source, label, drafted) != (self.source, self.label, self.drafted):
            self.source, self.label, self.drafted = source, label, drafted
            self._again()

    def append(self, text: str) -> None:
        """Show more."""
        self.show(self.source + text, label=self.label, drafted=self.drafted)

    def notify_style_update(self) -> None:
        """Draw again in another theme."""
        super().notify_style_update()
        self._drawing, self._width = None, -1

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """The whole width."""
        return container.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Lines of the text for this width."""
        return len(self._drawn(width))

    def render_line(self, y: int) -> Strip:
        """One line of it."""
        width, base = self.size.width, self.rich_style
        lines = self._drawn(width)
        line = lines[y] if y < len(lines) else []
        selection = self.text_selection
        span = None if selection is None else selection.get_span(y)
        if span is not None:
            text = Text.assemble(*((segment.text, segment.style or "") for segment in line), end="", no_wrap=True)
            text.stylize(
                self.screen.get_component_rich_style("screen--selection"),
                span[0],
                len(text) if span[1] == -1 else span[1],
            )
            strip = Strip(text.render(self.app.console))
        else:
            strip = Strip(line)
        return strip.apply_style(base).crop(0, width).extend_cell_length(width, base).apply_offsets(0, y)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text selected with the mouse."""
        lines = ("".join(segment.text for segment in line).rstrip() for line in self._drawn(self.size.width))
        return selection.extract("\n".join(lines)), "\n"

    def _again(self) -> None:
        self._width = -1
        if self.is_mounted:
            self._content_height_cache = (None, 0)
            self.refresh(layout=True)

    def _drawn(self, width: int) -> list[Line]:
        if width != self._width:
            if self._drawing is None:
                self._drawing = LiveMarkdown(self.get_component_rich_style("reply--draft", partial=True))
            drawing = self._drawing
            drawing.source, drawing.label, drawing.drafted = self.source, self.label, self.drafted
            self._lines, self._width = drawing.lines(self.app.console, width), width
        return self._lines
