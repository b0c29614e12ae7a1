"""A reply while it is written: Markdown drawn as one piece.

Contract: the same source as `ReplyMarkdown`, with `SWITCH` where the base took over. Many widgets would have to be made
anew with every word of a list or a table; this is one renderable. Blocks that are complete are drawn once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown
from rich.segment import Segment
from rich.style import Style

from wsd_chat.markdown import SWITCH

MARK = Style(reverse=True)
_GOES_ON = re.compile(r"\s|[-*+>|]\s?|\d+[.)]\s")
"""A line behind a blank one that may belong to the block before: it is not cut off from it."""


class LiveMarkdown:
    """Markdown in which the draft's part has a style of its own. `drafted`: a text without a mark is the draft's."""

    def __init__(self, style: Style, *, drafted: bool = True) -> None:
        self.source = ""
        self.label = ""
        self.style = style
        self.drafted = drafted
        self._complete: tuple[str, int, list[Segment]] = ("", 0, [])
        self._whole: tuple[str, int, list[Segment]] = ("", 0, [])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        source, width, found = self._whole
        if (source, width) != (self.source, options.max_width):
            found = self._draw(console, options)
            self._whole = self.source, options.max_width, found
        yield from found

    def _draw(self, console: Console, options: ConsoleOptions) -> list[Segment]:
        cut = complete_length(self.source)
        head, width, segments = self._complete
        if not self.source.startswith(head) or width != options.max_width:
            head, segments = "", []
        if cut > len(head):
            new = self.source[len(head) : cut]
            segments = [*segments, *self._drawn(console, options, new, drafting=self._drafting(head))]
            head = self.source[:cut]
            self._complete = head, options.max_width, segments
        tail = self.source[len(head) :]
        return [*segments, *self._drawn(console, options, tail, drafting=self._drafting(head))] if tail else segments

    def _drafting(self, head: str) -> bool:
        return SWITCH not in head and (self.drafted or SWITCH in self.source)

    def _drawn(self, console: Console, options: ConsoleOptions, source: str, *, drafting: bool) -> Iterator[Segment]:
        for segment in console.render(Markdown(source, code_theme="ansi_dark"), options):
            if not drafting or segment.control:
                yield segment
            elif SWITCH in segment.text:
                before, _, behind = segment.text.partition(SWITCH)
                yield self._styled(before, segment)
                yield Segment(f"▐{self.label}▌", MARK)
                yield Segment(behind, segment.style)
                drafting = False
            else:
                yield self._styled(segment.text, segment)
        if source.endswith("\n\n"):
            yield Segment.line()

    def _styled(self, text: str, segment: Segment) -> Segment:
        return Segment(text, self.style if segment.style is None else segment.style + self.style)


def complete_length(source: str) -> int:
    """Length of the beginning that later text cannot change: up to the last blank line between two blocks."""
    cut = source.rfind("\n\n")
    while cut > 0:
        head, behind = source[: cut + 2], source[cut + 2 :]
        fences = sum(1 for line in head.splitlines() if line.lstrip().startswith(("```", "~~~")))
        if behind and fences % 2 == 0 and not _GOES_ON.match(behind):
            return cut + 2
        cut = source.rfind("\n\n", 0, cut)
    return 0
