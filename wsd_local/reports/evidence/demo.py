"""The embedded pair's evaluation as findings."""

from __future__ import annotations

from wsd_local.reports.evaluation import BASE, DRAFT, WSD, DemoResults
from wsd_local.reports.evaluation_page import demo_parts
from wsd_local.reports.evidence.part import Claim, Figure, Findings
from wsd_local.reports.statistics import Estimate, share

DEMO = Claim(
    "Weak-to-Strong Decoding in miniature",
    "The base answers as well as the draft and as truly as it knows: more replies are good in form than those of the "
    "base alone, and more are right than those of the draft alone.",
    "The embedded pair answers held-out questions in several ways. Answered well: the whole text is one of the "
    "friendly, complete answers, whatever value stands in it. Right: it states the truth. Both are exact comparisons, "
    "no judge is asked. Intervals: 95 %, by the bootstrap over the questions.",
    "WSD answers fewer questions well than the base alone, or fewer right than the draft alone.",
)


def demo_findings(results: DemoResults) -> Findings:
    """Shares of the three ways of answering that the claim is about, and all that was measured."""
    rows = {row.way: row for row in results.ways}
    shown = {"WSD": rows[WSD], "base alone": rows[BASE], "draft alone": rows[DRAFT]}
    figures = [Figure(f"answered well: {name}", _share(row.well, row.questions)) for name, row in shown.items()]
    figures += [Figure(f"answered right: {name}", _share(row.right, row.questions)) for name, row in shown.items()]
    return Findings(figures, lambda: demo_parts(results), results.as_dict())


def _share(value: float, count: int) -> Estimate:
    hits = round(value * count)
    return share([True] * hits + [False] * (count - hits))
