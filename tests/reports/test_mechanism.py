"""Figures of `wsd-local eval mechanism`, recounted here in other ways, and what is shown of them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import PageReader

from wsd_local.calibration import Continuation, Record, Setting
from wsd_local.datasets.formats import record_of
from wsd_local.datasets.references import reference_of
from wsd_local.errors import UsageError
from wsd_local.prompts.messages import Message
from wsd_local.reports.judge.asking import GRADES
from wsd_local.reports.mechanism.figures import HEAD, PLACES, MechanismResults, measured
from wsd_local.reports.mechanism.grades import judging, questions
from wsd_local.reports.mechanism.parts import aligned_note, mechanism_page, mechanism_parts, mechanism_tables
from wsd_local.reports.mechanism.ranks import beaten, rank, ranking
from wsd_local.reports.mechanism.recording import Openings, texts_of
from wsd_local.reports.mechanism.records import NOTHING, BaseReading, Case, Reading
from wsd_local.reports.perplexity import perplexity, pooled
from wsd_local.reports.statistics import Resampled

SURE, UNSURE = math.log(0.9), math.log(0.1)
SETTING, OPENINGS = Setting(0.8, 3), Openings(count=2, tokens=4)


def reading(*logprobs: float, text: str = "x") -> Reading:
    return Reading(text, tuple(range(len(logprobs))), tuple(logprobs))


def case(
    number: int,
    logprobs: Sequence[float],
    *,
    own: Sequence[Reading] = (),
    going: Continuation | None = None,
    source: str = "draft",
    aligned: Sequence[float] | None = None,
) -> Case:
    """A prompt whose draft is words of one token each, the base's favourites where they are sure."""
    draft = Record(
        id=f"p{number}",
        text=" ".join(f"w{place}" for place in range(len(logprobs))),
        ended="draft_end",
        tokens=tuple(range(len(logprobs))),
        logprobs=tuple(logprobs),
        agrees=tuple(value > math.log(0.5) for value in logprobs),
        settled=(),
        continuations=() if going is None else (going,),
    )
    chosen = tuple(draft.logprobs if aligned is None else aligned)
    return Case(
        place=(number, 0),
        messages=[Message(role="user", content="Say words.")],
        draft=draft,
        pieces=tuple(f" w{place}" for place in draft.tokens),
        continued={} if going is None else {going.start: " on and on"},
        source=source,
        aligned=chosen,
        opening=Reading("w0", tuple(range(len(chosen)))[: OPENINGS.tokens], chosen[: OPENINGS.tokens]),
        own=tuple(own),
    )


@pytest.fixture
def cases() -> list[Case]:
    """Prompts of every sort: one switches at 4 and goes on alike for one token, one never switches, one is short."""
    going = Continuation(5, (5, 99, 98), (SURE,) * 3, ended=False)
    own = [reading(SURE, SURE, text="a"), reading(UNSURE, text="b")]
    return [
        case(0, [UNSURE] * 2 + [SURE] * 18, own=own, going=going),
        case(1, [UNSURE] * 20, own=[NOTHING, reading(SURE)]),
        case(2, [SURE], own=[NOTHING, NOTHING], source="chosen", aligned=[SURE, UNSURE, SURE]),
    ]


# -- perplexity ----------------------------------------------------------------------------------------------

Replies = st.lists(st.lists(st.floats(-20, 0), max_size=8), min_size=1, max_size=6)


@settings(deadline=None, max_examples=20)
@given(Replies, st.integers(0, 9))
def test_pooled_perplexities_are_those_of_the_demo(replies: list[list[float]], prefix: int) -> None:
    groups = [[reply] for reply in replies]
    whole, following = pooled(groups, [(prefix, None), (prefix, prefix + 1)], Resampled(len(groups)))
    rest = perplexity(replies, prefix)
    assert (whole is None) == (rest is None) == (following is None)
    if whole is not None and rest is not None and following is not None:
        assert whole.value == pytest.approx(rest.rest) and following.value == pytest.approx(rest.next)
        assert whole.count == rest.replies
        low, high = whole.interval or (whole.value, whole.value)
        assert low <= whole.value * 1.0001 and high >= whole.value * 0.9999


def test_texts_of_one_prompt_are_drawn_together() -> None:
    texts = [[-1.0] * 5, [-3.0] * 5]
    [together] = pooled([texts, texts], [(0, None)], Resampled(2))
    [apart] = pooled([[text] for text in [*texts, *texts]], [(0, None)], Resampled(4))
    assert together is not None and apart is not None and together.value == pytest.approx(apart.value)
    assert together.interval is None and apart.interval is not None


def test_the_beginning_and_the_rest_of_the_same_replies(cases: list[Case]) -> None:
    found = measured(cases, SETTING, OPENINGS).beginning
    assert found is not None and found.replies == 2
    head = math.exp(-(2 * UNSURE + (HEAD - 2) * SURE + HEAD * UNSURE) / (2 * HEAD))
    rest = math.exp(-(4 * SURE + 4 * UNSURE) / 8)
    assert found.head.value == pytest.approx(head) and found.rest.value == pytest.approx(rest)
    assert found.quotient.value == pytest.approx(head / rest)


def test_rows_after_each_number_of_tokens(cases: list[Case]) -> None:
    rows = {row.prefix: row for row in measured(cases, SETTING, OPENINGS).perplexity}
    assert list(rows) == [0, 1, 2, 4, 8, 16]
    assert [rows[k].replies for k in rows] == [3, 3, 3, 2, 2, 2]
    assert rows[0].next.value == pytest.approx(math.exp(-(2 * UNSURE + SURE) / 3))
    own, later = rows[0].own_rest, rows[2]
    assert own is not None and own.value == pytest.approx(math.exp(-(3 * SURE + UNSURE) / 4))
    assert later.own_rest is None and later.own_next is None


# -- ranks ---------------------------------------------------------------------------------------------------


def test_ranks_by_hand() -> None:
    assert rank(3.0, [1.0, 2.0, 4.0]) == 2 and rank(9.0, [1.0]) == 1 and rank(0.0, [1.0, 2.0]) == 3
    assert rank(1.0, [1.0, 1.0]) == 2 and beaten(1.0, [1.0, 0.0]) == 1.5
    found = ranking([(3.0, [1.0, 2.0, 4.0]), (0.0, [1.0, 1.0, 1.0]), (5.0, [])])
    assert found is not None
    assert (found.prompts, found.openings, found.ranks) == (2, 4, ((2, 1), (4, 1)))
    assert found.rank.value == 3 and found.beats.value == pytest.approx(1 / 3)
    assert (found.best.value, found.worst.value) == (0, 0.5)
    assert found.aligned.value == 1.5 and found.own.value == pytest.approx(5 / 3)
    assert found.difference.value == pytest.approx(1.5 - 5 / 3)
    assert ranking([]) is None and ranking([(1.0, [])]) is None


@given(st.floats(-9, 9), st.lists(st.sampled_from([-3.0, -1.0, 0.0, 2.0, 5.0]), min_size=1, max_size=9))
def test_a_rank_is_the_place_in_the_sorted_list(aligned: float, own: list[float]) -> None:
    places = [n for n, score in enumerate(sorted([aligned, *own], reverse=True), 1) if score == aligned]
    assert rank(aligned, own) == pytest.approx(sum(places) / len(places))
    assert rank(-aligned, [-score for score in own]) == pytest.approx(len(own) + 2 - rank(aligned, own))


def test_openings_are_ranked_by_the_likelihood_of_a_token(cases: list[Case]) -> None:
    found = measured(cases, SETTING, OPENINGS).likelihood
    assert found is not None and found.prompts == 2, "a prompt whose own openings are all empty is left out"
    mean = (2 * UNSURE + 2 * SURE) / 4
    assert found.aligned.value == pytest.approx((mean + UNSURE) / 2)
    assert found.own.value == pytest.approx(((SURE + UNSURE) / 2 + SURE) / 2)
    assert found.ranks == ((2, 2),) and found.beats.value == 0.25


def test_openings_are_ranked_by_their_first_tokens_too(cases: list[Case]) -> None:
    rows = {row.tokens: row.beats.value for row in measured(cases, SETTING, OPENINGS).by_length}
    assert list(rows) == [1, 2, 4]
    assert rows[1] == (1 / 4 + 0) / 2, "unsure beats one of two by half, and none of one"
    assert rows[2] == 0.125 and rows[4] == 0.25
    longer = measured(cases, SETTING, Openings(count=2, tokens=5)).by_length
    assert [row.tokens for row in longer] == [1, 2, 4, 5]


def test_grades_rank_the_openings_of_which_all_are_graded(cases: list[Case]) -> None:
    asked = questions(cases)
    assert len(asked) == 9 and len({one.key for one in asked}) == 9
    assert all("Say words." in one.asked.messages[1]["content"] for one in asked)

    def answer(best: int) -> list[float]:
        return [0.0 if number == best else -50.0 for number in range(1, len(GRADES) + 1)]

    of_one = {one.key: answer(7 if "aligned" in one.key[2] else 3) for one in asked[:3]}
    found = judging({"model": "m"}, {**of_one, asked[3].key: answer(1)}, cases)
    assert found is not None and found.ranking.prompts == 1
    assert found.ranking.aligned.value == pytest.approx(7) and found.ranking.own.value == pytest.approx(3)
    assert found.mass == pytest.approx(1) and not found.warnings
    assert judging({"model": "m"}, {}, cases) is None


def test_a_grade_of_another_text_does_not_count(cases: list[Case]) -> None:
    before = {one.key for one in questions(cases)}
    changed = case(0, [UNSURE] * 2 + [SURE] * 18, own=[reading(SURE, text="another"), cases[0].own[1]])
    assert len({one.key for one in questions([changed])} - before) == 1


def test_a_supplied_beginning_is_a_part_of_what_is_graded(cases: list[Case]) -> None:
    talk = [*cases[0].messages, Message(role="assistant", content="Well, ")]
    changed = Case(**{name: getattr(cases[0], name) for name in Case.__slots__} | {"messages": talk})
    assert "[Reply of the assistant]\nWell, w0\n" in questions([changed])[0].asked.messages[1]["content"]


# -- switches and agreement ----------------------------------------------------------------------------------


def test_switches_and_what_follows(cases: list[Case]) -> None:
    found = measured(cases, SETTING, OPENINGS).switches
    [switch] = found.places
    assert (switch.index, switch.window, switch.kept) == (4, " w2 w3 w4", " w0 w1 w2 w3 w4")
    assert (switch.base, switch.draft, switch.agreed, switch.compared) == (" on and on", " w5 w6 w7", 1, 3)
    assert found.without == 2 and found.median == 4 and found.positions == [(4, 1)]
    assert found.early.value == 0, "token 4 is after an opening of four"
    assert found.agreed is not None and found.agreed.value == 1
    assert found.alike is not None and found.at_once is not None and found.alike.value == found.at_once.value == 0
    assert sum(one.value for one in found.kinds.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("tokens", "ended", "length", "agreed", "compared"),
    [
        ((5, 6), False, 20, 2, 2),
        ((5, 6), True, 20, 2, 3),
        ((5, 6), True, 7, 2, 2),
        ((), True, 20, 0, 1),
        ((), False, 20, 0, 0),
        ((7, 8, 9), False, 6, 0, 1),
        ((7, 8, 9), False, 5, 0, 0),
    ],
)
def test_the_end_of_a_text_counts_as_a_token(
    tokens: tuple[int, ...], ended: bool, length: int, agreed: int, compared: int
) -> None:
    going = Continuation(5, tokens, (SURE,) * len(tokens), ended)
    [found] = measured([case(0, [UNSURE] * 2 + [SURE] * (length - 2), going=going)], SETTING, OPENINGS).switches.places
    assert (found.agreed, found.compared) == (agreed, compared)


def test_ranges_of_positions_follow_one_another() -> None:
    assert PLACES[0] == (0, 0) and PLACES[4] == (4, 5)
    assert all(second[0] == first[1] + 1 for first, second in pairwise(PLACES))
    assert PLACES[-1][1] >= 1000


@settings(deadline=None, max_examples=15)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=5))
def test_agreement_is_counted_by_position(agrees: list[list[bool]]) -> None:
    found = measured(
        [case(n, [SURE if one else UNSURE for one in row]) for n, row in enumerate(agrees)], SETTING, OPENINGS
    )
    assert sum(row.tokens for row in found.agreement) == sum(map(len, agrees))
    for row in found.agreement:
        hits = [hit for reply in agrees for place, hit in enumerate(reply) if row.first <= place <= row.last]
        assert row.share.value == pytest.approx(sum(hits) / len(hits)) and len(hits) == row.tokens
        low, high = row.share.interval or (0, 1)
        assert 0 <= low <= high <= 1
    long = [reply for reply in agrees if len(reply) > HEAD]
    assert (found.gain is None) == (not long)


def test_a_share_of_all_tokens_is_as_unsure_as_there_are_prompts() -> None:
    [first, *_] = measured([case(number, [SURE] * 9) for number in range(3)], SETTING, OPENINGS).agreement
    assert (first.share.value, first.share.count) == (1, 3) and first.share.low == pytest.approx(0.025 ** (1 / 3))


def test_without_records_there_are_no_figures() -> None:
    with pytest.raises(ValueError):
        measured([], SETTING, OPENINGS)


# -- records and references ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "format", "wanted"),
    [
        ({"instruction": "Hi", "output": " Hello. "}, "alpaca_eval", ("output", "Hello.")),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "x"}, "hh", ("chosen", "Hello.")),
        ({"prompt": "Hi", "chosen": "Hello.", "output": "no"}, "jsonl", ("chosen", "Hello.")),
        (
            {"prompt": "Hi", "chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
            "jsonl",
            ("chosen", "Hello."),
        ),
        ({"prompt": "Hi", "chosen": [{"role": "user", "content": "Hi"}]}, "jsonl", None),
        ({"prompt": "Hi", "chosen": " ", "output": "Hello."}, "jsonl", ("output", "Hello.")),
        ({"prompt": "Hi", "output": 3}, "jsonl", None),
        ({"prompt": "Hi"}, "jsonl", None),
        ({"turns": ["Hi", "And?"], "output": "Hello."}, "mt_bench", None),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "He"}]}, "jsonl", None),
    ],
)
def test_references(record: dict[str, Any], format: str, wanted: tuple[str, str] | None) -> None:
    assert reference_of(record_of(format, 0, 1, record, None)) == wanted


def test_a_reading_survives_json() -> None:
    made = BaseReading("chosen", reading(-1.0, -2.0), (reading(-3.0), NOTHING))
    values = json.loads(json.dumps(made.as_dict()))
    assert BaseReading.of(values) == made and values["text"] == "x"
    values["aligned"]["tokens"].pop()
    with pytest.raises(ValueError, match="one length"):
        BaseReading.of(values)


def test_texts_of_tokens_keep_characters_whole() -> None:
    data = "é, ja ✓".encode()
    pieces = dict(enumerate([data[:1], data[1:4], data[4:8], data[8:]]))
    assert texts_of(list(pieces), pieces.__getitem__) == ["", "é, ", "ja ", "✓"]
    assert texts_of([0, 2], pieces.__getitem__) == ["", "\ufffdja \ufffd"]
    assert texts_of([0], pieces.__getitem__) == ["\ufffd"] and texts_of([], pieces.__getitem__) == []


def test_seeds_differ_and_stay() -> None:
    asked = product((0, 1), (0, 1), (0, 1), range(9))
    seeds = [Openings(seed=seed).seed_of((index, turn), number) for seed, index, turn, number in asked]
    assert len(set(seeds)) == len(seeds) == 72 and Openings().seed_of((0, 0), 0) == seeds[0]


@pytest.mark.parametrize("values", [{"count": 0}, {"count": 257}, {"tokens": 0}, {"seed": -1}, {"seed": 2**32 - 1}])
def test_openings_have_bounds(values: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must lie between"):
        Openings(**values)


# -- what is shown -------------------------------------------------------------------------------------------


def shown(results: MechanismResults) -> str:
    text = mechanism_page(results, ["Made by hand."])
    PageReader(text)
    return text


def test_the_page_has_every_part_and_says_what_is_aligned(cases: list[Case]) -> None:
    asked = questions(cases)
    graded = judging({"model": "Judge & Co"}, {one.key: [0.0] * 10 for one in asked}, cases)
    results = measured(cases, SETTING, OPENINGS, graded)
    text = shown(results)
    assert text.count("<figure") == 6
    for words in ("hard to begin", "unlikely opening", "better opening", "early switch", "agreement grows"):
        assert words in text
    assert "the draft&#x27;s greedy reply for 2 prompts, the field `chosen` of the data set for 1 prompt" in text
    assert "Judge &amp; Co" in text and "Made by hand." in text and "by the judge&#x27;s grade" in text
    assert "What the discarded draft would have said" in text and "1 of 3" in text
    titles = [table.title for table in mechanism_tables(results)]
    assert len(titles) == len(set(titles)) == 9
    json.dumps(results.as_dict())


def test_the_page_without_a_judge_switches_or_openings() -> None:
    results = measured([case(0, []), case(1, [UNSURE])], SETTING, OPENINGS)
    text = shown(results)
    assert "better opening" not in text and "unlikely opening" not in text and "What kind of text" not in text
    assert results.perplexity[0].replies == 1 and aligned_note(results) in mechanism_tables(results)[0].note
    nothing = measured([case(0, [])], SETTING, OPENINGS)
    assert shown(nothing) and len(mechanism_parts(nothing)) == len(mechanism_tables(nothing)) == 1


def test_texts_of_models_are_shown_as_text(cases: list[Case]) -> None:
    going = Continuation(5, (5, 99), (SURE,) * 2, ended=False)
    hostile = case(0, [SURE] * 9, going=Continuation(3, going.tokens, going.logprobs, ended=False))
    hostile = Case(
        **{name: getattr(hostile, name) for name in Case.__slots__}
        | {"continued": {3: " <script>alert(1)</script>\x1b[31m\n\nnext " + "long " * 99}}
    )
    text = shown(measured([hostile], SETTING, OPENINGS))
    assert "<script" not in text and "&lt;script&gt;" in text and "\x1b" not in text and "⏎ ⏎ next" in text
