"""Who writes next: the rule that decides from the base's scores where the base model takes over.

Contract: pure arithmetic over scores, no text, no model. A `Rule` receives the base's score of each settled draft token
in order and answers with the index from which the base writes, or None. It can be rolled back, because a longer draft
may be tokenised otherwise near its end. Its answer must depend on the scores alone, never on how they were grouped.

`Window` is Weak-to-Strong Decoding's own rule. For draft tokens `t_0 … t_{L-1}` with
`p_j = P_base(t_j | prompt, t_0 … t_{j-1})`, the confidence of the window of `w` tokens that ends at `i` is
`g_i = (p_{i-w+1} · … · p_i)^(1/w)`, defined for `i ≥ w-1`; the switch point is the first `i` with `g_i ≥ γ`
(Song et al. 2025, arXiv 2506.07434), and the base writes from `i + 1`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wsd_local.errors import UsageError, short


@dataclass(frozen=True, slots=True)
class Score:
    """The base's view of one draft token, from its plain distribution at temperature 1.

    `logprob` is the token's natural log-probability. `top1` is the largest probability of the distribution and
    `entropy` its entropy in nats; both are None unless the rule needs the distribution. `top` are the most probable
    tokens in its place, best first, with their log-probabilities, where they were asked for.
    """

    logprob: float
    top1: float | None = None
    entropy: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Rule(Protocol):
    """Decides where the base takes over. One object serves one reply.

    A rule sums up its view in one number, its confidence: how sure the base is of the draft at the last scored token,
    from 0 to 1. The base takes over where the confidence reaches `threshold`, which may be changed at any time; tokens
    scored from then on are judged by the new value, and a threshold above 1 is never reached.
    """

    threshold: float

    @property
    def lookahead(self) -> int:
        """Tokens that must be scored before the rule can decide for the first time; they are scored together."""
        ...

    @property
    def needs_distribution(self) -> bool:
        """Whether scores must carry `top1` and `entropy`, which cost a pass over the whole vocabulary each."""
        ...

    @property
    def kept_at_least(self) -> int:
        """Draft tokens that are kept whatever scores follow; their text is shown at once."""
        ...

    @property
    def confidence(self) -> float | None:
        """The confidence at the last scored token; None where it is not defined yet."""
        ...

    def push(self, score: Score) -> int | None:
        """Receive the score of the next token; return the index of the first token that the base writes, or None."""
        ...

    def truncate(self, length: int) -> None:
        """Forget the scores from index `length` on."""
        ...


class Window:
    """WSD's rule: the geometric mean of the last `window` probabilities reaches `threshold`.

    It is computed as the exponential of a mean of log-probabilities, because products underflow, and always from the
    window itself, so that it does not depend on how the tokens arrived.

    Args:
        window: length `w` in base tokens, at least 1.
        threshold: `γ`; 0 switches at `w-1`, a value above 1 never.

    Raises:
        UsageError: the window is below 1, or the threshold is negative or not a number.
    """

    needs_distribution = False

    def __init__(self, window: int, threshold: float) -> None:
        require_window(window)
        require_threshold(threshold)
        self.threshold = threshold
        self.lookahead = window
        self._logprobs: list[float] = []

    @property
    def kept_at_least(self) -> int:
        """A switch keeps the token at which the window passes, so no window that is still open cuts these off."""
        return max(self.lookahead, len(self._logprobs) + 1)

    @property
    def confidence(self) -> float | None:
        """`g_i` at the last scored token `i`; None for `i < w-1`."""
        window = self.lookahead
        return geometric_mean(self._logprobs[-window:]) if len(self._logprobs) >= window else None

    def push(self, score: Score) -> int | None:
        """The number of scored tokens if the window that ends at this one passes: all of them are kept."""
        self._logprobs.append(score.logprob)
        confidence = self.confidence
        return len(self._logprobs) if confidence is not None and confidence >= self.threshold else None

    def truncate(self, length: int) -> None:
        """Forget the scores from index `length` on."""
        del self._logprobs[length:]


def require_window(window: int) -> None:
    """Raise `UsageError` unless the value can be a length."""
    if window < 1:
        raise UsageError(f"window is {window}: it counts base tokens and must be at least 1")


def require_threshold(threshold: float) -> None:
    """Raise `UsageError` unless the value can be a threshold."""
    is_number = isinstance(threshold, int | float) and not math.isnan(threshold)
    if not is_number or threshold < 0:
        raise UsageError(f"threshold is {short(threshold)}: it must be a number of at least 0 (above 1: never switch)")


def probability(logprob: float | None) -> float | None:
    """The probability of a natural log-probability, where that is known."""
    return None if logprob is None else math.exp(logprob)


def geometric_mean(logprobs: Sequence[float]) -> float:
    """Geometric mean of the probabilities whose natural logarithms are given."""
    return math.exp(math.fsum(logprobs) / len(logprobs))
