"""Conversations keep their caches among the requests of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exactness import EXACT, PLAIN

from wsd_local.prompts.messages import Message
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply


@pytest.fixture
def pair(kin: tuple[Path, Path]) -> Iterator[Pair]:
    with Pair(draft=kin[0], base=kin[1], reply=PLAIN, loading=replace(EXACT, ctx=512, parallel=4)) as opened:
        yield opened


def answered(pair: Pair, messages: list[Message], **settings: Any) -> Reply:
    fleet: Fleet[int] = Fleet(pair)
    fleet.add(0, messages, max_tokens=8, **settings)
    return next(event.reply for _, event in fleet.events() if isinstance(event, Finished))


def asked(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_requests_of_others_leave_a_conversation_its_cache(pair: Pair) -> None:
    chat = asked("one after the other " * 4)
    first = answered(pair, chat)
    for number in range(3):
        answered(pair, asked(f"{number} is a number of another kind " * 3))
    chat += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "and then"}]
    second = answered(pair, chat)
    for role, tokens in first.prompt_ids.items():
        assert second.cached[role] >= len(tokens)


def test_the_sequence_that_was_unused_for_longest_goes_first(pair: Pair) -> None:
    questions = [asked(f"{word} and " * 12) for word in ("one", "two", "three", "four", "five")]
    for question in questions:  # one more than there are sequences
        answered(pair, question)
    for question in reversed(questions[1:]):
        found = answered(pair, question)
        assert found.cached["draft"] >= len(found.prompt_ids["draft"]) - 1
    assert answered(pair, questions[0]).cached["draft"] < 20


def test_the_newest_stay_where_cells_are_short(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    context = pair.models.context("base")
    monkeypatch.setattr(context, "cells", 300)
    questions = [asked(f"{word} and " * 15) for word in ("one", "two", "three", "four")]
    for question in questions:
        answered(pair, question, mode="base")
    held = [len(context.held(seq)) for seq in range(4)]
    assert sum(held) <= 300 and 0 in held
    assert answered(pair, questions[3], mode="base").cached["base"] > 20
