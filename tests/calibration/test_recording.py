"""What is derived from records is what the engine does: the embedded pair in F32, with thresholds and windows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluations import evaluations
from exactness import EXACT

from wsd_local.calibration import Costs, Record, Setting, derived
from wsd_local.calibration.recording import CONTINUATION, record
from wsd_local.errors import CancelledError, FitError
from wsd_local.prompts.messages import Message
from wsd_local.runtime.pair import Pair
from wsd_local.settings import ReplySettings

SETTINGS = [Setting(threshold, window) for threshold in (0.0, 0.3, 0.6, 0.8, 0.95, 1.1) for window in (1, 3, 6, 12)]
CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "How do I boil an egg?"}],
    [{"role": "user", "content": "What is the capital of France?"}],
    [
        {"role": "user", "content": "What is the capital of Japan?"},
        {"role": "assistant", "content": "The capital of Japan is Tokyo."},
        {"role": "user", "content": "And of France?"},
    ],
    [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am"}],
]


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    reply = ReplySettings(speculation="off", max_tokens=160, draft_max_tokens=120)
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=EXACT) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def records(pair: Pair) -> list[Record]:
    return [record(pair, str(number), messages, SETTINGS) for number, messages in enumerate(CONVERSATIONS)]


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_every_decision_is_that_of_a_real_reply(pair: Pair, records: list[Record], number: int) -> None:
    for setting in SETTINGS:
        reply = pair.reply(CONVERSATIONS[number], threshold=setting.threshold, window=setting.window)
        found = derived(records[number], setting, Costs(), check_chunk=pair.settings.check_chunk, compared=CONTINUATION)
        assert found.index == reply.switch.index, setting
        assert found.checked == reply.counts.checked_tokens, setting
        # The engine counts new tokens by tokenising new text alone, so it may settle a token later.
        assert abs(found.drafted - reply.counts.drafted_tokens) <= 1, setting
        kept = [token for token in reply.tokens if token.source == "draft"]
        assert tuple(token.id for token in kept) == records[number].tokens[: len(kept)], setting
        if found.index is not None:
            assert found.kept == len(kept) == found.index + 1, setting


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_a_continuation_is_that_of_a_real_reply(pair: Pair, records: list[Record], number: int) -> None:
    made = records[number]
    assert made.continuations, "the settings pass somewhere"
    for setting in SETTINGS:
        found = derived(made, setting, Costs(), check_chunk=8, compared=CONTINUATION)
        own = next((one for one in made.continuations if found.index is not None and one.start == found.kept), None)
        if own is None:
            continue
        reply = pair.reply(
            CONVERSATIONS[number], threshold=setting.threshold, window=setting.window, probabilities=True
        )
        theirs = [token for token in reply.tokens if token.source == "base"][: len(own.tokens)]
        count = len(theirs)
        assert tuple(token.id for token in theirs) == own.tokens[:count], setting
        assert count or own.ended


def test_a_record_says_what_the_base_would_have_written(pair: Pair, records: list[Record]) -> None:
    """Against the base's favourites, read off its context by itself."""
    made = records[0]
    prompt = pair.models.base_format.prompt(CONVERSATIONS[0])
    tokens = [*pair.models.model("base").tokenize(prompt), *made.tokens]
    with pair.models.queue.held():
        favourites = pair.models.context("base").favourites(0, tokens, len(tokens) - len(made.tokens))
        logprobs = pair.models.context("base").logprobs(0, tokens, len(tokens) - len(made.tokens))
    assert made.agrees == tuple(best == token for (best, _), token in zip(favourites, made.tokens, strict=True))
    assert made.logprobs == pytest.approx(logprobs, abs=1e-4)
    assert True in made.agrees and False in made.agrees


def test_costs_are_measured_of_each_kind(records: list[Record]) -> None:
    for made in records:
        assert made.drafted[0] <= len(made.settled) and made.checked[0] <= len(made.tokens)
    costs = Costs.of(records)
    assert costs.drafted and costs.checked and costs.written


def test_a_record_does_not_depend_on_the_prompts_before(pair: Pair, records: list[Record]) -> None:
    """Both models read the prompt from its first token on, though it is the one that they have just read."""
    assert records
    record(pair, "0", CONVERSATIONS[0], SETTINGS)
    with evaluations() as seen:
        record(pair, "0", CONVERSATIONS[0], SETTINGS)
    first = {one.model: one.parts[0][0] for one in reversed(seen.begun)}
    assert len(first) == 2 and set(first.values()) == {0}


def test_a_prompt_that_is_too_long_is_an_error(pair: Pair) -> None:
    long: list[Message] = [{"role": "user", "content": "egg " * 9000}]
    with pytest.raises(FitError, match="too long"):
        record(pair, "long", long, SETTINGS)


def test_a_stop_leaves_no_record_and_a_pair_that_works(pair: Pair, records: list[Record]) -> None:
    calls = iter(range(1000))
    with pytest.raises(CancelledError):
        record(pair, "0", CONVERSATIONS[0], SETTINGS, stopped=lambda: next(calls) > 2)
    again = record(pair, "0", CONVERSATIONS[0], SETTINGS)
    assert (again.tokens, again.logprobs, again.continuations) == (
        records[0].tokens,
        records[0].logprobs,
        records[0].continuations,
    )
