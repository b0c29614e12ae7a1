"""Text for a terminal: characters that could steer it, or are hidden, become visible symbols.

Contract: pure. One character of the text is one character of the result, so positions in one are positions in the
other; text of any script, and emoji, stay as they are.

Control characters (C0, DEL) become the control pictures of Unicode: ESC is ␛. What has no picture becomes U+FFFD:
C1 controls, overrides and isolates of the writing direction, separators of lines, invisible characters that no script
or emoji needs where they stand, and lone surrogates. Kept are the joiners, the marks of direction, one variation
selector after a character, the tags of a flag, and the zero-width space in scripts that are written without spaces.
"""

from __future__ import annotations

import re

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\N{SYMBOL FOR DELETE}"}
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_WITHOUT_SPACES = (
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u3040-\u30ff\u3400-\u9fff\ua980-\uaadf"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Tai, Japanese, Chinese, Javanese, Cham."""

_FLAG_TAGS = 7
"""Most tag characters after a black flag, the last one included: gbeng and its end."""

_HIDDEN = re.compile(
    # A flag of a region is a black flag and tags: kept, as the first choice of all.
    rf"(?:\U0001F3F4[\U000E0020-\U000E007F]{{1,{_FLAG_TAGS}}})"
    r"|(?P<hidden>[\x00-\x08\x0b-\x1f\x7f-\x9f"
    r"\u2028\u2029\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000E0000-\U000E007F\ud800-\udfff]"
    rf"|(?<=[{_SELECTORS}])[{_SELECTORS}]"
    rf"|(?<![{_WITHOUT_SPACES}])\u200b)"
)
_BREAKS = str.maketrans({"\n": _PICTURES[0x0A], "\t": _PICTURES[0x09]})


def visible(text: str, *, keep_newlines: bool = True, before: str = "") -> str:
    """`text` with a symbol for each character that could steer or deceive.

    `keep_newlines`: line feeds and tabs stay; else they become symbols too, for text that has one line. `before` is
    what was shown before it, for text that comes in pieces (its end of `CONTEXT` characters is enough).
    """
    context = before[-CONTEXT:]
    shown = _HIDDEN.sub(_symbol, context + text)[len(context) :]
    return shown if keep_newlines else shown.translate(_BREAKS)


CONTEXT = _FLAG_TAGS + 1
"""Characters before a piece of text that its symbols can depend on."""


def _symbol(match: re.Match[str]) -> str:
    hidden = match["hidden"]
    return match[0] if hidden is None else _PICTURES.get(ord(hidden), "\N{REPLACEMENT CHARACTER}")
