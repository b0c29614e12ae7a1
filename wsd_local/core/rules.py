"""The rule that decides where the base model takes over.

Contract: pure arithmetic over log-probabilities, no text, no model. For draft tokens `t_0 … t_{L-1}` with
`p_j = P_base(t_j | prompt, t_0 … t_{j-1})`, the confidence of the window of `w` tokens that ends at `i` is
`g_i = (p_{i-w+1} · … · p_i)^(1/w)`, defined for `i ≥ w-1`; the switch point is the first `i` with `g_i ≥ γ`
(Song et al. 2025, arXiv 2506.07434). `g_i` is computed as the exponential of a mean of log-probabilities,
because products underflow, and always from the window itself, so that it does not depend on how the tokens
arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wsd_local.errors import UsageError, short


@dataclass(frozen=True, slots=True)
class SwitchPolicy:
    """Window length `w` in base tokens and threshold `γ`. `γ = 0` switches at `w-1`, `γ > 1` never.

    Raises:
        UsageError: the window is below 1, or the threshold is negative or not a number.
    """

    window: int = 6
    threshold: float = 0.8

    def __post_init__(self) -> None:
        if self.window < 1:
            raise UsageError(f"window is {self.window}: it counts base tokens and must be at least 1")
        is_number = isinstance(self.threshold, int | float) and not math.isnan(self.threshold)
        if not is_number or self.threshold < 0:
            raise UsageError(
                f"threshold is {short(self.threshold)}: it must be a number of at least 0 (above 1: never switch)"
            )


def confidence(logprobs: Sequence[float]) -> float:
    """Geometric mean of the probabilities whose natural logarithms are given."""
    return math.exp(math.fsum(logprobs) / len(logprobs))


class SwitchDetector:
    """Finds the switch point in a stream of log-probabilities that can be rolled back."""

    def __init__(self, policy: SwitchPolicy) -> None:
        self.policy = policy
        self.logprobs: list[float] = []
        self.windows: list[float | None] = []

    def push(self, logprobs: Iterable[float]) -> int | None:
        """Take the next log-probabilities up to the switch point; return its index, or None.

        What follows the switch point is not taken.
        """
        window = self.policy.window
        for logprob in logprobs:
            self.logprobs.append(logprob)
            defined = len(self.logprobs) >= window
            self.windows.append(confidence(self.logprobs[-window:]) if defined else None)
            if defined and (self.windows[-1] or 0.0) >= self.policy.threshold:
                return len(self.logprobs) - 1
        return None

    def truncate(self, length: int) -> None:
        """Forget all log-probabilities from index `length` on."""
        del self.logprobs[length:], self.windows[length:]
