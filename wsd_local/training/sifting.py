"""Which records of a preference set are kept, and why the others are not.

Contract: pure. Every record is either kept or counted under one reason; nothing is changed to make it fit. Of pairs
that are there more than once the first is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from wsd_local.datasets.records import Record
from wsd_local.prompts.messages import has_content
from wsd_local.training.columns import Columns
from wsd_local.training.pairs import REASONS, Defect, PreferencePair, Reason, pair_of

MARKERS = 8
"""Tokens that a chat template writes around each message, about."""
BYTES_OF_A_TOKEN = 4
"""Bytes of UTF-8 in a token, about, where no tokenizer counts."""

Length = Callable[[str], int]
"""The number of tokens of a text."""


def estimated(text: str) -> int:
    """The number of tokens of a text, about."""
    return -(-len(text.encode()) // BYTES_OF_A_TOKEN)


@dataclass(slots=True)
class LeftOut:
    """Records that are left out for one reason: their indices, and what is wrong with the first."""

    indices: list[int] = field(default_factory=list)
    example: str = ""


@dataclass(frozen=True, slots=True)
class Sifted:
    """What was found in a preference set.

    `pairs` are those that are kept, in the file's order, and `lengths` the tokens of each with its longer reply.
    `unused` counts the records in which a column that is not read holds something.
    """

    pairs: list[PreferencePair]
    lengths: list[int]
    left_out: dict[Reason, LeftOut]
    unused: Counter[str]


def sift(records: Sequence[Record], columns: Columns, cutoff: int, length: Length = estimated) -> Sifted:
    """Check every record.

    Args:
        records: the records of the set.
        columns: what their fields hold.
        cutoff: tokens of the conversation and its longer reply at most.
        length: counts the tokens of a text.
    """
    pairs: list[PreferencePair] = []
    lengths: list[int] = []
    left_out: dict[Reason, LeftOut] = {}
    unused: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    for index, record in enumerate(records):
        if isinstance(record.value, Mapping):
            unused.update(_unused(record.value, columns))
        try:
            if record.problem is not None:
                raise Defect("record", record.problem)
            pair = pair_of(record.value, columns)
            tokens = _tokens(pair, length)
            if tokens > cutoff:
                raise Defect("long", f"about {tokens} tokens")
            _require_new(pair, seen)
        except Defect as defect:
            found = left_out.setdefault(defect.reason, LeftOut(example=str(defect)))
            found.indices.append(index)
        else:
            pairs.append(pair)
            lengths.append(tokens)
    return Sifted(pairs, lengths, {reason: left_out[reason] for reason in REASONS if reason in left_out}, unused)


def _require_new(pair: PreferencePair, seen: set[tuple[str, str, str]]) -> None:
    conversation, chosen, rejected = pair.conversation, pair.chosen.strip(), pair.rejected.strip()
    if (conversation, chosen, rejected) in seen:
        raise Defect("twice")
    if (conversation, rejected, chosen) in seen:
        raise Defect("reversed")
    seen.add((conversation, chosen, rejected))


def _tokens(pair: PreferencePair, length: Length) -> int:
    """Tokens of the conversation with its longer reply, about: the template's markers are counted roughly."""
    before = sum(length(message["content"]) + MARKERS for message in pair.prompt)
    return before + max(length(pair.chosen), length(pair.rejected)) + MARKERS


def _unused(record: Mapping[str, object], columns: Columns) -> list[str]:
    used = set(columns.used.values())
    return [str(name) for name, value in record.items() if name not in used and has_content(value)]
