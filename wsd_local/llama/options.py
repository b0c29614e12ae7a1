"""How a context is made, and what that comes to on this machine.

Contract: values; no context is needed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wsd_local.core.resources import ROWS, UBATCH, CacheType, FlashAttention, cpu_flash
from wsd_local.llama.model import Model

FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """How a context is made. `n_ctx` and `n_batch` count tokens, `n_rows` rows of logits per evaluation.

    `n_ctx` is what one sequence may hold, `cells` what all `n_seq` hold together; None: `n_ctx`. `n_ubatch` tokens are
    evaluated together; None: by the model and the threads. `lora` is an adapter's file and its scale.
    """

    n_ctx: int
    n_batch: int = UBATCH
    n_rows: int = ROWS
    threads: int | None = None
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attn: FlashAttention = "auto"
    lora: tuple[Path, float] | None = None
    n_seq: int = 1
    cells: int | None = None
    n_ubatch: int | None = None


def flash_of(model: Model, options: ContextOptions) -> FlashAttention:
    """The setting, but off on a CPU where measurements say so."""
    types = (options.cache_type_k, options.cache_type_v)
    flash = model.may_offload or cpu_flash(options.flash_attn, types, options.n_ctx, options.n_seq)
    return options.flash_attn if flash else "off"


def type_name(kind: CacheType) -> str:
    """How llama.cpp names a type of the cache."""
    return "F16" if kind == "auto" else kind.upper()


def default_threads() -> int:
    """The fastest number of threads: all cores of a small machine, half of the logical ones of a larger (SMT)."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return available if available <= 4 else available // 2
