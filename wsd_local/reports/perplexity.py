"""How surprising replies are to the base, given their first tokens.

Contract: arithmetic over natural log-probabilities of a reply's base tokens, but for `reply_logprobs`, which has the
base read a text. Perplexities are pooled over tokens; 1 is no surprise at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from wsd_local.prompts.messages import Message
from wsd_local.reports.statistics import Estimate, Floats, Resampled, estimates
from wsd_local.runtime.pair import Pair

Span = tuple[int, int | None]
"""Positions of tokens: the first one, and the one after the last; None: to the end."""


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How surprising the rest of a reply is to the base after its first tokens.

    `rest` is the perplexity of all tokens that follow, `next` that of the first of them. `replies` are those that are
    longer than the prefix, `tokens` what follows it in them.
    """

    replies: int
    tokens: int
    rest: float
    next: float


def after_prompt(
    pair: Pair, messages: Sequence[Message], text: str, most: int | None = None
) -> tuple[list[int], list[int]]:
    """The base's tokens of its own prompt for a conversation, and of `text` after it.

    These are `most` tokens at most, and no more than the context holds.
    """
    model, prompt = pair.models.model("base"), pair.models.base_format.prompt(messages)
    start, tokens = len(model.tokenize(prompt)), model.tokenize(prompt + text.strip())
    end = min(pair.models.n_ctx("base"), len(tokens) if most is None else start + most)
    return tokens[:start], tokens[start:end]


def reply_logprobs(pair: Pair, messages: Sequence[Message], text: str, most: int | None = None) -> list[float]:
    """The base's log-probability of each token of `text`, as `after_prompt` divides it.

    Raises:
        CancelledError: the work was stopped.
        WsdError: the base cannot be evaluated.
    """
    prompt, tokens = after_prompt(pair, messages, text, most)
    if not tokens:
        return []
    with pair.models.queue.held():
        return pair.models.context("base").logprobs(0, [*prompt, *tokens], len(prompt))


def perplexity(replies: Iterable[Sequence[float]], prefix: int) -> Perplexity | None:
    """Pooled over the tokens after the first `prefix` of each reply, given as log-probabilities of its tokens."""
    rests = [reply[prefix:] for reply in replies if len(reply) > prefix]
    count = sum(len(rest) for rest in rests)
    if not count:
        return None
    return Perplexity(
        replies=len(rests),
        tokens=count,
        rest=math.exp(-math.fsum(logprob for rest in rests for logprob in rest) / count),
        next=math.exp(-math.fsum(rest[0] for rest in rests) / len(rests)),
    )


def surprises(groups: Sequence[Sequence[Sequence[float]]], spans: Sequence[Span]) -> tuple[Floats, Floats]:
    """For each group of texts and each span of positions: nats of surprise in all, and how many tokens there are.

    Both have a row for each group and a column for each span; NaN where no text of the group has a token there.
    """
    nats, counts = (np.full((len(groups), len(spans)), math.nan) for _ in range(2))
    for row, group in enumerate(groups):
        for column, (start, end) in enumerate(spans):
            parts = [text[start:end] for text in group]
            if count := sum(map(len, parts)):
                nats[row, column] = -math.fsum(value for part in parts for value in part)
                counts[row, column] = count
    return nats, counts


def pooled(
    groups: Sequence[Sequence[Sequence[float]]], spans: Sequence[Span], resampled: Resampled
) -> list[Estimate | None]:
    """For each span of positions the perplexity of all tokens there, with its interval.

    Args:
        groups: texts as log-probabilities of their tokens; those of one group, a prompt, are drawn together.
        spans: first position, and the one after the last; None: to the end.
        resampled: the samples of groups.

    Returns:
        None where no text has a token; the count is that of groups.
    """
    nats, counts = surprises(groups, spans)
    return estimates(np.exp(resampled.ratios(nats, counts)), nats)
