"""One reply over loaded models, from its prompts to its `Reply`.

Contract: everything that can be checked before any work is checked when a run is made: its settings, and that the
prompt fits both contexts (older turns are left out whole if need be). A cancelled run can be resumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from wsd_local.constraints.constraint import Constraint
from wsd_local.constraints.matching import Matcher
from wsd_local.core.alignment import After
from wsd_local.core.costs import Experience
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.draft import DraftOptions
from wsd_local.core.relay import Relay
from wsd_local.core.rounds import Speculated
from wsd_local.core.rule_settings import LEADING
from wsd_local.core.rules import require_threshold
from wsd_local.core.sampling import Sampling
from wsd_local.core.speculation import Speculator
from wsd_local.core.text import THINKING_MARKS
from wsd_local.core.turns import Turn, with_open_one, within
from wsd_local.core.written import Written, reply_tokens
from wsd_local.errors import CancelledError, UsageError
from wsd_local.events import Event, Notice, Source
from wsd_local.library.naming import name_of
from wsd_local.llama import Model, Sampler
from wsd_local.paths import demo_dir
from wsd_local.prompts.messages import Message, supplied_prefix
from wsd_local.prompts.raw import RawPrompt
from wsd_local.prompts.templates import never
from wsd_local.runtime.engine import Engine
from wsd_local.runtime.job import Job
from wsd_local.runtime.loading import LoadedModels, roles_of
from wsd_local.runtime.machines import Parts, make_machine
from wsd_local.runtime.misplaced import misplaced
from wsd_local.runtime.places import is_remote, limits_of
from wsd_local.runtime.prepare import prepare
from wsd_local.runtime.proposals import SpeculativeProposals
from wsd_local.runtime.provenance import provenance
from wsd_local.runtime.redrafting import Redrafting
from wsd_local.runtime.reply import Constrained, Finished, Part, Reply, ReplyProgress, Switch, Timings
from wsd_local.runtime.stopwatch import Stopwatch
from wsd_local.settings import ReplySettings
from wsd_local.units import plural

DEMO_TURNS = 5
"""Questions in a conversation from which the embedded pair begins to get known facts wrong."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a reply is worked on, beside its settings.

    Args:
        wait: whether the reply waits if the models are in use.
        left_out: turns that an earlier reply of the same session has left out; None outside sessions.
        clock: a time in seconds, for the timings.
        endless_draft: whether the draft model never ends its turn, for measurements.
        experience: what proposals go by; None: what was measured of these models so far.
        stopped: whether to stop; called from time to time while the reply is prepared.
        whole: whether a conversation that does not fit is an error; else its oldest turns are left out.
        details: alternatives for each token in `Wrote` events; None: no such events.
    """

    wait: bool = True
    left_out: int | None = None
    clock: Callable[[], float] = time.perf_counter
    endless_draft: bool = False
    experience: Experience | None = None
    stopped: Callable[[], bool] = never
    whole: bool = False
    details: int | None = None


class Run:
    """One reply, from its prompts to its `Reply`. Iterating over it works on it, event by event.

    Args:
        models: loaded here if they are not.
        engine: drives replies over these models.
        messages: the conversation to answer, or what is to be continued as it is.
        settings: those of the reply.
        options: how it is worked on.

    Raises:
        UsageError: a setting does not go with the messages.
        FitError: the newest message alone does not fit into a context.
    """

    def __init__(
        self,
        models: LoadedModels,
        engine: Engine,
        messages: list[Message] | RawPrompt,
        settings: ReplySettings,
        options: RunOptions | None = None,
    ) -> None:
        self._raw = messages if isinstance(messages, RawPrompt) else None
        self.messages: list[Message] = [] if isinstance(messages, RawPrompt) else messages
        self.settings = settings
        self._models, self._engine = models, engine
        self._options, self._place = options or RunOptions(), models.queue.place()
        self._roles = roles_of(settings.mode)
        self._writer: Source = self._roles[-1]
        self._announced = False
        watch = Stopwatch(self._options.clock)
        watch.resume()
        with models.ready(settings.mode):
            self._names = {role: name_of(models.model(role)) for role in self._roles}
            self.prepared = prepare(
                models,
                messages,
                settings,
                left_out=self._options.left_out,
                whole=self._options.whole,
                cancelled=self._is_cancelled,
            )
            self._room = models.n_ctx(self._writer) - len(self.prepared.tokens(self._writer))
            self.job = self._job(watch)
            self._proposals = self._speculative()
            self.job.proposals = self._proposals
        watch.update()

    def _job(self, watch: Stopwatch) -> Job:
        settings, models, drafts = self.settings, self._models, len(self._roles) == 2
        constraint, writer = settings.constraint, self._writer
        model, draft = models.model(writer), models.model("draft") if drafts else None
        self._texts = {} if constraint is None else {role: self._begun(constraint, role) for role in self._roles}
        self._sampling = settings.sampling.seeded().within(models.n_ctx(writer))
        drafting, seed = settings.draft_sampling, self._sampling.seed
        self._draft_sampling = (drafting if drafting.seed is not None else replace(drafting, seed=seed)).seeded()
        if drafts:
            self._draft_sampling = self._draft_sampling.within(models.n_ctx("draft"))
        stops = () if settings.ignore_eos or constraint is not None else self.prepared.stops
        prompt, details = self.prepared.prompts[writer], self._options.details
        given = self._raw is not None and self._raw.tokens is not None
        vocabulary = After(prompt.tokens, model.tokenize_text, model.piece) if given else model
        limits = limits_of(models, settings, self._room, stops)
        exact = constraint is not None or (self._raw is not None and not drafts)
        form = DraftOptions(verbatim=self._continues, exact=exact)
        top = details or 0
        opening, sampling = self.prepared.tokens("draft"), self._sampling
        parts = Parts(model, vocabulary, prompt, limits, form, top, writer, drafts, opening, sampling)
        machine = make_machine(models, settings, parts)
        return Job(
            machine,
            Sampler(self._sampling, model, ignore_eos=settings.ignore_eos, matcher=self._text(writer)),
            None if draft is None else self._draft_sampler(draft),
            draft_tokens=list(self.prepared.tokens("draft")),
            spelled={} if draft is None or constraint is not None else draft.spelled(THINKING_MARKS),
            writes=writer,
            redraft=self._redrafting(draft).begin if isinstance(machine, Relay) and draft is not None else None,
            probabilities=settings.probabilities,
            names=self._names,
            written=None if details is None else Written(machine, model.piece),
            top=top,
            stopwatch=watch,
        )

    @property
    def _continues(self) -> bool:
        """Whether the reply goes on with a text that the caller supplied."""
        return self._raw is not None or supplied_prefix(self.messages) is not None

    def _draft_sampler(self, draft: Model) -> Sampler:
        endless = self._options.endless_draft
        return Sampler(self._draft_sampling, draft, ignore_eos=endless, matcher=self._text("draft"))

    def _redrafting(self, draft: Model) -> Redrafting:
        """What later turns of the draft start from."""
        messages = None if self._raw is not None else self.prepared.messages
        prompt, form = self.prepared.tokens("draft"), self._models.draft_format
        endless = self._options.endless_draft
        return Redrafting(draft, form, messages, prompt, self._draft_sampling, endless, lambda: self._text("draft"))

    def _is_cancelled(self) -> bool:
        return self._options.stopped() or self._models.queue.is_cancelled(self._place)

    def _begun(self, constraint: Constraint, role: Source) -> Matcher:
        """A matcher at the beginning of the reply: after the beginning of the answer that the caller supplied."""
        matcher = self._models.grammars.matcher(constraint, self._models.model(role), self._is_cancelled)
        supplied = None if self._raw is not None else supplied_prefix(self.messages)
        if not matcher.feed((supplied or "").encode()):
            raise UsageError(
                f"the answer's supplied beginning is not the beginning of a text that {constraint.name} allows; "
                "leave it out, or let it begin such a text",
                about=constraint.kind,
            )
        return matcher

    def _text(self, role: Source) -> Matcher | None:
        """A new matcher for what one model writes; None without a constraint."""
        begun = self._texts.get(role)
        return None if begun is None else begun.copy()

    def _speculative(self) -> SpeculativeProposals | None:
        """Proposals for the continuation, if they are wanted and can be taken back."""
        models, wanted = self._models, self.settings.speculation
        model, draft = models.model(self._writer), models.model("draft") if len(self._roles) == 2 else None
        none = wanted == "off" or self.settings.rule in LEADING or is_remote(models, self._writer)
        if none or model.is_recurrent or models.loading.resident == "one":
            return None
        if wanted == "lookup" or draft is None or draft.is_recurrent:
            draft, drafter = None, None
        else:
            drafter = Sampler(Sampling(), draft, ignore_eos=self.settings.ignore_eos)
        speculator = Speculator(
            self._options.experience or models.experience,
            self._writer,
            model,
            draft,
            list(self.prepared.tokens("draft")),
            self.machine.prompt_length,
            lookup=wanted != "draft",
        )
        return SpeculativeProposals(speculator, self.machine, self._writer, self.job.writer, drafter)

    @property
    def _seeds(self) -> tuple[int | None, int | None]:
        return self._sampling.seed, self._draft_sampling.seed

    @property
    def machine(self) -> Decoding:
        """The state machine, for steering and for looking."""
        return self.job.decoding

    def hand_over(self) -> None:
        """Let the base continue from what is shown. From any thread; it is done before the next evaluation."""
        self.job.steering.append(lambda machine: machine.hand_over())

    def steer(self, threshold: float) -> None:
        """Let another threshold hold from here on, above 1 none at all. From any thread, as `hand_over`.

        Raises:
            UsageError: it is negative or not a number.
        """
        require_threshold(threshold)
        self.job.steering.append(lambda machine: machine.steer(threshold))

    @property
    def n_ctx(self) -> int:
        """Tokens that the context of the model that continues holds."""
        return self._models.n_ctx(self._writer)

    @property
    def left_out(self) -> int:
        """Turns at the beginning of the conversation that do not fit into the context."""
        return self.prepared.left_out

    def events(self) -> Generator[Event, None, None]:
        """Work until the reply is done or cancelled. After a cancel, called again, it goes on.

        Raises:
            BusyError: the pair is in use, and waiting was not wanted or could never end.
            WsdError: it cannot go on, or the pair was closed.
        """
        try:
            yield from self._models.queue.hold(self._place, self._work(), wait=self._options.wait)
        except CancelledError:  # while it waited
            yield Finished(self.reply)

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def cancel(self) -> None:
        """Stop this reply, from any thread, whether it is in progress or waits; its partial reply stays."""
        self._models.queue.cancel(self._place)

    def _work(self) -> Iterator[Event]:
        self._models.load(self.settings.mode)  # again, if a worker was lost since
        yield from self.opening()
        yield from self._engine.drive(self.job)
        yield from self.closing()

    def opening(self) -> Iterator[Event]:
        """Notices before any work."""
        constraint = self.settings.constraint
        if constraint is not None and (unknown := self._models.grammars.notice(constraint)):
            yield Notice(unknown)
        if self.left_out and not self._options.left_out and not self._announced:
            self._announced = True
            yield Notice(f"the context is full: older turns are left out from here on ({self.left_out} now)")
        if len(self._roles) == 2:
            for line in misplaced(self._models.model("draft"), self._models.model("base")):
                if line not in self._models.noticed:
                    self._models.noticed.add(line)
                    yield Notice(line)
        if self._is_long_for_the_demo():
            yield Notice(
                "the embedded pair is made for single questions, and its answers get worse in a longer chat: "
                "begin a new one, or use another pair (wsd-local models list)"
            )

    def _is_long_for_the_demo(self) -> bool:
        """Whether a conversation with the embedded pair has just become too long for it."""
        questions = sum(message["role"] == "user" for message in self.messages)
        return questions == DEMO_TURNS and demo_dir() in self._models.paths[self._writer].parents

    def closing(self) -> Iterator[Event]:
        """Notices when the work is done, and the whole reply."""
        if self.machine.finish_reason == "length" and self._room < self.settings.max_tokens:
            yield Notice(
                f"the context is full: the reply was cut after {plural(self._room, 'token')}{self._more_room()}"
            )
        yield Finished(self.reply)

    @property
    def reply(self) -> Reply:
        """The reply as far as it went."""
        machine, settings = self.machine, self.settings
        tokens = tuple(reply_tokens(machine))
        kept = sum(1 for token in tokens if token.source == "draft")
        reason = "cancelled" if machine.phase is Phase.DRAFT and not machine.turns else machine.switch_reason
        return Reply(
            messages=self.prepared.messages,
            text=machine.text,
            finish_reason=machine.finish_reason or "cancelled",
            stop=machine.stop if machine.finish_reason == "stop" else None,
            draft=Part(self._names.get("draft"), machine.draft_text, kept, self._drafted(kept)),
            base=Part(self._names.get("base"), machine.base_text, len(tokens) - kept),
            switch=Switch(
                machine.switch_index,
                reason,
                machine.switch_confidence,
                settings.window,
                machine.rule.threshold,
                settings.rule,
            ),
            timings=self.timings,
            tokens=tokens,
            discarded=machine.discarded,
            counts=machine.counts,
            provenance=provenance(self._models, settings, self._seeds, self.prepared.template_date),
            prompt_ids=self.prepared.ids(),
            cached={role: min(self.job.cached.get(role, 0), len(ids)) for role, ids in self.prepared.ids().items()},
            draft_ids=self.job.draft_ids if len(self._roles) == 2 else (),
            turns=within(self._turns(), len(tokens)),
            constraint=self._constrained(),
            speculation=Speculated() if self._proposals is None else self._proposals.report(),
        )

    def _turns(self) -> Sequence[Turn]:
        machine = self.machine
        if machine.phase is Phase.DONE:
            return machine.turns
        who = "draft" if machine.phase is Phase.DRAFT and not machine.called_back else machine.writer
        return with_open_one(machine.turns, who, machine.shown_tokens)

    def _constrained(self) -> Constrained | None:
        constraint, text = self.settings.constraint, self._text(self._writer)
        if constraint is None or text is None:
            return None
        return Constrained(constraint.kind, text.feed(self.machine.text.encode()) and text.may_end)

    @property
    def progress(self) -> ReplyProgress:
        """How far the reply has come, from any thread; much cheaper than `reply`."""
        machine, alone = self.machine, self._writer == "draft"
        continued = machine.continued_tokens
        return ReplyProgress(
            phase=machine.phase,
            draft_tokens=continued if alone else machine.counts.drafted_tokens,
            base_tokens=0 if alone else continued,
            context_tokens=machine.prompt_length + machine.reply_length,
            n_ctx=self.n_ctx,
            timings=self.timings,
        )

    @property
    def timings(self) -> Timings:
        """Times and rates of the reply so far, from any thread."""
        watch = self.job.stopwatch
        drafting = watch.draft_steps / watch.draft_s if watch.draft_s else None
        writing = watch.base_steps / watch.base_s if watch.base_s else None
        alone = self._writer == "draft"
        return Timings(
            first_text_s=watch.first_text,
            switch_s=watch.switch,
            token_40_s=watch.token_40,
            longest_gap_s=watch.longest_gap or None,
            total_s=watch.total,
            draft_tokens_per_s=writing if alone else drafting,
            base_tokens_per_s=None if alone else writing,
            draft_prompt_tokens=len(self.prepared.tokens("draft")),
            base_prompt_tokens=0 if alone else self.machine.prompt_length,
            draft_evaluated_tokens=self.job.evaluated.get("draft", 0),
            base_evaluated_tokens=self.job.evaluated.get("base", 0),
        )

    def _drafted(self, kept: int) -> int:
        return kept if self._writer == "draft" else self.machine.counts.drafted_tokens

    def _more_room(self) -> str:
        can_grow = all(self._models.n_ctx(role) < self._models.model(role).n_ctx_train for role in self._roles)
        return "; raise --ctx" if can_grow else ""
