"""Patterns of JSON schemas, written so that llguidance reads and quotes them rightly.

Contract: pure; text in, text out. llguidance 1.9 turns what a pattern matches into how JSON writes it. For a set that
has all control characters it adds quotes and backslashes, also where the set excludes them, so that the string `"`
would match `[^"]`. A set without NUL is quoted rightly. In a set of JSON Schema's dialect (ECMA 262) brackets, `&&` and
`~~` stand for themselves; llguidance would combine sets. What cannot be read here stays, for llguidance to refuse.
"""

from __future__ import annotations

import re

_PARTS = re.compile(r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])|(?P<kind>\\[pP](?:\{[^}]*\}|.))|\\.", re.DOTALL)
_PLAIN_SET = re.compile(r"\[[ -%'-Z_-}]+\]")
"""Printable characters, none of them with a meaning: nothing to do."""
_INSIDE = re.compile(r"\\.|[\[&~]", re.DOTALL)


def quotable(pattern: str) -> str:
    """`pattern` in llguidance's dialect, with NUL taken out of each set of characters."""
    return _PARTS.sub(_part, pattern)


def _part(match: re.Match[str]) -> str:
    part = match["set"] or match["kind"]
    if part is None or _PLAIN_SET.fullmatch(part):
        return match[0]
    if match["set"]:
        part = "[" + _INSIDE.sub(lambda inner: inner[0] if len(inner[0]) > 1 else f"\\{inner[0]}", part[1:])
    return rf"[{part}&&[^\x00]]"
