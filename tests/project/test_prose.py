"""Words that this project's prose does without, and what no page of it names."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("wsd_local", "tui", "models", "docs", "tests")
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")

INSTEAD = {
    r"(?<!leave )(?<!leaves )(?<!look-)\bbehind\b(?! (a|the|its) (proxy|dialog|cloth))": "order is `after`",
    r"\b(is|are|was|were|be|been|being) told\b(?! apart)": "code receives, reads, records",
    r"\bthought of\b": "code expects, counts, proposes",
    r"\bforgiven\b": "code ignores, writes off",
    r"\btells nobody\b|\bnobody is told\b": "say what happens",
    r"\ba rate is a rate\b": "say what is measured",
}
"""What reads oddly in this field, and which words it has instead."""
NAMED = {
    r"(?<![\w.$~>}])/(work|root)/\w": "a path of one machine",
    r"\b[Ii]ssues? #?\d+\b|(?<![\w&\"'(])#\d{1,3}\b(?!;)": "a number that only this project's makers can look up",
}


def sources() -> list[Path]:
    """Everything that people read: code, its tests and pages; without the rules above."""
    found = [path for folder in FOLDERS for kind in ("py", "md") for path in sorted((ROOT / folder).rglob(f"*.{kind}"))]
    found.remove(Path(__file__))
    return [*found, *(ROOT / page for page in PAGES if (ROOT / page).exists())]


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a page; strings and comments of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.STRING, tokenize.COMMENT) or "FSTRING" in tokenize.tok_name[token.type]:
                yield from enumerate(token.string.splitlines(), token.start[0])
    else:
        yield from enumerate(text.splitlines(), 1)


@pytest.mark.parametrize(("pattern", "why"), {**INSTEAD, **NAMED}.items(), ids=lambda value: value[:30])
def test_no_line_has(pattern: str, why: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in sources()
        for number, line in prose(path)
        if re.search(pattern, line)
    ]
    assert not found, "\n".join([why, *found])
