"""The loop between state machines and the two contexts.

Contract: the engine knows no algorithm, it answers requests. A `Job` is one reply in progress: its machine, the
draft's tokens, its samplers and its stopwatch. Many jobs share evaluations: what all of them ask of one model goes
into one batch, and each is answered as if it were alone. A job that was cancelled, or that had to wait because the KV
cache was full, goes on where it stopped, because every request names the whole state it is about.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from wsd_local.core.alignment import common_prefix
from wsd_local.core.costs import Experience
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.requests import NextBaseToken, NextDraftToken, Request, ScoreTokens
from wsd_local.core.rules import Score
from wsd_local.core.speculation import Round, Speculator
from wsd_local.errors import CancelledError, FitError, WsdError, room_advice
from wsd_local.events import Event, Source, Switched, Text
from wsd_local.llama import Cancellation, Context, DeadEndError, Question, Sampler

LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class Stopwatch:
    """When things happened in one reply. Times of an interrupted reply add up without the pause."""

    clock: Callable[[], float] = time.perf_counter
    first_text: float | None = None
    switch: float | None = None
    token_40: float | None = None
    longest_gap: float = 0.0
    total: float = 0.0
    draft_s: float = 0.0
    draft_steps: int = 0
    base_s: float = 0.0
    base_steps: int = 0
    base_begun: bool = False
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


@dataclass(slots=True, eq=False)
class Job:
    """One reply in progress.

    `draft_tokens` is the draft's prompt and what it has written, `spelled` how its control tokens are written that
    mark a block of thinking. `writes` is the model that continues, the draft itself in draft-only runs. `progress` is
    called from inside long evaluations with the model's role, the tokens done and their total. What is put into
    `steering`, from any thread, is done to the machine between two requests. `error` ended the job.
    `speculator` has proposals for the continuation, those of the draft model chosen by `proposer`.
    """

    machine: Decoding
    base_sampler: Sampler
    draft_sampler: Sampler | None = None
    proposer: Sampler | None = None
    speculator: Speculator | None = None
    draft_tokens: list[int] = field(default_factory=list)
    spelled: Mapping[int, bytes] = field(default_factory=dict)
    writes: Source = "base"
    probabilities: bool = False
    progress: Callable[[Source, int, int], None] | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    evaluated: dict[Source, int] = field(default_factory=dict)
    steering: deque[Callable[[Decoding], None]] = field(default_factory=deque)
    error: WsdError | None = None
    asked: tuple[Source, Question] | None = None

    def events(self) -> Iterator[Event]:
        """What became final since the last time."""
        for event in self.machine.take_events():
            self.stopwatch.saw(event, self.machine.shown_tokens)
            yield event

    @property
    def over(self) -> bool:
        """Whether nothing more will be asked."""
        return self.error is not None or self.machine.phase is Phase.DONE

    def request(self) -> Request | None:
        """What the machine needs next, if anything."""
        while self.steering:
            self.steering.popleft()(self.machine)
        return None if self.error is not None else self.machine.request()


class Engine:
    """Drives jobs over a draft context and the context of the model that continues.

    Contexts are asked for when they are needed. `apart`: there is room for only one of them, so all that one model can
    do is done before the other is asked.
    """

    def __init__(
        self,
        context: Callable[[Source], Context],
        cancellation: Cancellation,
        *,
        apart: bool = False,
        experience: Experience | None = None,
    ) -> None:
        self._context = context
        self._cancellation = cancellation
        self._apart = apart
        self._owners: dict[Source, dict[int, Job]] = {"draft": {}, "base": {}}
        self._alone = True
        self.experience = experience or Experience()

    def drive(self, job: Job) -> Iterator[Event]:
        """Work on one job until its reply is done or stopped; yield what becomes final."""
        job.stopwatch.resume()
        try:
            yield from job.events()
            while self.advance([job]):
                yield from job.events()
            yield from job.events()
        except CancelledError:
            self._cancellation.clear()
            yield from job.events()
        finally:
            job.stopwatch.now()
        if job.error is not None:
            raise job.error

    def advance(self, jobs: Sequence[Job]) -> bool:
        """Answer requests, with one evaluation of each model at most; the first jobs go first where not all have room.

        Returns False if no job asks for anything any more.

        Raises:
            CancelledError: a stop was asked for; called again, the jobs go on.
        """
        self._cancellation.check()
        self._alone = len(jobs) == 1 and not self._apart
        try:
            asking = [(job, *asked) for job in jobs if (asked := self._question(job)) is not None]
            for role in ("draft", "base"):
                questions = {job: question for job, asked, question in asking if asked == role}
                if questions:
                    self._step_or_do_without(role, questions, jobs)
                    if self._apart:
                        break
        except BaseException:
            for job in jobs:
                self._put_away(job)
            raise
        for job, _, question in asking:
            if question.done or job.error is not None:
                self._put_away(job)
        return bool(asking)

    # -- questions -------------------------------------------------------------------------------------------

    def _question(self, job: Job) -> tuple[Source, Question] | None:
        """What a job asks: what it asked before, if that is not answered yet."""
        if job.asked is None:
            job.asked = self._asks(job)
        return job.asked

    @staticmethod
    def _put_away(job: Job) -> None:
        if job.asked is not None:
            role, question = job.asked
            job.evaluated[role] = job.evaluated.get(role, 0) + question.evaluated
            job.asked = None

    def _asks(self, job: Job) -> tuple[Source, Question] | None:
        request = job.request()
        if isinstance(request, NextDraftToken):
            if self._is_over(job, job.draft_sampler):
                job.machine.draft_ended()
                request = job.request()
            elif len(job.draft_tokens) >= self._context("draft").n_ctx:
                job.machine.draft_ended("draft_limit")
                request = job.request()
        if isinstance(request, NextBaseToken) and self._is_over(job, job.base_sampler, request.tokens):
            job.machine.base_ended()
            return None
        if request is None or job.error is not None:
            return None
        if isinstance(request, NextDraftToken):
            return "draft", self._next_draft_token(job)
        if isinstance(request, ScoreTokens):
            return job.writes, self._score(job, request)
        return self._continuation(job, request)

    @staticmethod
    def _is_over(job: Job, sampler: Sampler | None, tokens: Sequence[int] = ()) -> bool:
        """Whether a constraint lets nothing follow the text of a sampler, which begins after `tokens` if it has not."""
        if sampler is None:
            return False
        prompt = job.machine.prompt_length
        try:
            if tokens and not sampler.begun:  # once: the tokens are copied for it
                sampler.begin(tokens[:prompt], tokens[prompt:], job.machine.opening)
            return sampler.over
        except WsdError as error:  # of this job alone
            job.error = error
            return False

    def _next_draft_token(self, job: Job) -> Question:
        begun, sampler = job.stopwatch.clock(), job.draft_sampler
        assert sampler is not None

        def answer(_position: int, row: int) -> None:
            draft = self._context("draft")
            sampler.begin(job.draft_tokens)
            try:
                token = draft.sample(row, sampler)
            except DeadEndError:  # the base may know how to write it
                job.machine.draft_ended("draft_limit")
                return
            if job.machine.counts.drafted_tokens:
                job.stopwatch.draft_s += job.stopwatch.clock() - begun
                job.stopwatch.draft_steps += 1
            if draft.model.is_eog(token):
                job.machine.draft_ended()
            else:
                job.draft_tokens.append(token)
                job.machine.drafted(draft.model.piece(token), job.spelled.get(token, b""))

        return self._asking(job, "draft", job.draft_tokens, len(job.draft_tokens) - 1, answer)

    def _score(self, job: Job, request: ScoreTokens) -> Question:
        found: list[Score] = []

        def answer(position: int, row: int) -> None:
            if position + 1 == len(request.tokens):
                job.machine.scored(found)
                return
            context, token = self._context(job.writes), request.tokens[position + 1]
            found.append(context.score(row, token, distribution=request.distribution))
            if job.speculator is not None:
                taken = context.best(row) == token if job.speculator.greedy else math.exp(found[-1].logprob)
                job.speculator.checked(taken, 1 - taken)

        return self._asking(job, job.writes, request.tokens, request.start - 1, answer)

    def _continuation(self, job: Job, request: NextBaseToken) -> tuple[Source, Question]:
        """What the model that continues is asked, with proposals, or the draft for a proposal."""
        speculator, tokens = job.speculator, request.tokens
        if speculator is None:
            return job.writes, self._next_base_token(job, tokens, [], None)
        speculator.begin(tokens, job.machine.beyond)
        if not self._alone or speculator.rests(tokens):
            return job.writes, self._next_base_token(job, tokens, [], None)
        now = speculator.in_progress(tokens) or self._round(job, speculator, tokens)
        if now.proposed:
            del now.proposed[job.base_sampler.valid(now.proposed) :]
        if now.wanted:
            return "draft", self._proposal(job, speculator)
        return job.writes, self._next_base_token(job, tokens, now.proposed, speculator)

    def _round(self, job: Job, speculator: Speculator, tokens: Sequence[int]) -> Round:
        begun, context = job.stopwatch.clock(), self._context(job.writes)
        remaining = speculator.remaining(tokens)
        seq = self._seq(job.writes, job)
        live = (
            -1
            if seq is None
            else context.alive(seq, [*tokens, *remaining] if remaining else tokens, len(tokens) - 1) - 1
        )
        if live < 0 and self._held(job.writes, job, tokens) < len(tokens) - 1:
            return speculator.read(tokens)
        most = (
            min(
                context.options.n_rows,
                context.n_ctx - len(tokens),
                job.machine.limits.max_tokens - job.machine.reply_length,
            )
            - 1
        )
        draft_room = self._context("draft").n_ctx if job.proposer is not None else 0
        forced = job.base_sampler.forced()
        now = speculator.round(tokens, most, live, draft_room, partial(self._held, "draft", job), forced)
        speculator.took(job.stopwatch.clock() - begun, thinking=True)
        return now

    def _proposal(self, job: Job, speculator: Speculator) -> Question:
        tokens, sampler = speculator.draft_tokens, job.proposer
        assert sampler is not None

        def answer(_position: int, row: int) -> None:
            draft = self._context("draft")
            token = draft.sample(row, sampler)
            speculator.drafted(None if draft.model.is_eog(token) else token)

        return self._asking(job, "draft", tokens, len(tokens) - 1, answer)

    def _next_base_token(
        self, job: Job, tokens: Sequence[int], proposed: Sequence[int], speculator: Speculator | None
    ) -> Question:
        """The next token, and those behind it as long as they are the ones that were proposed."""
        sampler, watch = job.base_sampler, job.stopwatch
        timed = watch.base_begun  # the first evaluation may carry a prompt
        mark = watch.clock() - (speculator.seconds if speculator is not None else 0)
        asked = [*tokens, *proposed]
        refused = False

        def answer(position: int, row: int) -> None:
            nonlocal mark, refused
            if refused or job.machine.phase is Phase.DONE:
                return
            writer = self._context(job.writes)
            token = writer.sample(row, sampler)
            logprob = writer.logprob(row, token) if job.probabilities else None
            if timed:
                now = watch.clock()
                watch.base_s += now - mark
                watch.base_steps += 1
                mark = now
            watch.base_begun = True
            refused = asked[position + 1 : position + 2] != [token]
            if speculator is not None:
                speculator.made(taken=not refused)
            if writer.model.is_eog(token):
                job.machine.base_ended()
            else:
                job.machine.continued(token, logprob)
                if sampler.over:
                    job.machine.base_ended()

        return self._asking(job, job.writes, asked, len(tokens) - 1, answer)

    @staticmethod
    def _asking(
        job: Job, role: Source, tokens: Sequence[int], row: int, answer: Callable[[int, int], None]
    ) -> Question:
        def guarded(position: int, row: int) -> None:
            try:
                if job.error is None:
                    answer(position, row)
            except WsdError as error:  # of this job alone: the others of the batch go on
                job.error = error

        return Question(-1, tokens, row, guarded, None if job.progress is None else partial(job.progress, role))

    def _step_or_do_without(self, role: Source, asking: Mapping[Job, Question], jobs: Sequence[Job]) -> None:
        """`_step`; a draft that fails while it proposes is not asked again, and the reply goes on."""
        try:
            self._step(role, asking, jobs)
        except CancelledError:
            raise
        except WsdError as error:
            if any(job.writes == role or job.machine.phase is not Phase.CONTINUE for job in asking):
                raise
            LOGGER.info("no more proposals of the draft model: %s", error)
            for job in asking:
                assert job.speculator is not None
                job.speculator.without_draft()
                self._put_away(job)

    # -- sequences -------------------------------------------------------------------------------------------

    def _step(self, role: Source, asking: Mapping[Job, Question], jobs: Sequence[Job]) -> None:
        context = self._context(role)
        chosen: dict[Job, Question] = {}
        room = context.cells
        for job, question in asking.items():
            if question.end > context.n_ctx:
                advice = room_advice(context.n_ctx, context.model.n_ctx_train)
                job.error = FitError(f"{question.end} tokens do not fit into a context of {context.n_ctx}; {advice}")
            elif question.end <= room and len(chosen) < context.options.n_seq:
                chosen[job] = question
                room -= question.end
        if chosen:
            self._seat(role, context, chosen, jobs)
            self._make_room(role, context, chosen, room)
            first = next(iter(chosen))
            before, begun = context.evaluated, first.stopwatch.clock()
            context.step(list(chosen.values()))
            if self._alone:
                self._learn(role, first, context.evaluated - before, first.stopwatch.clock() - begun)

    def _learn(self, role: Source, job: Job, evaluated: int, seconds: float) -> None:
        if evaluated:
            self.experience.costs[role].saw(evaluated, seconds)
        if job.speculator is not None:
            job.speculator.took(seconds)

    def _held(self, role: Source, job: Job, tokens: Sequence[int]) -> int:
        """Length of what the job's sequence holds of `tokens`, from their beginning on."""
        seq = self._seq(role, job)
        return 0 if seq is None else common_prefix(self._context(role).held(seq), tokens)

    def _seq(self, role: Source, job: Job) -> int | None:
        return next((seq for seq, owner in self._owners[role].items() if owner is job), None)

    def _seat(self, role: Source, context: Context, chosen: Mapping[Job, Question], jobs: Sequence[Job]) -> None:
        """Give each job a sequence: its own, else the free one that holds most of what it asks about."""
        owners = self._owners[role]
        seats = {job: seq for seq, job in owners.items()}
        for job, question in chosen.items():
            if job not in seats:
                free = [seq for seq in range(context.options.n_seq) if owners.get(seq) not in chosen]
                idle = [seq for seq in free if owners.get(seq) not in jobs] or free
                seq = max(idle, key=lambda seq: common_prefix(context.held(seq), question.tokens))
                seats.pop(owners.get(seq, job), None)
                owners[seq], seats[job] = job, seq
            question.seq = seats[job]

    def _make_room(self, role: Source, context: Context, chosen: Mapping[Job, Question], room: int) -> None:
        """Forget sequences that nobody asks about now, as far as the cells do not suffice for them too."""
        for seq in range(context.options.n_seq):
            if self._owners[role].get(seq) not in chosen:
                held = len(context.held(seq))
                if held > room:
                    context.forget(seq)
                else:
                    room -= held
