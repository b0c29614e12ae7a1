"""What one model expects: the likelihood of texts, and the probability that a text ends.

Contract: evaluations in the context's first sequence, nothing else. The caller holds the models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from wsd_local.core.alignment import common_prefix
from wsd_local.core.contexts import Question
from wsd_local.llama import Sequences

PLAIN = "\n"
"""What precedes a text that stands alone, so that its first token is scored with every vocabulary."""


def after_text(context: Sequences, prompt: str, text: str) -> list[float]:
    """Log-probabilities of a text's tokens after a plain prompt, tokenised as one string; a shared token counts."""
    before, tokens = context.model.tokenize(prompt), context.model.tokenize(prompt + text)
    return context.logprobs(0, tokens, max(1, common_prefix(before, tokens))) if text else []


def after_tokens(context: Sequences, prompt: Sequence[int], text: str) -> list[float]:
    """Log-probabilities of a text's tokens after the tokens of a template."""
    return context.logprobs(0, [*prompt, *context.model.tokenize_text(text)], len(prompt)) if text else []


def end_probability(context: Sequences, tokens: Sequence[int]) -> float:
    """The probability of all tokens together that end a text, after `tokens`."""
    found: list[float] = []

    def answer(_: int, row: int) -> None:
        found.extend(math.exp(context.score(row, token).logprob) for token in context.model.eog_tokens)

    context.ask(Question(0, tokens, len(tokens) - 1, answer))
    return math.fsum(found)
