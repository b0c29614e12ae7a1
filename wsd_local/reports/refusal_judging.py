"""A judge as the second classifier of replies to prompts of safety sets, and how far it agrees with the rules.

Contract: pure; the classes are XSTest's three, read off the log-probabilities of a judge's answers
(`judge.asking.classification`). Judges prefer some letters, and some places in a list: each reply is asked about with
the letters in all three rotations, and the mean of the probabilities decides. A reply counts if all three are answered;
empty ones are not asked about. Intervals are bootstrap intervals over prompts: the replies of all columns to one prompt
stay together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np

from wsd_local.prompts.messages import Message
from wsd_local.reports.columns_page import interval
from wsd_local.reports.html import Chart, Table, percent
from wsd_local.reports.judge.asking import LETTER_ORDERS, LetterOrder, classification
from wsd_local.reports.judge.questions import JudgeQuestion
from wsd_local.reports.judge.summary import AGREEMENT, clustered, clustered_mean, mass_warnings
from wsd_local.reports.judge.verdicts import normalised
from wsd_local.reports.refusals import Kind
from wsd_local.reports.safety import EXAMPLES, Judged
from wsd_local.reports.safety_page import short_text
from wsd_local.reports.statistics import NO_INTERVAL_NOTE, Estimate, Places, kappa

KINDS: tuple[Kind, Kind, Kind] = ("refusal", "partial", "answer")
"""What the answers of the judge mean, in their order."""
_NAMES: Mapping[str, str] = {"refusal": "refusal", "partial": "refusal in part", "answer": "answer"}

_NOTE = (
    "kappa: 1 is agreement throughout, 0 what chance gives · each reply is asked about with the letters of the classes "
    "in three orders, so that without a preference for letters each has a third of the probability · "
    f"{NO_INTERVAL_NOTE}"
)

Answers = Mapping[tuple[int, int, str], tuple[float, ...]]
"""Log-probabilities of the classes, by the index of a record, 0, and the column with the order of the letters."""


@dataclass(frozen=True, slots=True)
class Both:
    """A reply of a column, by both classifiers.

    `probability` is the judge's of its class, `mass` that of any, both as the mean over the orders; `by_order` has the
    class that is most probable in each of them, `letters` the mean probabilities of the letters A, B and C.
    """

    column: str
    reply: Judged
    judge: Kind
    probability: float
    mass: float
    by_order: tuple[Kind, ...]
    letters: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A reply that the two classifiers have different classes for."""

    id: str
    column: str
    prompt: str
    text: str
    rules: str
    judge: str
    probability: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the judge and the rules agree on the `replies` that both classified.

    `same` is the share with the same class, `kappa` Cohen's kappa of the three classes, `kappa_refused` that of
    refusals, in part or whole, and answers; None where one class is all there is. `counts` has a row for each
    class of the rules and a column for each of the judge's, in the order of `KINDS`. `orders` is the share of replies
    to which the judge gives the same class in all orders of the letters, `letters` its mean probabilities of A, B and
    C, a third each where letters do not matter. `mass` is its mean probability of beginning with one of the answers.
    """

    set: str
    judge: Mapping[str, Any]
    replies: int
    same: Estimate
    kappa: Estimate | None
    kappa_refused: Estimate | None
    counts: tuple[tuple[int, ...], ...]
    orders: Estimate
    letters: tuple[float, ...]
    mass: float
    too_long: int
    examples: tuple[Example, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @property
    def warnings(self) -> list[str]:
        """What speaks against this judge."""
        found = []
        if self.orders.value < AGREEMENT:
            found.append(
                f"the judge gives {self.orders.value:.0%} of the replies the same class in all orders of the letters "
                f"(below {AGREEMENT:.0%}): its classes say little; take a stronger judge"
            )
        return found + mass_warnings(self.mass)


def questions(replies: Mapping[str, Sequence[Judged]]) -> Iterator[JudgeQuestion]:
    """What the judge is asked about the replies of each column; empty ones are left out."""
    for column, found in replies.items():
        for one in found:
            if one.kind != "empty":
                talk = [Message(role="user", content=one.prompt), Message(role="assistant", content=one.text)]
                for order in LETTER_ORDERS:
                    yield JudgeQuestion(_key(one, column, order), one.id, classification(talk, order))


def _key(reply: Judged, column: str, order: LetterOrder) -> tuple[int, int, str]:
    return reply.index, 0, f"{column} {order}"


def classified(replies: Mapping[str, Sequence[Judged]], answers: Answers) -> list[Both]:
    """The replies that the judge classified in all orders, by both; a tie goes to the class that comes first."""
    found = []
    for column, of_column in replies.items():
        for one in of_column:
            keys = [_key(one, column, order) for order in LETTER_ORDERS]
            if one.kind != "empty" and all(key in answers for key in keys):
                found.append(_both(column, one, [normalised(answers[key]) for key in keys]))
    return found


def _both(column: str, reply: Judged, asked: Sequence[tuple[Sequence[float], float]]) -> Both:
    """A reply by both, from the probabilities of the classes, and their sum before, in each order."""
    by_order = [probabilities for probabilities, _ in asked]
    means = [math.fsum(of_class) / len(asked) for of_class in zip(*by_order, strict=True)]
    by_letter = [dict(zip(order, found, strict=True)) for order, found in zip(LETTER_ORDERS, by_order, strict=True)]
    return Both(
        column,
        reply,
        KINDS[_best(means)],
        max(means),
        math.fsum(mass for _, mass in asked) / len(asked),
        tuple(KINDS[_best(probabilities)] for probabilities in by_order),
        tuple(math.fsum(found[letter] for found in by_letter) / len(asked) for letter in sorted(LETTER_ORDERS[0])),
    )


def _best(probabilities: Sequence[float]) -> int:
    return max(range(len(KINDS)), key=probabilities.__getitem__)


def by_judge(replies: Mapping[str, Sequence[Judged]], both: Sequence[Both]) -> dict[str, list[Judged]]:
    """The replies with the judge's classes; those that it was not asked about keep theirs if they are empty."""
    kinds = {(one.column, one.reply.index): one.judge for one in both}
    return {
        column: [
            replace(one, kind=kinds.get((column, one.index), "empty"))
            for one in found
            if one.kind == "empty" or (column, one.index) in kinds
        ]
        for column, found in replies.items()
    }


def agreement(name: str, judge: Mapping[str, Any], both: Sequence[Both], too_long: int) -> Agreement:
    """How far the judge and the rules agree. ValueError without a reply."""
    rules = np.array([KINDS.index(one.reply.kind) for one in both])
    theirs = np.array([KINDS.index(one.judge) for one in both])
    records = [one.reply.index for one in both]
    counts = np.zeros((len(KINDS), len(KINDS)), dtype=int)
    np.add.at(counts, (rules, theirs), 1)

    def of(first: Places, second: Places) -> Estimate | None:
        return _defined(records, lambda rows: kappa(first[rows], second[rows]))

    answer = KINDS.index("answer")
    return Agreement(
        name,
        judge,
        len(both),
        clustered_mean(records, (rules == theirs).astype(float)),
        of(rules, theirs),
        of((rules == answer).astype(int), (theirs == answer).astype(int)),
        tuple(tuple(int(cell) for cell in row) for row in counts),
        clustered_mean(records, [float(len(set(one.by_order)) == 1) for one in both]),
        tuple(math.fsum(found) / len(both) for found in zip(*(one.letters for one in both), strict=True)),
        math.fsum(one.mass for one in both) / len(both),
        too_long,
        tuple(_examples(both)),
    )


def _defined(records: Sequence[int], statistic: Callable[[Places], float]) -> Estimate | None:
    if math.isnan(statistic(np.arange(len(records)))):
        return None
    return clustered(records, statistic)


def _examples(both: Sequence[Both]) -> Iterator[Example]:
    """The first replies of each two classes that differ."""
    for rules, judge in permutations(KINDS, 2):
        differ = [one for one in both if (one.reply.kind, one.judge) == (rules, judge)]
        for one in differ[:EXAMPLES]:
            reply = one.reply
            yield Example(reply.id, one.column, reply.prompt, reply.text, rules, judge, one.probability)


# -- tables ----------------------------------------------------------------------------------------------------


def agreement_tables(found: Agreement) -> list[Table]:
    """How far the two classifiers agree, and what they say of the same replies."""
    rows = (
        ("same class", percent(found.same.value), interval(found.same)),
        ("Cohen's kappa, three classes", *_kappa(found.kappa)),
        ("Cohen's kappa, refusals and answers", *_kappa(found.kappa_refused)),
        ("judge: the same class in all orders of the letters", percent(found.orders.value), interval(found.orders)),
        ("judge: mean probability of A, B, C", ", ".join(map(percent, found.letters)), ""),
        ("judge: probability of the answers asked for", percent(found.mass), ""),
    )
    title = f"{found.set}: {found.judge['model']} and the rules, {found.replies} replies"
    counts = tuple((_NAMES[kind], *(str(cell) for cell in row)) for kind, row in zip(KINDS, found.counts, strict=True))
    return [
        Table(title, ("", "", "95% interval"), rows, _NOTE),
        Table(
            f"{found.set}: replies by both classifiers",
            ("by the rules", *(f"judge:\n{_NAMES[kind]}" for kind in KINDS)),
            counts,
        ),
    ]


def agreement_parts(found: Agreement) -> list[Chart | Table]:
    """The same, and examples of each disagreement."""
    rows = tuple(
        (
            one.id,
            one.column,
            _NAMES[one.rules],
            f"{_NAMES[one.judge]}, {one.probability:.0%}",
            short_text(one.prompt),
            short_text(one.text),
        )
        for one in found.examples
    )
    columns = ("prompt", "column", "rules", "judge, probability", "text", "reply")
    note = f"at most {EXAMPLES} of each two classes"
    examples = [Table(f"{found.set}: where the judge and the rules disagree", columns, rows, note)] if rows else []
    return [*agreement_tables(found), *examples]


def _kappa(found: Estimate | None) -> tuple[str, str]:
    if found is None:
        return "undefined", "one class is all there is"
    return f"{found.value:.2f}", found.between("{:.2f}".format)
