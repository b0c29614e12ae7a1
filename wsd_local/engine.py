"""The loop between a state machine and the two contexts.

Contract: the engine knows no algorithm, it answers requests. A `Job` is one reply in progress: its machine, the
draft's tokens, its samplers and its stopwatch. `drive` can be called again on a job that was cancelled and goes
on where it stopped, because every request names the whole state it is about.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from wsd_local.decoding import Decoding, NextBaseToken, NextDraftToken, Request, Score
from wsd_local.errors import CancelledError
from wsd_local.events import Event, Notice, Source, Switched, Text
from wsd_local.llama import Cancellation, Context, Sampler

UNGRAMMATICAL_OPENING = "the opening is not the beginning of a text of the grammar: it holds for the continuation alone"


@dataclass(slots=True)
class Stopwatch:
    """When things happened in one reply. Times of an interrupted reply add up without the pause."""

    clock: Callable[[], float] = time.monotonic
    first_text: float | None = None
    switch: float | None = None
    token_40: float | None = None
    longest_gap: float = 0.0
    total: float = 0.0
    draft_s: float = 0.0
    draft_steps: int = 0
    base_s: float = 0.0
    base_steps: int = 0
    _resumed: float = 0.0
    _last_text: float | None = None

    def resume(self) -> None:
        """The work begins, or goes on."""
        self._resumed = self.clock() - self.total

    def now(self) -> float:
        """Seconds of work so far."""
        self.total = self.clock() - self._resumed
        return self.total

    def saw(self, event: Event, shown_tokens: int) -> None:
        """Note the time of an event; `shown_tokens` counts the reply's tokens that are out by then."""
        if isinstance(event, Switched):
            self.switch = self.now()
        if isinstance(event, Text):
            self._saw_text(self.now(), shown_tokens)

    def _saw_text(self, now: float, shown_tokens: int) -> None:
        if self.first_text is None:
            self.first_text = now
        elif self._last_text is not None:
            self.longest_gap = max(self.longest_gap, now - self._last_text)
        if self.token_40 is None and shown_tokens >= 40:
            self.token_40 = now
        self._last_text = now


@dataclass(slots=True)
class Job:
    """One reply in progress.

    `draft_tokens` is the draft's prompt and what it has written, `spelled` how its control tokens are written that
    mark a block of thinking. What is put into `steering`, from any thread, is done to the machine between two requests.
    """

    machine: Decoding
    base_sampler: Sampler
    draft_sampler: Sampler | None = None
    draft_tokens: list[int] = field(default_factory=list)
    spelled: Mapping[int, bytes] = field(default_factory=dict)
    seq: int = 0
    probabilities: bool = False
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    notices: deque[Notice] = field(default_factory=deque)
    steering: deque[Callable[[Decoding], None]] = field(default_factory=deque)


class Engine:
    """Drives jobs over a draft context and the context of the model that continues.

    Contexts are asked for when they are needed, because there may be room for only one of them. In draft-only runs the
    draft's context is the one that continues (`writes`). `progress` is called from inside long evaluations with the
    model's role, the tokens done and their total.
    """

    def __init__(
        self,
        context: Callable[[Source], Context],
        cancellation: Cancellation,
        progress: Callable[[Source, int, int], None] | None = None,
        writes: Source = "base",
    ) -> None:
        self._context = context
        self._writes: Source = writes
        self._cancellation = cancellation
        self._drafting = partial(progress, "draft") if progress else None
        self._writing = partial(progress, writes) if progress else None

    def drive(self, job: Job) -> Iterator[Event]:
        """Work until the reply is done or stopped; yield what becomes final."""
        job.stopwatch.resume()
        try:
            yield from self._events(job)
            while (request := self._next(job)) is not None:
                self._cancellation.check()
                self._answer(job, request)
                yield from self._events(job)
        except CancelledError:
            self._cancellation.clear()
            yield from self._events(job)
        finally:
            job.stopwatch.now()

    def _next(self, job: Job) -> Request | None:
        while job.steering:
            job.steering.popleft()(job.machine)
        return job.machine.request()

    def _events(self, job: Job) -> Iterator[Event]:
        for event in job.machine.take_events():
            job.stopwatch.saw(event, job.machine.shown_tokens)
            yield event
        while job.notices:
            yield job.notices.popleft()

    def _answer(self, job: Job, request: Request) -> None:
        if isinstance(request, NextDraftToken):
            self._draft_step(job)
        elif isinstance(request, Score):
            writer = self._context(self._writes)
            job.machine.scored(writer.logprobs(job.seq, request.tokens, request.start, self._writing))
        else:
            self._base_step(job, request)

    def _draft_step(self, job: Job) -> None:
        assert job.draft_sampler is not None
        draft = self._context("draft")
        if len(job.draft_tokens) >= draft.n_ctx:
            job.machine.draft_exhausted()
            return
        begun = job.stopwatch.clock()
        job.draft_sampler.begin(job.draft_tokens)
        token, _ = draft.sample(job.seq, job.draft_tokens, job.draft_sampler, self._drafting)
        if job.machine.counts.drafted_tokens:
            job.stopwatch.draft_s += job.stopwatch.clock() - begun
            job.stopwatch.draft_steps += 1
        model = draft.model
        if model.is_eog(token):
            job.machine.draft_ended()
        else:
            job.draft_tokens.append(token)
            job.machine.drafted(model.piece(token), job.spelled.get(token, b""))

    def _base_step(self, job: Job, request: NextBaseToken) -> None:
        writer = self._context(self._writes)
        begun = job.stopwatch.clock()
        prompt = job.machine.prompt_length
        if not job.base_sampler.begin(request.tokens[:prompt], request.tokens[prompt:]):
            job.notices.append(Notice(UNGRAMMATICAL_OPENING))
        token, row = writer.sample(job.seq, request.tokens, job.base_sampler, self._writing)
        logprob = writer.logprob(row, token) if job.probabilities else None
        if job.stopwatch.base_steps:  # the first one may carry a prompt
            job.stopwatch.base_s += job.stopwatch.clock() - begun
        job.stopwatch.base_steps += 1
        if writer.model.is_eog(token):
            job.machine.base_ended()
        else:
            job.machine.continued(token, logprob)
