"""Training and validation pairs, the same ones each time, and no conversation in both.

Contract: pure. Conversations that begin with the same user message (whatever its case and spaces) stay together, so
that longer and shorter pieces of one conversation cannot be on both sides. Which of them are set aside depends on the
seed and on their texts, and not on their order in the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from wsd_local.errors import UsageError
from wsd_local.training.pairs import PreferencePair


@dataclass(frozen=True, slots=True)
class Split:
    """The pairs of both sides, each in the order in which they were given."""

    train: list[PreferencePair]
    validation: list[PreferencePair]


def split(pairs: Sequence[PreferencePair], share: float, seed: int) -> Split:
    """Set a share of the pairs aside for validation: at most so many, and at least one.

    Args:
        pairs: at least one.
        share: part of the pairs, from 0 (none) up to 0.5.
        seed: another one sets other pairs aside.

    Raises:
        UsageError: the share is outside its range, or the pairs cannot be divided.
    """
    if not 0 <= share <= 0.5:
        raise UsageError(f"validation is {share}: it is a share of the pairs and must lie between 0 and 0.5")
    if share == 0:
        return Split(list(pairs), [])
    groups: dict[str, list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.opening, []).append(index)
    wanted = max(1, round(share * len(pairs)))
    if len(groups) < 2:
        raise UsageError(
            "no pair can be set aside for validation, as all conversations begin alike: give --validation 0"
        )
    ordered = [groups[opening] for opening in sorted(groups, key=lambda opening: _rank(opening, seed))]
    aside: set[int] = set()
    for group in ordered:
        if len(aside) + len(group) <= wanted:
            aside.update(group)
    if not aside:
        smallest = min(len(group) for group in ordered)
        aside.update(next(group for group in ordered if len(group) == smallest))
    return Split(
        [pair for index, pair in enumerate(pairs) if index not in aside],
        [pair for index, pair in enumerate(pairs) if index in aside],
    )


def _rank(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode()).digest()
