"""The rule `return`: as `window`, and the draft comes back where the base does not know how to go on.

Contract: as `core.rules`. While the base writes, the probability of its most probable next token, `p1`, is compared
with a bound `ρ` wherever a word begins. Below it the draft continues the reply; the base comes back by the window rule,
whose windows lie inside one turn of the draft.
"""

from __future__ import annotations

import math

from wsd_local.core.rules import Window
from wsd_local.errors import UsageError, short

REST = 8
"""Tokens that the base writes before the draft may come back, so that the two do not alternate on every word."""
CHANGES = 32
"""Most changes of the writer in one reply."""


class Return(Window):
    """`Window`, and when the draft comes back.

    Args:
        window: as for `Window`.
        threshold: as for `Window`.
        bound: `ρ`; at 0 the draft never comes back.

    Raises:
        UsageError: a value is outside its range.
    """

    def __init__(self, window: int, threshold: float, bound: float) -> None:
        super().__init__(window, threshold)
        if math.isnan(bound) or not 0 <= bound <= 1:
            raise UsageError(f"return is {short(bound)}: it is a probability and must lie between 0 (never) and 1")
        self.bound = bound

    def may_return(self, written: int, changes: int) -> bool:
        """Whether the draft may come back after `written` tokens of the base and `changes` of the writer so far.

        There must be room for the change and for the base's next turn.
        """
        return self.bound > 0 and written >= REST and changes + 2 <= CHANGES

    def is_unsure(self, top1: float) -> bool:
        """Whether the base's largest probability is too small."""
        return top1 < self.bound
