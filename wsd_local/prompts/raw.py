"""A prompt that is no conversation: text or tokens that the models continue as they are.

Contract: no chat template and no base format touches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wsd_local.errors import UsageError, short


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """Text, or tokens of the model that continues, to be continued. Exactly one of the two is given.

    Text is tokenised with the model's first token (BOS) where its vocabulary wants one, and nothing in it is a control
    token. Of tokens, a draft model with another vocabulary reads the text that they stand for.

    Raises:
        UsageError: none or both are given, or not of these kinds.
    """

    text: str | None = None
    tokens: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.tokens is None):
            raise UsageError("the prompt needs either text or tokens")
        if self.text is not None:
            if not isinstance(self.text, str):
                raise UsageError(f"the prompt is {short(self.text)}: it must be text")
            try:
                self.text.encode()
            except UnicodeEncodeError as error:
                raise UsageError(f"the prompt is not valid Unicode at character {error.start}") from error
        elif isinstance(self.tokens, str | bytes) or not all(type(token) is int for token in self.tokens or ()):
            raise UsageError(f"the prompt is {short(self.tokens)}: it must be a list of token numbers")
