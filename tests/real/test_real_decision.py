"""Real models, streamed, against the three passes: in F32 without exceptions, and as they are shipped.

The complete grid is sixty conversations with four thresholds and three windows. The sample, by a fixed rule: of every
sixth conversation two cells, number i and i + 5 of the grid for conversation i. `WSD_TEST_ALL=1` asks for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from exactness import PLAIN, Tally
from oracle import Oracle
from real_conversations import Conversation, conversations
from real_models import ALL, EXACT, N_CTX, Files
from summary import Tell

from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings

pytestmark = [pytest.mark.real, *([pytest.mark.timeout(0)] if ALL else [])]  # the complete grid takes hours

LIMITS: dict[str, Any] = {"draft_max_tokens": 40, "max_tokens": 48}
GRID = list(itertools.product((0.3, 0.5, 0.8, 0.95), (3, 6, 12)))
PARTS = 4
"""Tests that the work is cut into, so that several processes share it."""


def cells(number: int) -> list[tuple[float, int]]:
    """Thresholds and windows that one conversation is asked with."""
    if ALL:
        return GRID
    return [] if number % 6 else [GRID[number % 12], GRID[(number + 5) % 12]]


def asked(part: int) -> Iterator[tuple[Conversation, dict[str, Any]]]:
    """The share of one part: conversations with the settings to ask them with."""
    wanted = [(number, one) for number, one in enumerate(conversations()) if cells(number)]
    for number, conversation in wanted[part::PARTS]:
        for threshold, window in cells(number):
            yield conversation, LIMITS | {"threshold": threshold, "window": window}


@pytest.mark.parametrize("part", range(PARTS))
def test_the_decision_is_that_of_three_passes(exact: Pair, oracle: Oracle, part: int, tell: Tell) -> None:
    tally = Tally()
    for conversation, settings in asked(part):
        tally.compare(exact, oracle, conversation, **settings)
    tell(f"real pair in F32, part {part}: {tally}", *tally.ties, *tally.different)
    assert tally.equal and not tally.different


@pytest.fixture(scope="module")
def as_shipped(shipped: Files) -> Iterator[tuple[Pair, Oracle]]:
    """The quantised pair as anybody runs it, and three passes over the same files."""
    oracle = Oracle(*shipped, n_ctx=N_CTX, threads=1)
    loading = LoadSettings(ctx=N_CTX, threads=EXACT.threads)
    with Pair(draft=shipped[0], base=shipped[1], reply=PLAIN, loading=loading) as pair:
        yield pair, oracle
    oracle.close()


def test_divergences_of_the_quantised_pair_are_counted(as_shipped: tuple[Pair, Oracle], tell: Tell) -> None:
    pair, oracle = as_shipped
    tally = Tally()
    wanted = conversations()[:: 1 if ALL else 6]
    for conversation in wanted:
        tally.compare(pair, oracle, conversation, **LIMITS)
    tell(f"real pair as shipped: {tally}", *tally.ties, *tally.different)
    assert tally.equal + len(tally.ties) + len(tally.different) == len(wanted)


def test_the_quantised_pair_repeats_itself(shipped: Files) -> None:
    """In a process that begins anew; in one that goes on, what it has read already changes the shape of the work."""
    made = []
    for _ in range(2):
        loading = LoadSettings(ctx=N_CTX, threads=EXACT.threads)
        with Pair(draft=shipped[0], base=shipped[1], reply=PLAIN, loading=loading) as pair:
            replies = [pair.reply(list(conversation), **LIMITS) for conversation in conversations()[:3]]
            made.append([(reply.text, reply.switch) for reply in replies])
    assert made[0] == made[1]
