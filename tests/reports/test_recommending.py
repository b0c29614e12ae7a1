"""The table and the recommendation: from records that are made for a known answer."""

from __future__ import annotations

import itertools
import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsd_local.calibration import Continuation, Record, Setting
from wsd_local.calibration.deriving import switch_points
from wsd_local.reports.recommending import Calibration, calibrated, grid

DEFAULT = Setting(0.8, 6)
COMPARED = 4


def record(number: int, probs: list[float], own: float) -> Record:
    """A draft whose tokens have these probabilities; the base finds each of its own tokens `own` probable."""
    logprobs = tuple(math.log(prob) for prob in probs)
    starts = switch_points(logprobs, grid(DEFAULT))
    continuations = (Continuation(at, (1,) * COMPARED, (math.log(own),) * COMPARED, False) for at in starts)
    agrees = tuple(prob > 0.5 for prob in probs)
    settled = tuple(range(len(probs)))
    spent = (10, 1.0)
    return Record(
        str(number), "", "draft_end", settled, logprobs, agrees, settled, tuple(continuations), spent, spent, spent
    )


def found(records: list[Record], present: Setting = DEFAULT) -> Calibration:
    return calibrated(records, grid(present), present, check_chunk=8, compared=COMPARED)


def hard_then_easy(hard: int, number: int) -> Record:
    """The base would begin otherwise, and after so many tokens agrees: the gap is 0 from there on."""
    luck = random.Random(number)
    return record(number, [0.55 + luck.random() * 0.1 for _ in range(hard)] + [0.97] * 60, 0.97)


def test_the_grid_holds_the_present_setting() -> None:
    assert DEFAULT in grid(DEFAULT) and len(grid(DEFAULT)) == 21
    assert Setting(0.77, 5) in grid(Setting(0.77, 5)) and len(grid(Setting(0.77, 5))) == 22


def test_of_settings_that_are_as_good_the_earliest_wins() -> None:
    """The base goes on as the draft does from the first token on: nothing is gained by waiting."""
    result = found([record(number, [0.85] * 40, 0.86) for number in range(20)])
    assert result.recommendation.winner is not None
    assert result.recommendation.winner.window == 3
    assert result.row(result.recommendation.winner).kept == 3
    assert result.recommendation.setting == DEFAULT and "is as good" in result.recommendation.reason


def test_a_present_setting_that_is_worse_is_replaced() -> None:
    """The base takes over too late to count with the present setting, and as an aligned model would with others."""
    result = found([record(number, [0.85] * 40, 0.86) for number in range(20)], Setting(0.9, 6))
    assert result.recommendation.distinguished and result.recommendation.setting == result.recommendation.winner
    assert result.recommendation.setting.window == 3


def test_a_setting_that_hands_over_too_early_does_not_win() -> None:
    result = found([hard_then_easy(12, number) for number in range(30)])
    early = result.row(Setting(0.3, 3))
    best = result.recommendation.winner
    assert best is not None
    assert early.kept == 3 and early.gap is not None and early.gap > 0.2
    assert result.row(best).kept > 11


def test_where_the_base_never_takes_over_nothing_is_recommended() -> None:
    result = found([record(number, [0.1] * 30, 0.9) for number in range(10)])
    advice = result.recommendation
    assert advice.winner is None and advice.setting == DEFAULT and not advice.distinguished
    assert "no setting lets the base take over" in advice.reason
    assert all(row.without_switch == 1 and not row.counts for row in result.rows)


def test_a_setting_under_which_the_base_rarely_takes_over_does_not_count() -> None:
    """It switches in a few easy replies alone, whose gap is none."""
    few = [record(number, [0.99] * 40, 0.99) for number in range(5)]
    many = [record(100 + number, [0.75] * 40, 0.8) for number in range(15)]
    result = found([*few, *many])
    late = result.row(Setting(0.95, 6))
    assert late.without_switch == 0.75 and late.gap == pytest.approx(0) and not late.counts
    assert result.recommendation.winner != late.setting


def test_few_prompts_that_disagree_leave_the_present_setting() -> None:
    """One of three prompts speaks against an early switch: no sample of them is sure."""
    records = [record(number, [0.85] * 40, 0.86) for number in range(2)] + [hard_then_easy(12, 10)]
    advice = found(records, Setting(0.5, 3)).recommendation
    assert advice.winner not in (None, advice.present)
    assert not advice.distinguished and advice.setting == advice.present == Setting(0.5, 3)
    assert "do not distinguish" in advice.reason and advice.better == pytest.approx(1 - (2 / 3) ** 3, abs=0.05)


def test_the_same_records_give_the_same_figures() -> None:
    records = [hard_then_easy(number % 9, number) for number in range(12)]
    assert found(records) == found(records)
    json.dumps(found(records).as_dict(), allow_nan=False)


def test_one_record_is_enough_for_a_table() -> None:
    result = found([record(0, [0.9] * 30, 0.9)])
    assert result.prompts == 1 and all(row.kept_interval is row.gap_interval is None for row in result.rows)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0.01, 1.0), max_size=30), min_size=1, max_size=6))
def test_tables_are_monotone_in_the_threshold(drafts: list[list[float]]) -> None:
    result = found([record(number, probs, 0.9) for number, probs in enumerate(drafts)])
    for window in (3, 6, 12):
        rows = sorted((row for row in result.rows if row.window == window), key=lambda row: row.threshold)
        for before, after in itertools.pairwise(rows):
            assert before.kept <= after.kept and before.kept_median <= after.kept_median
            assert before.without_switch <= after.without_switch
    wins = sum(row.wins for row in result.rows)
    assert wins == pytest.approx(1) or wins <= 1
    assert all(row.kept_interval is None or row.kept_interval[0] <= row.kept + 1e-9 for row in result.rows)
