"""The rule `entropy`: the base takes over where it has few doubts about what comes next.

Contract: as `core.rules`. For draft tokens `t_0 … t_{L-1}`, `H_j` is the entropy, in nats, of the base's plain
distribution of what follows `t_0 … t_{j-1}`. The switch point is the first `i ≥ w-1` at which the mean of
`H_{i-w+1} … H_i` is at most `h`. It asks what the base would write, not how probable it finds the draft's choice.
"""

from __future__ import annotations

import math

from wsd_local.core.rules import Score, require_window
from wsd_local.errors import UsageError, short

MOST_NATS = 100.0
"""More than the entropy over any vocabulary."""


class Entropy:
    """The mean entropy of the last `window` distributions is at most `bound`.

    Its confidence is the exponential of minus that mean, and its threshold the exponential of minus the bound, so that
    both lie between 0 and 1 as those of `Window`.

    Args:
        window: length in base tokens, at least 1.
        bound: `h` in nats.

    Raises:
        UsageError: the window is below 1, or the bound is negative, above `MOST_NATS`, or not a number.
    """

    needs_distribution = True

    def __init__(self, window: int, bound: float) -> None:
        require_window(window)
        if not 0 <= bound <= MOST_NATS:
            raise UsageError(f"entropy is {short(bound)}: it is in nats and must lie between 0 and {MOST_NATS:g}")
        self.lookahead = window
        self._bound = bound
        self._entropies: list[float] = []

    @property
    def threshold(self) -> float:
        """The confidence at which the base takes over."""
        return math.exp(-self._bound)

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._bound = -math.log(value) if value > 0 else math.inf

    @property
    def kept_at_least(self) -> int:
        """As with `Window`: a switch keeps the token at which it is decided."""
        return max(self.lookahead, len(self._entropies) + 1)

    @property
    def confidence(self) -> float | None:
        """The exponential of minus the mean entropy at the last scored token; None before the first window is full."""
        mean = self._mean
        return None if mean is None else math.exp(-mean)

    def push(self, score: Score) -> int | None:
        """The number of scored tokens if the mean is at most the bound."""
        assert score.entropy is not None, "the rule needs the distribution"
        self._entropies.append(score.entropy)
        mean = self._mean
        return len(self._entropies) if mean is not None and mean <= self._bound else None

    def truncate(self, length: int) -> None:
        """Forget the scores from index `length` on."""
        del self._entropies[length:]

    @property
    def _mean(self) -> float | None:
        last = self._entropies[-self.lookahead :]
        return math.fsum(last) / len(last) if len(last) == self.lookahead else None
