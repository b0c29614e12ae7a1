"""Loops against the rule read off the whole text, and replies with the guard against whole replies."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scripted import STOPS, Pair, Words, bounds, cut, machine, split_at

from wsd_local.core.loops import LoopFinder
from wsd_local.core.text import Outlet
from wsd_local.core.written import reply_tokens
from wsd_local.events import Switched, Text

PROMPT = "\n\n[User]\nhi\n\n[Assistant]\n"
CALM = Words(["the", " the", " fox", " is", "]\n", "\n\n", " la", " Femme", ", "])
SURE, UNSURE = math.log(0.9), math.log(0.1)

# -- the rule, read off a text as a whole --------------------------------------------------------------------


def tells(text: str) -> bool:
    """Whether a string says anything: a letter, a mark or a symbol that is no part of a drawing."""
    return any(
        unicodedata.category(char)[0] in "LM" or (unicodedata.category(char) == "So" and not "─" <= char <= "◿")
        for char in text
    )


def loop_at_the_end(text: str) -> tuple[int, int] | None:
    """Beginning and period of the loop that a text ends in."""
    for period in range(1, min(200, len(text)) + 1):
        start = len(text) - period
        while start > 0 and text[start - 1] == text[start - 1 + period]:
            start -= 1
        found = text[start:]
        size = sum(2.5 if char >= "⺀" else 1.0 for char in found)
        if 2 * len(found) >= 7 * period and size >= 60 and tells(found[:period]):
            return start, period
    return None


def first_loop(text: str) -> tuple[int, int, int] | None:
    """Beginning, period and end of the first loop."""
    ends = ((loop_at_the_end(text[:end]), end) for end in range(1, len(text) + 1))
    return next(((*found, end) for found, end in ends if found is not None), None)


def is_border(text: str, at: int) -> bool:
    return text[at - 1].isspace() or text[at : at + 1].isspace()


def stop_end(text: str, stops: Sequence[str]) -> int | None:
    return min((text.find(stop) + len(stop) for stop in stops if stop in text), default=None)


def looped(text: str, stops: Sequence[str]) -> tuple[int, int, int] | None:
    """The loop of a text, if no stop string is complete before it."""
    found, stopped = first_loop(text), stop_end(text, stops)
    return None if found is None or (stopped is not None and stopped <= found[2]) else found


def drafted(text: str, stops: Sequence[str]) -> tuple[str, str]:
    """What a draft comes to, and why it ended."""
    if (found := looped(text, stops)) is not None:
        start, period, end = found
        at = start + period
        borders = [cut for cut in range(max(start, at - 64) + 1, min(end, at + 64)) if is_border(text, cut)]
        return text[: min(borders, key=lambda cut: (abs(cut - at), cut), default=at)].rstrip(), "loop"
    text, stopped = cut(text, stops)
    return text.rstrip(), "stop" if stopped else "draft_end"


def replied(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """What a reply comes to, and what ended it, if anything did."""
    if (found := looped(text, stops)) is not None:
        start, period, end = found
        at = start + 2 * period
        borders = [cut for cut in range(at, min(end, at + 64)) if is_border(text, cut)]
        return text[: min(borders, default=at)], "loop"
    text, stopped = cut(text, stops)
    return text, "stop" if stopped else None


# -- finding -------------------------------------------------------------------------------------------------

units = st.sampled_from(
    [
        "la Femme, ",
        "ab",
        "a",
        "| - | ",
        "1, ",
        "-",
        "── ",
        "é the\n",
        "the fox is the fox. ",
        "你好，",
        "😂",
        "word" * 17,
    ]
)
beginnings = st.sampled_from(["", "the ", "Paris is la Fem", "1. 2. ", "a", "\n"])
texts = st.lists(
    st.builds(lambda before, unit, count: before + unit * count, beginnings, units, st.integers(0, 14)), max_size=3
).map("".join)


@settings(max_examples=150, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(0, 900), max_size=30))
def test_a_stream_finds_the_first_loop_of_the_text(text: str, cuts: list[int]) -> None:
    finder = LoopFinder()
    marks = sorted({0, len(text), *(at % (len(text) + 1) for at in cuts)})
    for start, end in itertools.pairwise(marks):
        finder.feed(text[start:end])
    found = None if finder.loop is None else (finder.loop.start, finder.loop.period, finder.loop.end)
    assert found == first_loop(text)


@settings(max_examples=200, deadline=None)
@given(text=texts, cuts=st.lists(st.integers(0, 900), max_size=30))
@example("Well, " + "la Femme, " * 9, [])
def test_what_comes_out_is_cut_as_the_whole_text_is(text: str, cuts: list[int]) -> None:
    for stops in (STOPS, (), ("la Femme, la Femme, la F", "fox. the")):
        outlet, shown = Outlet(stops, loops=True), ""
        for piece in split_at(text.encode(), cuts):
            for part, _ in outlet.push(piece, "base"):
                shown += part
        shown += "".join(part for part, _ in outlet.close("base"))
        assert (shown, outlet.ended) == replied(text, stops)


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("la Femme, " * 6, True),
        ("la Femme, " * 5 + "la Femm", False),
        ("This is a sentence of eighty characters or so that is written again and again. " * 3, False),
        ("This is a sentence of eighty characters or so that is written again and again. " * 4, True),
        ("-" * 500, False),
        ("| --- " * 80, False),
        ("0, " * 200, False),
        ("═" * 300, False),
        ("\n" * 300, False),
        ("你好，" * 8, True),
        ("你好，" * 7, False),
        ("x" * 201 + "y" * 59, True),
        ("".join(f"{number}. la Femme\n" for number in range(90)), False),
        ("".join(f"| {number} | is | {number * number} |\n" for number in range(99)), False),
        ("x" * 59, False),
        ("\ufffd" * 30, True),
    ],
)
def test_what_is_a_loop(text: str, loops: bool) -> None:
    finder = LoopFinder()
    finder.feed(text)
    assert (finder.loop is not None) == loops


# -- replies -------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    draft=texts,
    cuts=st.lists(st.integers(0, 900), max_size=60),
    window=st.sampled_from([1, 6, 12]),
    threshold=st.sampled_from([0.0, 0.6, 0.7, 0.8, 2.0]),
    chunk=st.sampled_from([1, 8, 9999]),
    max_tokens=st.sampled_from([5, 60, 2048]),
    follows=texts,
)
@example("the " + "la Femme, " * 9, [], 6, 2.0, 8, 2048, "x " + "ab" * 60)
@example("la Femme, " * 9, [], 6, 0.7, 1, 2048, "")
@example("the fox is. ", [3], 6, 2.0, 8, 2048, "la Femme, " * 20)
def test_a_reply_is_that_of_the_whole_texts(
    draft: str, cuts: list[int], window: int, threshold: float, chunk: int, max_tokens: int, follows: str
) -> None:
    """Draft whole, score whole, continue whole: the first loop of the draft, and then of the reply, is cut."""
    pair = Pair(split_at(draft.encode(), cuts), list(follows.encode()))
    limits = bounds(max_tokens=max_tokens, check_chunk=chunk, stops=STOPS, loops=True)
    run = machine(CALM, PROMPT, window=window, threshold=threshold, limits=limits)
    shown = "".join(event.text for event in pair.drive(run) if isinstance(event, Text))

    kept_text, ended = drafted(draft.lstrip(), STOPS)
    n0, tokens = len(CALM.tokenize(PROMPT)), CALM.tokenize(PROMPT + kept_text)
    logprobs = [pair.logprob(tokens[: end + 1]) for end in range(n0, len(tokens))][:max_tokens]
    means = [math.exp(sum(logprobs[end - window : end]) / window) for end in range(window, len(logprobs) + 1)]
    index = next((i + window - 1 for i, mean in enumerate(means) if mean >= threshold), None)
    reason = "threshold" if index is not None else "length" if len(tokens) - n0 >= max_tokens else ended
    kept = tokens[n0 : n0 + (len(logprobs) if index is None else index + 1)]
    before = b"".join(map(CALM.piece, kept))
    left = max_tokens - len(kept)
    goes_on = left > 0 and reason != "stop"
    data = before + follows.encode()[: left if goes_on else 0]
    reply, end = replied(data.decode(errors="replace"), STOPS)
    if end is None:
        end = "length" if len(data) - len(before) == left and reason != "stop" else "stop"
    assert (run.switch_reason, run.switch_index) == (reason, index)
    assert (run.text, run.finish_reason) == (reply, end)
    assert shown == run.text == "".join(token.text for token in reply_tokens(run))


@settings(max_examples=200, deadline=None)
@given(
    draft=texts,
    cuts=st.lists(st.integers(0, 900), max_size=60),
    threshold=st.sampled_from([0.0, 0.6, 0.7, 2.0]),
    chunk=st.sampled_from([1, 8]),
    follows=texts,
)
def test_a_reply_without_a_loop_is_the_same(
    draft: str, cuts: list[int], threshold: float, chunk: int, follows: str
) -> None:
    runs = []
    for loops in (False, True):
        limits = bounds(check_chunk=chunk, stops=STOPS, loops=loops)
        run = machine(CALM, PROMPT, window=3, threshold=threshold, limits=limits)
        list(Pair(split_at(draft.encode(), cuts), list(follows.encode())).drive(run))
        runs.append(run)
    assume(first_loop(draft) is None and first_loop(runs[0].text) is None)
    off, on = ((reply_tokens(run), run.switch_index, run.switch_reason, run.finish_reason) for run in runs)
    assert on == off


def test_nothing_of_a_loop_is_shown_and_the_base_takes_over_before_it() -> None:
    pieces = [b"the fox is"] + [b" la", b" Femme", b", "] * 40
    pair = Pair(pieces, list(b" done."), logprob=lambda tokens: SURE if len(tokens) > 40 else UNSURE)
    run = machine(CALM, PROMPT, limits=bounds(check_chunk=1, stops=STOPS, loops=True))
    events = list(pair.drive(run))
    assert run.text == "the fox is la Femme, done."
    assert [event.reason for event in events if isinstance(event, Switched)] == ["loop"]
    assert pair.drafted < 30
    assert run.switch_index is None


def test_a_base_that_only_repeats_itself_ends_after_the_second_period() -> None:
    run = machine(CALM, PROMPT, limits=bounds(stops=STOPS, loops=True))
    list(Pair([b"the fox"], list(b" is la Femme." * 99), logprob=lambda tokens: UNSURE).drive(run))
    assert (run.text, run.finish_reason, run.stop) == ("the fox" + " is la Femme." * 2, "loop", None)


@pytest.mark.parametrize("steps", range(1, 90, 4))
def test_a_stopped_reply_goes_on_to_the_same_end(steps: int) -> None:
    texts = []
    for stop_at in (None, steps):
        run = machine(CALM, PROMPT, limits=bounds(check_chunk=2, stops=STOPS, loops=True))
        pair = Pair([b"the"] + [b" fox", b" is"] * 20, list(b" la Femme." * 20), logprob=lambda tokens: UNSURE)
        left = iter(range(stop_at or 9999))
        list(pair.drive(run, until=lambda left=left: next(left, None) is None))  # type: ignore[misc]
        list(pair.drive(run))
        texts.append((run.text, run.switch_reason, run.finish_reason, reply_tokens(run)))
    assert texts[0] == texts[1]
