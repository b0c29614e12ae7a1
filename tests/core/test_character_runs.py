"""Runs of one repeated character: they are held back only as far as their tokens depend on what follows."""

from __future__ import annotations

import pytest
from data_sets import VOCABULARIES, vocabulary
from scripted import Pair, Words, bounds, machine

from wsd_local.core.alignment import RUN, align, joins_runs
from wsd_local.core.text import HOLD_BACK_CAP
from wsd_local.core.written import reply_tokens
from wsd_local.llama import Model

CHARACTERS = "🎉😀❤字あกאأ한éß1-=._*#~!?\"'( \n\taAxz…—·•│▁\u200b"


@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_tokens_of_a_run_that_is_not_joined_do_not_depend_on_its_length(name: str) -> None:
    """In every production vocabulary, also after and before other text."""
    model = Model(vocabulary(name), vocab_only=True)
    single = [char for char in CHARACTERS if not joins_runs(model, char)]
    assert "🎉" in single and len(single) < len(CHARACTERS)
    for char in single:
        for before in ("", "Hello", "Hello ", "Hello" + CHARACTERS[0]):
            prompt = f"{before}: "
            longest = align(model, prompt, len(model.tokenize(prompt)), before + char * 600)
            for count in (RUN + 1, 100, 257, 511):
                for after in ("", " and", "."):
                    found = align(model, prompt, len(model.tokenize(prompt)), before + char * count + after)
                    border = len((before + char * (count - HOLD_BACK_CAP)).encode())
                    settled = sum(end <= border for end in found.ends)
                    assert found.tokens[:settled] == longest.tokens[:settled], (char, before, count, after)
    model.close()


@pytest.mark.parametrize("most", [1, 60])
def test_a_draft_of_one_character_ends_where_the_reply_surely_is_full(most: int) -> None:
    text = "🎉" * 512
    pair = Pair([text[:1].encode()] * 512, logprob=lambda _: -9.0)
    words = Words(["🎉"])
    run = machine(words, threshold=2.0, limits=bounds(max_tokens=most))
    said = list(pair.drive(run))
    assert said and run.text == "🎉" * most
    assert (run.switch_reason, run.finish_reason, len(reply_tokens(run))) == ("length", "length", most)
    assert pair.drafted <= most + HOLD_BACK_CAP + 8


def test_a_run_that_is_joined_is_written_to_its_end() -> None:
    """How a ruler is divided into tokens is known only when its length is: here 512 characters are 8 tokens."""
    pair = Pair([b"-"] * 512, logprob=lambda _: -9.0)
    run = machine(Words(["-" * 64, "-" * 8]), threshold=2.0, limits=bounds(max_tokens=60))
    list(pair.drive(run))
    assert run.text == "-" * 512 and pair.drafted == 512
    assert joins_runs(Words(["-" * 8]), "-") and not joins_runs(Words(["-"]), "-")


def test_a_token_that_ends_inside_a_character_joins_a_run() -> None:
    halves = [bytes([byte]) for byte in "é".encode()]

    class Crossing(Words):
        """A vocabulary with a token of the second half of a character and the first half of the next."""

        def tokenize(self, text: str) -> list[int]:
            data, tokens = text.encode(), []
            while data:
                crosses = data[:2] == halves[1] + halves[0]
                tokens.append(256 if crosses else data[0])
                data = data[1 + crosses :]
            return tokens

        def piece(self, token: int) -> bytes:
            return halves[1] + halves[0] if token == 256 else bytes([token])

    assert joins_runs(Crossing(), "é") and not joins_runs(Crossing(), "a")
