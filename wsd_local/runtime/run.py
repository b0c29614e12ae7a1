"""One reply over a pair, from its prompts to its `Reply`.

Contract: preparing checks everything that can be checked before any work: that the prompt fits both contexts (older
turns left out whole if need be), and that settings can be meant. A run that was cancelled can be gone on with.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from wsd_local.constraints.constraint import Constraint
from wsd_local.core.decoding import Decoding, Phase
from wsd_local.core.rules import require_threshold
from wsd_local.core.sampling import Sampling
from wsd_local.core.speculation import Speculated, Speculator
from wsd_local.core.text import THINKING_MARKS
from wsd_local.errors import CancelledError, FitError, UsageError, room_advice, short
from wsd_local.events import Event, Notice, Source
from wsd_local.library.naming import name_of
from wsd_local.llama import Matcher, Model, Sampler
from wsd_local.llama.build import version
from wsd_local.paths import demo_dir
from wsd_local.prompts.base_format import urial_format
from wsd_local.prompts.messages import Message, supplied_prefix, trimmed
from wsd_local.runtime.engine import Job, Stopwatch
from wsd_local.runtime.reply import Constrained, Finished, Part, Reply, ReplyProgress, Switch, Timings
from wsd_local.settings import ReplySettings, plain
from wsd_local.units import plural
from wsd_local.version import __version__

if TYPE_CHECKING:
    from wsd_local.runtime.pair import Pair

RESERVE = 64
"""Tokens that must be left for the reply, beside one window, before any work begins."""

DEMO_TURNS = 5
"""Questions of a conversation at which the embedded pair begins to answer wrongly what it knows."""

ROOM_FOR_LATER = 0.5
"""Share of the context that is freed when a session must leave out turns."""

ProgressCallback = Callable[[Source, int, int], None]


@dataclass(slots=True)
class _Prompts:
    """What both models read of a conversation that fits."""

    messages: list[Message]
    draft: list[int]
    base: str
    base_length: int
    date: str | None
    dropped: int = 0


class Run:
    """One reply, from its prompts to its `Reply`. Iterating over it works on it, event by event.

    `wait`: whether it waits for a pair that is in use. `left_out`: turns that an earlier reply of the same session has
    left out already; None outside sessions, where as few as possible are.
    """

    def __init__(
        self,
        pair: Pair,
        messages: list[Message],
        settings: ReplySettings,
        progress: ProgressCallback | None,
        left_out: int | None = None,
        *,
        wait: bool = True,
    ) -> None:
        if progress is not None and not callable(progress):
            raise UsageError(f"progress is {short(progress)}: it must be a function")
        watch = Stopwatch()
        watch.resume()
        self.messages = messages
        self.settings = settings
        self._pair = pair
        self._turn, self._wait = pair.turns.turn(), wait
        self._sampling = settings.sampling.seeded()
        drafting = settings.draft_sampling
        self._draft_sampling = (
            drafting if drafting.seed is not None else replace(drafting, seed=self._sampling.seed)
        ).seeded()
        self._roles = pair.roles(settings.mode)
        self._names = {role: name_of(pair.model(role)) for role in self._roles}
        self._format = pair.base_format if settings.urial is None else urial_format(settings.urial)
        self._writer: Source = self._roles[-1]
        self._left_out = left_out
        self._prompts = self._fitted()
        drafts = len(self._roles) == 2
        self._room = pair.n_ctx(self._writer) - self._prompts.base_length
        constraint = settings.constraint
        stops = () if settings.ignore_eos or constraint is not None else self._format.stops
        self._texts = {} if constraint is None else {role: self._begun(constraint, role) for role in self._roles}
        machine = Decoding(
            pair.model(self._writer),
            self._prompts.draft if self._writer == "draft" else self._prompts.base,
            settings.rule(),
            settings.limits(self._room, stops, whole_draft=pair.loading.resident == "one"),
            writer=self._writer,
            drafting=drafts,
            verbatim=supplied_prefix(messages) is not None,
            exact=constraint is not None,
        )
        model, draft_model = pair.model(self._writer), pair.model("draft") if drafts else None
        self.job = Job(
            machine,
            Sampler(self._sampling, model, ignore_eos=settings.ignore_eos, matcher=self._text(self._writer)),
            None if draft_model is None else Sampler(self._draft_sampling, draft_model, matcher=self._text("draft")),
            draft_tokens=list(self._prompts.draft),
            spelled={} if draft_model is None or constraint is not None else draft_model.spelled(THINKING_MARKS),
            writes=self._writer,
            probabilities=settings.probabilities,
            progress=progress,
            stopwatch=watch,
        )
        self._speculate(model, draft_model)
        self._told = False
        watch.now()

    def _begun(self, constraint: Constraint, role: Source) -> Matcher:
        """Where the reply begins in a text that follows the constraint: after what the caller supplied of it."""
        matcher = self._pair.matcher(constraint, role, partial(self._pair.turns.is_cancelled, self._turn))
        if not matcher.feed((supplied_prefix(self.messages) or "").encode()):
            raise UsageError(
                f"the answer's supplied beginning is not the beginning of a text that {constraint.name} allows; "
                "leave it out, or let it begin such a text"
            )
        return matcher

    def _text(self, role: Source) -> Matcher | None:
        """A text of one model at the reply's beginning, None if it is free."""
        begun = self._texts.get(role)
        return None if begun is None else begun.copy()

    def _speculate(self, model: Model, draft: Model | None) -> None:
        """Give the job proposals for its continuation, if they are wanted and can be taken back."""
        wanted = self.settings.speculation
        if wanted == "off" or model.is_recurrent or self._pair.loading.resident == "one":
            return
        if wanted == "lookup" or draft is None or draft.is_recurrent:
            draft = None
        else:
            self.job.proposer = Sampler(Sampling(), draft, ignore_eos=self.settings.ignore_eos)
        self.job.speculator = Speculator(
            self._pair.engine.experience,
            self._writer,
            model,
            draft,
            self._prompts.draft,
            self.machine.prompt_length,
            (model.n_vocab, 0 if draft is None else draft.n_vocab),
            lookup=wanted != "draft",
            greedy=self._sampling.temperature == 0,
        )

    @property
    def machine(self) -> Decoding:
        """The state machine, for steering and for looking."""
        return self.job.machine

    def hand_over(self) -> None:
        """Let the base continue from what is shown. From any thread; it is done before the next evaluation."""
        self.job.steering.append(Decoding.hand_over)

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
        return self._pair.n_ctx(self._writer)

    def preread(self) -> Iterator[tuple[Source, list[int]]]:
        """What both models would read first: for sessions that prepare their next turn."""
        tokens = {"draft": self._prompts.draft}
        if "base" in self._roles:
            tokens["base"] = self._pair.model("base").tokenize(self._prompts.base)
        for role in self._roles:
            yield role, tokens[role]

    @property
    def left_out(self) -> int:
        """Turns at the beginning of the conversation that do not fit into the context."""
        return self._prompts.dropped

    def events(self) -> Generator[Event, None, None]:
        """Work until the reply is done or cancelled. After a cancel, called again, it goes on.

        Raises:
            BusyError: the pair is in use, and waiting was not wanted or could never end.
            WsdError: it cannot go on, or the pair was closed.
        """
        try:
            yield from self._pair.turns.hold(self._turn, self._work(), wait=self._wait)
        except CancelledError:  # while it waited for its turn
            yield Finished(self.reply)

    def __iter__(self) -> Iterator[Event]:
        return self.events()

    def cancel(self) -> None:
        """Stop this reply, from any thread, whether it is in progress or waits; its partial reply stays."""
        self._pair.turns.cancel(self._turn)

    def _work(self) -> Iterator[Event]:
        yield from self.opening()
        yield from self._pair.engine.drive(self.job)
        yield from self.closing()

    def opening(self) -> Iterator[Event]:
        """What is to be said before any work."""
        if self.settings.constraint is not None and (unknown := self._pair.said_once(self.settings.constraint)):
            yield Notice(unknown)
        if self.left_out and not self._left_out and not self._told:
            self._told = True
            yield Notice(f"the context is full: older turns are left out from here on ({self.left_out} now)")
        if self._is_long_for_the_demo():
            yield Notice(
                "the embedded pair is made for single questions, and its answers get worse in a longer chat: "
                "begin a new one, or use another pair (wsd-local models list)"
            )

    def _is_long_for_the_demo(self) -> bool:
        """Whether this is the turn of a conversation with the embedded pair at which it is to be said, once."""
        questions = sum(message["role"] == "user" for message in self.messages)
        return questions == DEMO_TURNS and demo_dir() in self._pair.model(self._roles[-1]).path.parents

    def closing(self) -> Iterator[Event]:
        """What is to be said when the work is over."""
        if self.machine.finish_reason == "length" and self._room < self.settings.max_tokens:
            yield Notice(
                f"the context is full: the reply was cut after {plural(self._room, 'token')}{self._more_room()}"
            )
        yield Finished(self.reply)

    @property
    def reply(self) -> Reply:
        """The reply as far as it went."""
        machine, settings = self.machine, self.settings
        tokens = tuple(machine.tokens())
        kept = sum(1 for token in tokens if token.source == "draft")
        reason = "cancelled" if machine.phase is Phase.DRAFT else machine.switch_reason
        return Reply(
            messages=tuple(self._prompts.messages),
            text=machine.text,
            finish_reason=machine.finish_reason or "cancelled",
            draft=Part(self._names.get("draft"), machine.draft_text, kept, self._drafted(kept)),
            base=Part(self._names.get("base"), machine.text[len(machine.draft_text) :], len(tokens) - kept),
            switch=Switch(
                machine.switch_index, reason, machine.switch_confidence, settings.window, machine.rule.threshold
            ),
            timings=self.timings,
            tokens=tokens,
            discarded=machine.discarded,
            counts=machine.counts,
            provenance=self._provenance(),
            prompt_ids=self._prompt_ids(),
            draft_ids=tuple(self.job.draft_tokens[len(self._prompts.draft) :]) if len(self._roles) == 2 else (),
            constraint=self._constrained(),
            speculation=Speculated() if self.job.speculator is None else self.job.speculator.report(),
        )

    def _constrained(self) -> Constrained | None:
        constraint, text = self.settings.constraint, self._text(self._writer)
        if constraint is None or text is None:
            return None
        return Constrained(constraint.kind, text.feed(self.machine.text.encode()) and text.may_end)

    def _prompt_ids(self) -> dict[Source, list[int]]:
        ids: dict[Source, list[int]] = {"draft": self._prompts.draft, "base": self.machine.prompt_tokens}
        return {role: ids[role] for role in self._roles}

    @property
    def progress(self) -> ReplyProgress:
        """How far the reply has come, from any thread; much cheaper than `reply`."""
        machine, alone = self.machine, self._writer == "draft"
        continued = 0 if machine.phase is Phase.DRAFT else machine.reply_length - machine.kept_tokens
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
            draft_prompt_tokens=len(self._prompts.draft),
            base_prompt_tokens=0 if alone else self.machine.prompt_length,
            draft_evaluated_tokens=self.job.evaluated.get("draft", 0),
            base_evaluated_tokens=self.job.evaluated.get("base", 0),
        )

    def _drafted(self, kept: int) -> int:
        return kept if self._writer == "draft" else self.machine.counts.drafted_tokens

    def _more_room(self) -> str:
        can_grow = all(self._pair.n_ctx(role) < self._pair.model(role).n_ctx_train for role in self._roles)
        return "; raise --ctx" if can_grow else ""

    def _provenance(self) -> dict[str, Any]:
        settings = plain(self.settings, self._pair.loading)
        settings["seed"], settings["draft_seed"] = self._sampling.seed, self._draft_sampling.seed
        return {
            "version": __version__,
            "llama_cpp": version(),
            "draft_sha256": self._pair.hashes.get("draft"),
            "base_sha256": self._pair.hashes.get("base"),
            "draft_lora_sha256": self._pair.hashes.get("draft_lora"),
            "base_lora_sha256": self._pair.hashes.get("base_lora"),
            "settings": settings,
            "plan": None if self._pair.plan is None else self._pair.plan.as_dict(),
            "template_date": self._prompts.date,
        }

    def _fitted(self) -> _Prompts:
        if self._left_out is None:
            messages, dropped = trimmed(self.messages, self._fits)
        else:
            messages, dropped = trimmed(self.messages, self._fits, self._is_roomy, self._left_out)
        prompts = self._prompted(messages)
        for role, length in self._lengths(prompts).items():
            room = self._pair.n_ctx(role)
            need = length + self.settings.window + RESERVE
            if need > room:
                raise FitError(
                    f"the prompt is too long: {length} {role} tokens, {need} with room for a reply, "
                    f"and the context holds {room}; {room_advice(room, self._pair.model(role).n_ctx_train)}"
                )
        prompts.dropped = dropped
        return prompts

    def _fits(self, messages: list[Message], share: float = 0.0) -> bool:
        """Whether a reply has room behind the messages, and `share` of the context besides."""
        reserve = self.settings.window + RESERVE
        for role, length in self._lengths(self._prompted(messages)).items():
            n_ctx = self._pair.n_ctx(role)
            if length + reserve + share * n_ctx > n_ctx:
                return False
        return True

    def _is_roomy(self, messages: list[Message]) -> bool:
        return self._fits(messages, ROOM_FOR_LATER)

    def _lengths(self, prompts: _Prompts) -> dict[Source, int]:
        lengths: dict[Source, int] = {"draft": len(prompts.draft), "base": prompts.base_length}
        return {role: lengths[role] for role in self._roles}

    def _prompted(self, messages: list[Message]) -> _Prompts:
        cancelled = partial(self._pair.turns.is_cancelled, self._turn)
        rendered = self._pair.draft_format.prompt(messages, cancelled) if "draft" in self._roles else None
        draft = [] if rendered is None else rendered.tokens
        base = self._format.prompt(messages)
        length = len(self._pair.model("base").tokenize(base)) if "base" in self._roles else len(draft)
        return _Prompts(messages, draft, base, length, None if rendered is None else rendered.date)
