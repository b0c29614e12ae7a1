"""Reads a page of a report as strictly as a browser does not: every element closed, names once, nothing loaded."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "br"}


class PageReader(HTMLParser):
    """What a page holds. AssertionError for a page that is not well-formed or loads something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.wanted: set[str] = set()
        self.labels: list[str] = []
        self.headings: list[str] = []
        self.cells: list[str] = []
        self.drawn: list[str] = []
        assert text.startswith("<!doctype html>")
        self.feed(text)
        self.close()
        assert not self.open, self.open
        assert len(set(self.ids)) == len(self.ids)
        assert self.wanted <= set(self.ids)
        assert not {"script", "link", "img", "iframe", "object", "image"} & set(self.tags)
        assert self.tags.count("svg") == len(self.labels)
        bare = re.sub(r' xmlns(:xlink)?="http://www\.w3\.org/[^"]*"', "", text)
        assert "http" not in bare.replace("http-equiv", "")
        assert "@import" not in text and not re.search(r"url\((?!#)", text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = {name: value or "" for name, value in attrs}
        assert len(values) == len(attrs), (tag, attrs)
        assert not [name for name in values if name.startswith("on") or name in ("src", "srcset")]
        self.ids += [values["id"]] if "id" in values else []
        if tag == "svg":
            assert values["role"] == "img"
            self.labels.append(values["aria-label"])
        for name, value in values.items():
            if name.endswith("href"):
                assert value.startswith("#"), value
                self.wanted.add(value[1:])
            if name != "aria-label":
                self.wanted |= set(re.findall(r"url\(#([^)]*)\)", value))
            if name == "style":
                assert not re.search(r"#0[1-4]0[0-9a-f]", value), value

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        into = {"h2": self.headings, "td": self.cells, "th": self.cells, "text": self.drawn}.get(inside)
        if into is not None:
            into.append(data.strip())
