"""The state machine against the same rule read off the whole text, and every edge of its list."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import STOPS, Fickle, Pair, Splitting, Words, bounds, machine, plain_answer, split_at

from wsd_local.core.alignment import TokenisedPrompt
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.draft import DraftOptions
from wsd_local.core.limits import Limits
from wsd_local.core.rules import Window
from wsd_local.core.written import reply_tokens
from wsd_local.events import Switched, Text

PROMPT = "\n\n[User]\nhi\n\n[Assistant]\n"
CALM = Words(["the", " the", "re", " quick", " fox", " is", "]\n", "\n\n", "an", " and", "é"])
SURE = math.log(0.9)
UNSURE = math.log(0.1)

words = st.sampled_from(
    ["the", " the", " there", " quick", " fox", "é", "👩‍💻", " is", ".", "\n", "\n\n", " ", "[Us", "[User]"]
)
drafts = st.lists(words, max_size=40).map("".join)


@settings(max_examples=400, deadline=None)
@given(
    draft=drafts,
    cuts=st.lists(st.integers(0, 400), max_size=60),
    window=st.sampled_from([1, 3, 6, 12]),
    threshold=st.sampled_from([0.0, 0.3, 0.6, 0.7, 0.8, 2.0]),
    chunk=st.sampled_from([1, 6, 8, 16, 512]),
    max_tokens=st.sampled_from([1, 5, 20, 2048]),
    follows=st.lists(st.integers(97, 120), max_size=8),
)
def test_stream_equals_the_whole_text(
    draft: str, cuts: list[int], window: int, threshold: float, chunk: int, max_tokens: int, follows: list[int]
) -> None:
    pair = Pair(split_at(draft.encode(), cuts), follows)
    limits = bounds(max_tokens=max_tokens, check_chunk=chunk, stops=STOPS)
    run = machine(CALM, PROMPT, window=window, threshold=threshold, limits=limits)
    events = list(pair.drive(run))
    expected = plain_answer(CALM, PROMPT, draft, pair, window, threshold, max_tokens)
    tokens = reply_tokens(run)
    assert [token.id for token in tokens][: run.kept_tokens] == expected.kept
    assert (run.switch_index, run.switch_reason, run.finish_reason) == (
        expected.index,
        expected.reason,
        expected.finish,
    )
    assert run.text == expected.text
    assert "".join(event.text for event in events if isinstance(event, Text)) == run.text
    assert "".join(token.text for token in tokens) == run.text


USER_STOPS = ("é!", "👩‍💻", "\n\nthe", " fox fox", "💻")


@settings(max_examples=400, deadline=None)
@given(
    draft=st.lists(st.sampled_from(["the", " fox", "é", "!", "\n\n", "👩", "‍", "💻", "[Us", "er]"]), max_size=30).map(
        "".join
    ),
    cuts=st.lists(st.integers(0, 400), max_size=60),
    threshold=st.sampled_from([0.0, 0.6, 2.0]),
    chunk=st.sampled_from([1, 8, 512]),
    follows=st.lists(st.sampled_from(["the", " fox", "é", "!", "\n\n", "👩‍💻", "[User]", "\xa9"]), max_size=9).map(
        "".join
    ),
)
def test_nothing_of_a_stop_string_is_ever_shown(
    draft: str, cuts: list[int], threshold: float, chunk: int, follows: str
) -> None:
    """Users' stop strings beside the base's: over tokens, over draft and continuation, over halves of characters."""
    stops = STOPS + USER_STOPS
    pair = Pair(split_at(draft.encode(), cuts), list(follows.encode()))
    run = machine(CALM, PROMPT, window=3, threshold=threshold, limits=bounds(check_chunk=chunk, stops=stops))
    shown = ""
    for event in pair.drive(run):
        shown += event.text if isinstance(event, Text) else ""
        assert not any(stop in shown for stop in stops)
    expected = plain_answer(CALM, PROMPT, draft, pair, 3, threshold, 2048, stops)
    assert (shown, run.switch_index, run.finish_reason) == (expected.text, expected.index, expected.finish)


thoughts = st.sampled_from(
    [
        "<think>hm [User] the fox</think>",
        "<think>\n\n</think>\n\n",
        " <think>a</think><think>b</think> ",
        "[THINK]x[/THINK]",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    thought=thoughts,
    draft=drafts,
    cuts=st.lists(st.integers(0, 400), max_size=60),
    threshold=st.sampled_from([0.0, 0.6, 2.0]),
    chunk=st.sampled_from([1, 8, 512]),
)
def test_a_block_of_thinking_is_never_part_of_the_opening(
    thought: str, draft: str, cuts: list[int], threshold: float, chunk: int
) -> None:
    """The reply is that of the same draft without the block, and nothing of it is shown on the way."""
    limits = bounds(check_chunk=chunk, stops=STOPS)
    thinking = machine(CALM, PROMPT, window=3, threshold=threshold, limits=limits)
    shown = ""
    for event in Pair(split_at((thought + draft).encode(), cuts), list(b"!")).drive(thinking):
        shown += event.text if isinstance(event, Text) else ""
    plain = machine(CALM, PROMPT, window=3, threshold=threshold, limits=limits)
    list(Pair(split_at(draft.encode(), cuts), list(b"!")).drive(plain))
    assert (shown, thinking.switch_index) == (plain.text, plain.switch_index)
    assert (reply_tokens(thinking), thinking.switch_reason) == (reply_tokens(plain), plain.switch_reason)


@pytest.mark.parametrize("draft_ends", [True, False])
def test_a_draft_that_only_thinks_leaves_the_answer_to_the_base(draft_ends: bool) -> None:
    run = finished([b"<think>", b"and more ", b"and more"], "alone", draft_ends, draft_max_tokens=99)
    assert (run.text, run.switch_reason, run.kept_tokens) == ("alone", "draft_end", 0)


def test_what_only_looks_like_thinking_is_text() -> None:
    assert finished([b"<thi", b"rd> the fox"], "!").text == "<third> the fox!"
    assert finished([b"<thi"], "!").text == "<thi!"
    assert finished([b"the <think>fox</think>"], "!").text == "the <think>fox</think>!"


def test_thinking_marks_that_are_control_tokens_count_only_at_the_beginning() -> None:
    run = machine(CALM, PROMPT, limits=bounds(stops=STOPS))
    for piece, spelling in ((b"", b"<think>"), (b"the", b""), (b"", b"</think>"), (b" fox", b""), (b"", b"<think>")):
        run.drafted(piece, spelling)
    run.draft_ended()
    list(Pair([], list(b"!"), logprob=lambda tokens: UNSURE).drive(run))
    assert run.text == "fox!"


unruly = st.lists(st.text("ab -\n", min_size=1, max_size=9), max_size=25)


@settings(max_examples=400, deadline=None)
@given(
    vocabulary=unruly,
    draft=st.text("ab -\n", max_size=120),
    cuts=st.lists(st.integers(0, 400), max_size=60),
    window=st.sampled_from([1, 3, 6]),
    threshold=st.sampled_from([0.5, 0.7, 0.8, 2.0]),
    chunk=st.sampled_from([1, 6, 8, 512]),
)
def test_tokens_that_change_after_the_hold_back_never_retract_text(
    vocabulary: list[str], draft: str, cuts: list[int], window: int, threshold: float, chunk: int
) -> None:
    """A vocabulary whose tokens span words: roll-backs happen, and the result is still one consistent reply."""
    words = Words(vocabulary)
    pair = Pair(split_at(draft.encode(), cuts), [97, 98])
    run = machine(words, PROMPT, window=window, threshold=threshold, limits=bounds(check_chunk=chunk, stops=STOPS))
    shown = ""
    for event in pair.drive(run):
        shown += event.text if isinstance(event, Text) else ""
        assert run.text.startswith(shown)
    assert run.phase is Phase.DONE
    assert shown == run.text == "".join(token.text for token in reply_tokens(run))
    expected = plain_answer(words, PROMPT, draft, pair, window, threshold, 2048)
    kept = [token.id for token in reply_tokens(run)][: run.kept_tokens]
    whole = words.tokenize(PROMPT + draft.strip())[run.prompt_length :]
    if not run.counts.moved_switches and kept == whole[: len(kept)]:
        assert (kept, run.switch_index, run.text) == (expected.kept, expected.index, expected.text)


def test_roll_back_checks_again_from_the_first_difference() -> None:
    vocabulary = Words(["aa ", "aa bb cc"])
    pair = Pair([b"aa ", b"bb ", b"c", b"c ", b"dd ", b"ee "], logprob=lambda tokens: UNSURE)
    run = machine(vocabulary, window=1, limits=bounds(check_chunk=1, stops=STOPS))
    list(pair.drive(run))
    assert run.counts.rollbacks >= 1
    assert run.text.startswith("aa bb cc dd ee")
    starts = [start for start, _ in pair.scored]
    assert starts != sorted(starts)


def test_a_roll_back_cannot_move_the_switch_into_shown_text() -> None:
    """Eight unsure characters are out when the tokens become pairs, of which the base is sure from the first on."""
    pair = Pair(
        [b"ab ", b"cd ", b"ef ", b"gh ", b"z i", b" j"],
        logprob=lambda tokens: SURE if tokens[-1] > 255 else UNSURE,
    )
    run = machine(Fickle(), "pp", window=2, limits=bounds(check_chunk=1))
    shown_before = ""
    for event in pair.drive(run):
        if isinstance(event, Switched):
            break
        shown_before += event.text if isinstance(event, Text) else ""
    assert (run.counts.rollbacks, run.counts.moved_switches) == (1, 1)
    assert run.draft_text == shown_before
    assert run.switch_index == run.kept_tokens - 1 == 2


# -- the list of edges ---------------------------------------------------------------------------------------


def finished(pieces: list[bytes], follows: str = "", draft_ends: bool = True, **options: object) -> Decoding:
    limits = bounds(stops=STOPS, **options)
    run = machine(CALM, PROMPT, limits=limits)
    list(Pair(pieces, list(follows.encode()), draft_ends, lambda tokens: UNSURE).drive(run))
    return run


@pytest.mark.parametrize("draft", [[], [b""], [b" \n", b"\t  "], [b" "] * 9])
@pytest.mark.parametrize("on_draft_end", ["continue", "stop"])
@pytest.mark.parametrize("draft_ends", [True, False])
def test_an_empty_draft_leaves_the_answer_to_the_base(draft: list[bytes], on_draft_end: str, draft_ends: bool) -> None:
    run = finished(draft, "alone", draft_ends, on_draft_end=on_draft_end, draft_max_tokens=5)
    assert (run.text, run.switch_reason, run.switch_index, run.kept_tokens) == ("alone", "draft_end", None, 0)


def test_a_draft_shorter_than_the_window_is_kept_whole() -> None:
    run = finished([b" the", b" fox "], "!")
    assert (run.text, run.draft_text, run.switch_reason, run.switch_index) == ("the fox!", "the fox", "draft_end", None)


def test_on_draft_end_stop_ends_there() -> None:
    run = finished([b"the fox"], "!", on_draft_end="stop")
    assert (run.text, run.finish_reason, run.switch_reason) == ("the fox", "stop", "draft_end")


def test_a_stop_string_in_the_draft_ends_drafting_and_the_reply() -> None:
    pair = Pair([b"the fox", b"\n\n[Us", b"er]", b" more"], [97], logprob=lambda tokens: UNSURE)
    run = machine(CALM, PROMPT)
    list(pair.drive(run))
    assert (run.text, run.switch_reason, run.switch_index, run.finish_reason) == ("the fox", "stop", None, "stop")
    assert (run.stop, pair.drafted) == ("\n\n[User]", 3)


@pytest.mark.parametrize(
    ("draft", "follows", "options", "stop"),
    [
        (b"the fox", "!\n[User] x", {}, "\n[User]"),
        (b"the [Us", "er] x", {}, "[User]"),
        (b"the fox", "!", {}, None),
        (b"the fox is[User]", "", {"max_tokens": 2}, None),
        (b"the fox", "!", {"on_draft_end": "stop"}, None),
    ],
)
def test_the_stop_string_that_ended_a_reply_is_named(
    draft: bytes, follows: str, options: dict[str, Any], stop: str | None
) -> None:
    run = finished([draft], follows, **options)
    assert run.stop == stop and not run.text.endswith(stop or "nothing")


def test_white_space_before_what_may_become_a_stop_string_waits_with_it() -> None:
    limits = bounds(check_chunk=1, stops=(" fox fox",))
    for pieces in ([b"thethe\n\n fox fox is"], [b"thethe\n\n fox", b" fo", b"x is"]):
        run = machine(CALM, PROMPT, window=3, threshold=0.0, limits=limits)
        list(Pair(pieces).drive(run))
        assert (run.text, run.switch_index, run.switch_reason) == ("thethe", None, "stop")


def test_a_stop_string_across_draft_and_continuation_is_never_shown() -> None:
    run = finished([b"the fox\n\n[Us"], "er] hidden")
    assert (run.text, run.finish_reason) == ("the fox", "stop")


def test_what_looked_like_a_stop_string_is_shown_when_it_is_none() -> None:
    run = finished([b"the fox\n\n[Us"], "a]")
    assert run.text == "the fox\n\n[Usa]"


def test_half_a_character_waits_and_broken_bytes_at_the_end_become_replacements() -> None:
    euro = "€".encode()
    assert finished([b"the ", euro[:1], euro[1:]]).text == "the €"
    assert finished([b"the ", euro[:2]]).text == "the �"
    assert finished([b"the "], "", draft_ends=True).text == "the"
    run = machine(CALM, PROMPT)
    list(Pair([b"the"], [0xE2, 0x82], logprob=lambda tokens: UNSURE).drive(run))
    assert run.text == "the�"


def test_a_merge_across_prompt_and_draft_counts_from_the_prompts_own_tokens() -> None:
    vocabulary = Words(["]\n", "\nthe", "]\nthe", " fox"])
    run = machine(vocabulary, PROMPT)
    list(Pair([b"the fox is"], list(b"!"), logprob=lambda tokens: UNSURE).drive(run))
    assert run.prompt_length == len(vocabulary.tokenize(PROMPT))
    assert run.text == "the fox is!"
    assert "".join(token.text for token in reply_tokens(run)) == run.text


@pytest.mark.parametrize("limits", [bounds(fixed=1), bounds(check_chunk=1)])
def test_a_first_token_that_is_all_prompt_is_kept_all_the_same(limits: Limits) -> None:
    """The prompt alone ends in one token, prompt and draft make two of it: the first draft token shows no text."""
    run = machine(Splitting(), "ab", window=1, threshold=0.0, limits=limits)
    list(Pair([b"cde fgh ijk"], list(b"!")).drive(run))
    assert run.kept_tokens == 1
    assert "".join(token.text for token in reply_tokens(run)) == run.text


def test_a_border_that_moves_by_two_tokens_keeps_texts_whole() -> None:
    run = machine(Splitting(), "abc", window=1, threshold=2.0)
    list(Pair([b"d more text here"], list(b"!")).drive(run))
    assert run.text == "d more text here!"
    assert "".join(token.text for token in reply_tokens(run)) == run.text


@pytest.mark.parametrize("steps", range(1, 14))
def test_handing_over_at_any_time_keeps_text_and_tokens_together(steps: int) -> None:
    pair = Pair([b"ab ", b"cd ", b"ef ", b"gh ", b"z i", b" j"], [33, 33], logprob=lambda tokens: UNSURE)
    run = machine(Fickle(), "pp", window=3, limits=bounds(check_chunk=1))
    left = iter(range(steps))
    list(pair.drive(run, until=lambda: next(left, None) is None))
    shown = run.text
    run.hand_over()
    list(pair.drive(run))
    assert run.text.startswith(shown)
    assert "".join(token.text for token in reply_tokens(run)) == run.text


def test_events_that_nobody_took_wait() -> None:
    run = machine(CALM, PROMPT)
    pair = Pair([b"the", b" fox", b" is", b" the", b" fox"], list(b"!!"), logprob=lambda tokens: UNSURE)
    text = ""
    while run.phase is not Phase.DONE:
        for event in pair.drive(run):
            text += event.text if isinstance(event, Text) else ""
            break
    text += "".join(event.text for event in run.take_events() if isinstance(event, Text))
    assert text == run.text


def test_a_draft_swallowed_by_the_prompts_last_token_does_not_crash() -> None:
    run = machine(Words(["]\nthe"]), PROMPT)
    list(Pair([b"the"], list(b"ok")).drive(run))
    assert run.phase is Phase.DONE
    assert run.text.endswith("ok")


def test_threshold_zero_keeps_one_window_and_above_one_keeps_all() -> None:
    for threshold, kept, reason in ((0.0, 6, "threshold"), (1.5, 9, "draft_end")):
        run = machine(CALM, PROMPT, threshold=threshold)
        list(Pair([b"abcdefghi"], logprob=lambda tokens: SURE).drive(run))
        assert (run.kept_tokens, run.switch_reason) == (kept, reason)


def test_drafting_stops_at_its_own_limit_and_at_the_replys() -> None:
    limited = finished([b" x"] * 99, "!", draft_max_tokens=7)
    assert (limited.switch_reason, limited.counts.drafted_tokens) == ("draft_limit", 7)
    assert limited.text == "x x x x x x x!"
    full = finished([b" x"] * 99, "!", max_tokens=5)
    assert (full.switch_reason, full.finish_reason, len(reply_tokens(full))) == ("length", "length", 5)
    exhausted = finished([b" x"] * 3, "!", draft_ends=False)
    assert exhausted.switch_reason == "draft_limit"


def test_the_continuation_ends_exactly_at_max_tokens() -> None:
    run = finished([b"ab"], "c" * 99, max_tokens=10)
    assert (run.text, run.finish_reason) == ("ab" + "c" * 8, "length")


def test_fixed_keeps_exactly_that_many_tokens_and_checks_none() -> None:
    pair = Pair([b"the", b" quick", b" fox", b" is", b" and"], list(b"!"))
    run = machine(CALM, PROMPT, limits=bounds(stops=STOPS, fixed=1))
    list(pair.drive(run))
    assert (run.text, run.kept_tokens, run.switch_reason, pair.scored) == ("the!", 1, "draft_limit", [])


@pytest.mark.parametrize("chunk", [1, 6, 8, 16])
def test_the_draft_stops_one_chunk_and_the_hold_back_past_the_switch(chunk: int) -> None:
    pair = Pair([b" fox"] * 200, list(b"!"), logprob=lambda tokens: SURE)
    run = machine(CALM, PROMPT, limits=bounds(check_chunk=chunk, stops=STOPS))
    list(pair.drive(run))
    assert run.switch_index == 5
    assert pair.drafted <= 6 + chunk + 1


def test_the_first_window_is_shown_before_anything_is_checked() -> None:
    pair = Pair([b"the"] + [b" fox"] * 40, list(b"!"), logprob=lambda tokens: UNSURE)
    run = machine(CALM, PROMPT, limits=bounds(check_chunk=16, stops=STOPS))
    list(pair.drive(run, until=lambda: run.shown_tokens >= 6))
    assert not pair.scored
    assert run.text == "the" + " fox" * 5


def test_no_text_is_shown_that_a_window_could_still_cut_off() -> None:
    for passing in range(6, 30):
        pair = Pair(
            [b" fox"] * 60,
            list(b"!"),
            logprob=lambda tokens, n=passing: SURE if len(tokens) - 24 >= n else UNSURE,  # type: ignore[misc]
        )
        run = machine(CALM, PROMPT, limits=bounds(check_chunk=4, stops=STOPS))
        events = list(pair.drive(run))
        switch = next(i for i, event in enumerate(events) if isinstance(event, Switched))
        before = "".join(event.text for event in events[:switch] if isinstance(event, Text))
        assert before == run.draft_text
        assert run.counts.moved_switches == 0


def test_handing_over_keeps_what_was_shown() -> None:
    pair = Pair([b"the", b" quick", b" fox", b" is", b" the"], list(b"!"), logprob=lambda tokens: UNSURE)
    run = machine(CALM, PROMPT)
    list(pair.drive(run, until=lambda: run.shown_tokens == 2))
    run.hand_over()
    list(pair.drive(run))
    assert (run.text, run.switch_reason, run.switch_index) == ("the quick!", "user", None)


@pytest.mark.parametrize("steps", range(1, 24))
def test_a_stopped_reply_goes_on_as_if_it_had_not_stopped(steps: int) -> None:
    def fresh() -> tuple[Decoding, Pair]:
        pieces = [b"the", b" quick", b" fox", b" is", b" the", b" fox", b" and", b" the", b" fox", b" is"]
        sure = lambda tokens: SURE if len(tokens) > 27 else UNSURE  # noqa: E731
        return machine(CALM, PROMPT, window=3, limits=bounds(check_chunk=2, stops=STOPS)), Pair(
            pieces, list(b" done"), logprob=sure
        )

    whole, pair = fresh()
    list(pair.drive(whole))
    run, pair = fresh()
    left = iter(range(steps))
    before = list(pair.drive(run, until=lambda: next(left, None) is None))
    shown = run.text
    after = list(pair.drive(run))
    assert whole.text.startswith(shown)
    assert (run.text, reply_tokens(run), run.switch_index) == (whole.text, reply_tokens(whole), whole.switch_index)
    assert "".join(event.text for event in before + after if isinstance(event, Text)) == run.text


def test_a_supplied_beginning_is_kept_whole_and_windows_count_from_its_end() -> None:
    prompt = PROMPT + "The  capital\n is"
    run = machine(CALM, prompt, window=2, threshold=0.5, verbatim=True)
    list(Pair([b" the", b" fox", b" is"], list(b"!"), logprob=lambda tokens: SURE).drive(run))
    assert run.prompt_length == len(CALM.tokenize(prompt))
    assert (run.text, run.switch_index) == (" the fox!", 1)


def test_the_continuation_alone_needs_no_draft() -> None:
    run = Decoding(CALM, PROMPT, Window(6, 0.8), bounds(stops=STOPS), drafting=False)
    list(Pair([], list(b"alone")).drive(run))
    assert (run.text, run.switch_reason, run.kept_tokens, run.finish_reason) == ("alone", "none", 0, "stop")


def test_the_draft_alone_is_stripped_and_counts_its_own_tokens() -> None:
    run = Decoding(
        CALM, TokenisedPrompt("", [1, 2, 3]), Window(6, 0.8), bounds(stops=STOPS), writer="draft", drafting=False
    )
    list(Pair([], list(b" \n the fox \n")).drive(run))
    assert (run.text, run.draft_text, run.prompt_length) == ("the fox", "the fox", 3)
    verbatim = Decoding(
        CALM,
        TokenisedPrompt("", [1]),
        Window(6, 0.8),
        bounds(stops=STOPS),
        writer="draft",
        drafting=False,
        options=DraftOptions(verbatim=True),
    )
    list(Pair([], list(b" Paris. ")).drive(verbatim))
    assert verbatim.text == " Paris."
    assert "".join(token.text for token in reply_tokens(run)) == "the fox"


# -- which tokens wrote the text -----------------------------------------------------------------------------


def ids(run: Decoding) -> list[int]:
    return [token.id for token in reply_tokens(run)]


def sources(run: Decoding) -> str:
    return "".join(token.source[0] for token in reply_tokens(run))


def test_a_base_that_only_ends_has_written_nothing() -> None:
    """Its heading, an end marker without text, and the end of a stop string that the opening began."""
    vocabulary = Words(["\n\n", "[User]", " fox", "the"])
    written = vocabulary.tokenize("the fox")
    for follows in ("", "\n\n[User]\nHi", "[User]", "\n[User]"):
        run = machine(vocabulary, PROMPT)
        list(Pair([b"the fox"], vocabulary.tokenize(follows), logprob=lambda tokens: UNSURE).drive(run))
        assert (run.text, ids(run), sources(run)) == ("the fox", written, "dd")
    run = machine(vocabulary, PROMPT)
    list(Pair([b"the fox\n\n[Us"], list(b"er]"), logprob=lambda tokens: UNSURE).drive(run))
    assert (run.text, ids(run), sources(run)) == ("the fox", written, "dd")


def test_a_token_that_wrote_the_last_characters_before_a_cut_is_its_writers() -> None:
    vocabulary = Words(["!\n\n[User]", "\n\n\n", "the"])
    run = machine(vocabulary, PROMPT)
    list(Pair([b"the"], vocabulary.tokenize("!\n\n[User]"), logprob=lambda tokens: UNSURE).drive(run))
    assert (run.text, [(token.text, token.source) for token in reply_tokens(run)]) == (
        "the!",
        [("the", "draft"), ("!", "base")],
    )
    run = machine(vocabulary, PROMPT)
    list(Pair([b"the"], [*vocabulary.tokenize("\n\n\n"), *b"[User]"], logprob=lambda tokens: UNSURE).drive(run))
    assert (run.text, sources(run)) == ("the\n", "db")


def test_the_draft_alone_counts_nothing_that_is_stripped() -> None:
    run = Decoding(CALM, TokenisedPrompt("", [1]), Window(6, 0.8), bounds(stops=STOPS), writer="draft", drafting=False)
    list(Pair([], [*b" \n ", *"é the ".encode(), *b"\n\n"]).drive(run))
    assert (run.text, bytes(ids(run)).decode()) == ("é the", "é the")
    run = Decoding(CALM, TokenisedPrompt("", [1]), Window(6, 0.8), bounds(stops=STOPS), writer="draft", drafting=False)
    list(Pair([], list(b" \n ")).drive(run))
    assert (run.text, ids(run)) == ("", [])


@settings(max_examples=300, deadline=None)
@given(
    draft=drafts,
    cuts=st.lists(st.integers(0, 400), max_size=60),
    threshold=st.sampled_from([0.0, 0.6, 2.0]),
    max_tokens=st.sampled_from([3, 20, 2048]),
    follows=st.lists(words, max_size=9).map("".join),
    steps=st.integers(0, 60),
)
def test_the_tokens_of_a_reply_are_the_fewest_that_write_its_text(
    draft: str, cuts: list[int], threshold: float, max_tokens: int, follows: str, steps: int
) -> None:
    """However it ends, and also where it is stopped."""
    pair = Pair(split_at(draft.encode(), cuts), list(follows.encode()))
    run = machine(CALM, PROMPT, window=3, threshold=threshold, limits=bounds(max_tokens=max_tokens, stops=STOPS))
    left = iter(range(steps))
    list(pair.drive(run, until=lambda: next(left, None) is None))
    tokens = reply_tokens(run)
    assert "".join(token.text for token in tokens) == run.text
    assert all(token.text for token in tokens[-1:])
    assert "".join(token.text for token in tokens if token.source == "draft") == run.draft_text
