"""Proposals for the continuation, as the engine sees them.

Contract: an engine that works on one reply alone takes proposals before each evaluation of the continuation
(`propose`), reports what each evaluation cost and gave (`observe`), and goes on without them where making them fails
(`abandon`). Proposals change time and never a token. `SpeculativeProposals` lets `core.speculation` decide, and serves
it with the engine's sequences.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from wsd_local.core.contexts import TokenSampler
from wsd_local.core.decoding import Decoding
from wsd_local.core.rounds import Speculated
from wsd_local.core.speculation import Evaluation, Speculator
from wsd_local.events import Source


class JobSequences(Protocol):
    """The sequences of one job in the contexts of both models."""

    def n_ctx(self, role: Source) -> int:
        """Tokens that a sequence of this model can hold."""
        ...

    def held(self, role: Source, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that the job's sequence holds."""
        ...

    def live(self, role: Source, tokens: Sequence[int], start: int) -> int:
        """Number of consecutive positions of `tokens`, from `start` on, whose logits are available."""
        ...

    def write(self, role: Source, tokens: Sequence[int], sampler: TokenSampler) -> int | None:
        """Evaluate what is missing of `tokens` and choose the next token; None if it ends the text.

        Raises:
            CancelledError: the work was stopped.
            WsdError: the evaluation failed.
        """
        ...


class Proposals(Protocol):
    """Tokens that the model that continues may write next, for one reply."""

    def propose(self, tokens: Sequence[int], most: int, sequences: JobSequences) -> Sequence[int]:
        """At most `most` tokens that may follow `tokens`.

        Raises:
            CancelledError: the work was stopped; called again, it goes on.
            WsdError: the draft model failed; `abandon` lets the reply go on without it.
        """
        ...

    def observe(self, seen: Evaluation) -> None:
        """Learn from an evaluation for this reply."""
        ...

    def abandon(self) -> None:
        """Make no more proposals that need the draft model."""
        ...


class SpeculativeProposals:
    """Proposals of a `Speculator` for one reply.

    Args:
        speculator: decides.
        machine: the reply's state.
        writes: the model that continues.
        sampler: chooses the tokens of the model that continues; its constraint holds for proposals too.
        drafter: chooses the draft model's proposals; None without a draft model.
        clock: seconds, from any origin.
    """

    def __init__(
        self,
        speculator: Speculator,
        machine: Decoding,
        writes: Source,
        sampler: TokenSampler,
        drafter: TokenSampler | None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._speculator, self._machine, self._writes = speculator, machine, writes
        self._sampler, self._drafter = sampler, drafter
        self._clock = clock

    def propose(self, tokens: Sequence[int], most: int, sequences: JobSequences) -> Sequence[int]:
        """See `Proposals`."""
        around = _Surroundings(sequences, self._writes, self._sampler, self._drafter, self._clock)
        return self._speculator.propose(tokens, most, self._machine.beyond, around)

    def observe(self, seen: Evaluation) -> None:
        """See `Proposals`."""
        self._speculator.observe(seen)

    def abandon(self) -> None:
        """See `Proposals`."""
        self._speculator.abandon()

    def report(self) -> Speculated:
        """What proposals did so far."""
        return self._speculator.report()


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """The speculator's view of one job."""

    sequences: JobSequences
    writes: Source
    sampler: TokenSampler
    drafter: TokenSampler | None
    clock: Callable[[], float]

    @property
    def draft_room(self) -> int:
        return 0 if self.drafter is None else self.sequences.n_ctx("draft")

    def unread(self, tokens: Sequence[int]) -> bool:
        return self.sequences.held(self.writes, tokens) < len(tokens) - 1

    def live(self, tokens: Sequence[int], following: Sequence[int]) -> int:
        whole = [*tokens, *following] if following else tokens
        return self.sequences.live(self.writes, whole, len(tokens) - 1) - 1

    def held_by_draft(self, tokens: Sequence[int]) -> int:
        return self.sequences.held("draft", tokens)

    def forced(self) -> Sequence[int]:
        return self.sampler.forced()

    def allowed(self, tokens: Sequence[int]) -> int:
        return self.sampler.valid(tokens)

    def draft(self, tokens: Sequence[int]) -> int | None:
        assert self.drafter is not None
        return self.sequences.write("draft", tokens, self.drafter)
