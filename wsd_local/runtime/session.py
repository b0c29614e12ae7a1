"""A conversation.

Contract: text that was shown stays in the conversation, also that of a cancelled reply. The KV caches of both models
are reused from turn to turn by longest common prefix, because every run names whole prompts. A conversation has one
answer in progress at a time: a question from another thread waits until that answer is complete, a question from
within its events is refused.

Each verb returns the `Reply` when it is complete (`send`, `regenerate`, `complete`, `resume`); a second method of each
yields the events (`stream`, `stream_regenerate`, `stream_complete`, `stream_resume`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wsd_local.core.alignment import common_prefix
from wsd_local.errors import BusyError, CancelledError, FitError, UsageError, short
from wsd_local.events import Event
from wsd_local.llama import Cancellation
from wsd_local.prompts.messages import Message, conversation
from wsd_local.runtime.places import read_ahead
from wsd_local.runtime.prepare import prepare
from wsd_local.runtime.queueing import ReplyQueue, waits
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.runtime.run import Run
from wsd_local.runtime.setup import Setup, start


@dataclass(slots=True)
class Session:
    """A conversation.

    Args:
        pair: the pair that answers.
        system: a system message.
        messages: the whole conversation.
        run: the newest reply.
        left_out: turns at the beginning that the context has no room for; the models do not read them.
        given: the beginning of the last answer, if the models did not write it in this session.
    """

    pair: Setup
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    run: Run | None = None
    left_out: int = 0
    given: str = ""
    _queue: ReplyQueue = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._queue = ReplyQueue("the conversation", Cancellation(), patience=None)
        if self.system is not None and not isinstance(self.system, str):
            raise UsageError(f"system is {short(self.system)}: it must be text")
        if not isinstance(self.messages, list):
            raise UsageError(f"messages are {short(self.messages)}: they must be a list of messages")
        if self.system is not None and not self.messages:
            self.messages.append({"role": "system", "content": self.system})

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.run = None

    def send(self, text: str, **overrides: Any) -> Reply:
        """Send a message and return the answer when it is complete. Overrides are those of `Pair.start`."""
        return self._done(self.stream(text, **overrides))

    def stream(self, text: str, **overrides: Any) -> Generator[Event, None, None]:
        """Send a message; the events of the answer. The conversation stays as it is if the message is refused.

        Raises:
            UsageError: the text or a setting is wrong.
            BusyError: an answer is in progress in this thread, or `busy="error"` was given and one is in any.
        """
        return self._in_turn(lambda: self._with(text), overrides)

    def regenerate(self, **overrides: Any) -> Reply:
        """Answer the last question again. The old answer leaves the conversation; a fork keeps it.

        Raises:
            UsageError: there is no question.
        """
        return self._done(self.stream_regenerate(**overrides))

    def stream_regenerate(self, **overrides: Any) -> Generator[Event, None, None]:
        """`regenerate`, event by event."""
        return self._in_turn(self._question, overrides)

    def complete(self, **overrides: Any) -> Reply:
        """Continue an answer of which only the text exists: the last message is its beginning.

        The reply is the rest of it.

        Raises:
            UsageError: there is nothing to answer.
        """
        return self._done(self.stream_complete(**overrides))

    def stream_complete(self, **overrides: Any) -> Generator[Event, None, None]:
        """`complete`, event by event."""
        return self._in_turn(lambda: self.messages, overrides)

    def resume(self) -> Reply:
        """Continue a cancelled reply in the phase in which it stopped; returns all of it when it is complete.

        Raises:
            UsageError: nothing was asked in this session.
        """
        return self._done(self.stream_resume())

    def stream_resume(self) -> Generator[Event, None, None]:
        """`resume`, event by event: those of the rest alone."""
        return self._queue.hold(self._queue.place(), self._resumed())

    def cancel(self) -> None:
        """Stop the answer in progress or waiting, from any thread. Text that was shown stays."""
        if (run := self.run) is not None:
            run.cancel()

    def fork(self, length: int | None = None) -> Session:
        """A new conversation with the first `length` messages of this one, or with all of them.

        Their common beginning is not evaluated again, whichever continues first.

        Raises:
            UsageError: `length` is not a number.
        """
        if length is not None and not isinstance(length, int):
            raise UsageError(f"length is {short(length)}: it counts messages")
        return Session(self.pair, messages=self.messages[:length], left_out=self.left_out)

    def prepare(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Let both models read the conversation so far, so that the next turn begins at once.

        Meant for the time in which a person reads the answer. It ends early once `stopped` returns True or by
        `Pair.cancel`; what was read until then stays useful. Returns whether all was read.
        """
        if (
            self.pair.models.loading.resident == "one"
            or not self.messages
            or self.messages[-1]["role"] != "assistant"
            or not self.messages[-1]["content"]
        ):
            return True
        try:
            with self._queue.held(wait=False), self.pair.models.queue.held(wait=False):
                return self._read_ahead(stopped)
        except (BusyError, CancelledError):
            return False
        except FitError:
            return True

    def _read_ahead(self, stopped: Callable[[], bool]) -> bool:
        """Read what the prompts of two different next questions have in common."""
        models, settings = self.pair.models, self.pair.settings
        cancelled = partial(models.queue.is_cancelled, models.queue.place())
        with models.ready(settings.mode):
            one, other = (
                prepare(models, conversation(messages), settings, left_out=self.left_out, cancelled=cancelled)
                for messages in ([*self.messages, *conversation(text)] for text in "ab")
            )
        for role in one.prompts:
            tokens = list(one.tokens(role))
            known = tokens[: common_prefix(tokens, list(other.tokens(role)))]
            if stopped():
                return False
            if known:
                read_ahead(models, role, known)
        return True

    def _with(self, text: str) -> list[Message]:
        if not isinstance(text, str):
            raise UsageError(f"what is sent is {short(text)}: it must be text")
        if self.messages and not self.messages[-1]["content"]:
            del self.messages[-2:]  # a question whose answer was stopped before its first word
        return [*self.messages, *conversation(text)]

    def _question(self) -> list[Message]:
        return self.messages[:-1] if self.messages and self.messages[-1]["role"] == "assistant" else self.messages

    def _done(self, events: Iterator[Event]) -> Reply:
        for event in events:
            if isinstance(event, Finished):
                reply = event.reply
        return reply

    def _in_turn(
        self, messages: Callable[[], list[Message]], overrides: dict[str, Any]
    ) -> Generator[Event, None, None]:
        wait = waits(overrides.get("busy") or self.pair.busy)
        return self._queue.hold(self._queue.place(), self._answer(messages, overrides), wait=wait)

    def _resumed(self) -> Iterator[Event]:
        if self.run is None:
            raise UsageError("there is no reply to go on with: nothing was asked in this session")
        yield from self._events(self.run)

    def _answer(self, messages: Callable[[], list[Message]], overrides: dict[str, Any]) -> Iterator[Event]:
        question = messages()
        self.run = start(self.pair, question, left_out=self.left_out, **overrides)
        self.left_out = self.run.left_out
        self.given = ""
        if question[-1]["role"] == "assistant":
            *question, last = question
            self.given = last["content"]
        self.messages = [*question, {"role": "assistant", "content": self.given}]
        yield from self._events(self.run)

    def _events(self, run: Run) -> Iterator[Event]:
        try:
            yield from run.events()
        finally:
            self.messages[-1] = {"role": "assistant", "content": self.given + run.machine.text}
