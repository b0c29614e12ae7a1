"""What the base alone is recorded to do with prompts: held against a plain forward pass of another program's code."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exactness import EXACT, exact_oracle
from oracle import Oracle

from wsd_local.calibration import Setting
from wsd_local.calibration.recording import OVERRIDES, record
from wsd_local.datasets import DataSet, read
from wsd_local.datasets.run_file import RunFile
from wsd_local.errors import CancelledError, UsageError
from wsd_local.reports.mechanism.figures import measured
from wsd_local.reports.mechanism.ranks import rank
from wsd_local.reports.mechanism.recording import BaseReader, Openings, Prompted
from wsd_local.reports.mechanism.records import Case
from wsd_local.runtime.pair import Pair
from wsd_local.settings import ReplySettings

OPENINGS = Openings(count=4, tokens=12, seed=5)
SETTING = Setting(0.6, 4)
ASKED = [
    {"prompt": "How do I boil an egg?"},
    {"prompt": "What is the capital of France?", "chosen": "The capital of France is Paris. Enjoy!"},
    {"prompt": "Who are you?", "output": " x"},
]


def written(path: Path, values: list[dict[str, Any]]) -> DataSet:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return read(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return written(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", ASKED)


@pytest.fixture(scope="module")
def prompted(demo_f32: tuple[Path, Path], data: DataSet) -> Prompted:
    """The drafts."""
    reply = ReplySettings(**{**OVERRIDES, "draft_max_tokens": 60})
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=EXACT) as pair:
        return [(record(pair, item.id, item.messages, [SETTING]), item.messages) for item in data.items]


@pytest.fixture(scope="module")
def base(demo_f32: tuple[Path, Path]) -> Iterator[Pair]:
    """The base, with fewer sequences than it samples openings."""
    reply = ReplySettings(**{**OPENINGS.settings, "draft_max_tokens": 60})
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=replace(EXACT, parallel=3)) as pair:
        pair.models.load("base")
        pair.models.hash_files()
        yield pair


def read_all(base: Pair, data: DataSet, prompted: Prompted, path: Path, openings: Openings = OPENINGS) -> list[Case]:
    with RunFile(path) as file:
        reader = BaseReader(base, data, prompted, file, openings, "d")
        before = reader.done
        assert [outcome.error for outcome in reader.outcomes()] == [None] * (reader.total - before)
        assert reader.done == reader.total == len(prompted)
        return reader.cases()


@pytest.fixture(scope="module")
def cases(base: Pair, data: DataSet, prompted: Prompted, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return read_all(base, data, prompted, tmp_path_factory.mktemp("read") / "out.jsonl")


@pytest.fixture(scope="module")
def oracle(demo_f32: tuple[Path, Path]) -> Iterator[Oracle]:
    found = exact_oracle(demo_f32)
    yield found
    found.close()


def plain_logprobs(oracle: Oracle, prompt: str, tokens: tuple[int, ...]) -> list[float]:
    """By one forward pass over everything, without a cache."""
    before = [*oracle.base_model.bos, *oracle.base_model.plain(f"\n\n[User]\n{prompt}\n\n[Assistant]\n")]
    whole = [*before, *tokens]
    rows = oracle.base_model.rows(whole).astype(np.float64)
    logs = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    return [float(logs[place - 1, whole[place]]) for place in range(len(before), len(whole))]


def test_likelihoods_perplexities_and_ranks_are_those_of_a_plain_forward_pass(
    cases: list[Case], oracle: Oracle
) -> None:
    surprises, ranks = [], []
    for case in cases:
        aligned = plain_logprobs(oracle, case.prompt, case.opening.tokens)
        own = [plain_logprobs(oracle, case.prompt, one.tokens) for one in case.own if one.tokens]
        assert case.opening.logprobs == pytest.approx(aligned, abs=1e-3)
        assert [list(one.logprobs) for one in case.own if one.tokens] == [pytest.approx(one, abs=1e-3) for one in own]
        assert 0 < len(aligned) <= OPENINGS.tokens and all(len(one) <= OPENINGS.tokens for one in own)
        surprises.append(-aligned[0])
        ranks.append(rank(float(np.mean(aligned)), [float(np.mean(one)) for one in own]))
    found = measured(cases, SETTING, OPENINGS)
    assert found.perplexity[0].next.value == pytest.approx(math.exp(float(np.mean(surprises))), rel=1e-3)
    assert found.likelihood is not None and found.likelihood.rank.value == pytest.approx(float(np.mean(ranks)))


def test_the_aligned_reply_is_the_data_set_s_where_it_has_one(cases: list[Case]) -> None:
    assert [case.source for case in cases] == ["draft", "chosen", "output"]
    first, second, third = cases
    assert first.aligned == first.draft.logprobs and first.opening.text
    assert first.draft.text.startswith(first.opening.text)
    assert "The capital of France is Paris. Enjoy!".startswith(second.opening.text)
    assert third.opening.text == "x" and len(third.aligned) == 1
    for case in cases:
        assert "".join(case.pieces).strip() == case.draft.text.strip()


def texts(cases: list[Case]) -> list[list[tuple[int, ...]]]:
    """Tokens of the openings; log-probabilities differ by rounding with what is evaluated beside them."""
    return [[one.tokens for one in (case.opening, *case.own)] for case in cases]


def test_openings_differ_from_one_another_and_are_the_same_again(
    cases: list[Case], base: Pair, data: DataSet, prompted: Prompted, tmp_path: Path
) -> None:
    assert all(len({one.tokens for one in case.own}) > 1 for case in cases)
    last = replace(data, items=data.items[1:])
    again = read_all(base, last, prompted[1:], tmp_path / "again.jsonl")
    assert texts(again) == texts(cases[1:])
    other = read_all(base, last, prompted[1:], tmp_path / "other.jsonl", replace(OPENINGS, seed=6))
    assert texts(other) != texts(again)


def test_the_first_token_that_differs_is_the_first_that_is_not_the_base_s_favourite(cases: list[Case]) -> None:
    """The continuation is greedy, so both ways to find it must agree."""
    found = measured(cases, SETTING, OPENINGS).switches
    assert found.places, "the setting passes somewhere"
    for switch in found.places:
        case = next(one for one in cases if one.draft.id == switch.id)
        agrees = case.draft.agrees[switch.index + 1 :][: switch.compared]
        assert switch.agreed == next((place for place, one in enumerate(agrees) if not one), switch.compared)
        assert switch.kept + switch.draft == "".join(case.pieces)[: len(switch.kept + switch.draft)]


def test_switches_are_those_of_real_replies(demo_f32: tuple[Path, Path], cases: list[Case]) -> None:
    places = {one.id: one.index for one in measured(cases, SETTING, OPENINGS).switches.places}
    reply = ReplySettings(speculation="off", draft_max_tokens=60, max_tokens=70)
    with Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=EXACT) as pair:
        for case in cases:
            real = pair.reply(list(case.messages), threshold=SETTING.threshold, window=SETTING.window)
            assert real.switch.index == places.get(case.draft.id)


def test_a_stop_leaves_whole_lines_and_the_rest_is_made_later(
    base: Pair, data: DataSet, prompted: Prompted, cases: list[Case], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    with RunFile(path) as file:
        reader = BaseReader(base, data, prompted, file, OPENINGS, "d", lambda: reader.done == 1)
        with pytest.raises(CancelledError):
            list(reader.outcomes())
        assert reader.done == 1
    whole = path.read_bytes()
    assert whole.count(b"\n") == 1
    assert texts(read_all(base, data, prompted, path)) == texts(cases)
    assert path.read_bytes().startswith(whole)


def test_another_draft_or_other_openings_are_refused(
    base: Pair, data: DataSet, prompted: Prompted, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    read_all(base, data, prompted, path)
    with RunFile(path) as file, pytest.raises(UsageError, match="another draft"):
        BaseReader(base, data, prompted, file, OPENINGS, "another")
    with RunFile(path) as file, pytest.raises(UsageError, match="another seed: 5, now 6"):
        BaseReader(base, data, prompted, file, replace(OPENINGS, seed=6), "d")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["own"][0]["logprobs"].pop()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with RunFile(path) as file, pytest.raises(UsageError, match="record 1: is no whole record"):
        BaseReader(base, data, prompted, file, OPENINGS, "d")
