"""What figures of a pair mean: each symptom where it appears, and where it does not."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from wsd_local.reports.pair_check.figures import (
    Drafts,
    Formats,
    Likelihoods,
    PairFigures,
    Replies,
    Roles,
    Sameness,
    Switches,
    Text,
    Words,
    perplexities,
)
from wsd_local.reports.pair_check.judging import SYMPTOMS, judge
from wsd_local.reports.verdicts import Finding
from wsd_local.runtime.misplaced import CHOOSE_BASE, CHOOSE_DRAFT, SWAPPED

SIZES = (200, 240, 260, 220)


def texts(draft: float, base: float) -> tuple[Text, ...]:
    """Texts to which each byte gives so much log-likelihood, a little more and less in turn."""
    return tuple(Text(size, size * draft * (1 + i % 2 / 50), size * base) for i, size in enumerate(SIZES))


GOOD = PairFigures(
    draft="small-instruct",
    base="plain",
    roles=Roles(
        draft_template=True,
        base_template=False,
        base_tuned_by_name=False,
        draft_end=0.7,
        base_end=0.01,
        base_end_plain=0.02,
    ),
    drafts=Drafts(count=12, ended=5, thinking=0, empty=0, looped=1),
    words=Words(words=500, broken=3, draft_tokens=700, moved=40, base_tokens=650, fallback=2),
    switches=Switches(window=6, threshold=0.8, drafts=12, first=2, never=3),
    likelihoods=Likelihoods(answers=texts(-0.7, -0.6), drafts=texts(-0.2, -0.5), base=texts(-0.6, -0.3)),
    replies=Replies(count=12, looped=1, read=24, leaks=()),
    formats=Formats("sections", {"sections": (-0.6, -0.5, -0.7, -0.6), "colons": (-0.61, -0.49, -0.71, -0.6)}),
    sameness=Sameness(file=False, difference=None),
)


def changed(**parts: dict[str, Any]) -> PairFigures:
    """Good figures, with other values in some parts."""
    return replace(GOOD, **{name: replace(getattr(GOOD, name), **values) for name, values in parts.items()})


def found(figures: PairFigures, symptom: str) -> Finding:
    return next(one for one in judge(figures).findings if one.symptom == symptom)


def test_a_good_pair_is_good_enough() -> None:
    judged = judge(GOOD)
    assert judged.verdict == "good enough"
    assert judged.is_pair
    assert judged.summary() == "small-instruct and plain: good enough"
    assert len(judged.findings) == len(SYMPTOMS) == len({finding.symptom for finding in judged.findings})
    for finding in judged.findings:
        assert (finding.verdict, finding.cause, finding.remedy) == ("ok", "", ""), finding
        assert finding.line() == f"ok       {finding.symptom}: {finding.figure}"


BROKEN = [
    ("one model twice", "fault", {"sameness": {"file": True}}, "same file", "--base"),
    ("one model twice", "fault", {"sameness": {"difference": 0.1}}, "0.10 a token", "--base"),
    ("draft model", "fault", {"roles": {"draft_template": False, "draft_end": 0.1}}, "no chat template", CHOOSE_DRAFT),
    (
        "draft model",
        "fault",
        {"roles": {"draft_end": 0.01}, "drafts": {"ended": 2}},
        "probability of 0.01",
        CHOOSE_DRAFT,
    ),
    ("draft model", "warning", {"roles": {"draft_template": False}}, "no chat template", CHOOSE_DRAFT),
    ("base model", "fault", {"roles": {"base_tuned_by_name": True, "base_end": 0.3}}, "instruct prompt", CHOOSE_BASE),
    ("base model", "warning", {"roles": {"base_tuned_by_name": True}}, "0.01 in an instruct prompt", CHOOSE_BASE),
    (
        "base model",
        "fault",
        {"roles": {"base_template": True, "base_end": 0.9, "base_end_plain": 0.6}},
        "it has a chat template",
        CHOOSE_BASE,
    ),
    ("base model", "warning", {"roles": {"base_template": True, "base_end": 0.9}}, "0.90 in an instruct", CHOOSE_BASE),
    ("base model", "warning", {"roles": {"base_end": 0.9}}, "0.90 in an instruct prompt", CHOOSE_BASE),
    ("thinking aloud", "warning", {"drafts": {"thinking": 3}}, "3 of 12", "does not think"),
    ("thinking aloud", "fault", {"drafts": {"thinking": 12, "empty": 6}}, "6 hold no text", "does not think"),
    ("vocabularies", "warning", {"words": {"broken": 30}}, "6.0% of words", "vocabulary"),
    ("vocabularies", "fault", {"words": {"fallback": 40}}, "6.2% for parts", "vocabulary"),
    ("vocabularies", "fault", {"words": {"base_tokens": 3000}}, "6.00 base tokens a word", "vocabulary"),
    ("confidence of the base", "warning", {"switches": {"first": 11}}, "11 at the first window", "raise --threshold"),
    ("confidence of the base", "warning", {"switches": {"never": 11}}, "11 never", "lower --threshold"),
    ("knowledge", "fault", {"likelihoods": {"answers": texts(-0.6, -0.7)}}, "1.8", "larger base"),
    ("knowledge", "warning", {"likelihoods": {"answers": texts(-0.6, -0.63)}}, "1.8", "larger base"),
    ("loops", "warning", {"drafts": {"looped": 4}}, "4 of 12 drafts", "--draft-repeat-penalty"),
    ("loops", "fault", {"replies": {"looped": 6}}, "6 of 12 replies", "--repeat-penalty"),
    ("leaking markers", "warning", {"replies": {"leaks": ("User:",) * 3}}, "3 of 24", "--stop 'User:'"),
    ("leaking markers", "fault", {"replies": {"leaks": ("# Query:",) * 12}}, "12 of 24", "--stop '# Query:'"),
    (
        "base format",
        "warning",
        {"formats": {"answers": GOOD.formats.answers | {"colons": (-0.5, -0.45, -0.6, -0.5)}}},
        "colons gives good answers +0.087",
        "--base-format colons",
    ),
]


@pytest.mark.parametrize(("symptom", "verdict", "parts", "figure", "remedy"), BROKEN)
def test_a_symptom_is_found_alone_with_its_cause_and_a_remedy(
    symptom: str, verdict: str, parts: dict[str, dict[str, Any]], figure: str, remedy: str
) -> None:
    judged = judge(changed(**parts))
    (finding,) = [one for one in judged.findings if one.verdict != "ok"]
    assert (finding.symptom, finding.verdict) == (symptom, verdict)
    assert figure in finding.figure
    assert finding.cause
    assert remedy in finding.remedy
    assert "\n" not in finding.line()
    assert judged.is_pair == (verdict == "warning")
    assert judged.summary().endswith(
        ": usable with care (1 warning)" if verdict == "warning" else ": not a pair (1 fault)"
    )


BOUNDS: list[tuple[str, dict[str, dict[str, Any]]]] = [
    ("one model twice", {"sameness": {"difference": 0.5}}),
    ("draft model", {"roles": {"draft_end": 0.01}}),
    ("base model", {"roles": {"base_template": True}}),
    ("base model", {"roles": {"base_end": 0.7, "base_end_plain": 0.7}}),
    ("thinking aloud", {"drafts": {"thinking": 2}}),
    ("confidence of the base", {"switches": {"first": 10}}),
    ("confidence of the base", {"switches": {"never": 10}}),
    ("confidence of the base", {"switches": {"drafts": 0, "first": 0, "never": 0}}),
    ("knowledge", {"likelihoods": {"answers": texts(-0.6, -0.6)}}),
    ("loops", {"replies": {"looped": 2}}),
    ("leaking markers", {"replies": {"leaks": ("User:",) * 2}}),
    ("base format", {"formats": {"answers": GOOD.formats.answers | {"colons": (-0.1, -0.9, -0.3, -0.6)}}}),
]


@pytest.mark.parametrize(("symptom", "parts"), BOUNDS)
def test_a_little_of_it_is_ok(symptom: str, parts: dict[str, dict[str, Any]]) -> None:
    assert found(changed(**parts), symptom).verdict == "ok"


def test_swapped_models_are_to_be_exchanged() -> None:
    judged = judge(
        changed(roles={"draft_template": False, "draft_end": 0.0, "base_end": 0.9, "base_tuned_by_name": True})
    )
    faults = [finding for finding in judged.findings if finding.verdict == "fault"]
    assert [(finding.symptom, finding.remedy) for finding in faults] == [
        ("draft model", SWAPPED),
        ("base model", SWAPPED),
    ]


def test_the_one_that_loops_more_is_named() -> None:
    assert "small-instruct repeats" in found(changed(drafts={"looped": 8}), "loops").cause
    assert "plain repeats" in found(changed(replies={"looped": 8}), "loops").cause


def test_json_holds_verdict_findings_and_figures() -> None:
    values = json.loads(json.dumps(judge(GOOD).as_dict()))
    assert values["verdict"] == "good enough"
    assert {"symptom", "verdict", "figure", "cause", "remedy"} == set(values["findings"][0])
    assert values["figures"]["roles"]["draft_end"] == 0.7
    assert (
        values["figures"]["perplexity_per_byte"]["base"]["draft"]
        > values["figures"]["perplexity_per_byte"]["base"]["base"]
    )
    assert values["figures"]["formats"]["gains"]["colons"]["low"] < 0


def test_texts_may_all_be_empty() -> None:
    nothing = changed(
        likelihoods={"drafts": (), "base": ()},
        words={"words": 0, "broken": 0, "draft_tokens": 0, "moved": 0, "base_tokens": 0, "fallback": 0},
    )
    assert judge(nothing).verdict == "good enough"
    assert nothing.as_dict()["perplexity_per_byte"]["drafts"] is None


def test_perplexity_is_that_of_a_byte() -> None:
    assert perplexities([Text(10, -10 * math.log(2), -10 * math.log(4))]) == pytest.approx((2, 4))
