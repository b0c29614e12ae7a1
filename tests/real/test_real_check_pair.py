"""Real models, examined: a pair that is good enough, and models that are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from real_models import Files

from wsd_local.reports.pair_check.judging import Judgement, judge
from wsd_local.reports.pair_check.measuring import CTX, OVERRIDES, PARALLEL, measure
from wsd_local.reports.pair_check.probes import PROBES, Probe
from wsd_local.runtime.misplaced import SWAPPED
from wsd_local.runtime.pair import load

pytestmark = pytest.mark.real


def examined(draft: Path, base: Path, probes: Sequence[Probe] = PROBES[:4]) -> Judgement:
    """A few questions show what is wrong with models that are none for each other."""
    with load(draft=draft, base=base, threads=1, ctx=CTX, parallel=PARALLEL, **OVERRIDES) as pair:
        return judge(measure(pair, lambda _: None, probes))


def faults(judged: Judgement) -> dict[str, str]:
    """The remedy of each fault."""
    return {finding.symptom: finding.remedy for finding in judged.findings if finding.verdict == "fault"}


def test_the_pair_is_good_enough(shipped: Files) -> None:
    judged = examined(*shipped, PROBES)
    assert judged.verdict == "good enough", judged.findings


def test_exchanged_it_is_not_a_pair(shipped: Files) -> None:
    found = faults(examined(shipped[1], shipped[0]))
    assert found["draft model"] == found["base model"] == SWAPPED


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_them_twice_is_not_a_pair(shipped: Files, which: int) -> None:
    assert "one model twice" in faults(examined(shipped[which], shipped[which]))
