"""How many tokens one evaluation takes, and whether the CPU uses flash attention: choices that measurements decided."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

UBATCH = 512
"""Tokens evaluated together, at most."""
ROWS = 32
"""Rows of logits of one evaluation."""
CANCELLABLE, WIDE = 64, 1024
"""Tokens that a CPU evaluates together in a model of this width or more, or 32 for each thread if that is more.

A stop waits for one matrix product, which took up to 0.5 s for 512 tokens of an 8B shape on two threads and 0.06 s for
64; reading a prompt was as fast either way. Narrow models, whose products take little time, gain up to ten times by
more.
"""
LONG = 8192
"""Tokens of a context beyond which the CPU uses flash attention: the memory of the other way grows with the context."""


def cpu_ubatch(n_embd: int, threads: int) -> int:
    """Tokens evaluated together on the CPU."""
    return min(UBATCH, max(CANCELLABLE, threads * CANCELLABLE // 2) * max(1, WIDE // max(1, n_embd)) ** 2)


def cpu_flash(wanted: Literal["auto", "on", "off"], cache_types: Iterable[str], ctx: int, parallel: int) -> bool:
    """Whether the CPU uses flash attention; with `auto` not for one reply at a time.

    Without it, a 3B model on two threads took 0.93 of the time for a token after 512 and 0.81 after 1024, and 0.64 for
    a check of eight there; below about 250 tokens, and where a prompt is read, it takes some percent more. With it,
    what other sequences hold costs nothing. Quantised values need it.
    """
    if wanted != "auto":
        return wanted == "on"
    return parallel > 1 or ctx > LONG or not {"auto", "f32", "f16", "bf16"}.issuperset(cache_types)
