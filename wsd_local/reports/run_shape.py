"""The shape in which the replies of a run were worked on, for comparing runs.

Contract: pure. With quantised weights, llama.cpp's results depend slightly on the shape of a batch, so runs that differ
in it alone have different replies near ties.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TRAITS = {
    "parallel": "replies at once",
    "sequences": "sequences of a context",
    "threads": "threads used",
    "flash_attn": "flash attention",
}


def shape_traits(line: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Names for people and values of what a line records of its shape."""
    shape: dict[str, Any] = {}
    for part in ("provenance", "run"):
        of_part = line.get(part)
        found = of_part.get("shape") if isinstance(of_part, dict) else None
        shape |= found if isinstance(found, dict) else {}
    for key, name in TRAITS.items():
        if key not in shape:
            continue
        if isinstance(shape[key], dict):  # a run of one model has no value for the other
            yield from ((f"{name} of the {role}", shape[key][role]) for role in ("draft", "base") if role in shape[key])
        else:
            yield name, shape[key]


def shape_note(differing: Mapping[str, Any]) -> str | None:
    """A line that runs were worked on in different shapes; None if they were not."""
    found = [trait for trait in differing if trait.startswith(tuple(TRAITS.values()))]
    if not found:
        return None
    return f"the runs differ in {', '.join(found)}: with quantised weights that alone changes replies near ties"
