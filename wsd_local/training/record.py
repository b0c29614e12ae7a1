"""What was found in a preference set and made of it, as values for JSON and for tables.

Contract: pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from wsd_local.training.columns import SHAPES, Columns
from wsd_local.training.pairs import REASONS, PreferencePair
from wsd_local.training.sifting import Sifted
from wsd_local.training.sources import Source
from wsd_local.training.splitting import Split
from wsd_local.training.trainers import Recipe

_FIRST = 10
"""Places that are named for each reason."""


def record_of_preparation(
    source: Source, columns: Columns, sifted: Sifted, sides: Split, recipe: Recipe, tokenizer: str | None
) -> dict[str, Any]:
    """What `prepared.json` and `--json` hold; `tokenizer` names what counted tokens, None if they were estimated."""
    total, kept = len(source.records), len(sifted.pairs)
    return {
        "complete": True,
        "source": {"path": str(source.path), "sha256": source.sha256, "records": total},
        "columns": {"shape": columns.shape, "text": SHAPES[columns.shape], **columns.used},
        "unused_columns": dict(sifted.unused),
        "kept": kept,
        "share_kept": kept / total,
        "left_out": left_out(source, sifted),
        "tokens": {
            "counted_by": tokenizer,
            "cutoff": recipe.cutoff,
            "median": median(sifted.lengths),
            "longest": max(sifted.lengths),
        },
        "train": _side(sides.train),
        "validation": _side(sides.validation),
        "training": asdict(recipe),
    }


def left_out(source: Source, sifted: Sifted) -> list[dict[str, Any]]:
    """The reasons why records were left out, each with its count and the first places."""
    return [
        {
            "reason": reason,
            "text": REASONS[reason],
            "count": len(found.indices),
            f"first_{source.unit}s": [source.place(index) for index in found.indices[:_FIRST]],
            "example": found.example,
        }
        for reason, found in sifted.left_out.items()
    ]


def _side(pairs: Sequence[PreferencePair]) -> dict[str, int]:
    return {"pairs": len(pairs), "conversations": len({pair.conversation for pair in pairs})}
