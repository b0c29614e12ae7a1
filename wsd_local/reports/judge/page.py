"""A judge's figures as tables for the terminal, and as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wsd_local.reports.charts import bars
from wsd_local.reports.columns_page import estimate_bars
from wsd_local.reports.html import Chart, Table, decimal, page, percent, whole_percent
from wsd_local.reports.judge.summary import Comparison, Grading
from wsd_local.reports.statistics import NO_INTERVAL_NOTE, Estimate


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
        f"a logistic regression of the mean probability on the difference in length · {NO_INTERVAL_NOTE}",
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
        note = f"first minus second: {difference.value:+.2f} (95% interval: {_interval(difference, '+.2f')}), by prompt"
    columns = ("", "replies", "grade, 1 to 10", "95% interval", "characters", "probability of\nthe answers")
    return [Table(f"Grades by {judge}", columns, tuple(rows), note)]


def grade_page(found: Sequence[Grading], difference: Estimate | None, judge: str, lead: Sequence[str]) -> str:
    """The grades as a page."""
    (table,) = grade_tables(found, difference, judge)
    means = {one.name: one.grade for one in found}
    drawn = estimate_bars(means, axis="mean grade", label="{:.2f}".format, most=10.0)
    caption = "Mean expected grade, 1 to 10, with 95 % intervals."
    return page("Graded replies", lead, [table, Chart("Grades", caption, drawn, table)])


def score_tables(scores: Mapping[str, Estimate], better: Mapping[str, Estimate], model: str) -> list[Table]:
    """Mean scores of a reward model, and how often one of two has the higher score.

    Args:
        scores: mean scores by the names of files or columns.
        better: shares of prompts by what is compared.
        model: the reward model's name.
    """
    rows = tuple((name, str(one.count), f"{one.value:.3f}", _interval(one, ".3f")) for name, one in scores.items())
    columns = ("", "records", "mean score", "95% interval")
    found = [Table(f"Scores by {model}", columns, rows, f"in the model's own scale · {NO_INTERVAL_NOTE}")]
    if better:
        wins = tuple((name, str(one.count), *_share(one)) for name, one in better.items())
        note = "share of the prompts in which the one that is named first has the higher score; equal scores count half"
        found.append(Table("The higher score", ("", "records", "share", "95% interval"), wins, note))
    return found


def score_parts(scores: Mapping[str, Estimate], better: Mapping[str, Estimate], model: str) -> list[Chart | Table]:
    """The same as tables and charts."""
    means, *wins = score_tables(scores, better, model)
    drawn = estimate_bars(scores, axis="mean score", label="{:.2f}".format)
    parts: list[Chart | Table] = [
        means,
        Chart("Mean scores", "In the model's own scale, with 95 % intervals.", drawn, means),
    ]
    for table in wins:
        axis = "share of the prompts with the higher score"
        rated = estimate_bars(better, axis=axis, label=whole_percent, most=1.0)
        parts += [table, Chart(table.title, "50% means equally good; the lines are 95 % intervals.", rated, table)]
    return parts


def score_page(scores: Mapping[str, Estimate], better: Mapping[str, Estimate], model: str, lead: Sequence[str]) -> str:
    """The scores as a page."""
    return page("Scored replies", lead, score_parts(scores, better, model))


def _share(found: Estimate) -> tuple[str, str]:
    return percent(found.value), _interval(found, ".1%")


def _signed(found: Estimate) -> tuple[str, str]:
    return f"{found.value:+.1%}", _interval(found, "+.1%")


def _interval(found: Estimate, form: str) -> str:
    return found.between(lambda value: f"{value:{form}}")
