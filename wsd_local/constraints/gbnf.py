"""GBNF written so that llguidance's converter to Lark reads it as llama.cpp would.

Contract: pure; text in, text out. It only parses what each character belongs to: a string, a set, a comment, a
name. It spells out characters that the converter drops zeros of, keeps sets of characters free of what regular
expressions read into them, lets `.` stand for line ends too, keeps repeated groups apart and gives rules names of
their own where the converter would take two for one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

_CHARACTER = r"\\x[0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\.|"
_PARTS = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*")|(?P<set>\[(?:\\.|[^\]\\])*\])|(?P<comment>\#[^\r\n]*)"""
    r"""|(?P<any>\.)|(?P<group>\()|(?P<name>[\w-]+)(?P<defined>[ \t]*::=)?|(?P<count>\{[^}]*\})""",
    re.VERBOSE | re.DOTALL,
)
_IN_TEXT = re.compile(_CHARACTER + r"[^\\]", re.DOTALL)
_IN_SET = re.compile(rf"({_CHARACTER}[^\\])(?:-({_CHARACTER}[^\\\]]))?", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_ANYTHING = "[\\x00-\U0010ffff]"


def portable(gbnf: str) -> str:
    """`gbnf`, ready for llguidance's `gbnf_to_lark`.

    Raises:
        ValueError: an escape is unknown, or stands for no character; a rule is defined twice.
    """
    names = [match["name"] for match in _PARTS.finditer(gbnf) if match["defined"]]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"the rule {twice[0]} is there twice")
    renamed = _renamed(names)
    kinds: dict[str, Callable[[str], str]] = {
        "text": lambda part: '"' + "".join(map(_spelled, _IN_TEXT.findall(part[1:-1]))) + '"',
        "set": _set,
        "comment": lambda part: "",
        "any": lambda part: _ANYTHING,
        # The empty string keeps what is repeated in the group from being merged with the group's own repetition.
        "group": lambda part: '( ""',
        "name": lambda part: renamed.get(part, part),
        "count": lambda part: part,
    }

    def replaced(match: re.Match[str]) -> str:
        kind = next(kind for kind in kinds if match[kind] is not None)
        return kinds[kind](match[kind]) + (match["defined"] or "") + " "

    return _PARTS.sub(replaced, gbnf)


def _renamed(names: list[str]) -> dict[str, str]:
    """New names for rules that the converter would confuse, or that Lark reads otherwise."""
    taken, renamed = {"start"}, {}
    for name in dict.fromkeys(names):
        plain = re.sub(r"([a-z])([A-Z])", r"\1_\2", name.replace("-", "_")).lower()
        if name == "root":
            continue
        if plain in taken or not re.fullmatch(r"[a-z][a-z0-9_]*", plain):
            renamed[name] = plain = f"rule_{len(taken)}_{re.sub('[^a-z0-9_]', '', plain)}"
        taken.add(plain)
    return renamed


def _set(part: str) -> str:
    inner = part[1:-1]
    negated = inner.startswith("^")
    spelled = ""
    for first, last in _IN_SET.findall(inner[negated:]):
        spelled += _spelled(first) + (f"-{_spelled(last)}" if last else "")
    if not spelled:
        raise ValueError(f"the set {part} is empty")
    return f"[{'^' if negated else ''}{spelled}]"


def _spelled(character: str) -> str:
    """One character as a string and a regular expression both read it."""
    if character.startswith("\\"):
        kind = character[1]
        if len(character) > 2:
            code = int(character[2:], 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                raise ValueError(f"{character} stands for no character")
            character = chr(code)
        elif kind in _ESCAPES:
            character = _ESCAPES[kind]
        else:
            raise ValueError(f"the escape {character} is unknown")
    if character.isascii() and not character.isalnum() and character != " ":
        return f"\\x{ord(character):02x}"
    return character
