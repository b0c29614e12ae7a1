"""Times of whole replies: their arithmetic by hand and by properties, and rounds over the embedded pair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exactness import EXACT
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import PageReader

from wsd_local.datasets import DataSet, read
from wsd_local.datasets.run_file import RunFile
from wsd_local.errors import CancelledError, UsageError
from wsd_local.reports.columns import columns_of
from wsd_local.reports.contention import Elsewhere
from wsd_local.reports.time_rounds import Rounds
from wsd_local.reports.times import Round, TimedReply, TimeResults, Way, timed
from wsd_local.reports.times_page import time_page, time_tables
from wsd_local.runtime.pair import Pair
from wsd_local.settings import ReplySettings

NOTHING_ELSE = Elsewhere(0.0, 0.0)
COLUMNS = "base,urial,wsd,draft"


def reply(seconds: float, **more: Any) -> TimedReply:
    plain = TimedReply("text", seconds, seconds / 2, 10, 3, 20, 40, "stop")
    return replace(plain, **more)


def rounds_of(*times: dict[str, float], index: int = 0) -> list[Round]:
    return [
        Round(index, tuple(one), {name: reply(seconds) for name, seconds in one.items()}, NOTHING_ELSE) for one in times
    ]


def way(found: TimeResults, name: str) -> Way:
    return next(one for one in found.ways if one.name == name)


# -- arithmetic --------------------------------------------------------------------------------------------------


def test_figures_by_hand() -> None:
    rounds = [
        *rounds_of({"base": 1.0, "wsd": 2.0}, {"base": 2.0, "wsd": 2.0}, {"base": 4.0, "wsd": 2.0}),
        *rounds_of({"base": 10.0, "wsd": 5.0}, index=1),
        *rounds_of({"base": 1.0, "wsd": 1.1}, index=2),
    ]
    found = timed(rounds, ["base", "wsd"])
    assert (found.prompts, found.rounds, found.busy) == (3, 5, 0)
    wsd = way(found, "wsd")
    assert wsd.seconds.value == 2.0, "the median of 2, 5 and 1.1"
    assert wsd.ratio.value == 1.0, "within rounds: 2, 1 and 0.5, their median 1; then 0.5 and 1.1"
    assert wsd.sum_ratio.value == pytest.approx((2 + 5 + 1.1) / (2 + 10 + 1))
    assert wsd.token_s is not None and wsd.token_s.value == pytest.approx(0.2)
    assert wsd.first_text_s is not None and wsd.first_text_s.value == 1.0
    assert (wsd.tokens, wsd.kept, wsd.cut, wsd.draft_evaluated, wsd.base_evaluated) == (10, 3, 0, 20, 40)


SECONDS = st.floats(0.01, 100.0)


@settings(max_examples=3, deadline=None)
@given(st.lists(st.lists(SECONDS, min_size=1, max_size=3), min_size=1, max_size=8), st.floats(0.1, 10.0))
def test_a_way_that_always_takes_so_many_times_as_long_has_that_ratio_and_no_interval(
    bases: list[list[float]], factor: float
) -> None:
    rounds = [
        one
        for index, repeated in enumerate(bases)
        for one in rounds_of(*({"base": base, "slow": base * factor} for base in repeated), index=index)
    ]
    found = timed(rounds, ["slow", "base"])
    for ratio in (way(found, "slow").ratio, way(found, "slow").sum_ratio, way(found, "slow").token_ratio):
        assert ratio is not None and ratio.value == pytest.approx(factor) and ratio.interval is None
    assert way(found, "base").ratio.value == way(found, "base").sum_ratio.value == 1
    assert found.prompts == len(bases)


def test_replies_without_text_are_left_out_of_what_needs_some() -> None:
    base, none = reply(1.0), reply(2.0, tokens=0, first_text_s=None)
    found = timed([Round(0, ("base", "wsd"), {"base": base, "wsd": none}, NOTHING_ELSE)], ["base", "wsd"])
    one = way(found, "wsd")
    assert one.first_text_s is None and one.token_s is None and one.token_ratio is None and one.ratio.value == 2
    assert "" in time_tables(found)[0].rows[1]
    assert PageReader(time_page(found, [])).labels


def test_other_load_is_weighed_by_time_and_busy_rounds_are_counted() -> None:
    rounds = [
        Round(0, ("base",), {"base": reply(3.0)}, Elsewhere(0.0, 0.0)),
        Round(1, ("base",), {"base": reply(1.0)}, Elsewhere(0.4, 0.2)),
    ]
    found = timed(rounds, ["base"])
    assert found.elsewhere.programs == pytest.approx(0.1) and found.elsewhere.host == pytest.approx(0.05)
    assert found.busy == 1
    assert "too much for figures to be relied on" in found.sentences()[0]
    assert found.sentences()[1].startswith("In 1 of 2 rounds the machine was busy")
    assert len(timed(rounds[:1], ["base"]).sentences()) == 1


def test_the_page_and_the_tables_show_every_way() -> None:
    found = timed(rounds_of({"base": 1.0, "wsd": 0.84, "draft": 0.2}), ["base", "wsd", "draft"])
    times, work = time_tables(found)
    assert [row[0] for row in times.rows] == [row[0] for row in work.rows] == ["base", "wsd", "draft"]
    assert "0.84×" in times.rows[1]
    page = PageReader(time_page(found, ["How it was measured."]))
    assert len(page.labels) == 3 and "0.84×" in page.cells


def test_a_round_survives_json() -> None:
    [one] = rounds_of({"base": 1.0, "wsd": 2.0})
    assert Round.of({"index": 0, **json.loads(json.dumps(one.as_dict()))}) == one


# -- columns -----------------------------------------------------------------------------------------------------


def test_the_urial_column_has_the_program_s_examples_or_one_s_own() -> None:
    [own] = columns_of("urial")
    assert own.mode == "urial" and own.settings["urial"].count("# Query:") == own.settings["urial"].count("# Answer:")
    assert own.settings["urial"].count("# Query:\n") == 3
    [given_one] = columns_of("urial", "Answer kindly.")
    assert given_one.over(ReplySettings()).urial == "Answer kindly."
    with pytest.raises(UsageError, match="urial has no threshold"):
        columns_of("urial@0.5")


# -- rounds ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(demo_q8: tuple[Path, Path]) -> Iterator[Pair]:
    settings = ReplySettings(speculation="off", loop_guard="off", max_tokens=16)
    with Pair(draft=demo_q8[0], base=demo_q8[1], reply=settings, loading=EXACT) as loaded:
        loaded.models.load()
        loaded.models.hash_files(lambda _done, _total: None)
        yield loaded


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    path = tmp_path_factory.mktemp("asked") / "prompts.txt"
    path.write_text("Who are you?\nHow do I boil an egg?\nWhat is the capital of France?\n")
    return read(path)


@pytest.fixture(scope="module")
def whole(pair: Pair, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of rounds in all columns, two of each prompt."""
    out = tmp_path_factory.mktemp("measured") / "out.jsonl"
    measured(pair, data, out, repeat=2)
    return out


@pytest.fixture
def out(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(whole, tmp_path))


def measured(pair: Pair, data: DataSet, out: Path, repeat: int = 1, columns: str = COLUMNS) -> list[Round]:
    with RunFile(out) as file:
        rounds = Rounds(pair, data, file, columns_of(columns), repeat)
        assert not [outcome.error for outcome in rounds.outcomes() if outcome.error is not None]
        assert rounds.done == rounds.total
        return rounds.rounds()


def test_every_way_answers_every_prompt_as_it_does_alone(pair: Pair, data: DataSet, out: Path) -> None:
    rounds = measured(pair, data, out)
    assert [one.index for one in rounds] == [0, 1, 2]
    usual = pair.settings
    for one, item in zip(rounds, data.items, strict=True):
        assert sorted(one.order) == sorted(one.replies) == sorted(COLUMNS.split(","))
        for column in columns_of(COLUMNS):
            pair.settings = column.over(usual)
            alone = pair.reply(item.messages)
            found = one.replies[column.name]
            assert found.text == alone.text and found.tokens == len(alone.tokens)
            assert found.seconds > 0 and (found.first_text_s or 0) <= found.seconds
        pair.settings = usual
        assert one.replies["base"].draft_evaluated == one.replies["urial"].draft_evaluated == 0
        assert one.replies["draft"].base_evaluated == 0 < one.replies["draft"].draft_evaluated
        assert one.replies["urial"].base_evaluated > one.replies["base"].base_evaluated, "its examples are read too"
        assert one.replies["base"].kept == one.replies["draft"].kept == 0 < one.replies["wsd"].kept


def test_the_order_rotates_over_prompts_and_repetitions(pair: Pair, data: DataSet, tmp_path: Path) -> None:
    rounds = measured(pair, data, tmp_path / "out.jsonl", repeat=2, columns="base,fixed:2,draft")
    first = [[one.order[0] for one in rounds if one.index == index] for index in range(3)]
    assert first == [["base", "fixed:2"], ["fixed:2", "draft"], ["draft", "base"]]


def test_no_prompt_is_read_from_a_cache(pair: Pair, data: DataSet, out: Path) -> None:
    """A second round of the same prompt evaluates as many tokens as the first."""
    rounds = measured(pair, data, out, repeat=2)
    for index in range(3):
        one, two = [each for each in rounds if each.index == index]
        for name in COLUMNS.split(","):
            work = [(each.replies[name].draft_evaluated, each.replies[name].base_evaluated) for each in (one, two)]
            assert work[0] == work[1], name


def stopping(after: int) -> Any:
    calls = iter(range(10**6))
    return lambda: next(calls) >= after


def test_a_stopped_run_goes_on_with_the_round_it_was_in(pair: Pair, data: DataSet, tmp_path: Path) -> None:
    out, usual, columns = tmp_path / "out.jsonl", pair.settings, columns_of("base,draft")
    with RunFile(out) as file:  # as many warm replies, a whole round, and half of the next one
        rounds = Rounds(pair, data, file, columns, 1, stopping(5))
        with pytest.raises(CancelledError):
            list(rounds.outcomes())
        assert rounds.done == 1
    assert pair.settings == usual
    kept = out.read_bytes()
    assert kept.count(b"\n") == 1
    with RunFile(out) as file:
        assert len(list(Rounds(pair, data, file, columns, 1).outcomes())) == 2
    assert out.read_bytes().startswith(kept)


def test_nothing_is_answered_where_nothing_is_left(pair: Pair, data: DataSet, out: Path) -> None:
    with RunFile(out) as file:
        rounds = Rounds(pair, data, file, columns_of(COLUMNS), 1, lambda: True)
        assert list(rounds.outcomes()) == []


def test_rounds_of_other_columns_or_threads_are_refused(
    pair: Pair, data: DataSet, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunFile(out) as file, pytest.raises(UsageError, match="another columns"):
        Rounds(pair, data, file, columns_of("base,wsd"), 1)
    monkeypatch.setattr(pair.models, "loading", replace(pair.models.loading, threads=2))
    with RunFile(out) as file, pytest.raises(UsageError, match="another cpu-threads: 1, now 2"):
        Rounds(pair, data, file, columns_of(COLUMNS), 1)


@pytest.mark.parametrize("damage", [{"replies": {"base": {"text": "x"}}}, {"elsewhere": 3}, {"order": None}])
def test_a_damaged_round_is_named(pair: Pair, data: DataSet, out: Path, damage: dict[str, Any]) -> None:
    first, *others = out.read_text().splitlines()
    out.write_text("\n".join([json.dumps(json.loads(first) | damage), *others]) + "\n")
    with RunFile(out) as file, pytest.raises(UsageError, match="round 0 of record 0: is no whole round"):
        Rounds(pair, data, file, columns_of(COLUMNS), 1)


def test_a_prompt_that_does_not_fit_has_no_round(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("egg " * 9000 + "\nWho are you?\n")
    data = read(path)
    with RunFile(tmp_path / "out.jsonl") as file:
        rounds = Rounds(pair, data, file, columns_of("base,draft"), 2)
        outcomes = list(rounds.outcomes())
        assert [str(outcome.error or "")[:22] for outcome in outcomes] == ["the prompt is too long", "", ""]
        assert {one.index for one in rounds.rounds()} == {1}
