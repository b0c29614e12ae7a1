"""What kind of text holds the window at a switch, by plain rules.

Contract: pure. The rules look at the draft's text, at the place of the window in it and at the last user message; the
first one of `KINDS` that fits counts. They know English words, and the marks of Markdown. A sentence ends at a line
feed, or at `.`, `!`, `?` or `:` before white space. A window's line is the one in which it ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_MARKER = re.compile(r"^[ \t]*(?:[-*+•]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]", re.MULTILINE)
_HEADING = re.compile(r"#{1,6}[ \t]|(\*\*|__)[^*_]+\1:?$")
_UNDERLINE = re.compile(r"={3,}$|-{3,}$")
_SENTENCE = re.compile(r"(?:[^\n]*?[.!?:](?=\s)|[^\n]+)\s*|\s+")
_GREETING = re.compile(
    r"(?:hello|hi|hey|greetings|welcome|dear|sure|certainly|of course|absolutely|definitely|no problem|thanks?"
    r"|thank you|(?:that['’]?s an? |what an? )?(?:great|good|interesting|excellent) question|i hope|let me help"
    r"|i can help|i(?:['’]d| would|['’]m| am) (?:be )?(?:happy|glad|pleased|delighted) to|i(?:['’]m| am) sorry"
    r"|i apologi[sz]e)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_OPENING = 2
"""Sentences in which a greeting can stand."""
_RUN = 3
"""Words of the user's message, one after the other, that make a restated question."""
_LONG = 4
"""Characters of the longest of these words, at least."""
_REPEATED = 12
"""Characters of a window that stood in the draft before, at least."""


@dataclass(frozen=True, slots=True)
class Window:
    """The window `text[start:end]` at a switch, and the user's message that the text answers."""

    text: str
    start: int
    end: int
    prompt: str

    @property
    def inside(self) -> str:
        """The window's own text."""
        return self.text[self.start : self.end]

    @property
    def last(self) -> int:
        """The place of the last character before the window's end that is no white space."""
        return max(0, len(self.text[: self.end].rstrip()) - 1)

    @property
    def line(self) -> str:
        """The whole line in which it ends, stripped."""
        begin, after = self.text.rfind("\n", 0, self.last) + 1, self.text.find("\n", self.last)
        return self.text[begin : len(self.text) if after < 0 else after].strip()

    @property
    def first_sentence(self) -> tuple[int, str]:
        """The sentence in which it begins: its number, from 0, and the whole of it, stripped."""
        return self._sentence(min(self.last, self.end - len(self.inside.lstrip())))

    @property
    def last_sentence(self) -> tuple[int, str]:
        """The same of the one in which it ends."""
        return self._sentence(self.last)

    def _sentence(self, place: int) -> tuple[int, str]:
        number = 0
        for found in _SENTENCE.finditer(self.text):
            if found.end() > place:
                return number, found.group().strip()
            number += bool(found.group().strip())
        return number, ""


def kind_of(window: Window) -> str:
    """The first of `KINDS` that fits."""
    return next((kind for kind, (_, fits) in _RULES.items() if fits(window)), OTHER)


# -- rules ---------------------------------------------------------------------------------------------------


def _is_code(window: Window) -> bool:
    fences = [found.start() for found in _FENCE.finditer(window.text)]
    return sum(start < window.end for start in fences) % 2 == 1 or any(
        window.start <= start < window.end for start in fences
    )


def _has_list_marker(window: Window) -> bool:
    return any(found.start() < window.end and found.end() > window.start for found in _MARKER.finditer(window.text))


def _is_heading(window: Window) -> bool:
    _, _, following = window.text[window.last :].partition("\n")
    underlined = bool(window.line) and _UNDERLINE.match(following.partition("\n")[0].strip())
    return bool(_HEADING.match(window.line) or _UNDERLINE.match(window.line) or underlined)


def _is_greeting(window: Window) -> bool:
    touched = (window.first_sentence, window.last_sentence)
    return any(number < _OPENING and _GREETING.match(sentence) for number, sentence in touched)


def _restates_question(window: Window) -> bool:
    asked, used = _runs(window.prompt), _runs(window.inside)
    return any(max(map(len, run)) >= _LONG for run in asked & used)


def _announces(window: Window) -> bool:
    return window.last_sentence[1].endswith(":")


def _repeats(window: Window) -> bool:
    text = " ".join(window.inside.split())
    return len(text) >= _REPEATED and text in " ".join(window.text[: window.start].split())


def _runs(text: str) -> set[tuple[str, ...]]:
    words = [word.lower() for word in _WORD.findall(text)]
    return {tuple(words[at : at + _RUN]) for at in range(len(words) - _RUN + 1)}


_RULES: Mapping[str, tuple[str, Callable[[Window], bool]]] = {
    "code": ("inside a block of code, or at its fence", _is_code),
    "list marker": (
        "a bullet, number or letter at the beginning of a line is in it, at least in part",
        _has_list_marker,
    ),
    "heading": ("its line is marked by #, all in bold type, or underlined", _is_heading),
    "greeting": (
        "it begins or ends in one of the first two sentences, and that begins with a greeting, an assent, praise, "
        "thanks or an apology",
        _is_greeting,
    ),
    "restated question": (
        "three words of the user's message are in it, one after the other, one of them of four letters or more",
        _restates_question,
    ),
    "announcement": ("it ends in a sentence with a colon at its end", _announces),
    "repetition": ("its text, of 12 characters or more, stands in the draft before", _repeats),
}
OTHER = "other"
KINDS = (*_RULES, OTHER)
"""In the order in which they are tried."""
MEANINGS: Mapping[str, str] = {
    **{kind: meaning for kind, (meaning, _) in _RULES.items()},
    OTHER: "none of these: mostly the middle of a sentence",
}
"""What is true of a window of each kind."""
