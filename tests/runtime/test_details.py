"""Tokens of a reply with their log-probabilities and alternatives, and prompts that are continued as they are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exactness import EXACT, PLAIN

from wsd_local.core.contexts import Question
from wsd_local.errors import FitError, UsageError
from wsd_local.events import Notice, Source, Text, TokenDetails, Wrote
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply

ROLES: tuple[Source, ...] = ("draft", "base")
QUESTION = "How do I boil an egg?"


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=PLAIN, loading=replace(EXACT, ctx=512)) as opened:
        yield opened


def told(pair: Pair, prompt: Any, details: int | None, **settings: Any) -> tuple[Reply, list[TokenDetails]]:
    """A reply, and the tokens that its events named."""
    found: list[TokenDetails] = []
    for event in pair.start(prompt, details=details, **settings).events():
        if isinstance(event, Wrote):
            found += event.tokens
        if isinstance(event, Finished):
            reply = event.reply
    return reply, found


def scores(pair: Pair, role: Source, tokens: list[int], start: int, top: int) -> list[Any]:
    """The same scores, of the whole text at once."""
    context, found = pair.models.context(role), []

    def answer(position: int, row: int) -> None:
        if position + 1 < len(tokens):
            found.append(context.score(row, tokens[position + 1], top=top))

    context.forget(0)
    context.ask(Question(0, tokens, start - 1, answer))
    return found


@pytest.mark.parametrize("mode", ["wsd", "base", "draft"])
def test_tokens_come_with_their_scores(pair: Pair, mode: str) -> None:
    reply, found = told(pair, QUESTION, 3, mode=mode, max_tokens=60)
    assert [token.id for token in found] == [token.id for token in reply.tokens]
    assert [token.source for token in found] == [token.source for token in reply.tokens]
    role: Source = "draft" if mode == "draft" else "base"
    prompt = reply.prompt_ids[role]
    whole = scores(pair, role, [*prompt, *(token.id for token in found)], len(prompt), 3)
    for token, score in zip(found, whole, strict=True):
        assert token.logprob == pytest.approx(score.logprob, abs=1e-4)
        assert [id for id, _, _ in token.alternatives] == [id for id, _ in score.top]
        assert [p for _, _, p in token.alternatives] == pytest.approx([p for _, p in score.top], abs=1e-4)
        assert all(piece == pair.models.model(role).piece(id) for id, piece, _ in token.alternatives)
    assert mode != "wsd" or {token.source for token in found} == {"draft", "base"}


def test_details_change_no_reply_and_are_not_there_unasked(pair: Pair) -> None:
    plain, unasked = told(pair, QUESTION, None, max_tokens=40)
    without, found = told(pair, QUESTION, 0, max_tokens=40)
    assert not unasked
    assert plain.text == without.text
    assert found and not any(token.alternatives for token in found)
    assert all(token.logprob is not None for token in found)


def test_the_best_alternative_is_what_greedy_decoding_writes(pair: Pair) -> None:
    _, found = told(pair, QUESTION, 1, mode="base", max_tokens=30)
    assert [token.alternatives[0][0] for token in found] == [token.id for token in found]
    assert math.isclose(found[0].alternatives[0][2], found[0].logprob or 0, abs_tol=1e-6)


def test_a_text_is_continued_as_it_is(pair: Pair) -> None:
    text = "The three largest cities of"
    base = pair.models.model("base")
    reply = pair.reply(RawPrompt(text), mode="base", max_tokens=12)
    assert reply.prompt_ids == {"base": base.tokenize(text)}
    assert reply.messages == ()
    written = [token.id for token in reply.tokens]
    context = pair.models.context("base")
    context.forget(0)
    best = [token for token, _ in context.favourites(0, [*base.tokenize(text), *written], len(base.tokenize(text)))]
    assert best == written


@pytest.mark.parametrize("mode", ["wsd", "base", "draft"])
def test_tokens_give_the_reply_of_their_text(pair: Pair, mode: str) -> None:
    text = "A good breakfast is\n"
    writer = pair.models.model("draft" if mode == "draft" else "base")
    by_text = pair.reply(RawPrompt(text), mode=mode, max_tokens=30)
    by_tokens = pair.reply(RawPrompt(tokens=writer.tokenize(text)), mode=mode, max_tokens=30)
    assert by_text.text == by_tokens.text
    assert by_text.prompt_ids == by_tokens.prompt_ids


def test_tokens_that_the_vocabulary_would_not_write_stay(pair: Pair) -> None:
    base = pair.models.model("base")
    tokens = [*base.tokenize("The water"), *(base.tokenize_text(letter)[0] for letter in " boils")]
    assert tokens != base.tokenize("The water boils")
    reply = pair.reply(RawPrompt(tokens=tokens), max_tokens=20, threshold=0.3)
    assert reply.prompt_ids["base"] == tokens
    assert reply.prompt_ids["draft"] == pair.models.model("draft").tokenize("The water boils")
    assert reply.draft.tokens


def test_headings_end_no_text_that_is_continued_as_it_is(pair: Pair) -> None:
    prompt = RawPrompt("[User]\nHello\n\n[Assistant]\nHello!\n\n[User]\n")
    assert "[" in pair.reply(prompt, mode="base", max_tokens=80, ignore_eos=True).text


def test_what_does_not_fit_is_an_error_where_all_is_wanted(pair: Pair) -> None:
    turns = [{"role": role, "content": "word " * 120} for role in ("user", "assistant") * 2]
    messages = [*turns, {"role": "user", "content": "Hello!"}]
    with pytest.raises(FitError, match=r"the prompt is too long: \d+ draft tokens, \d+ with room .* holds 512"):
        pair.start(messages, whole=True)
    events = list(pair.start(messages, max_tokens=5).events())
    assert any(isinstance(event, Notice) and "left out" in event.message for event in events)
    assert any(isinstance(event, Text) for event in pair.start("Hello!", whole=True, max_tokens=5).events())
    with pytest.raises(FitError, match="the prompt is too long"):
        pair.start(RawPrompt("word " * 600), mode="base")


def test_wrong_tokens_are_refused(pair: Pair) -> None:
    for tokens in ([1, 10**6], [-1]):
        with pytest.raises(UsageError, match="the prompt has a token that the model does not have: it has 0 to"):
            pair.start(RawPrompt(tokens=tokens), mode="base")
    with pytest.raises(UsageError, match="the prompt is empty"):
        pair.start(RawPrompt(tokens=[]), mode="base")


def test_cached_tokens_are_counted(pair: Pair) -> None:
    for role in ROLES:
        pair.models.context(role).forget(0)
    first = pair.reply(QUESTION, max_tokens=8)
    again = pair.reply(QUESTION, max_tokens=8)
    wrote = next(event for event in pair.start(QUESTION, details=1, max_tokens=4).events() if isinstance(event, Wrote))
    plain = json.loads(json.dumps(wrote.as_dict()))
    assert bytes(plain["tokens"][0]["bytes"]).decode() == plain["tokens"][0]["text"]
    assert first.cached == {"draft": 0, "base": 0}
    for role in ROLES:
        assert again.cached[role] >= len(again.prompt_ids[role]) - 1
    assert again.as_dict()["cached"] == dict(again.cached)
