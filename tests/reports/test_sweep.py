"""The grid of thresholds and windows: its figures, by hand and by properties, and its cells against real replies."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from exactness import EXACT
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import PageReader

from wsd_local.calibration import Continuation, Costs, Record, Setting
from wsd_local.calibration.deriving import missing_starts, switch_points
from wsd_local.calibration.recording import CONTINUATION, completed, record
from wsd_local.errors import CancelledError, UsageError
from wsd_local.prompts.messages import Message
from wsd_local.reports.recommending import grid
from wsd_local.reports.sweep import THRESHOLDS, WINDOWS, Cell, SweepResults, checked, chosen, grid_of, swept
from wsd_local.reports.sweep_page import sweep_page, sweep_tables
from wsd_local.runtime.pair import Pair
from wsd_local.settings import ReplySettings

COMPARED = 4
CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": "How do I boil an egg?"}],
    [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am"}],
]


def made(probs: Sequence[float], own: float, settings: Sequence[Setting], name: str = "one") -> Record:
    """A draft of one base token per draft token; the base finds each of its own tokens `own` probable."""
    logprobs = tuple(math.log(prob) for prob in probs)
    starts = [start for start in switch_points(logprobs, settings) if start < len(probs)]
    places = tuple(range(len(probs)))
    return Record(
        id=name,
        text="x" * len(probs),
        ended="draft_end",
        tokens=places,
        logprobs=logprobs,
        agrees=tuple(prob > 0.5 for prob in probs),
        settled=places,
        continuations=tuple(Continuation(at, (1,) * COMPARED, (math.log(own),) * COMPARED, False) for at in starts),
        drafted=(10, 1.0),
        checked=(10, 0.5),
        written=(10, 4.0),
    )


def cell(found: SweepResults, threshold: float, window: int) -> Cell:
    return next(one for one in found.cells if (one.threshold, one.window) == (threshold, window))


# -- figures ---------------------------------------------------------------------------------------------------


def test_a_cell_by_hand() -> None:
    compared = grid_of("0.5,0.9", "2")
    early = made([0.8] * 10, 0.8, compared, "early")
    late = made([0.1, 0.1, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4], 0.8, compared, "late")
    found = swept([early, late], compared, check_chunk=2, compared=COMPARED)
    low, high = cell(found, 0.5, 2), cell(found, 0.9, 2)
    assert (low.kept.value, low.kept_median, low.without_switch.value) == (3.0, 3.0, 0.0)
    assert (high.kept.value, high.without_switch.value, high.gap) == (10.0, 1.0, None)
    # Draft tokens cost 0.1 s, checked ones 0.05 s and written ones 0.4 s; one draft token more settles the last one.
    seconds = [3 * 0.1 + 2 * 0.05 + 8 * 0.4, 5 * 0.1 + 4 * 0.05 + 6 * 0.4]
    assert low.seconds is not None and low.seconds.value == pytest.approx(sum(seconds) / 2)
    assert low.time is not None and low.time.value == pytest.approx(sum(seconds) / (2 * 10 * 0.4))
    assert low.gap is not None and low.gap.value == pytest.approx(math.log(0.8 / 0.4) / 2)
    assert low.draft_logprob is not None and low.draft_logprob.value == pytest.approx(
        (math.log(0.8) + math.log(0.4)) / 2
    )
    assert low.gap.count == 2 and low.gap.interval == pytest.approx((0, math.log(2)))


def test_a_share_of_none_is_not_certain() -> None:
    """Twenty replies that all switch do not say that every reply will."""
    compared = grid_of("0.5", "2")
    found = swept([made([0.9] * 9, 0.9, compared)] * 20, compared, check_chunk=8, compared=COMPARED)
    assert found.cells[0].without_switch.value == 0
    assert found.cells[0].without_switch.high == pytest.approx(0.1684, abs=1e-3)


def test_where_costs_are_not_known_there_is_no_time() -> None:
    compared = grid_of("0.5", "2")
    bare = replace(made([0.9] * 9, 0.9, compared), written=(0, 0.0))
    found = swept([bare], compared, check_chunk=8, compared=COMPARED)
    assert found.cells[0].time is None and found.cells[0].seconds is None and found.cells[0].kept.value == 2
    assert "" in sweep_tables(found)[0].rows[0]


PROBS = st.lists(st.floats(0.01, 1.0), min_size=1, max_size=30)


@settings(max_examples=20, deadline=None)
@given(st.lists(PROBS, min_size=1, max_size=5))
def test_a_higher_threshold_keeps_no_less_and_figures_lie_in_their_intervals(drafts: list[list[float]]) -> None:
    compared = grid_of("0,0.3,0.6,0.9,1.1", "1,3,6")
    records = [made(probs, 0.9, compared, str(number)) for number, probs in enumerate(drafts)]
    found = swept(records, compared, check_chunk=8, compared=COMPARED)
    for window in (1, 3, 6):
        row = [one for one in found.cells if one.window == window]
        kept = [one.kept.value for one in row]
        switched = [one.without_switch.value for one in row]
        assert kept == sorted(kept) and switched == sorted(switched)
        assert row[-1].without_switch.value == 1
    for one in found.cells:
        for figure in (one.kept, one.without_switch, one.time, one.draft_logprob, one.own_logprob, one.gap):
            if figure is not None and figure.interval is not None:
                assert figure.interval[0] - 1e-9 <= figure.value <= figure.interval[1] + 1e-9
    assert swept(records, compared, check_chunk=8, compared=COMPARED) == found


# -- the grid --------------------------------------------------------------------------------------------------


def test_the_usual_grid_holds_the_paper_s_setting_and_all_that_calibrate_compares() -> None:
    usual = grid_of(THRESHOLDS, WINDOWS)
    assert set(grid(Setting(0.8, 6))) <= set(usual)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True),
    st.lists(st.integers(1, 40), min_size=1, max_size=8, unique=True),
)
def test_a_grid_is_every_threshold_with_every_window(tenths: list[int], windows: list[int]) -> None:
    thresholds = [number / 10 for number in tenths]
    found = grid_of(", ".join(map(str, thresholds)), ",".join(map(str, windows)))
    assert found == sorted(found)
    wanted = set(itertools.product(thresholds, windows))
    assert {(one.threshold, one.window) for one in found} == wanted and len(found) == len(wanted)


@pytest.mark.parametrize(
    ("thresholds", "windows", "words"),
    [
        ("", "6", "thresholds: there is no number in ''"),
        ("0.5", " , ", "windows: there is no number"),
        ("high", "6", "thresholds: 'high' is no number"),
        ("0.5", "6.5", "windows: '6.5' is no whole number"),
        ("0.5", "0", "windows: window is 0"),
        ("-1", "6", "thresholds: threshold is -1"),
        ("nan", "6", "thresholds: threshold is nan"),
        ("0.5,0.50", "6", "thresholds: 0.50 is there twice"),
        ("0.5", "6,3,6", "windows: 6 is there twice"),
    ],
)
def test_wrong_grids(thresholds: str, windows: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        grid_of(thresholds, windows)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_replies_are_drawn_once_and_always_the_same(prompts: int, cells: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, prompts * cells))
    found = chosen(count, prompts, cells)
    assert len(set(found)) == count and chosen(count, prompts, cells) == found
    assert all(0 <= prompt < prompts and 0 <= place < cells for prompt, place in found)
    with pytest.raises(UsageError, match="replies"):
        chosen(prompts * cells + 1, prompts, cells)


# -- cells and real replies --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    reply = ReplySettings(speculation="off", draft_max_tokens=60)
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=EXACT) as loaded:
        yield loaded


def test_every_cell_is_what_real_replies_do(pair: Pair) -> None:
    compared = grid_of("0,0.3,0.8,0.95,1.1", "1,3,6,12")
    indexes = set()
    for number, messages in enumerate(CONVERSATIONS):
        one = record(pair, str(number), messages, compared)
        for setting in compared:
            found = checked(pair, one, messages, setting, compared=CONTINUATION)
            assert found.differs is None, found
            indexes.add(found.index)
    assert len(indexes) > 4 and None in indexes


def test_cells_of_models_that_often_agree_are_what_real_replies_do(kin: tuple[Path, Path]) -> None:
    compared = grid_of("0.05,0.2,0.4,0.6", "1,2,4,7")
    reply = ReplySettings(speculation="off", draft_max_tokens=40, loop_guard="off")
    with Pair(draft=kin[0], base=kin[1], reply=reply, loading=EXACT) as near:
        messages = CONVERSATIONS[0]
        one = record(near, "0", messages, compared)
        found = [checked(near, one, messages, setting, compared=CONTINUATION) for setting in compared]
    assert all(each.differs is None for each in found), found
    assert len({each.index for each in found}) > 2


def test_a_reply_that_is_not_what_was_derived_is_found(pair: Pair) -> None:
    messages, setting = CONVERSATIONS[0], Setting(0.8, 3)
    one = record(pair, "0", messages, [setting])
    index = checked(pair, one, messages, setting, compared=CONTINUATION).index
    assert index is not None
    bent = replace(one, logprobs=(*one.logprobs[:index], -9.0, *one.logprobs[index + 1 :]))
    found = checked(pair, bent, messages, setting, compared=CONTINUATION)
    assert found.differs == "switch" and found.near is not None and found.near > 0.5
    assert found.derived_index != found.index == index
    other = replace(one, tokens=(one.tokens[0] + 1, *one.tokens[1:]))
    assert checked(pair, other, messages, setting, compared=CONTINUATION).differs == "draft"
    [own] = one.continuations
    turned = replace(own, tokens=(own.tokens[0] + 1, *own.tokens[1:]))
    went_on = checked(pair, replace(one, continuations=(turned,)), messages, setting, compared=CONTINUATION)
    assert went_on.differs == "continuation" and went_on.near is None
    results = SweepResults(1, Costs(), (), (found, went_on))
    assert results.different == [found]


def test_a_record_that_lacks_continuations_gets_those_alone(pair: Pair) -> None:
    """With what another grid needs, a record is the one that was made for both at once."""
    few, all_of_them = grid_of("0.3,0.95", "3"), grid_of("0.3,0.6,0.8,0.95", "1,3,6,12")
    for messages in CONVERSATIONS:
        first = record(pair, "0", messages, few)
        wanted = record(pair, "0", messages, all_of_them)
        assert missing_starts(first, all_of_them)
        found = completed(pair, first, all_of_them)
        assert not missing_starts(found, all_of_them)
        assert (found.prompt, found.tokens) == (wanted.prompt, wanted.tokens)
        for one, other in zip(found.continuations, wanted.continuations, strict=True):
            assert (one.start, one.tokens, one.ended) == (other.start, other.tokens, other.ended)
            assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert (found.drafted, found.checked) == (first.drafted, first.checked)
        assert found.written[0] > first.written[0]
        assert completed(pair, found, all_of_them) is found


def test_a_stop_leaves_the_record_as_it_was(pair: Pair) -> None:
    one = record(pair, "0", CONVERSATIONS[0], grid_of("0.8", "3"))
    with pytest.raises(CancelledError):
        completed(pair, one, grid_of("0.8", "1,6"), stopped=lambda: True)
    assert completed(pair, one, grid_of("0.8", "1,6")).tokens == one.tokens


# -- the page ----------------------------------------------------------------------------------------------------


def test_the_page_has_a_map_of_every_figure_that_is_known(pair: Pair) -> None:
    compared = grid_of("0.3,0.8", "3,6")
    one = record(pair, "0", CONVERSATIONS[0], compared)
    results = swept([one], compared, check_chunk=8, compared=CONTINUATION)
    reply = checked(pair, one, CONVERSATIONS[0], compared[0], compared=CONTINUATION)
    bent = replace(reply, differs="switch", near=0.25)
    results = replace(results, replies=(reply, bent))
    page = PageReader(sweep_page(results, ["How it was measured."]))
    assert len(page.labels) == 5 and any(label.startswith("Time by that of the base alone") for label in page.labels)
    assert "0.8 × 6" in page.cells and "1 of 2 real replies as derived" in page.headings
    assert json.loads(json.dumps(results.as_dict()))["replies"][1]["near"] == 0.25
    alone = swept([replace(one, written=(0, 0.0), continuations=())], compared, check_chunk=8, compared=CONTINUATION)
    assert len(PageReader(sweep_page(alone, [])).labels) == 2
