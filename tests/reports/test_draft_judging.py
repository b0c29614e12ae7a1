"""What figures of a converted draft mean: bounds, verdicts and lines."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from wsd_local.reports.draft_check.figures import (
    DraftFigures,
    Endings,
    Ends,
    Logits,
    Output,
    Positions,
    Sizes,
    Templates,
    Tokens,
)
from wsd_local.reports.draft_check.judging import TOLERANCES, Judgement, judge, tolerance
from wsd_local.reports.verdicts import Finding, tally, worst

SOUND = DraftFigures(
    checkpoint="my-draft",
    file="my-draft.gguf",
    templates=Templates(in_checkpoint=True, in_file=True, count=10, alike=9, refused=1),
    tokens=Tokens(count=9, alike=9, but_bos=0),
    ends=Ends("<|im_end|>", True, ("<|im_end|>",), (), "<|im_end|>", True),
    sizes=Sizes(tokens=49152, rows=49152, file_tokens=49152, file_rows=49152),
    output=Output(tied=True, own=False),
    positions=Positions("llama3", 10000.0, "default", 10000.0, factors=32, file_factors=32, difference=1e-7),
    logits=(
        Logits("f16.gguf", 16.0, 160, 1e-6, 1.0, 0.01),
        Logits("my-draft.gguf", 8.5, 160, 0.001, 0.99, 0.1),
    ),
    endings=Endings(count=20, ended=15, tokens=256, probability=0.8),
)


def changed(**parts: dict[str, Any]) -> DraftFigures:
    """Sound figures, with other values in some parts."""
    return replace(SOUND, **{name: replace(getattr(SOUND, name), **values) for name, values in parts.items()})


def the(found: Judgement) -> Finding:
    """The one finding that is not ok."""
    (bad,) = (finding for finding in found.findings if finding.verdict != "ok")
    return bad


def test_a_sound_draft_is_as_trained() -> None:
    found = judge(SOUND)
    assert found.is_sound and found.summary() == "my-draft.gguf: as trained"
    assert [finding.symptom for finding in found.findings] == [
        "chat template",
        "tokens",
        "end tokens",
        "vocabulary",
        "output layer",
        "positions",
        "logits of f16.gguf",
        "logits of my-draft.gguf",
        "endings",
    ]
    assert all(finding.line().startswith("ok       ") for finding in found.findings)
    values = json.loads(json.dumps(found.as_dict()))
    assert values["verdict"] == "as trained" and len(values["findings"]) == 9
    assert values["figures"]["logits"][1]["divergence"] == 0.001


@pytest.mark.parametrize(
    ("parts", "verdict", "symptom"),
    [
        ({"templates": {"refused": 0}}, "not as trained", "chat template"),
        ({"tokens": {"alike": 0, "but_bos": 9}}, "usable with care", "tokens"),
        ({"tokens": {"alike": 0, "but_bos": 8}}, "not as trained", "tokens"),
        ({"ends": {"turn_ends": False}}, "not as trained", "end tokens"),
        ({"ends": {"known": False}}, "not as trained", "end tokens"),
        ({"ends": {"missing": ("<e>",)}}, "usable with care", "end tokens"),
        ({"sizes": {"rows": 49280}}, "usable with care", "vocabulary"),
        ({"sizes": {"file_rows": 49151}}, "not as trained", "vocabulary"),
        ({"sizes": {"file_rows": 49000, "file_tokens": 49000}}, "not as trained", "vocabulary"),
        ({"output": {"own": True, "difference": 0.01}}, "usable with care", "output layer"),
        ({"output": {"own": True, "difference": 1.4}}, "not as trained", "output layer"),
        ({"output": {"own": True}}, "not as trained", "output layer"),
        ({"output": {"tied": False}}, "not as trained", "output layer"),
        ({"positions": {"difference": 0.2}}, "not as trained", "positions"),
        ({"positions": {"file_factors": 16, "difference": None}}, "not as trained", "positions"),
        ({"positions": {"file_base": 10001.0}}, None, None),
        ({"endings": {"ended": 10}}, None, None),
        ({"endings": {"ended": 9}}, "usable with care", "endings"),
        ({"endings": {"ended": 0}}, "usable with care", "endings"),
        ({"endings": {"ended": 0, "probability": 0.01}}, "not as trained", "endings"),
    ],
)
def test_each_bound(parts: dict[str, dict[str, Any]], verdict: str | None, symptom: str | None) -> None:
    found = judge(changed(**parts))
    if verdict is None:
        assert found.verdict == "as trained"
        return
    bad = the(found)
    assert (found.verdict, bad.symptom) == (verdict, symptom)
    assert bad.cause and bad.remedy and found.is_sound == (bad.verdict == "warning")
    assert found.summary() == f"my-draft.gguf: {verdict} (1 {bad.verdict})"


@pytest.mark.parametrize("divergence", [0.021, math.nan, math.inf])
def test_logits_are_held_to_what_the_type_allows(divergence: float) -> None:
    quantised = replace(SOUND.logits[1], divergence=divergence)
    assert the(judge(replace(SOUND, logits=(SOUND.logits[0], quantised)))).symptom == "logits of my-draft.gguf"
    coarse = replace(quantised, bits=4.6)
    assert judge(replace(SOUND, logits=(coarse,))).is_sound == (divergence < 1)


def test_more_bits_allow_less() -> None:
    allowed = [tolerance(bits) for bits in (32.0, 16.0, 8.5, 6.6, 5.5, 4.5, 3.4, 2.1)]
    assert allowed == sorted(most for _, most in TOLERANCES) and len(set(allowed)) == len(allowed)


def test_the_gravest_finding_counts() -> None:
    ok, warning, fault = (Finding("s", verdict, "f") for verdict in ("ok", "warning", "fault"))
    assert (worst([]), worst([ok]), worst([warning, ok]), worst([warning, fault, ok])) == (
        "ok",
        "ok",
        "warning",
        "fault",
    )
    assert tally([warning, ok, fault, warning]) == " (1 fault, 2 warnings)" and tally([ok]) == ""
