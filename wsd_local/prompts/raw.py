"""A prompt that is no conversation: text or tokens that the models continue as they are.

Contract: no chat template and no base format touches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """Text, or tokens of the model that continues, to be continued. Exactly one of the two is given.

    Text is tokenised with the model's first token (BOS) where its vocabulary wants one, and nothing in it is a control
    token. Of tokens, a draft model with another vocabulary reads the text that they stand for.
    """

    text: str | None = None
    tokens: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.tokens is None):
            raise ValueError("give text or tokens")
