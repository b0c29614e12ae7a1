"""Full-text search in words and in scripts that have no spaces between them.

Contract: pure functions. SQLite's unicode61 tokenizer cuts text into words and forgets case and diacritics; a run of
Chinese is one word to it. So text in scripts without spaces is indexed with a space around each of their characters,
and what is looked for in them is a phrase of such characters. Any text is a query: words are beginnings of words and
all must occur; what stands in double quotes is a phrase of whole words.
"""

from __future__ import annotations

import re
import unicodedata

_UNSPACED = re.compile(
    "["
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\uac00-\ud7af"  # Hangul has spaces, but endings without one
    "]"
)
_TERM = re.compile(r'"([^"]*)"|([^\s"]+)')
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_QUERY, _MAX_TERMS = 1000, 32
"""Characters and terms of a query: SQLite's parser has limits."""

TITLE_LENGTH = 60
"""Characters of a title, at most."""
_BEFORE, _LENGTH = 40, 160
"""Characters of a snippet: in front of the first place that was found, and in all."""


def clean(text: str) -> str:
    """Text that can be encoded: half surrogate pairs become replacement characters."""
    return _SURROGATE.sub("\ufffd", text)


def cleaned(text: str | None) -> str | None:
    """`clean` of a text; None stays None."""
    return None if text is None else clean(text)


def one_line(text: str) -> str:
    """One line that fits into a list."""
    line = " ".join(clean(text).replace("\0", " ").split())
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def words(text: str) -> str | None:
    """The form of a text that is indexed; None if that is the text itself."""
    return _spaced(text) if _UNSPACED.search(text) else None


def match_expression(text: str) -> str | None:
    """A query in FTS5's language; None if there is no letter or digit in it."""
    parts = []
    for phrase, word in _terms(text):
        term = phrase or word
        if any(map(_is_letter, term)):
            # A word that ends in a sign, as in "C++", is whole: all words in c are not meant.
            prefix = "*" if word and _is_letter(word[-1]) else ""
            parts.append(f'"{_spaced(term)}"{prefix}')
    return " ".join(parts) or None


def folded(text: str) -> str:
    """Text without case and diacritics."""
    return "".join(map(_folded, text))


def contains(text: str, query: str) -> bool:
    """Whether every term of a query stands somewhere in a short text such as a title."""
    inside = folded(text)
    return all(folded(phrase or word) in inside for phrase, word in _terms(query))


def snippet(text: str, query: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """One line around the first place that was found, and where in it the places found are (start, end)."""
    plain, origins = [], []
    for index, character in enumerate(text):
        for letter in _folded(character):
            plain.append(letter)
            origins.append(index)
    origins.append(len(text))
    pattern = _places(query)
    found = [] if pattern is None else [match.span() for match in pattern.finditer("".join(plain))]
    spans = [(origins[start], origins[end - 1] + 1) for start, end in found]
    begin = max(0, spans[0][0] - _BEFORE) if spans else 0
    end = min(len(text), begin + _LENGTH)
    left, right = "…" if begin else "", "…" if end < len(text) else ""
    line = "".join(" " if c.isspace() or unicodedata.category(c) == "Cc" else c for c in text[begin:end])
    shift = len(left) - begin
    return left + line + right, tuple((a + shift, b + shift) for a, b in spans if b <= end)


def _terms(query: str) -> list[tuple[str, str]]:
    """(phrase, "") or ("", word) for each part of a query."""
    shown = clean(query)[:_MAX_QUERY].replace("\0", " ")
    return [(phrase, word) for phrase, word in _TERM.findall(shown)[:_MAX_TERMS] if phrase or word]


def _places(query: str) -> re.Pattern[str] | None:
    choices = []
    for phrase, word in _terms(query):
        term = folded(phrase or word)
        if not any(map(_is_letter, term)):
            choices.append(re.escape(term))
            continue
        for part in re.findall(r"\w+", term):
            choices.append(re.escape(part) if _UNSPACED.search(part) else rf"(?<![^\W_]){re.escape(part)}")
    return re.compile("|".join(sorted(choices, key=len, reverse=True))) if choices else None


def _spaced(text: str) -> str:
    return _UNSPACED.sub(lambda match: f" {match.group()} ", text)


def _is_letter(character: str) -> bool:
    """Whether unicode61 treats a character as part of a word."""
    category = unicodedata.category(character)
    return category[0] in "LN" or category == "Co"


def _folded(character: str) -> str:
    if character.isascii():
        return character.lower()
    parts = unicodedata.normalize("NFKD", character)
    return "".join(part for part in parts if unicodedata.category(part) != "Mn").casefold()
