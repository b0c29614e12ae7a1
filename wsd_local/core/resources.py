"""How models and contexts are placed on a machine, as values that llama.cpp's side and the memory plan share.

Contract: pure; names of types and modes are llama.cpp's, sizes are bytes, counts are tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wsd_local.errors import UsageError, short

FlashAttention = Literal["on", "off", "auto"]
LoadMode = Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"]
CacheType = Literal["auto", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]

UBATCH, ROWS = 512, 32
"""Largest number of tokens of one evaluation, and rows of logits that one reply needs of it."""
CANCELLABLE, WIDE = 64, 1024
"""Tokens that a CPU evaluates together in a model of this width or more, or 32 for each thread if that is more.

A stop waits for one matrix product, which took up to 0.5 s for 512 tokens of an 8B shape on two threads and 0.06 s for
64; reading a prompt was as fast either way. Narrow models, whose products take no time, gain up to ten times by more.
"""
MOST_THREADS = 512
"""CPU threads that llama.cpp can take."""
LONG = 8192
"""Tokens of a context beyond which the CPU uses flash attention: without it, memory grows with them."""


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator as llama.cpp reports it. `shared`: it works in the machine's own memory; `remote`: it is one of a
    worker on another machine."""

    name: str
    description: str
    free: int
    total: int
    shared: bool = False
    remote: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """Accelerators, and the machine's own memory, in bytes."""

    devices: tuple[Device, ...]
    free: int
    total: int
    threads: int = 1


def cpu_ubatch(n_embd: int, threads: int) -> int:
    """Tokens that the CPU evaluates together."""
    return min(UBATCH, max(CANCELLABLE, threads * CANCELLABLE // 2) * max(1, WIDE // max(1, n_embd)) ** 2)


def cpu_flash(wanted: FlashAttention, cache_types: Iterable[str], ctx: int, parallel: int) -> bool:
    """Whether the CPU uses flash attention; with `auto` not for one reply at a time.

    Without it, a 3B model on two threads took 0.93 of the time for a token at depth 512 and 0.81 at 1024, and 0.64 for
    a check of eight there; below a depth of about 250 tokens, and for reading a prompt, it takes some percent more.
    With it, other sequences in the cache cost nothing. Quantised values need it.
    """
    if wanted != "auto":
        return wanted == "on"
    return parallel > 1 or ctx > LONG or not {"auto", "f32", "f16", "bf16"}.issuperset(cache_types)


def require_threads(threads: int | None) -> None:
    """Raise `UsageError` for a number of CPU threads that llama.cpp cannot take."""
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads is {short(threads)}: it must lie between 1 and {MOST_THREADS}")
