"""HTML pages of charts and tables that need nothing else.

Contract: pure text; the same parts give the same page. A page is one file without scripts that loads nothing, readable
on light and on dark ground; beside every chart its figures stand as a table. The terminal shows the same tables.
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wsd_local.errors import printable
from wsd_local.reports.charts import DARK, LIGHT

CHART_BINS = 20
"""Bars of a histogram, at most."""


@dataclass(frozen=True, slots=True)
class Table:
    """Figures as text. The first column names the rows; a column's name may have two lines."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with what it shows in a title and a sentence, and its figures."""

    title: str
    caption: str
    svg: str
    figures: Table


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of a page with a heading of its own: statements, each with what it says of, then charts and tables."""

    title: str
    statements: tuple[tuple[str, str], ...]
    parts: Sequence[Chart | Table]


def percent(value: float | None) -> str:
    """A share."""
    return "" if value is None else f"{value:.1%}"


def whole_percent(value: float) -> str:
    """A share as a label in a chart."""
    return f"{value:.0%}"


def seconds(value: float | None) -> str:
    """A time."""
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def short(value: float) -> str:
    """A number as a label in a chart."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def decimal(value: float | None) -> str:
    """A mean."""
    return "" if value is None else f"{value:.1f}"


def range_name(first: int, last: int) -> str:
    """Whole numbers from the first to the last."""
    return str(first) if first == last else f"{first}–{last}"


def page(title: str, lead: Sequence[str], parts: Sequence[Chapter | Chart | Table]) -> str:
    """A whole HTML file."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    body += [f'<p class="lead">{html.escape(printable(text))}</p>' for text in lead]
    charts = itertools.count(1)
    for part in parts:
        body += _chapter(part, charts) if isinstance(part, Chapter) else [_part(part, charts, "h2")]
    return _PAGE.format(title=html.escape(title), style=_css(), body="\n".join(body))


def _chapter(chapter: Chapter, charts: Iterator[int]) -> Iterator[str]:
    yield f'<h2 class="chapter">{html.escape(printable(chapter.title))}</h2>'
    lines = (
        f"<dt>{html.escape(what)}</dt><dd>{html.escape(printable(text))}</dd>" for what, text in chapter.statements
    )
    yield "<dl>\n" + "\n".join(lines) + "\n</dl>"
    for part in chapter.parts:
        yield _part(part, charts, "h3")


def _part(part: Chart | Table, charts: Iterator[int], heading: str) -> str:
    title = f"<{heading}>{html.escape(printable(part.title))}</{heading}>"
    if isinstance(part, Table):
        return f"<section>\n{title}\n{_cells(part)}\n</section>"
    number = next(charts)
    return (
        f'<figure id="chart-{number}">\n{title}\n'
        f"<figcaption>{html.escape(printable(part.caption))}</figcaption>\n{_own_names(part.svg, f'c{number}-')}\n"
        f"<details><summary>The figures</summary>\n{_cells(part.figures)}\n</details>\n</figure>"
    )


def _own_names(svg: str, prefix: str) -> str:
    """Identifiers that no other chart of the page has."""

    def renamed(tag: re.Match[str]) -> str:
        return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", tag[0])

    return re.sub(r"<[^>]*>", renamed, svg)


def _cells(table: Table) -> str:
    def line(cells: Sequence[str], first: str, other: str) -> str:
        tags = [first, *[other] * (len(cells) - 1)]
        texts = ["<br>".join(html.escape(printable(part)) for part in cell.split("\n")) for cell in cells]
        return "<tr>" + "".join(f"<{t}>{text}</{t.split()[0]}>" for t, text in zip(tags, texts, strict=True)) + "</tr>"

    head = line(table.columns, 'th scope="col"', 'th scope="col"')
    rows = "\n".join(line(row, 'th scope="row"', "td") for row in table.rows)
    note = f'\n<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return f'<div class="wide"><table>\n<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody></table></div>{note}'


def _css() -> str:
    light = "".join(f"--c{number}:{colour};" for number, colour in enumerate(LIGHT))
    dark = "".join(f"--c{number}:{colour};" for number, colour in enumerate(DARK))
    return _CSS.replace("/*light*/", light).replace("/*dark*/", dark)


_CSS = """
:root{color-scheme:light dark;--ground:#fff;--ink:#1d1f23;--faint:#c9ccd2;--soft:#5d626b;--card:#f6f7f9;/*light*/}
@media(prefers-color-scheme:dark){:root{--ground:#16181c;--ink:#e6e8ec;--faint:#4a4f58;--soft:#a3a9b4;
--card:#1f2228;/*dark*/}}
body{margin:2.5rem auto;max-width:52rem;padding:0 1.25rem;background:var(--ground);color:var(--ink);
font:16px/1.5 system-ui,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .75rem}
h2,h3{font-size:1.12rem;margin:0 0 .2rem}
h2.chapter{font-size:1.4rem;margin:3rem 0 .6rem;border-top:1px solid var(--faint);padding-top:1rem}
dl{margin:.6rem 0;max-width:44rem}
dt{font-weight:600;margin-top:.5rem}
dd{margin:0}
.lead{margin:.4rem 0;max-width:44rem}
figure,section{margin:2.2rem 0}
figcaption,.note{color:var(--soft);font-size:.92rem;max-width:44rem}
figcaption{margin-bottom:.6rem}
svg{display:block;width:100%;height:auto}
svg *{stroke-linejoin:round;stroke-linecap:butt}
details{margin-top:.4rem;font-size:.9rem}
summary{cursor:pointer;color:var(--soft)}
.wide{overflow-x:auto}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums;font-size:.88rem}
th,td{padding:.22rem .7rem;text-align:right;border-bottom:1px solid var(--faint);white-space:nowrap}
thead th{background:var(--card);vertical-align:bottom;font-weight:600}
tr>:first-child{text-align:left}
tbody th{font-weight:400}
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
