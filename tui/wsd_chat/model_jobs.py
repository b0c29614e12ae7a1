"""Jobs for the models' thread: load a pair, answer, compare, prepare the next turn.

Contract: functions of the worker and plain values in, news (dataclasses below, and events of `wsd_local`) out. Nothing
here knows the screen.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.core.decoding import Phase
from wsd_local.errors import CancelledError, WsdError
from wsd_local.events import Event, Source
from wsd_local.library.catalog import DEFAULT_PAIR
from wsd_local.library.naming import name_of
from wsd_local.prompts.messages import Message
from wsd_local.runtime.loading import roles_of
from wsd_local.runtime.pair import Pair, load
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.run import Run
from wsd_local.runtime.session import Session
from wsd_local.runtime.worker import Worker

PULSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Loading:
    """A model is being loaded; the fraction that is there."""

    role: Source
    fraction: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pair can answer. `notes` is what was given up to fit into memory."""

    name: str
    draft: str
    base: str
    n_ctx: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A model reads a prompt."""

    role: Source
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Began:
    """An answer began; `key` names it in all that follows."""

    key: str


@dataclass(frozen=True, slots=True)
class Said:
    """Something happened in an answer."""

    key: str
    event: Event


@dataclass(frozen=True, slots=True)
class Pulse:
    """How an answer goes: phase, tokens per second of each model, context used, seconds to the first text."""

    phase: str
    draft_rate: float | None
    base_rate: float | None
    used: int
    n_ctx: int
    first_text_s: float | None


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes of an answer that did not fail."""

    key: str


@dataclass(slots=True)
class Wanted:
    """What to load: a pair's name, or models by name or path, and settings."""

    pair: str | None
    draft: str | None
    base: str | None
    settings: Mapping[str, Any]
    prepare: bool = True

    @property
    def name(self) -> str:
        """What people call it."""
        own = [Path(one).stem for one in (self.draft, self.base) if one]
        return " + ".join([self.pair or DEFAULT_PAIR, *own] if len(own) == 1 else own or [self.pair or DEFAULT_PAIR])


def load_job(worker: Worker, wanted: Wanted) -> None:
    """Load a pair in place of the one that is there."""
    if worker.pair is not None:
        worker.pair.close()
        worker.pair = None

    def progress(role: Source, fraction: float) -> bool:
        worker.publish(Loading(role, fraction))
        return not worker.stopped

    pair = load(wanted.pair, draft=wanted.draft, base=wanted.base, progress=progress, **wanted.settings)
    if worker.stopped:
        pair.close()
        raise WsdError("stopped while loading")
    worker.pair = pair
    roles = roles_of(pair.settings.mode)
    names = {role: name_of(pair.models.model(role)) for role in roles}
    notes = () if pair.models.plan is None else pair.models.plan.given_up
    worker.publish(
        Loaded(wanted.name, names.get("draft", ""), names.get("base", ""), min(map(pair.models.n_ctx, roles)), notes)
    )


def loaded(worker: Worker) -> Pair:
    """The pair that is there.

    Raises:
        WsdError: there is none.
    """
    if worker.pair is None:
        raise WsdError("no pair is loaded; F8 chooses one")
    return worker.pair


class Answering:
    """Answers of one conversation; keeps the session, so that a stopped reply can be gone on with."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.key = ""
        self._goes_on = False

    @property
    def run(self) -> Run | None:
        """The reply that is being written."""
        return self.session.run if self._goes_on and self.session is not None else None

    def answer(self, worker: Worker, key: str, messages: list[Message], overrides: dict[str, Any]) -> None:
        """Answer the last message, or go on with it if it is an answer. News carry `key`."""
        if worker.stopped:
            worker.publish(Ended(key))
            return
        pair, before = loaded(worker), self.session
        goes_on = before is not None and before.pair is pair and messages[: len(before.messages)] == before.messages
        left_out = before.left_out if goes_on and before is not None else 0
        session = Session(pair, messages=list(messages), left_out=left_out)
        self.session, self.key = session, key
        self._follow(worker, key, session, session.stream_complete(progress=self._reader(worker), **overrides))

    def go_on(self, worker: Worker, key: str) -> bool:
        """Go on with the reply that was stopped; False if it is not the last one of this session."""
        session = self.session
        if session is None or self.key != key or session.run is None or session.pair is not worker.pair:
            return False
        if worker.stopped:
            worker.publish(Ended(key))
            return True
        self._follow(worker, key, session, session.stream_resume())
        return True

    def prepare(self, worker: Worker) -> None:
        """Read what was said so far, while nobody asks."""
        if self.session is not None:
            self.session.prepare(lambda: worker.waits)

    @staticmethod
    def _reader(worker: Worker) -> Any:
        return lambda role, done, total: worker.publish(Reading(role, done, total))

    def _follow(self, worker: Worker, key: str, session: Session, events: Iterator[Event]) -> None:
        worker.publish(Began(key))
        last, self._goes_on = 0.0, True
        try:
            for event in events:
                worker.publish(Said(key, event))
                if worker.stopped:
                    session.cancel()
                now = time.monotonic()
                if session.run is not None and (now - last > PULSE_S or isinstance(event, Finished)):
                    last = now
                    worker.publish(pulse(session.run))
        except CancelledError:
            pass
        finally:
            self._goes_on = False
        worker.publish(Ended(key))


def pulse(run: Run) -> Pulse:
    """How a run goes."""
    timings, machine = run.reply.timings, run.machine
    phase = {Phase.DRAFT: "drafting", Phase.CONTINUE: "continuing", Phase.DONE: "ready"}[machine.phase]
    return Pulse(
        phase=phase,
        draft_rate=timings.draft_tokens_per_s,
        base_rate=timings.base_tokens_per_s,
        used=machine.prompt_length + machine.reply_length,
        n_ctx=run.n_ctx,
        first_text_s=timings.first_text_s,
    )
