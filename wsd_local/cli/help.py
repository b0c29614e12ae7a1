"""How `--help` looks: plain text in two columns, the same on a terminal and in a pipe.

Contract: `Help` is a help formatter of cyclopts. Nothing is cut, and nothing is coloured. A blank line stands before
each part.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

_WIDEST_NAME = 34
"""Columns for names; the description of a longer one begins in the next line."""


class Help:
    """Writes the parts of a help page."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """One group of commands or options."""
        rows = [(_label(entry), _text(console, entry)) for entry in panel.entries]
        if not rows:
            return
        width = min(max(len(label) for label, _ in rows), _WIDEST_NAME) + 4
        lines = ["", f"{panel.title}:"]
        for label, text in rows:
            shown = textwrap.wrap(
                text,
                options.max_width,
                initial_indent=" " * width,
                subsequent_indent=" " * width,
                break_on_hyphens=False,
            )
            if shown and len(label) + 4 <= width:
                shown[0] = f"  {label}".ljust(width) + shown[0][width:]
            else:
                shown.insert(0, f"  {label}")
            lines += shown
        _print(console, "\n".join(lines))

    def render_usage(self, console: Console, _options: ConsoleOptions, usage: Any) -> None:
        """How a command is called."""
        _print(console, f"Usage: {str(usage).strip().removeprefix('Usage:').strip()}")

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """What a command does."""
        paragraphs = _plain(console, description).strip().split("\n\n")
        _print(
            console, "\n" + "\n\n".join(textwrap.fill(" ".join(one.split()), options.max_width) for one in paragraphs)
        )


def _label(entry: HelpEntry) -> str:
    return ", ".join(entry.display_labels_with_metavar)


def _text(console: Console, entry: HelpEntry) -> str:
    parts = [" ".join(_plain(console, entry.description).split())]
    if entry.choices:
        parts.append(f"[choices: {', '.join(entry.choices)}]")
    if entry.default is not None:
        parts.append(f"[default: {entry.default}]")
    if entry.required:
        parts.append("[required]")
    return " ".join(filter(None, parts))


def _plain(console: Console, renderable: Any) -> str:
    """The text of something that Rich can render, without line breaks of its making."""
    if renderable is None:
        return ""
    if isinstance(renderable, str):
        return renderable
    wide = console.options.update(width=1 << 16)
    return "\n".join(
        "".join(segment.text for segment in line).rstrip() for line in console.render_lines(renderable, wide, pad=False)
    )


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
