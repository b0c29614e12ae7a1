"""Alt+F as terminals send it.

Contract: Textual reads Escape followed by `f` as Ctrl+Right, because one terminal sends it for that key; all others
send it for Alt+F, which searches here. After `accept_alt_f` it is Alt+F.
"""

from __future__ import annotations


def accept_alt_f() -> None:
    """Change Textual's table of key sequences, before it begins to read keys."""
    from textual._ansi_sequences import ANSI_SEQUENCES_KEYS

    ANSI_SEQUENCES_KEYS.pop("\x1bf", None)  # type: ignore[attr-defined]
