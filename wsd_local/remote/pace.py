"""How long a server's answers take, and how many tokens are checked together for that.

Contract: pure. A check costs one round trip whatever its size, and tokens that are drafted past the switch are wasted:
with a round trip of `r` seconds, `d` seconds for a drafted token and a switch after about `n` tokens, chunks of `k`
tokens cost about `n/k · r + k/2 · d`, which is least at `k = sqrt(2 n r / d)`. The decision does not depend on it.
"""

from __future__ import annotations

import math
from collections import deque

EXPECTED = 24
"""Tokens before a switch, about: what most replies keep of a draft."""
DRAFTED_S = 0.02
"""Seconds for a drafted token, where that is not measured yet."""
LARGEST = 64
"""Tokens that are checked together, at most."""
NEWEST = 5
"""Answers whose times count."""


class Pace:
    """The measured times of one server.

    Attributes:
        round_trip_s: seconds from a small request to its answer, the fastest of the newest; None before the first.
        drafted_s: seconds that a drafted token takes here.
    """

    def __init__(self) -> None:
        self.round_trip_s: float | None = None
        self.drafted_s = DRAFTED_S
        self._newest: deque[float] = deque(maxlen=NEWEST)

    def saw(self, seconds: float) -> None:
        """The answer to a small request took so long."""
        self._newest.append(seconds)
        self.round_trip_s = min(self._newest)

    def chunk(self, least: int) -> int:
        """Tokens to be checked together, at least `least`."""
        if self.round_trip_s is None:
            return least
        best = math.sqrt(2 * EXPECTED * self.round_trip_s / max(1e-4, self.drafted_s))
        return max(least, min(LARGEST, round(best)))
