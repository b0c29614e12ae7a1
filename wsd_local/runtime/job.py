"""One reply in progress: its state machine, its samplers, the question it waits for, and what that cost.

Contract: a job belongs to one engine at a time; only `steering` may be used from other threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wsd_local.core.contexts import Question, TokenSampler
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.requests import Request
from wsd_local.core.rules import Score
from wsd_local.core.speculation import Evaluation
from wsd_local.core.written import Written
from wsd_local.errors import WsdError
from wsd_local.events import Event, Reading, Source, Wrote
from wsd_local.runtime.proposals import Proposals
from wsd_local.runtime.stopwatch import Stopwatch

LONG_READING = 200
"""Tokens from which on the reading of a text takes long enough to be reported."""


class Machine(Protocol):
    """What a job is about: a reply, or the scoring of given tokens."""

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        ...

    @property
    def shown_tokens(self) -> int:
        """Tokens of a reply that are final."""
        ...

    def request(self) -> Request | None:
        """What is needed next, if anything."""
        ...

    def scored(self, scores: Sequence[Score]) -> None:
        """Receive the scores that `ScoreTokens` asks for."""
        ...

    def take_events(self) -> Iterator[Event]:
        """What became final since the last call."""
        ...


@dataclass(slots=True)
class Outcome:
    """What came of the evaluation that is being answered, see `Evaluation`."""

    written: int = 0
    accepted: int = 0
    agreed: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Job:
    """One reply, or one scoring of given tokens, in progress.

    `draft_tokens` is the draft's prompt and what it has written; `spelled` has the spellings of its control tokens that
    mark a block of thinking. `writes` is the model that continues, the draft itself in draft-only runs. `names` are
    those of the models in events. `redraft` prepares another turn of the draft, where the machine
    has some. `written` is there if events shall name the tokens that wrote the reply, each with
    `top` alternatives. What is added to `steering`, from any thread, is applied to the machine before the next request.
    `error` ended the job. `cached` counts the tokens that were in the KV cache when a model began.
    """

    machine: Machine
    base_sampler: TokenSampler | None = None
    draft_sampler: TokenSampler | None = None
    proposals: Proposals | None = None
    draft_tokens: list[int] = field(default_factory=list)
    spelled: Mapping[int, bytes] = field(default_factory=dict)
    writes: Source = "base"
    probabilities: bool = False
    redraft: Callable[[Job], None] | None = None
    written: Written | None = None
    top: int = 0
    names: Mapping[Source, str] = field(default_factory=dict)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    evaluated: dict[Source, int] = field(default_factory=dict)
    cached: dict[Source, int] = field(default_factory=dict)
    steering: deque[Callable[[Decoding], None]] = field(default_factory=deque)
    error: WsdError | None = None
    waits_for: tuple[Source, Question] | None = None
    outcome: Outcome = field(default_factory=Outcome)
    turn_begins: int = 0
    earlier_ids: tuple[int, ...] = ()
    _reading: Reading | None = None
    _reads_on: bool = False

    def __post_init__(self) -> None:
        self.turn_begins = len(self.draft_tokens)

    @property
    def draft_ids(self) -> tuple[int, ...]:
        """All tokens that the draft model wrote."""
        return self.earlier_ids + tuple(self.draft_tokens[self.turn_begins :])

    def take_up(self, draft_tokens: list[int], sampler: TokenSampler) -> None:
        """The draft model has another turn: what it reads, and what chooses its tokens."""
        self.earlier_ids = self.draft_ids
        self.draft_tokens, self.draft_sampler = draft_tokens, sampler
        self.turn_begins = len(draft_tokens)

    def events(self) -> Iterator[Event]:
        """How far a long text is read, and what became final since the last time."""
        if self._reading is not None:
            reading, self._reading = self._reading, None
            yield reading
        for event in self.machine.take_events():
            self.stopwatch.saw(event, self.machine.shown_tokens)
            yield event
        if self.written is not None and (tokens := self.written.take()):
            yield Wrote(tokens)

    @property
    def decoding(self) -> Decoding:
        """The state machine of a reply."""
        assert isinstance(self.machine, Decoding)
        return self.machine

    @property
    def writer(self) -> TokenSampler:
        """Chooses the tokens of the model that continues a reply."""
        assert self.base_sampler is not None
        return self.base_sampler

    @property
    def over(self) -> bool:
        """Whether the reply is done or failed."""
        return self.error is not None or self.machine.phase is Phase.DONE

    def request(self) -> Request | None:
        """What the machine needs next, if anything."""
        while self.steering:
            self.steering.popleft()(self.decoding)
        return None if self.error is not None else self.machine.request()

    def has_read(self, role: Source, done: int, total: int) -> None:
        """Record how many tokens of a text are evaluated; an event if it is long and takes more steps."""
        if total >= LONG_READING and (done < total or self._reads_on):
            self._reads_on = done < total
            self._reading = Reading(self.names.get(role, role), done, total)

    def count(self, role: Source, question: Question) -> None:
        """Add the tokens that were evaluated for a question."""
        self.evaluated[role] = self.evaluated.get(role, 0) + question.evaluated

    def put_away(self) -> None:
        """Drop the question in progress, answered or not: the machine's request is the whole truth."""
        if self.waits_for is not None:
            self.count(*self.waits_for)
            self.waits_for = None
        self.outcome = Outcome()

    def observe(self, role: Source, tokens: int = 0, seconds: float = 0.0) -> None:
        """Report an evaluation to the proposals: its outcome, and its cost if it was for this job alone."""
        seen, self.outcome = self.outcome, Outcome()
        if self.proposals is not None:
            self.proposals.observe(Evaluation(role, tokens, seconds, seen.written, seen.accepted, seen.agreed))
