"""Scores of given tokens, as work of the same engine that writes replies: over kept prefixes, in shared evaluations.

Contract: a `ScoringWork` is a fleet's `Work`. Log-probabilities are natural, at temperature 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from wsd_local.core.decoding import Phase
from wsd_local.core.requests import Request, ScoreTokens
from wsd_local.core.rules import Score
from wsd_local.errors import CancelledError, FitError, UsageError, room_advice
from wsd_local.events import Event, Source, TokenDetails
from wsd_local.library.naming import name_of
from wsd_local.runtime.fleet import Failed
from wsd_local.runtime.job import Job
from wsd_local.runtime.loading import LoadedModels


@dataclass(frozen=True, slots=True)
class Scoring:
    """Tokens of one model to be scored from `start` on, with the `top` most probable ones in each place."""

    role: Source
    tokens: Sequence[int]
    start: int
    top: int = 0


@dataclass(frozen=True, slots=True)
class Scored(Event):
    """The scores of `tokens[start:]`; `cached` tokens of the beginning were in the KV cache."""

    kind: ClassVar[str] = "scored"
    tokens: tuple[TokenDetails, ...]
    cached: int


class ScoringMachine:
    """The state of a scoring: nothing but one request."""

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring
        self.scores: tuple[Score, ...] = ()
        self.phase = Phase.DRAFT
        self.shown_tokens = 0

    def request(self) -> Request | None:
        """What is needed next; None when all is scored."""
        wanted = self._scoring
        return None if self.phase is Phase.DONE else ScoreTokens(wanted.tokens, wanted.start, top=wanted.top)

    def scored(self, scores: Sequence[Score]) -> None:
        """The scores of all tokens."""
        self.scores, self.phase = tuple(scores), Phase.DONE

    def take_events(self) -> Iterator[Event]:
        """None but the last, which `ScoringWork.closing` gives."""
        return iter(())


class ScoringWork:
    """A scoring, checked and ready to begin.

    Raises:
        UsageError: a token does not exist, or there is nothing to score.
        FitError: the tokens do not fit into the context.
    """

    def __init__(self, models: LoadedModels, scoring: Scoring) -> None:
        role, tokens = scoring.role, scoring.tokens
        with models.ready(role):
            model, n_ctx = models.model(role), models.n_ctx(role)
            if not all(0 <= token < model.n_vocab for token in tokens):
                most = model.n_vocab - 1
                raise UsageError(f"tokens: the model has the tokens 0 to {most}, and no others", about="tokens")
            if not 1 <= scoring.start <= len(tokens):
                raise UsageError(
                    f"start is {scoring.start}: a token is scored after at least one other, so it must lie between 1 "
                    f"and the number of tokens, {len(tokens)}",
                    about="start",
                )
            if len(tokens) > n_ctx:
                advice = room_advice(n_ctx, model.n_ctx_train)
                raise FitError(f"{len(tokens)} tokens do not fit into a context of {n_ctx}; {advice}", about="tokens")
            self.machine = ScoringMachine(scoring)
            self._model = model
            self.job = Job(self.machine, writes=role, names={role: name_of(model)})
        self._scoring = scoring
        if scoring.start == len(tokens):
            self.machine.scored(())

    def opening(self) -> Iterator[Event]:
        """Nothing precedes the scores."""
        return iter(())

    def closing(self) -> Iterator[Event]:
        """The scores; a failure if the work on them was stopped."""
        if self.machine.phase is not Phase.DONE:
            yield Failed(CancelledError("stopped"))
        else:
            wanted, piece = self._scoring, self._model.piece
            scored = zip(wanted.tokens[wanted.start :], self.machine.scores, strict=True)
            tokens = tuple(
                TokenDetails(
                    token,
                    piece(token),
                    wanted.role,
                    score.logprob,
                    tuple((other, piece(other), logprob) for other, logprob in score.top),
                )
                for token, score in scored
            )
            yield Scored(tokens, self.job.cached.get(wanted.role, 0))
