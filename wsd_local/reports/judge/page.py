"""A judge's figures as tables for the terminal, and as a page."""

from __future__ import annotations

from collections.abc import Sequence

from wsd_local.reports.charts import bars
from wsd_local.reports.columns_page import estimate_bars
from wsd_local.reports.html import Chart, Table, decimal, page, percent, whole_percent
from wsd_local.reports.judge.summary import Comparison, Grading
from wsd_local.reports.statistics import Estimate


def comparison_tables(found: Comparison, names: tuple[str, str], judge: str) -> list[Table]:
    """The result, and what the judge is worth."""
    a, b = names
    result = Table(
        f"{a} (A) against {b} (B), judged by {judge}",
        ("", "", "95% interval"),
        (
            ("pairs", str(found.pairs), ""),
            ("A better in both orders", str(found.wins_a), ""),
            ("B better in both orders", str(found.wins_b), ""),
            ("ties in both orders", str(found.ties), ""),
            ("another verdict in the other order", str(found.split), ""),
            ("win rate of A", *_share(found.win_rate)),
            ("win rate of A, length-controlled", *_share(found.length_controlled)),
            ("mean probability that A is better", *_share(found.preference)),
            ("characters of a reply, A and B", f"{found.length_a:.0f}, {found.length_b:.0f}", ""),
        ),
        "win rate: ties, and pairs whose verdicts differ by order, count half; length-controlled: at equal length, by "
        "a logistic regression of the mean probability on the difference in length",
    )
    quality = Table(
        "The judge",
        ("", "", "95% interval"),
        (
            ("agrees with itself when the order is exchanged", *_share(found.agreement)),
            ("first reply minus second, mean probability", *_signed(found.lean)),
            ("first reply chosen, of verdicts that are no ties", percent(found.first), ""),
            ("probability of the answers asked for", percent(found.mass), ""),
        ),
    )
    return [result, quality]


def comparison_parts(found: Comparison, names: tuple[str, str], judge: str) -> list[Chart | Table]:
    """The comparison as parts of a page."""
    result, quality = comparison_tables(found, names, judge)
    counts = {
        f"{names[0]} better": found.wins_a,
        "tie": found.ties,
        "verdicts differ by order": found.split,
        f"{names[1]} better": found.wins_b,
    }
    shares: dict[str, list[float | None]] = {name: [count / found.pairs] for name, count in counts.items()}
    drawn = bars(["pairs"], shares, axis="share of the pairs", label=whole_percent, most=1.0, stacked=True)
    rates = {
        "win rate": found.win_rate,
        "length-controlled": found.length_controlled,
        "mean probability": found.preference,
    }
    caption = f"Three ways of counting what {names[0]} wins, with 95 % intervals; 50% means equally good."
    rated = estimate_bars(rates, axis=f"share of wins of {names[0]}", label=whole_percent, most=1.0)
    return [
        result,
        Chart("Verdicts", "Share of the pairs by verdict, each judged in both orders.", drawn, result),
        Chart("Win rates", caption, rated, result),
        quality,
    ]


def comparison_page(found: Comparison, names: tuple[str, str], judge: str, lead: Sequence[str]) -> str:
    """The comparison as a page."""
    warned = [f"Warning: {line}." for line in found.warnings]
    return page("Judged pairs", [*lead, *warned], comparison_parts(found, names, judge))


def grade_tables(found: Sequence[Grading], difference: Estimate | None, judge: str) -> list[Table]:
    """Mean grades, and their difference if there are two files."""
    rows = [
        (
            one.name,
            str(one.replies),
            decimal(one.grade.value),
            _interval(one.grade, ".2f"),
            f"{one.length:.0f}",
            percent(one.mass),
        )
        for one in found
    ]
    note = ""
    if difference is not None:
        note = f"first minus second: {difference.value:+.2f} (95% interval {_interval(difference, '+.2f')}), by prompt"
    columns = ("", "replies", "grade, 1 to 10", "95% interval", "characters", "probability of\nthe answers")
    return [Table(f"Grades by {judge}", columns, tuple(rows), note)]


def grade_page(found: Sequence[Grading], difference: Estimate | None, judge: str, lead: Sequence[str]) -> str:
    """The grades as a page."""
    (table,) = grade_tables(found, difference, judge)
    means = {one.name: one.grade for one in found}
    drawn = estimate_bars(means, axis="mean grade", label="{:.2f}".format, most=10.0)
    caption = "Mean expected grade, 1 to 10, with 95 % intervals."
    return page("Graded replies", lead, [table, Chart("Grades", caption, drawn, table)])


def score_tables(names: Sequence[str], scores: Sequence[Estimate], better: Estimate | None, model: str) -> list[Table]:
    """Mean scores of a reward model, and how often the first file's reply has the higher one."""
    rows = tuple(
        (name, str(one.count), f"{one.value:.3f}", _interval(one, ".3f"))
        for name, one in zip(names, scores, strict=True)
    )
    note = ""
    if better is not None:
        note = f"{names[0]} has the higher score in {percent(better.value)} of the prompts (95% interval "
        note += f"{_interval(better, '.1%')}); equal scores count half"
    return [Table(f"Scores by {model}", ("", "records", "mean score", "95% interval"), rows, note)]


def score_page(
    names: Sequence[str], scores: Sequence[Estimate], better: Estimate | None, model: str, lead: Sequence[str]
) -> str:
    """The scores as a page."""
    return page("Scored replies", lead, score_tables(names, scores, better, model))


def _share(found: Estimate) -> tuple[str, str]:
    return percent(found.value), _interval(found, ".1%")


def _signed(found: Estimate) -> tuple[str, str]:
    return f"{found.value:+.1%}", _interval(found, "+.1%")


def _interval(found: Estimate, form: str) -> str:
    return f"{found.low:{form}} to {found.high:{form}}"
