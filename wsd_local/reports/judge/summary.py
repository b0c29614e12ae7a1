"""What a judge's verdicts amount to: win rates with intervals, and how far the judge itself can be trusted.

Contract: pure; the same verdicts give the same figures, and exchanging A and B mirrors them. Intervals are bootstrap
intervals over records: the turns of one conversation stay together. A rate of wins whose every item is a tie has the
interval of a difference of shares (`statistics.tied`) instead, by records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wsd_local.reports.judge.lengths import Floats, length_controlled
from wsd_local.reports.judge.replies import Place, ReplyFile
from wsd_local.reports.judge.verdicts import Compared, grade, shown
from wsd_local.reports.statistics import TIE, Estimate, Places, bootstrap, tied, uncertain

AGREEMENT = 0.7
"""A judge that agrees with itself less often when the order is exchanged is warned about."""
MASS = 0.5
"""A judge that gives the answers less probability on average is warned about."""

Answers = Mapping[tuple[int, int, str], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A compared with B. Shares and rates lie between 0 and 1; `pairs` were judged in both orders.

    `wins_a`, `wins_b` and `ties` count pairs in which both orders have that verdict, `split` those with two different
    verdicts, which count as ties. `win_rate` is A's, a tie being half a win; `preference` is the mean probability that
    A's reply is better, `length_controlled` A's win rate at equal lengths (`lengths`). `agreement` is the share
    of pairs with the same verdict in both orders; `lean` the mean probability of the reply shown first minus that of
    the other one; `first` the share of verdicts for the reply shown first among those that are no ties. `mass` is the
    mean probability of beginning with one of the answers. Lengths are mean characters.
    """

    pairs: int
    wins_a: int
    wins_b: int
    ties: int
    split: int
    win_rate: Estimate
    preference: Estimate
    length_controlled: Estimate
    agreement: Estimate
    lean: Estimate
    first: float | None
    mass: float
    length_a: float
    length_b: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def warnings(self) -> list[str]:
        """What speaks against this judge, a line each."""
        found = []
        if self.agreement.value < AGREEMENT:
            found.append(
                f"the judge agrees with itself in {self.agreement.value:.0%} of the pairs when the order is exchanged "
                f"(below {AGREEMENT:.0%}): its verdicts say little; take a stronger judge"
            )
        return found + mass_warnings(self.mass)


@dataclass(frozen=True, slots=True)
class Grading:
    """The grades of one file, expected values from 1 to 10. `mass` as in `Comparison`; `length` is mean characters."""

    name: str
    replies: int
    grade: Estimate
    mass: float
    length: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def mass_warnings(mass: float) -> list[str]:
    """A line if the judge does not answer in the form that it is asked for."""
    if mass >= MASS:
        return []
    return [
        f"the judge begins with one of the answers with a probability of {mass:.0%} only (below {MASS:.0%}): it does "
        "not follow the form; take another judge"
    ]


# -- pairs ---------------------------------------------------------------------------------------------------


def compared(answers: Answers, a: ReplyFile, b: ReplyFile, places: Sequence[Place]) -> list[Compared]:
    """The pairs that were judged in both orders."""
    found = []
    for place in places:
        if (*place, "ab") in answers and (*place, "ba") in answers:
            ab, ba = shown(answers[(*place, "ab")]), shown(answers[(*place, "ba")])
            found.append(Compared(place[0], ab, ba, len(a.replies[place].text), len(b.replies[place].text)))
    return found


def comparison_of(pairs: Sequence[Compared]) -> Comparison:
    """The figures of judged pairs. ValueError without any."""
    clear = [pair for pair in pairs if pair.agrees]
    winners = [pair.winner for pair in clear]
    half = {"a": 1.0, "b": 0.0, "tie": 0.5}
    points = [half[pair.winner] for pair in pairs]
    preferences = np.array([pair.preference for pair in pairs])
    differences = np.array([float(pair.length_a - pair.length_b) for pair in pairs])
    firsts = [shown.winner for pair in pairs for shown in (pair.ab, pair.ba) if shown.winner != "tie"]

    def controlled(rows: Places) -> float:
        return length_controlled(preferences[rows], differences[rows])

    records = [pair.index for pair in pairs]
    return Comparison(
        pairs=len(pairs),
        wins_a=winners.count("a"),
        wins_b=winners.count("b"),
        ties=winners.count("tie"),
        split=len(pairs) - len(clear),
        win_rate=win_rate(records, points),
        preference=clustered_mean(records, preferences),
        length_controlled=clustered(records, controlled),
        agreement=clustered_mean(records, [float(pair.agrees) for pair in pairs]),
        lean=clustered_mean(records, [pair.lean for pair in pairs]),
        first=firsts.count("first") / len(firsts) if firsts else None,
        mass=math.fsum(pair.ab.mass + pair.ba.mass for pair in pairs) / (2 * len(pairs)),
        length_a=math.fsum(pair.length_a for pair in pairs) / len(pairs),
        length_b=math.fsum(pair.length_b for pair in pairs) / len(pairs),
    )


def clustered(records: Sequence[int], statistic: Callable[[Places], float]) -> Estimate:
    """A figure of rows with its interval, drawn by record: rows of one record stay together. ValueError without any."""
    places: dict[int, list[int]] = {}
    for row, record in enumerate(records):
        places.setdefault(record, []).append(row)
    groups = [np.array(rows) for rows in places.values()]

    def of_groups(drawn: Places) -> float:
        return statistic(np.concatenate([groups[group] for group in drawn]))

    return bootstrap(len(groups), of_groups)


def clustered_mean(records: Sequence[int], values: Sequence[float] | Floats) -> Estimate:
    """The mean of rows with its interval, drawn by record. ValueError without any."""
    known = np.asarray(values, dtype=float)
    found = clustered(records, lambda rows: float(known[rows].mean()))
    return uncertain(found) if np.isin(known, (0.0, 1.0)).all() else found


def win_rate(records: Sequence[int], points: Sequence[float]) -> Estimate:
    """The mean of points, 1 for a win, 0 for a loss and 0.5 for a tie, with its interval. ValueError without any."""
    found = clustered_mean(records, points)
    return tied(found) if set(points) == {TIE} else found


# -- grades --------------------------------------------------------------------------------------------------


def grading_of(answers: Answers, name: str, which: str, file: ReplyFile, places: Sequence[Place]) -> Grading:
    """The figures of one file's grades. ValueError without any."""
    graded = [place for place in places if (*place, which) in answers]
    found = [grade(answers[(*place, which)]) for place in graded]
    if not found:
        raise ValueError("no grades")
    return Grading(
        name=name,
        replies=len(found),
        grade=clustered_mean([place[0] for place in graded], [value for value, _ in found]),
        mass=math.fsum(mass for _, mass in found) / len(found),
        length=math.fsum(len(file.replies[place].text) for place in graded) / len(found),
    )


def grade_difference(answers: Answers, places: Sequence[Place]) -> Estimate | None:
    """The mean grade of A minus that of B over prompts of which both have one; None if there is none."""
    both = [place for place in places if (*place, "a") in answers and (*place, "b") in answers]
    if not both:
        return None
    differences = [grade(answers[(*place, "a")])[0] - grade(answers[(*place, "b")])[0] for place in both]
    return clustered_mean([place[0] for place in both], differences)
