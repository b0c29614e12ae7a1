"""A reply drawn as lines, the same while it is written and afterwards.

Contract: the text before `SWITCH` has the draft's style, and the mark itself shows the label. Pieces that are complete
are drawn once for a width. This is one renderable: separate widgets would have to be rebuilt with every word of a list
or a table.
"""

from __future__ import annotations

from typing import ClassVar

from rich import markdown as rich_markdown
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from wsd_chat.markdown.source import MARK_END, SWITCH, pieces, placed, tokens

MARK = Style(reverse=True)
NARROWEST = 20
Line = list[Segment]


class LiveMarkdown:
    """Markdown in which the draft's part has a style of its own. `drafted`: a text without a mark is the draft's."""

    def __init__(self, style: Style) -> None:
        self.source = ""
        self.label = ""
        self.style = style
        self.drafted = True
        self._pieces: dict[tuple[object, ...], list[Line]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(console, options.max_width):
            yield from line
            yield Segment.line()

    def lines(self, console: Console, width: int) -> list[Line]:
        """The lines for a width in cells; at least `NARROWEST` are taken."""
        before, mark, after = self.source.partition(SWITCH)
        text, at = before + after, len(before) if mark else None
        drawn: dict[tuple[object, ...], list[Line]] = {}
        found: list[Line] = []
        begin = 0
        for piece in pieces(text):
            end = begin + len(piece)
            inside = at is not None and begin <= at <= end and (at < end or end == len(text))
            drafting = self.drafted if at is None else at >= begin
            key = (piece, at - begin if inside and at is not None else None, drafting, width, self.label, self.style)
            drawn[key] = self._pieces.get(key) or self._draw(console, max(width, NARROWEST), piece, key[1], drafting)
            found += [[], *drawn[key]] if found and drawn[key] else drawn[key]
            begin = end
        self._pieces = drawn
        return found

    def _draw(self, console: Console, width: int, piece: str, at: object, drafting: bool) -> list[Line]:
        """One piece; `at` is the switch in it, None if there is none."""
        place = placed(piece, at) if isinstance(at, int) else None
        marked = piece
        if place is not None:
            marked = f"{piece[:place]}{SWITCH}{self.label}{MARK_END}{piece[place:]}"
        lines = _laid_out(console, width, marked)
        styled = _Styles(self.style, drafting)
        lines = [styled.line(line) for line in lines]
        if at is not None and place is None:
            lines.append([Segment(f"▐{self.label}▌", MARK)])
        return lines


class _Styles:
    """Walks over the segments of a piece: the draft's style up to the mark, the mark's on it, none after it."""

    def __init__(self, style: Style, drafting: bool) -> None:
        self._style, self._drafting, self._marking = style, drafting, False

    def line(self, line: Line) -> Line:
        """One line; a mark may continue on the next."""
        found: Line = []
        for text, style, control in line:
            if control:
                continue
            while text:
                end = MARK_END if self._marking else SWITCH
                part, sign, text = text.partition(end)
                if part:
                    found.append(Segment(part, self._own(style)))
                if sign:
                    found.append(Segment("▌" if self._marking else "▐", MARK))
                    self._drafting, self._marking = False, not self._marking
        return found

    def _own(self, style: Style | None) -> Style | None:
        if self._marking:
            return MARK
        if not self._drafting:
            return style
        return self._style if style is None else style + self._style


class _Heading(rich_markdown.Heading):
    """A heading at the left."""

    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = dict.fromkeys(("h1", "h2", "h3", "h4", "h5", "h6"), "left")


class _Markdown(rich_markdown.Markdown):
    """Rich's Markdown of tokens that are parsed already; links are text, so that no target is hidden."""

    elements: ClassVar[dict[str, type[rich_markdown.MarkdownElement]]] = {
        **rich_markdown.Markdown.elements,
        "heading_open": _Heading,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        self.parsed = tokens(text)


def _laid_out(console: Console, width: int, text: str) -> list[Line]:
    options = console.options.update(width=width, height=None, highlight=False)
    try:
        lines = console.render_lines(_Markdown(text), options, pad=False)
    except Exception:  # whatever a library raises over a model's text: the plain text is shown
        lines = console.render_lines(Text(text), options, pad=False)
    while lines and _is_blank(lines[0]):
        lines.pop(0)
    while lines and _is_blank(lines[-1]):
        lines.pop()
    return lines


def _is_blank(line: Line) -> bool:
    return not any(segment.text.strip() for segment in line if not segment.control)
