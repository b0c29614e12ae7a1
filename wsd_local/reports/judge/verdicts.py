"""Verdicts: from the log-probabilities of a judge's answers to what it prefers.

Contract: pure arithmetic. Probabilities are those of the answers that were asked for, normalised to a sum of 1; `mass`
is the sum before that, the judge's probability of beginning with any of them. Where two answers are equally probable,
neither is preferred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from wsd_local.errors import FitError
from wsd_local.reports.judge.asking import Asked

Order = Literal["ab", "ba"]
"""Whose reply is shown first: A's, or B's."""
ORDERS: tuple[Order, Order] = ("ab", "ba")
Winner = Literal["a", "b", "tie"]

LEAST = -1e4
"""Natural log-probabilities below this are recorded as this: JSON has no infinity."""


class TooLongError(FitError):
    """A question that does not fit into the judge's context; nothing of it is cut."""


class Judge(Protocol):
    """What answers questions."""

    @property
    def identity(self) -> dict[str, Any]:
        """All that its answers depend on, ready for JSON."""
        ...

    def logprobs(self, asked: Asked) -> tuple[float, ...]:
        """Natural log-probabilities of beginning with each of the answers.

        Raises:
            TooLongError: the question does not fit.
            CancelledError: the work was stopped.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A judge's probabilities in one order: the first reply is better, the second is, both are equal."""

    first: float
    second: float
    tie: float
    mass: float

    @property
    def winner(self) -> Literal["first", "second", "tie"]:
        """The most probable answer; a tie where the two replies are equally probable."""
        if self.tie >= max(self.first, self.second) or self.first == self.second:
            return "tie"
        return "first" if self.first > self.second else "second"


def normalised(logprobs: Sequence[float]) -> tuple[list[float], float]:
    """Probabilities with the sum 1, and the sum before."""
    top = max(logprobs)
    weights = [math.exp(value - top) for value in logprobs]
    total = math.fsum(weights)
    return [weight / total for weight in weights], min(1.0, math.exp(top) * total)


def shown(logprobs: Sequence[float]) -> Shown:
    """The probabilities of one order; two answers leave no room for a tie."""
    (first, second, *ties), mass = normalised(logprobs)
    return Shown(first, second, ties[0] if ties else 0.0, mass)


@dataclass(frozen=True, slots=True)
class Compared:
    """One prompt, judged in both orders. Lengths are characters."""

    index: int
    ab: Shown
    ba: Shown
    length_a: int
    length_b: int

    @property
    def preference(self) -> float:
        """The probability that A's reply is better, ties as a half, as the mean of both orders."""
        return (self.ab.first + self.ab.tie / 2 + self.ba.second + self.ba.tie / 2) / 2

    @property
    def verdicts(self) -> tuple[Winner, Winner]:
        """Who is better, by order."""
        return _AB[self.ab.winner], _BA[self.ba.winner]

    @property
    def agrees(self) -> bool:
        """Whether both orders have the same verdict."""
        return self.verdicts[0] == self.verdicts[1]

    @property
    def winner(self) -> Winner:
        """The verdict of both orders; a tie if they differ."""
        return self.verdicts[0] if self.agrees else "tie"

    @property
    def lean(self) -> float:
        """Probability of the reply that is shown first minus that of the other one, as the mean of both orders."""
        return (self.ab.first - self.ab.second + self.ba.first - self.ba.second) / 2


_AB: dict[str, Winner] = {"first": "a", "second": "b", "tie": "tie"}
_BA: dict[str, Winner] = {"first": "b", "second": "a", "tie": "tie"}


def grade(logprobs: Sequence[float]) -> tuple[float, float]:
    """The expected grade of the answers 1, 2, …, and the mass."""
    probabilities, mass = normalised(logprobs)
    return math.fsum(number * value for number, value in enumerate(probabilities, 1)), mass
