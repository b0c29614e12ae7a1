"""Sampling settings as a value.

Contract: no llama.cpp here, so that settings can be checked before anything heavy is loaded. Temperature 0 is
greedy, the paper's and the default.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace

from wsd_local.errors import UsageError

LARGEST = 1000.0
"""Largest temperature and penalty. Beyond it the model's distribution is gone, and logits overflow soon after."""

LONGEST = 1 << 20
"""Largest number of tokens that penalties look back on: llama.cpp reserves memory for all of them."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. `top_k` 0, `top_p` 1, `min_p` 0 and penalties of 1, 0 and 0 are off; `seed` None draws one.

    Penalties look back on the last `repeat_last_n` tokens, those of the prompt included, and apply to greedy decoding
    too; -1 is all that a context holds. All names have llama.cpp's meaning.

    Raises:
        UsageError: a value is outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= LARGEST:
            raise UsageError(f"temperature is {self.temperature}: it must lie between 0 (greedy) and {LARGEST:g}")
        if not 0 <= self.top_k < 2**31:
            raise UsageError(f"top-k is {self.top_k}: it must lie between 0 (off) and {2**31 - 1}")
        for name, value in (("top-p", self.top_p), ("min-p", self.min_p)):
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}: it must lie between 0 and 1")
        if not 1 / LARGEST <= self.repeat_penalty <= LARGEST:
            bounds = f"{1 / LARGEST:g} and {LARGEST:g}"
            raise UsageError(f"repeat-penalty is {self.repeat_penalty}: it must lie between {bounds} (1 is off)")
        for name, value in (("frequency", self.frequency_penalty), ("presence", self.presence_penalty)):
            if not -LARGEST <= value <= LARGEST:
                raise UsageError(
                    f"{name}-penalty is {value}: it must lie between {-LARGEST:g} and {LARGEST:g} (0 is off)"
                )
        if not -1 <= self.repeat_last_n <= LONGEST:
            bounds = f"between 0 (off) and {LONGEST} tokens, or be -1 (all)"
            raise UsageError(f"repeat-last-n is {self.repeat_last_n}: it must lie {bounds}")
        if self.seed is not None and not 0 <= self.seed < 2**32 - 1:
            raise UsageError(f"seed is {self.seed}: it must lie between 0 and 4294967294")

    def seeded(self) -> Sampling:
        """The same settings with the seed that will be used, so that it can be reported."""
        if self.temperature == 0 or self.seed is not None:
            return self
        return replace(self, seed=secrets.randbelow(2**32 - 1))

    def within(self, n_ctx: int) -> Sampling:
        """The same settings for a context of so many tokens, with a number of tokens on which penalties look back."""
        return replace(self, repeat_last_n=min(n_ctx, LONGEST)) if self.repeat_last_n < 0 else self

    @property
    def penalises(self) -> bool:
        """Whether earlier tokens change the choice of the next."""
        neutral = (self.repeat_penalty, self.frequency_penalty, self.presence_penalty) == (1.0, 0.0, 0.0)
        return self.repeat_last_n != 0 and not neutral
