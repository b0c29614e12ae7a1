"""`wsd-local check-pair` on the real engine: what is measured, and that each symptom is found where a pair has it."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import complains, wsd
from makers import random_llama

from wsd_local.prompts.known_formats import known_formats
from wsd_local.reports.pair_check import measuring, probes
from wsd_local.reports.pair_check.figures import Drafts, PairFigures
from wsd_local.reports.pair_check.judging import SYMPTOMS, judge
from wsd_local.reports.pair_check.measuring import CTX, OVERRIDES, measure, steps
from wsd_local.reports.pair_check.probes import DEMO_PROBES
from wsd_local.reports.verdicts import Finding
from wsd_local.runtime.misplaced import CHOOSE_BASE
from wsd_local.runtime.pair import load

FEW = DEMO_PROBES[:3]
LOADING: dict[str, Any] = {"threads": 1, "ctx": CTX, "parallel": 2}


def measured(draft: Path, base: Path, **settings: Any) -> PairFigures:
    """The figures of two models, on a few probes."""
    with load(draft=draft, base=base, **LOADING, **OVERRIDES | settings) as pair:
        return measure(pair, lambda _: None, FEW)


@pytest.fixture(scope="module")
def demo(demo_q8: tuple[Path, Path]) -> PairFigures:
    """The embedded pair."""
    return measured(*demo_q8)


def found(figures: PairFigures, symptom: str) -> Finding:
    return next(one for one in judge(figures).findings if one.symptom == symptom)


def verdicts(figures: PairFigures) -> dict[str, str]:
    return {finding.symptom: finding.verdict for finding in judge(figures).findings}


# -- what is measured ----------------------------------------------------------------------------------------


def test_the_embedded_pair_is_good_enough(demo: PairFigures) -> None:
    assert judge(demo).verdict == "good enough", judge(demo).findings


def test_switches_are_those_of_replies(demo_q8: tuple[Path, Path]) -> None:
    settings = OVERRIDES | {"draft_max_tokens": 192, "threshold": 0.5, "window": 4}
    with load(draft=demo_q8[0], base=demo_q8[1], **LOADING, **settings) as pair:
        figures = measure(pair, lambda _: None, FEW).switches
        switches = [pair.reply(probe.question).switch for probe in FEW]
    assert (figures.window, figures.threshold, figures.drafts) == (4, 0.5, len(FEW))
    assert figures.first == sum(switch.index == 3 for switch in switches)
    assert figures.never == sum(switch.index is None for switch in switches)


def test_likelihoods_are_those_of_each_model_after_its_own_prompt(demo_q8: tuple[Path, Path]) -> None:
    with load(draft=demo_q8[0], base=demo_q8[1], **LOADING, **OVERRIDES) as pair:
        figures = measure(pair, lambda _: None, FEW)
        draft = pair.reply(FEW[0].question, threshold=1.1, on_draft_end="stop", loop_guard="off")
        base = pair.models.model("base")
        prompt = base.tokenize(pair.models.base_format.prompt(list(draft.messages)))
        tokens = base.tokenize(pair.models.base_format.prompt(list(draft.messages)) + draft.text)
        expected = math.fsum(pair.models.context("base").logprobs(0, tokens, len(prompt)))
    assert figures.likelihoods.drafts[0].size == len(draft.text.encode())
    assert figures.likelihoods.drafts[0].base == pytest.approx(expected, rel=0.02)
    assert [text.size for text in figures.likelihoods.answers] == [len(probe.answer.encode()) for probe in FEW]


def test_progress_has_the_stated_number_of_steps(demo_q8: tuple[Path, Path]) -> None:
    seen: list[str] = []
    with load(draft=demo_q8[0], base=demo_q8[1], **LOADING, **OVERRIDES) as pair:
        measure(pair, seen.append, FEW)
    assert len(seen) == steps(len(FEW))


def test_models_in_turn_give_the_same_findings(demo: PairFigures, demo_q8: tuple[Path, Path]) -> None:
    assert verdicts(measured(*demo_q8, resident="one")) == verdicts(demo)


# -- symptoms that models have -------------------------------------------------------------------------------


def test_one_file_twice(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "other.gguf"
    shutil.copy(demo_q8[0], copy)
    assert found(measured(demo_q8[0], copy), "one model twice").figure == "both are the same file"


def test_one_model_in_two_quantisations(demo_q8: tuple[Path, Path], demo_f32: tuple[Path, Path]) -> None:
    figures = measured(demo_f32[0], demo_q8[0])
    assert not figures.sameness.file
    assert found(figures, "one model twice").verdict == "fault"


def test_models_of_one_vocabulary_are_not_one(kin: tuple[Path, Path]) -> None:
    figures = measured(*kin)
    assert figures.sameness.difference is not None
    assert found(figures, "one model twice").verdict == "ok"


def test_a_draft_without_a_template(demo_q8: tuple[Path, Path]) -> None:
    judged = judge(measured(demo_q8[1], demo_q8[0]))
    assert judged.verdict != "good enough"
    assert "no chat template" in next(one.figure for one in judged.findings if one.symptom == "draft model")


@pytest.mark.parametrize(("threshold", "advice"), [(0.0, "raise --threshold"), (1.1, "lower --threshold")])
def test_a_base_that_is_always_or_never_confident(demo_q8: tuple[Path, Path], threshold: float, advice: str) -> None:
    finding = found(measured(*demo_q8, threshold=threshold), "confidence of the base")
    assert finding.verdict == "warning"
    assert advice in finding.remedy


def test_a_base_that_is_an_instruct_model_by_its_name(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    base = tmp_path / "small-instruct.gguf"
    shutil.copy(demo_q8[0], base)
    finding = found(measured(demo_q8[0], base), "base model")
    assert (finding.verdict, finding.remedy) == ("fault", CHOOSE_BASE)


def test_a_base_that_knows_nothing_and_spells_words(demo_q8: tuple[Path, Path], tmp_path: Path) -> None:
    figures = measured(demo_q8[0], random_llama(tmp_path / "random.gguf"))
    assert found(figures, "knowledge").verdict == "fault"
    assert found(figures, "vocabularies").verdict != "ok"
    assert figures.words.base_tokens > figures.words.draft_tokens


def test_a_wrong_format_is_found(demo_q8: tuple[Path, Path]) -> None:
    with load(draft=demo_q8[0], base=demo_q8[1], base_format=known_formats()["colons"], **LOADING, **OVERRIDES) as pair:
        figures = measure(pair, lambda _: None, FEW)
    assert figures.formats.current == "colons"
    finding = found(figures, "base format")
    assert finding.verdict == "warning"
    assert "--base-format sections" in finding.remedy


def test_a_format_of_one_s_own_is_compared_too(demo_q8: tuple[Path, Path]) -> None:
    from wsd_local.prompts.base_format import BaseFormat

    own = BaseFormat.of({"headings": {"user": "\n\n<<<\n", "assistant": "\n\n>>>\n"}})
    with load(draft=demo_q8[0], base=demo_q8[1], base_format=own, **LOADING, **OVERRIDES) as pair:
        figures = measure(pair, lambda _: None, FEW)
    assert figures.formats.current == "the pair's own"
    assert set(figures.formats.answers) == {*known_formats(), "the pair's own"}
    assert figures.formats.gain("the pair's own").value == 0


def reply(text: str, reason: str = "draft_limit") -> Any:
    """A whole draft, as far as it is looked at."""
    return SimpleNamespace(draft=SimpleNamespace(text=text), switch=SimpleNamespace(reason=reason))


def test_drafts_that_think_loop_or_are_empty_are_counted() -> None:
    whole = [reply("Paris.", "draft_end"), reply(""), reply("la Femme, " * 30)]
    raw = ["Paris.<|im_end|>", "<think>\nThe user asks about", "la Femme, " * 30]
    assert measuring.drafts_seen(whole, raw) == Drafts(count=3, ended=1, thinking=1, empty=1, looped=1)


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command asks few questions."""
    monkeypatch.setattr(probes, "DEMO_PROBES", FEW)


@pytest.mark.usefixtures("few")
def test_a_line_for_each_symptom_and_a_summary(demo_q8: tuple[Path, Path]) -> None:
    done = wsd("check-pair", "--draft", str(demo_q8[0]), "--base", str(demo_q8[0]), "--threads", "1")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 1
    assert len(lines) == len(SYMPTOMS) + 1
    assert {line.split()[0] for line in lines[:-1]} <= {"ok", "warning", "fault"}
    assert "one model twice: both are the same file" in lines[0]
    assert ": not a pair (" in lines[-1]
    assert done.stderr == b""


@pytest.mark.usefixtures("few")
def test_json(demo_q8: tuple[Path, Path]) -> None:
    done = wsd("check-pair", "demo", "--json", "--threads", "1", "--threshold", "0.5")
    values = json.loads(done.stdout)
    assert values["figures"]["switches"]["threshold"] == 0.5
    assert (done.returncode == 1) == (values["verdict"] == "not a pair")
    assert len(values["findings"]) == len(SYMPTOMS)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such-pair"], 2, ["no-such-pair"]),
        (["--draft", "nowhere.gguf"], 3, ["nowhere.gguf"]),
        (["--base-format", "colon"], 2, ["there is no base format 'colon'", "did you mean 'colons'"]),
        (["--window", "0"], 2, ["window"]),
        (["--temperature", "1"], 2, ["--temperature"]),
    ],
)
def test_what_cannot_be_examined(arguments: list[str], code: int, words: list[str]) -> None:
    complains(wsd("check-pair", *arguments), code, *words)


@pytest.mark.usefixtures("few")
def test_only_window_threshold_and_models_of_the_configuration_count(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[settings]\nthreshold = 0.4\ntemperature = 1.5\nmax_tokens = 4\nloop_guard = "off"\nthreads = 1\n'
    )
    printed = [
        json.loads(wsd("check-pair", "demo", *more, "--json", env=os.environ | {"WSD_LOCAL_CONFIG": str(file)}).stdout)
        for file, more in ((config, []), (tmp_path / "none.toml", ["--threshold", "0.4", "--threads", "1"]))
    ]
    assert printed[0] == printed[1]
