"""Costs under which speculation always pays, so that the tests see as many proposals as there may be."""

from __future__ import annotations

from pathlib import Path

from exactness import EXACT

from wsd_local.core.costs import Acceptance, Costs, Experience
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.pair import Pair
from wsd_local.settings import LoadSettings, ReplySettings


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


def eager(paths: tuple[Path, Path], *, loading: LoadSettings = EXACT, reply: ReplySettings | None = None) -> Pair:
    """An exact pair for which proposals seem to cost nothing."""
    experience = Experience(
        costs={"draft": Flat(0.01), "base": Flat(1.0)},
        acceptance={name: Sure(0.9) for name in Experience().acceptance},
    )
    return Pair.over(LoadedModels(*paths, loading, experience=experience), reply=reply)
