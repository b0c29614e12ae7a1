"""Amounts as people read them. Files and downloads are counted in GB (10^9), memory in GiB (2^30)."""

from __future__ import annotations

GIB = 1 << 30
MIB = 1 << 20


def gb(count: float) -> str:
    """Bytes of a file."""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.{2 if unit == 'GB' else 1}f} {unit}"
    return f"{count:.0f} B"


def gib(count: float) -> str:
    """Bytes of memory."""
    if abs(count) >= GIB / 10:
        return f"{count / GIB:.2f} GiB"
    return f"{count / MIB:.1f} MiB"


def amount(count: float) -> str:
    """A number of parameters or tokens: 3.2B, 967.8K."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return f"{count:.0f}"


def plural(number: int, what: str) -> str:
    """A number of things, in the plural unless it is one: 1 token, 2 tokens, 2 replies, 2 switches."""
    if number == 1:
        return f"{number} {what}"
    if what.endswith("y"):
        return f"{number} {what[:-1]}ies"
    return f"{number} {what}{'es' if what.endswith(('ch', 's', 'x')) else 's'}"
