"""Copying messages.

Contract: the message says "copied" only where a program took the text; whether a terminal did cannot be known.
"""

from __future__ import annotations

from wsd_chat.terminal.clipboard import copy
from wsd_chat.view import View
from wsd_chat.widgets.transcript import Transcript

FENCE = "```"


def chosen_text(transcript: Transcript) -> str:
    """The text of the chosen message, else of the last reply."""
    entry = transcript.chosen or transcript.reply
    return "" if entry is None else entry.text


def last_code_block(text: str) -> str | None:
    """The last code block of a Markdown text."""
    blocks = text.split(FENCE)[1::2]
    return blocks[-1].partition("\n")[2].rstrip("\n") if blocks else None


def put_into_clipboard(view: View, text: str) -> None:
    """Copy a text, and say how."""
    program = copy(text)
    if program is not None:
        view.say(f"copied ({len(text)} characters, by {program})")
    else:
        view.copy_to_clipboard(text)
        view.say("sent to the terminal's clipboard; whether it arrived is not known", "warning")
