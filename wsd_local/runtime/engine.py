"""The loop between state machines and the contexts of two models.

Contract: the engine knows no algorithm: it answers the requests of state machines, and takes proposals for the
continuation from its jobs. It serves any `TokenContext`. Many jobs share evaluations: the questions of all of them to
one model go into one batch, and each is answered as if it were alone. A job that was cancelled, or that had to wait
because the KV cache was full, goes on where it stopped, because every request names the whole state it is about.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from wsd_local.core.alignment import common_prefix
from wsd_local.core.contexts import Question, StopSignal, TokenContext, TokenSampler, Writing
from wsd_local.core.decoding import Phase
from wsd_local.core.mixing import Mixing
from wsd_local.core.relay import Relay
from wsd_local.core.requests import Distributions, NextBaseToken, NextDraftToken, ScoreTokens
from wsd_local.core.rules import Score
from wsd_local.core.words import Words
from wsd_local.errors import CancelledError, DeadEndError, FitError, WorkerError, WsdError, room_advice
from wsd_local.events import Event, Source
from wsd_local.runtime.job import Job
from wsd_local.runtime.seats import Seats

LOGGER = logging.getLogger(__name__)


class Engine:
    """Drives jobs over a draft context and the context of the model that continues.

    Args:
        context: gives the context of a model, when it is needed.
        stop: checked before each evaluation.
        apart: only one context has room at a time, so all that one model can do is done before the other is needed.
    """

    def __init__(self, context: Callable[[Source], TokenContext], stop: StopSignal, *, apart: bool = False) -> None:
        self._context = context
        self._stop = stop
        self._apart = apart
        self._seats: dict[Source, Seats] = {"draft": Seats(), "base": Seats()}
        self._alone = True

    def drive(self, job: Job) -> Iterator[Event]:
        """Work on one job until its reply is done or stopped; yield what becomes final."""
        job.stopwatch.resume()
        try:
            yield from job.events()
            while self.advance([job]):
                yield from job.events()
            yield from job.events()
        except CancelledError:
            self._stop.clear()
            yield from job.events()
        finally:
            job.stopwatch.update()
            self._pause([job])
        if job.error is not None:
            raise job.error

    def advance(self, jobs: Sequence[Job]) -> bool:
        """Answer requests, with one evaluation of each model at most, beside those for proposals.

        Where not all jobs have room, the first ones go first. Returns False if no job has a request any more.

        Raises:
            CancelledError: the work was stopped; called again, the jobs go on.
        """
        self._stop.check()
        self._alone = len(jobs) == 1 and not self._apart
        try:
            waiting = [(job, *needed) for job in jobs if (needed := self._question(job)) is not None]
            for role in ("draft", "base"):
                questions = {job: question for job, needed, question in waiting if needed == role}
                if questions:
                    self._step(role, questions, jobs)
                    if self._apart:
                        break
        except BaseException:
            for job in jobs:
                job.put_away()
            self._pause(jobs)
            raise
        for job, _, question in waiting:
            if question.done or job.error is not None:
                job.put_away()
        self._pause([job for job, _, _ in waiting if job.over])
        return bool(waiting)

    def _pause(self, jobs: Sequence[Job]) -> None:
        """Let the contexts of the models that continue know that nothing more is wanted for these jobs now."""
        for job in () if self._apart else jobs:
            if (seq := self._seats[job.writes].of(job)) is not None:
                self._context(job.writes).pause(seq)

    # -- questions -------------------------------------------------------------------------------------------

    def _question(self, job: Job) -> tuple[Source, Question] | None:
        """The question that a job waits for: the one before, if that is not answered yet."""
        if job.waits_for is None:
            job.waits_for = self._next_question(job)
        return job.waits_for

    def _next_question(self, job: Job) -> tuple[Source, Question] | None:
        request = job.request()
        if isinstance(request, NextDraftToken):
            if not _draft_has_read(job):
                return None
            if self._is_over(job, job.draft_sampler):
                job.decoding.draft_ended()
                request = job.request()
            elif len(job.draft_tokens) >= self._context("draft").n_ctx:
                job.decoding.draft_ended("draft_limit")
                request = job.request()
        if isinstance(request, Distributions) and len(request.tokens) >= self._context(request.role).n_ctx:
            job.decoding.draft_ended("draft_limit")
            request = job.request()
        if isinstance(request, NextBaseToken) and self._is_over(job, job.base_sampler, request.tokens):
            job.decoding.base_ended(complete=True)
            return None
        if request is None or job.error is not None:
            return None
        if isinstance(request, Distributions):
            return request.role, self._distributions(job, request)
        if isinstance(request, NextDraftToken):
            return "draft", self._next_draft_token(job)
        if isinstance(request, ScoreTokens):
            return job.writes, self._score(job, request)
        begun = job.stopwatch.clock()  # what proposals take counts too
        return job.writes, self._next_base_token(job, request.tokens, self._proposed(job, request.tokens), begun)

    @staticmethod
    def _is_over(job: Job, sampler: TokenSampler | None, tokens: Sequence[int] = ()) -> bool:
        """Whether a constraint lets nothing follow the text of a sampler, which begins after `tokens` if it has not."""
        if sampler is None:
            return False
        prompt = job.decoding.prompt_length
        try:
            if tokens and not sampler.begun:  # once, because the tokens are copied for it
                sampler.begin(tokens[:prompt], tokens[prompt:], job.decoding.opening)
            if tokens and isinstance(job.decoding, Relay) and (unseen := job.decoding.take_unseen()) is not None:
                sampler.follow(*unseen)
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
                job.decoding.draft_ended("draft_limit")
                return
            if len(job.draft_tokens) > job.turn_begins:
                job.stopwatch.draft_s += job.stopwatch.clock() - begun
                job.stopwatch.draft_steps += 1
            if draft.model.is_eog(token):
                job.decoding.draft_ended()
            else:
                job.draft_tokens.append(token)
                if isinstance(job.decoding, Words) and job.decoding.needs_claims:
                    job.decoding.claimed(math.exp(draft.score(row, draft.best(row)).logprob))
                job.decoding.drafted(draft.model.piece(token), job.spelled.get(token, b""))

        return self._guarded(job, job.draft_tokens, len(job.draft_tokens) - 1, answer)

    def _distributions(self, job: Job, request: Distributions) -> Question:
        machine, watch = job.decoding, job.stopwatch
        assert isinstance(machine, Mixing)
        drafts, begun, over = request.role == "draft", watch.clock(), False
        timed = len(request.tokens) > job.turn_begins if drafts else watch.base_begun

        def answer(_position: int, row: int) -> None:
            nonlocal begun, over
            if over:
                return
            self._stop.check()
            over = not machine.distribution(self._context(request.role).distribution(row))
            if drafts:
                job.earlier_ids += (machine.proposals[-1],)
            now = watch.clock()
            if timed and drafts:
                watch.draft_s, watch.draft_steps = watch.draft_s + now - begun, watch.draft_steps + 1
            elif timed:
                watch.base_s, watch.base_steps = watch.base_s + now - begun, watch.base_steps + 1
            watch.base_begun = watch.base_begun or not drafts
            begun = now

        return self._guarded(job, request.tokens, request.start - 1, answer)

    def _score(self, job: Job, request: ScoreTokens) -> Question:
        found: list[Score] = []

        def answer(position: int, row: int) -> None:
            self._stop.check()  # many rows take their time
            if position + 1 == len(request.tokens):
                job.machine.scored(found)
                return
            context, token = self._context(job.writes), request.tokens[position + 1]
            found.append(context.score(row, token, distribution=request.distribution, top=request.top))
            if job.proposals is not None:  # would the base have written it?
                greedy = job.writer.greedy
                job.outcome.agreed.append(context.best(row) == token if greedy else math.exp(found[-1].logprob))

        question = self._guarded(job, request.tokens, request.start - 1, answer)
        question.top, question.following = request.top, request.following
        return question

    def _proposed(self, job: Job, tokens: Sequence[int]) -> Sequence[int]:
        """Tokens that may follow; none if other jobs share the evaluations, or if the draft model fails."""
        if job.proposals is None or not self._alone:
            return ()
        context = self._context(job.writes)
        left = job.decoding.limits.max_tokens - job.decoding.reply_length
        most = min(context.n_rows, context.n_ctx - len(tokens), left) - 1
        try:
            return job.proposals.propose(tokens, most, _JobSequences(self, job))
        except CancelledError:
            raise
        except WsdError as error:
            LOGGER.info("no more proposals of the draft model: %s", error)
            job.proposals.abandon()
            return ()

    def _next_base_token(self, job: Job, tokens: Sequence[int], proposed: Sequence[int], begun: float) -> Question:
        """The next token, and those after it as long as they are the ones that were proposed."""
        sampler, watch, alone = job.writer, job.stopwatch, self._alone
        timed = watch.base_begun  # the first evaluation may carry a prompt
        expected = [*tokens, *proposed]
        scored = job.probabilities or job.written is not None
        refused = False

        def answer(position: int, row: int) -> None:
            nonlocal begun, refused
            if refused or job.decoding.phase is not Phase.CONTINUE:
                return
            writer = self._context(job.writes)
            if _draft_returns(job, writer, row):
                refused = True
                return
            token = writer.sample(row, sampler)
            score = writer.score(row, token, top=job.top) if scored else None
            if timed:
                now = watch.clock()
                watch.base_s += now - begun
                watch.base_steps += 1
                begun = now
            watch.base_begun = True
            refused = expected[position + 1 : position + 2] != [token]
            if alone:
                job.outcome.written += 1
                job.outcome.accepted += not refused
            if writer.model.is_eog(token):
                job.decoding.base_ended()
            else:
                job.decoding.continued(token, score)
                if sampler.over:
                    job.decoding.base_ended(complete=True)

        question = self._guarded(job, expected, len(tokens) - 1, answer)
        limits = job.decoding.limits
        question.writing = Writing(sampler, limits.max_tokens - job.decoding.reply_length, limits.stops)
        question.top = job.top if scored else None
        return question

    @staticmethod
    def _guarded(job: Job, tokens: Sequence[int], row: int, answer: Callable[[int, int], None]) -> Question:
        def guarded(position: int, row: int) -> None:
            try:
                if job.error is None:
                    answer(position, row)
            except (CancelledError, WorkerError):
                raise
            except WsdError as error:  # ends this job alone: the others of the batch go on
                job.error = error

        return Question(-1, tokens, row, guarded)

    # -- evaluations -----------------------------------------------------------------------------------------

    def _step(self, role: Source, questions: Mapping[Job, Question], jobs: Sequence[Job]) -> None:
        context = self._context(role)
        chosen: dict[Job, Question] = {}
        room = context.cells
        for job, question in questions.items():
            if question.end > context.n_ctx:
                advice = room_advice(context.n_ctx, context.model.n_ctx_train)
                job.error = FitError(f"{question.end} tokens do not fit into a context of {context.n_ctx}; {advice}")
            elif question.end <= room and len(chosen) < context.n_seq:
                chosen[job] = question
                room -= question.end
        if not chosen:
            return
        self._seats[role].assign(context, chosen, jobs)
        self._seats[role].make_room(context, chosen, room)
        clock = next(iter(chosen)).stopwatch.clock
        before, begun = context.evaluated, clock()
        context.step(list(chosen.values()))
        for job, question in chosen.items():
            if question.begun is not None or question.done:
                job.cached.setdefault(role, question.end if question.begun is None else question.begun)
            if question.begun is not None:
                job.has_read(role, len(context.held(question.seq)) - question.begun, question.end - question.begun)
            if self._alone:
                job.observe(role, context.evaluated - before, clock() - begun)
            else:
                job.observe(role)

    def write(self, job: Job, role: Source, tokens: Sequence[int], sampler: TokenSampler) -> int | None:
        """The token that a model writes after `tokens`, evaluated for one job that is alone; None if it ends there.

        Raises:
            CancelledError: the work was stopped.
            WsdError: the evaluation failed.
        """
        found: list[int] = []
        context = self._context(role)
        if len(tokens) > context.n_ctx:
            raise FitError(f"{len(tokens)} tokens do not fit into a context of {context.n_ctx}")

        def answer(_position: int, row: int) -> None:
            found.append(context.sample(row, sampler))

        question = Question(-1, tokens, len(tokens) - 1, answer)
        try:
            while not question.done:
                self._stop.check()
                self._step(role, {job: question}, [job])
        finally:
            job.count(role, question)
        return None if context.model.is_eog(found[0]) else found[0]

    def held(self, job: Job, role: Source, tokens: Sequence[int]) -> int:
        """Number of leading `tokens` that the job's sequence holds."""
        seq = self._seats[role].of(job)
        return 0 if seq is None else common_prefix(self._context(role).held(seq), tokens)

    def live(self, job: Job, role: Source, tokens: Sequence[int], start: int) -> int:
        """Number of consecutive positions of `tokens`, from `start` on, whose logits are available."""
        seq = self._seats[role].of(job)
        return 0 if seq is None else self._context(role).live(seq, tokens, start)

    def n_ctx(self, role: Source) -> int:
        """Tokens that a sequence of this model can hold."""
        return self._context(role).n_ctx


def _draft_returns(job: Job, context: TokenContext, row: int) -> bool:
    """Whether the draft takes the reply up, before the base writes a token from a row."""
    relay = job.decoding
    if not isinstance(relay, Relay) or not relay.may_return:
        return False
    best = context.best(row)
    return relay.returns(best, math.exp(context.score(row, best).logprob), ends=context.model.is_eog(best))


def _draft_has_read(job: Job) -> bool:
    """Let the draft read the reply so far if it begins to write again; False if that ended the job."""
    if job.redraft is not None and isinstance(job.decoding, Relay) and job.decoding.take_rereading():
        try:
            job.redraft(job)
        except WsdError as error:  # of this job alone
            job.error = error
    return job.error is None


class _JobSequences:
    """One job's sequences, for its proposals."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self.n_ctx = engine.n_ctx
        self.held = partial(engine.held, job)
        self.live = partial(engine.live, job)
        self.write = partial(engine.write, job)
