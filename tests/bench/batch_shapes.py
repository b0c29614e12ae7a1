"""How far replies depend on the shape of the work.

    python tests/bench/batch_shapes.py DRAFT BASE [--count 16] [--only NAME;NAME…]

Sixteen questions, 96 tokens each, greedy, on a quantised pair: each way of working is compared with a reference that
differs in one thing. Printed are the replies with equal text, those with an equal switch, and the tokens per second.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from functools import partialmethod
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from real_conversations import QUESTIONS

from wsd_local.llama.model import Model
from wsd_local.runtime.pair import load

LIMITS: dict[str, Any] = {"max_tokens": 96, "draft_max_tokens": 96}
ALONE: dict[str, Any] = {"parallel": 1, "flash_attn": "off", "threads": 1}
WAYS: list[tuple[str, str, dict[str, Any]]] = [
    ("alone", "", ALONE),
    ("alone, again", "alone", ALONE),
    ("2 threads", "alone", ALONE | {"threads": 2}),
    ("proposals off", "alone", ALONE | {"speculation": "off"}),
    ("flash attention on", "alone", ALONE | {"flash_attn": "on"}),
    ("weights not repacked", "alone", ALONE | {"repack": False}),
    ("F32 cache", "alone", ALONE | {"cache_type_k": "f32", "cache_type_v": "f32"}),
    ("8 at once", "alone", ALONE | {"parallel": 8}),
    ("8 at once, again", "8 at once", ALONE | {"parallel": 8}),
    ("8 at once, 2 threads", "8 at once", ALONE | {"parallel": 8, "threads": 2}),
    ("8 at once, not repacked", "weights not repacked", ALONE | {"parallel": 8, "repack": False}),
    ("flash attention on, not repacked", "", ALONE | {"flash_attn": "on", "repack": False}),
    (
        "the same, 8 at once",
        "flash attention on, not repacked",
        ALONE | {"flash_attn": "on", "repack": False, "parallel": 8},
    ),
    ("8 at once, F32 cache", "F32 cache", ALONE | {"parallel": 8, "cache_type_k": "f32", "cache_type_v": "f32"}),
]


Decisions = list[tuple[str, int | None]]
"""Text and switch of each reply."""


def replies(draft: Path, base: Path, settings: Mapping[str, Any], count: int) -> tuple[Decisions, float]:
    """Text and switch of each reply, and tokens per second."""
    values = dict(settings)
    own = Model.__init__
    if not values.pop("repack", True):
        without = partialmethod(_loaded_without_repacking, own)
        Model.__init__ = without  # type: ignore[method-assign, assignment]
    try:
        with load(draft=draft, base=base, ctx=512, **LIMITS, **values) as pair:
            begun = time.perf_counter()
            found = dict(pair.replies(QUESTIONS[:count]))
            taken = time.perf_counter() - begun
    finally:
        Model.__init__ = own  # type: ignore[method-assign]
    made = [found[number] for number in range(count)]
    return [(reply.text, reply.switch.index) for reply in made], sum(len(reply.tokens) for reply in made) / taken


def _loaded_without_repacking(self: Model, own: Any, *args: Any, **kwargs: Any) -> None:
    own(self, *args, **{**kwargs, "repack": False})


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draft", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    wanted = [way for way in WAYS if not options.only or way[0] in options.only.split(";")]
    seen: dict[str, Decisions] = {}
    print(f"{'way':34} {'compared with':34} {'same text':>9} {'same switch':>11} {'tokens/s':>8}")
    for name, reference, settings in wanted:
        found, rate = replies(options.draft, options.base, settings, options.count)
        seen[name] = found
        other = seen.get(reference)
        same = [""] * 2
        if other is not None:
            same[0] = str(sum(a[0] == b[0] for a, b in zip(found, other, strict=True)))
            same[1] = str(sum(a[1] == b[1] for a, b in zip(found, other, strict=True)))
        print(f"{name:34} {reference:34} {same[0]:>9} {same[1]:>11} {rate:8.1f}", flush=True)


if __name__ == "__main__":
    main()
