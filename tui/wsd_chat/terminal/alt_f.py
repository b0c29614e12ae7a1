"""Alt+F as terminals send it.

Contract: Textual reads Escape and `f` as Ctrl+Right, as one terminal sends it for a word to the right; every other
terminal sends it for Alt+F, which searches here. After `tell_apart` it is Alt+F.
"""

from __future__ import annotations


def tell_apart() -> None:
    """Change Textual's table of key sequences, before it begins to read."""
    from textual._ansi_sequences import ANSI_SEQUENCES_KEYS

    ANSI_SEQUENCES_KEYS.pop("\x1bf", None)  # type: ignore[attr-defined]
