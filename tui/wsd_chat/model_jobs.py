"""Jobs for the models' thread: load a pair, answer, continue, prepare the next turn.

Contract: functions of the worker and plain values in; news out: the dataclasses below, events of `wsd_local`, and
`ReplyProgress`. Nothing here knows the screen, and no reply is built while it is being written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsd_local.config import read_config
from wsd_local.core.decoding import Phase
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.events import Event, Reading, Source
from wsd_local.library.catalog import DEFAULT_PAIR
from wsd_local.library.naming import name_of
from wsd_local.prompts.messages import Message
from wsd_local.runtime.loading import roles_of
from wsd_local.runtime.pair import Pair, load
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.run import Run
from wsd_local.runtime.session import Session
from wsd_local.runtime.worker import Worker

PROGRESS_S = 0.2
"""How often the progress of a reply is published."""


@dataclass(frozen=True, slots=True)
class Loading:
    """A model is being loaded; `fraction`, 0 to 1, is loaded already."""

    role: Source
    fraction: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """A pair can answer. `notes` says what was given up to fit into memory."""

    name: str
    draft: str
    base: str
    n_ctx: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Began:
    """An answer began; `key` names it in all that follows."""

    key: str


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event of an answer."""

    key: str
    event: Event


@dataclass(frozen=True, slots=True)
class Ended:
    """An answer is over, and did not fail."""

    key: str


@dataclass(slots=True)
class Wanted:
    """What to load: a pair's name, or models by name or path, and settings that override the configuration's."""

    pair: str | None
    draft: str | None
    base: str | None
    settings: Mapping[str, Any]
    prepare: bool = True

    @property
    def name(self) -> str:
        """Its name for people."""
        own = [Path(one).stem for one in (self.draft, self.base) if one]
        return " + ".join([self.pair or DEFAULT_PAIR, *own] if len(own) == 1 else own or [self.pair or DEFAULT_PAIR])

    @property
    def in_effect(self) -> dict[str, Any]:
        """The configuration's settings for the pair, and `settings` over them."""
        config = read_config()
        replaced = [role for role, model in (("draft", self.draft), ("base", self.base)) if model]
        try:
            found = config.settings_of(self.pair, replaced)
        except UsageError:  # loading reports it
            found = dict(config.settings)
        return {**found, **self.settings}


def load_pair(worker: Worker, wanted: Wanted) -> None:
    """Load a pair in place of the present one."""
    if worker.pair is not None:
        worker.pair.close()
        worker.pair = None

    def progress(role: Source, fraction: float) -> bool:
        worker.publish(Loading(role, fraction))
        return not worker.stopped

    settings = {**wanted.in_effect, "prompt_cache": "off"}  # a chat may be off the record
    pair = load(wanted.pair, draft=wanted.draft, base=wanted.base, progress=progress, **settings)
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
    """The pair that is loaded.

    Raises:
        WsdError: there is none.
    """
    if worker.pair is None:
        raise WsdError("no pair is loaded; F8 chooses one")
    return worker.pair


class Answering:
    """Answers of one conversation; keeps the session, so that a stopped reply is continued where it stopped."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.key = ""
        self._is_writing = False

    @property
    def run(self) -> Run | None:
        """The reply that is being written."""
        return self.session.run if self._is_writing and self.session is not None else None

    def answer(self, worker: Worker, key: str, messages: list[Message], overrides: dict[str, Any]) -> None:
        """Answer the last message, or continue it if it is an answer. News carry `key`."""
        if worker.stopped:
            worker.publish(Ended(key))
            return
        pair, before = loaded(worker), self.session
        same = before is not None and before.pair is pair and messages[: len(before.messages)] == before.messages
        left_out = before.left_out if same and before is not None else 0
        session = Session(pair, messages=list(messages), left_out=left_out)
        self.session, self.key = session, key
        self._follow(worker, key, session, session.stream_complete(**overrides))

    def continue_(self, worker: Worker, key: str) -> bool:
        """Continue the reply that was stopped.

        Returns False if that is not the last one of this session, or if it came to its end (then at the length limit);
        `answer` continues its text.
        """
        session = self.session
        if session is None or self.key != key or session.run is None or session.pair is not worker.pair:
            return False
        if session.run.progress.phase is Phase.DONE:
            return False
        if worker.stopped:
            worker.publish(Ended(key))
            return True
        self._follow(worker, key, session, session.stream_resume())
        return True

    def prepare(self, worker: Worker) -> None:
        """Let the models read the conversation so far, so that the next reply begins at once."""
        if self.session is not None:
            self.session.prepare(lambda: worker.waits)

    def _follow(self, worker: Worker, key: str, session: Session, events: Iterator[Event]) -> None:
        worker.publish(Began(key))
        last, self._is_writing = 0.0, True
        try:
            for event in events:
                worker.publish(Emitted(key, event))
                if worker.stopped:
                    session.cancel()
                now = time.monotonic()
                if isinstance(event, Reading):  # nothing else advances, and its line stays
                    continue
                if session.run is not None and (now - last > PROGRESS_S or isinstance(event, Finished)):
                    last = now
                    worker.publish(session.run.progress)
        except CancelledError:
            pass
        finally:
            self._is_writing = False
        worker.publish(Ended(key))
