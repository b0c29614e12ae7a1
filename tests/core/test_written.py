"""The tokens that a growing reply reports are those of the whole reply, each once, in order and with its score."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import EOG, Pair, Words, bounds, split_at

from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.rules import Window
from wsd_local.core.written import Written, reply_tokens
from wsd_local.events import TokenDetails

CALM = Words(["the", " the", "re", " quick", " fox", "\n\n", " ", "[User]", "é"])
PROMPT = "\n\n[User]\nhi\n\n[Assistant]\n"

texts = st.lists(st.sampled_from(["the", " the", " fox", "é", "👩‍💻", " ", "\n", "[Us", "[User]"]), max_size=30).map(
    "".join
)


@settings(max_examples=300, deadline=None)
@given(
    draft=texts,
    cuts=st.lists(st.integers(0, 200), max_size=40),
    follows=texts,
    threshold=st.sampled_from([0.0, 0.6, 2.0]),
    drafting=st.booleans(),
    max_tokens=st.sampled_from([1, 7, 2048]),
)
def test_reported_tokens_are_those_of_the_reply(
    draft: str, cuts: list[int], follows: str, threshold: float, drafting: bool, max_tokens: int
) -> None:
    pair = Pair(split_at(draft.encode(), cuts), [*CALM.tokenize(follows), 0xC3, EOG])
    limits = bounds(max_tokens=max_tokens, check_chunk=3, stops=("[User]",))
    run = Decoding(
        CALM, PROMPT, Window(3, threshold), limits, writer="base" if drafting else "draft", drafting=drafting
    )
    written = Written(run, CALM.piece)
    found: list[TokenDetails] = []
    for _ in pair.drive(run):
        found += written.take()
    found += written.take()
    assert run.phase is Phase.DONE
    expected = reply_tokens(run)
    assert [token.id for token in found] == [token.id for token in expected]
    assert [token.source for token in found] == [token.source for token in expected]
    assert all(token.piece == CALM.piece(token.id) for token in found)
    for token, whole in zip(found, expected, strict=True):
        assert (token.logprob is None) == (whole.prob is None)
        if token.logprob is not None and whole.prob is not None:
            assert math.isclose(math.exp(token.logprob), whole.prob)


def test_text_that_is_held_back_keeps_its_tokens_back() -> None:
    run = Decoding(CALM, PROMPT, Window(3, 0.8), bounds(stops=("[User]",)), drafting=False)
    written = Written(run, CALM.piece)
    reported = []
    for token in [*b"a[Use", ord("x"), 0xC3, 0xA9]:
        run.continued(token)
        reported.append([one.id for one in written.take()])
    assert reported == [[ord("a")], [], [], [], [], [*b"[Use", ord("x")], [], [0xC3, 0xA9]]
