"""A reply's text as Markdown with a mark where the writer changed.

Contract: pure. A source carries `SWITCH` where the base took over. `pieces` cuts a growing text where later text cannot
change what stands before; `placed` finds the place nearest to the switch at which a mark leaves the Markdown structure
as it is, so that headings, lists, tables and code stay what they are. A line break stays a line break.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from wsd_local.system.visible import visible

SWITCH = "\ue000"
"""A private-use character; it is removed from what models write."""

MARK_END = "\ue001"
"""Ends the label of a mark that is laid out with the text; `SWITCH` begins it."""

_GOES_ON = re.compile(r"\s|[-*+>|]\s?|\d+[.)]\s")
"""A line after a blank one that may belong to the block above: no cut is made before it."""

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
_REACH = 80
"""How many characters away from the switch its mark may stand."""

_LOOK = 1000
"""Characters after the switch that may decide where its mark stands."""

_DRAWN = ("text", "code_inline", "code_block", "fence")


def source_of(text: str, drafted: int | None) -> str:
    """The Markdown source of a text whose first `drafted` characters are the draft's; None: there was no switch."""
    if drafted is None:
        return _cleaned(text)
    head = _cleaned(text[:drafted])
    # At the beginning of a line a mark would hide a list, a heading or a fence from Markdown.
    return head.rstrip() + SWITCH + head[len(head.rstrip()) :] + _cleaned(text[drafted:])


def _cleaned(text: str) -> str:
    return visible(text.replace(SWITCH, "").replace(MARK_END, ""))


def pieces(text: str) -> list[str]:
    """The text, cut between blocks that can be drawn apart; only the last piece can still change as the text grows."""
    found: list[str] = []
    begin = at = 0
    fence, blank = "", False
    for line in _LINE.findall(text):
        stripped = line.strip()
        if blank and stripped and not fence and not _GOES_ON.match(line):
            found.append(text[begin:at])
            begin = at
        opening = _FENCE.match(line)
        if fence:
            if stripped.startswith(fence) and not stripped.strip(fence[0]):
                fence = ""
        elif opening:
            fence = opening[1]
        blank = not stripped
        at += len(line)
    return [*found, text[begin:]]


def placed(text: str, at: int) -> int | None:
    """Where a mark for a switch at `at` can stand in the text; None if it can stand nowhere near."""
    text = text[: at + _LOOK]
    shape = _shape(text)
    near: list[int] = [at, *range(at - 1, max(-1, at - _REACH), -1), *range(at + 1, min(len(text), at + _REACH) + 1)]
    for place in near:
        marked = _shape(text[:place] + SWITCH + text[place:])
        bare = [(kind, content.replace(SWITCH, "")) for kind, content in marked]
        seen = sum(content.count(SWITCH) for kind, content in marked if kind in _DRAWN)
        if seen == 1 and bare == shape:
            return place
    return None


def tokens(text: str) -> list[Token]:
    """The Markdown tokens of a text: soft line breaks are line breaks, a link shows its target."""
    found = _parser().parse(text)
    for token in found:
        if token.children:
            token.children = list(_plain(token.children))
    return found


def _plain(children: Sequence[Token]) -> Iterator[Token]:
    begun: list[tuple[str, str]] = []
    for child in children:
        if child.type == "softbreak":
            child.type = "hardbreak"
        if child.type == "link_open":
            begun.append((str(child.attrs.get("href", "")), ""))
        elif child.type == "link_close":
            href, shown = begun.pop()
            if href and href not in (shown, f"mailto:{shown}"):
                yield Token("text", "", 0, content=f" ({visible(href, keep_newlines=False)})")
        else:
            begun = [(href, shown + child.content) for href, shown in begun]
            yield child


def _shape(text: str) -> list[tuple[str, str]]:
    """Kinds and contents of all tokens, neighbouring texts as one."""
    found: list[tuple[str, str]] = []
    for token in _parser().parse(text):
        kind = f"{token.type} {token.tag} {token.markup} {token.info} {token.attrs}"
        found.append((token.type, token.content) if token.type in _DRAWN else (kind, ""))
        if token.type == "fence":
            found.append((kind, ""))
        for child in token.children or ():
            if child.type == "text" and found[-1][0] == "text":
                found[-1] = ("text", found[-1][1] + child.content)
            elif child.type != "text" or child.content:
                own = f"{child.type} {child.tag} {child.markup} {child.attrs}"
                found.append((child.type, child.content) if child.type in _DRAWN else (own, child.content))
    return found


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
