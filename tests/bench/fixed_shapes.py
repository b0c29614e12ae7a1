"""Whether replies many at once become those that each is alone if evaluations keep a fixed shape.

    python tests/bench/fixed_shapes.py DRAFT BASE [--count 8] [--rows 0,2,4]

Eight questions, 96 tokens each, greedy, one by one and eight at once. With `--rows N` above 0 a prompt or a check is
evaluated apart from all others, filled up to a multiple of N tokens, a single token together with others' up to N,
filled up to N; a KV stream for each sequence; nothing that an earlier evaluation left is used. Printed are the
replies with equal tokens, those that are equal in every bit of every probability, and tokens per second.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from real_conversations import QUESTIONS

from wsd_local.core.contexts import Question
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.llama.batch import Part
from wsd_local.runtime import loading
from wsd_local.runtime.pair import load

LIMITS: dict[str, Any] = {"max_tokens": 96, "draft_max_tokens": 96, "speculation": "off", "probabilities": True}
MOST = 8
"""Replies at once."""

Numbers = list[tuple[int, float | None]]
"""Tokens of a reply with their probabilities."""


class Padded(Context):
    """A context whose evaluations have a fixed shape."""

    rows = 4

    def __init__(self, model: Model, options: ContextOptions, cancellation: Cancellation) -> None:
        own, streams = llama_cpp.llama_init_from_model, MOST + self.rows

        def made(handle: Any, params: Any) -> Any:
            params.kv_unified, params.n_ctx = False, options.n_ctx * streams
            return own(handle, params)

        llama_cpp.llama_init_from_model = made
        try:
            super().__init__(model, replace(options, n_seq=streams, cells=None), cancellation)
        finally:
            llama_cpp.llama_init_from_model = own
        self._shares = False
        self.n_seq = options.n_seq

    def step(self, questions: Sequence[Question]) -> None:
        """Use no rows of earlier evaluations: whether they are there depends on other replies."""
        for rows in self._rows:
            rows.clear()
        super().step(questions)

    def _parts(self, questions: Sequence[Question]) -> list[Part]:
        parts = super()._parts(questions)
        single = [part for part in parts if part.end - part.start == 1]
        return single[: self.rows] or parts[:1]

    def _decode(self, parts: Sequence[Part]) -> None:
        missing = -sum(part.end - part.start for part in parts) % self.rows
        filled, ends = list(parts), {part.question.seq: part.end for part in parts}
        if all(part.end - part.start == 1 for part in parts):
            filled += [Part(_silent(MOST + place, [1], 0), 0, 1) for place in range(missing)]
            ends |= {MOST + place: 0 for place in range(missing)}
        elif missing:
            (part,) = parts
            tokens = [*part.question.tokens[: part.end], *[1] * missing]
            row = part.question.row if part.rows else len(tokens) - 1
            filled = [Part(_silent(part.question.seq, tokens, row), part.start, len(tokens))]
        super()._decode(filled)
        for seq, end in ends.items():
            if len(self._mirrors[seq]) > end:
                llama_cpp.llama_memory_seq_rm(self._memory, seq, end or -1, -1)
                del self._mirrors[seq][end:]
                self._rows[seq] = {position: row for position, row in self._rows[seq].items() if position < end}


def _silent(seq: int, tokens: Sequence[int], row: int) -> Question:
    return Question(seq, tokens, row, lambda _position, _row: None)


def replies(draft: Path, base: Path, count: int, rows: int, parallel: int) -> tuple[list[Numbers], float]:
    """Tokens and probabilities of each reply, and tokens per second."""
    Padded.rows = rows
    setattr(loading, "Context", Padded if rows else Context)  # noqa: B010
    with load(draft=draft, base=base, ctx=512, flash_attn="off", threads=1, parallel=parallel, **LIMITS) as pair:
        begun = time.perf_counter()
        found = dict(pair.replies(QUESTIONS[:count]))
        taken = time.perf_counter() - begun
    made = [[(token.id, token.prob) for token in found[number].tokens] for number in range(count)]
    return made, sum(map(len, made)) / taken


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("draft", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rows", default="0,2,4")
    options = parser.parse_args()
    print(f"{'rows':>4} {'same tokens':>11} {'same bits':>9} {'tokens/s alone':>14} {'8 at once':>9}")
    for rows in map(int, options.rows.split(",")):
        alone, slow = replies(options.draft, options.base, options.count, rows, 1)
        many, fast = replies(options.draft, options.base, options.count, rows, MOST)
        ids = sum([a for a, _ in one] == [b for b, _ in other] for one, other in zip(alone, many, strict=True))
        bits = sum(one == other for one, other in zip(alone, many, strict=True))
        print(f"{rows:4} {ids:11} {bits:9} {slow:14.1f} {fast:9.1f}", flush=True)


if __name__ == "__main__":
    main()
