"""Sampling settings as a value.

Contract: no llama.cpp here, so that settings can be checked before anything heavy is loaded. Temperature 0 is
greedy, the paper's and the default.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from wsd_local.errors import UsageError


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. `top_k` 0, `top_p` 1 and `min_p` 0 are off; `seed` None draws one.

    Raises:
        UsageError: a value is outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UsageError(f"temperature is {self.temperature}: it must be 0 (greedy) or more")
        if self.top_k < 0:
            raise UsageError(f"top-k is {self.top_k}: it must be 0 (off) or more")
        for name, value in (("top-p", self.top_p), ("min-p", self.min_p)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}: it must lie between 0 and 1")
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}: it must lie between 0 and 4294967295")

    def seeded(self) -> Sampling:
        """The same settings with the seed that will be used, so that it can be reported."""
        if self.temperature == 0 or self.seed is not None:
            return self
        return replace(self, seed=secrets.randbelow(2**32 - 1))
