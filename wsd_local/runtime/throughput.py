"""How many replies at once pay: the throughput of loaded models.

Contract: measures one token of `n` sequences in one evaluation, for n = 1, 2, 4, …, and leaves the contexts empty.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from wsd_local.core.contexts import Question
from wsd_local.events import Source
from wsd_local.llama import Sequences
from wsd_local.runtime.loading import LoadedModels

ENOUGH = 0.95
"""Share of the best throughput at which a smaller number of replies is preferred."""
ROUNDS = 5
PROMPT = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """Tokens per second of each model with `parallel` replies at once."""

    parallel: int
    rates: Mapping[Source, float]

    @property
    def rate(self) -> float:
        """Tokens per second that every model has read or written once."""
        return 1 / sum(1 / rate for rate in self.rates.values())


def paying(models: LoadedModels, roles: tuple[Source, ...]) -> list[Measured]:
    """Rates of loaded models for 1, 2, 4, … replies at once.

    Raises:
        CancelledError: a stop was requested.
    """
    models.cancellation.check()
    with models.queue.held():
        return _paying(models, roles)


def _paying(models: LoadedModels, roles: tuple[Source, ...]) -> list[Measured]:
    numbers = [2**power for power in range(models.loading.parallel.bit_length())]
    times: dict[tuple[Source, int], float] = {}
    for length in range(PROMPT, PROMPT + ROUNDS):
        for role in roles:  # in turns, so that other load on the machine affects all alike
            for number in numbers:
                taken = _time(models.context(role), number, length)
                times[role, number] = min(taken, times.get((role, number), taken))
    for role in roles:
        for seq in range(numbers[-1]):
            models.context(role).forget(seq)
    return [Measured(number, {role: number / times[role, number] for role in roles}) for number in numbers]


def chosen(measured: list[Measured]) -> int:
    """The smallest number of replies that is about as fast as any."""
    best = max(one.rate for one in measured)
    return next(one.parallel for one in measured if one.rate >= ENOUGH * best)


def _time(context: Sequences, number: int, length: int) -> float:
    """Seconds for one more token after `length` tokens in each of `number` sequences."""
    token = context.model.tokenize_text("a")[0]
    taken = 0.0
    for tokens in ([token] * length, [token] * (length + 1)):
        questions = [Question(seq, tokens, len(tokens) - 1, lambda position, row: None) for seq in range(number)]
        begun = time.perf_counter()
        while left := [question for question in questions if not question.done]:
            context.step(left)
        taken = time.perf_counter() - begun
    return taken
