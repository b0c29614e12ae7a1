"""What a model would take in memory on the CPU, for people who look at its file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsd_local.core.resources import ROWS, cpu_flash, cpu_ubatch
from wsd_local.library.gguf import Header
from wsd_local.placement.footprint import footprint
from wsd_local.placement.plan import DEFAULT_CTX

_THREADS = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes by part, with a context of `ctx` tokens."""

    ctx: int
    parts: dict[str, int]


def usage(headers: Sequence[Header], ctx: int | None = None, features: frozenset[str] = frozenset()) -> Usage:
    """Count a model's memory for `ctx` tokens, or the context it gets by default; `features` are the CPU's.

    Raises:
        ModelError: the header states what no model has.
    """
    model = footprint(headers, features)
    ctx = ctx or min(DEFAULT_CTX, model.n_ctx_train or DEFAULT_CTX)
    n_ubatch, flash = cpu_ubatch(model.n_embd, _THREADS), cpu_flash("auto", ["f16"], ctx, 1)
    return Usage(
        ctx,
        {
            "weights": model.weights,
            "repacked copies if mapped": sum(layer.repacked for layer in model.layers) + model.output_repacked,
            "cache f16": model.caches(ctx, "f16", "f16"),
            "cache q8_0": model.caches(ctx, "q8_0", "q8_0"),
            "compute": model.compute(ctx, n_ubatch, ROWS, flash=flash),
            "logits": model.logits(ROWS),
            "vocabulary": model.vocabulary,
        },
    )
