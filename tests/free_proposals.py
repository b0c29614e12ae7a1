"""Costs under which speculation always pays, so that the tests see as many proposals as there may be."""

from __future__ import annotations

from wsd_local.core.costs import Acceptance, Costs, Experience
from wsd_local.runtime.pair import Pair


class Flat(Costs):
    """Every evaluation costs the same, so as many proposals as there may be are made."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def saw(self, tokens: int, seconds: float) -> None:
        pass

    known = True

    def of(self, tokens: int) -> float:
        return self._seconds


class Sure(Acceptance):
    """Nothing refused makes it less sure."""

    def saw(self, taken: float, refused: float) -> None:
        pass


def eager(pair: Pair) -> Pair:
    """The pair as if proposals cost nothing."""
    pair.models.experience = Experience(
        costs={"draft": Flat(0.01), "base": Flat(1.0)},
        acceptance={name: Sure(0.9) for name in Experience().acceptance},
    )
    return pair
