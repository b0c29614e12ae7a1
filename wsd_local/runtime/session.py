"""A conversation over a pair.

Contract: what was shown stays in the conversation, also of a cancelled reply. The KV caches of both models are reused
from turn to turn by longest common prefix, because every run names whole prompts. A conversation gives one answer at a
time: who asks from another thread waits until it is there, who asks again in the middle of its events is refused.

A verb returns the `Reply` when it is done (`send`, `regenerate`, `complete`, `resume`); its twin gives the events on
the way (`stream`, `stream_regenerate`, `stream_complete`, `stream_resume`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wsd_local.core.alignment import common_prefix
from wsd_local.errors import BusyError, CancelledError, FitError, UsageError, short
from wsd_local.events import Event
from wsd_local.llama import Cancellation
from wsd_local.prompts.messages import Message, conversation
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.runtime.turns import Turns, waits

if TYPE_CHECKING:
    from wsd_local.runtime.pair import Pair
    from wsd_local.runtime.run import Run


@dataclass(slots=True)
class Session:
    """A conversation over a pair. What was shown stays in it, also of a cancelled reply.

    `messages` is all of it; the models do not see its first `left_out` turns, which the context has no room for.
    `given` is the beginning of the last answer that the models did not write in this session.
    """

    pair: Pair
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    run: Run | None = None
    left_out: int = 0
    given: str = ""
    _turns: Turns = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._turns = Turns("the conversation", Cancellation(), patience=None)
        if self.system is not None and not isinstance(self.system, str):
            raise UsageError(f"system is {short(self.system)}: it must be text")
        if not isinstance(self.messages, list):
            raise UsageError(f"messages are {short(self.messages)}: they must be a list of messages")
        if self.system is not None and not self.messages:
            self.messages.append({"role": "system", "content": self.system})

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.run = None

    def send(self, text: str, **overrides: Any) -> Reply:
        """Say something and return the answer when it is done. Overrides are those of `Pair.start`."""
        return self._done(self.stream(text, **overrides))

    def stream(self, text: str, **overrides: Any) -> Generator[Event, None, None]:
        """Say something; the answer's events. Nothing is added to the conversation if it cannot be asked.

        Raises:
            UsageError: the text or a setting is wrong.
            BusyError: an answer is in progress in this thread, or `busy="error"` was given and one is in any.
        """
        return self._in_turn(lambda: self._asked(text), overrides)

    def regenerate(self, **overrides: Any) -> Reply:
        """Answer the last question anew. The old answer leaves the conversation, a fork keeps it.

        Raises:
            UsageError: there is no question.
        """
        return self._done(self.stream_regenerate(**overrides))

    def stream_regenerate(self, **overrides: Any) -> Generator[Event, None, None]:
        """`regenerate`, event by event."""
        return self._in_turn(self._question, overrides)

    def complete(self, **overrides: Any) -> Reply:
        """Go on with an answer of which only the text is left: the last message is its beginning.

        The reply is the rest of it.

        Raises:
            UsageError: there is nothing to answer.
        """
        return self._done(self.stream_complete(**overrides))

    def stream_complete(self, **overrides: Any) -> Generator[Event, None, None]:
        """`complete`, event by event."""
        return self._in_turn(lambda: self.messages, overrides)

    def resume(self) -> Reply:
        """Go on with a cancelled reply, in the phase in which it stopped; all of it when it is done.

        Raises:
            UsageError: nothing was asked in this session.
        """
        return self._done(self.stream_resume())

    def stream_resume(self) -> Generator[Event, None, None]:
        """`resume`, event by event: those of the rest."""
        return self._turns.hold(self._turns.turn(), self._resumed())

    def cancel(self) -> None:
        """Stop the answer in progress, or the one that waits for the pair, from any thread. What was shown stays."""
        if (run := self.run) is not None:
            run.cancel()

    def fork(self, length: int | None = None) -> Session:
        """A conversation that begins with the first `length` messages of this one, or with all of them.

        What both have in common is not evaluated again, whichever goes on first.

        Raises:
            UsageError: the length is no number.
        """
        if length is not None and not isinstance(length, int):
            raise UsageError(f"length is {short(length)}: it counts messages")
        return Session(self.pair, messages=self.messages[:length], left_out=self.left_out)

    def prepare(self, stopped: Callable[[], bool] = lambda: False) -> bool:
        """Let both models read what was said so far, so that the next turn begins at once.

        Meant for the time in which a person reads. `Pair.cancel` stops it, once `stopped` tells so, and what was read
        until then stays useful. Returns whether it came to its end.
        """
        if (
            self.pair.loading.resident == "one"
            or not self.messages
            or self.messages[-1]["role"] != "assistant"
            or not self.messages[-1]["content"]
        ):
            return True
        try:
            with self._turns.held(wait=False), self.pair.turns.held(wait=False):
                return self._read_ahead(stopped)
        except (BusyError, CancelledError):
            return False
        except FitError:
            return True

    def _read_ahead(self, stopped: Callable[[], bool]) -> bool:
        probes = [self.pair.start([*self.messages, *conversation(text)], left_out=self.left_out) for text in "ab"]
        for (role, tokens), (_, others) in zip(probes[0].preread(), probes[1].preread(), strict=True):
            known = tokens[: common_prefix(tokens, others)]
            if stopped():
                return False
            if known:
                self.pair.context(role).read(0, known)
        return True

    def _asked(self, text: str) -> list[Message]:
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

    def _in_turn(self, asked: Callable[[], list[Message]], overrides: dict[str, Any]) -> Generator[Event, None, None]:
        wait = waits(overrides.get("busy") or self.pair.busy)
        return self._turns.hold(self._turns.turn(), self._answer(asked, overrides), wait=wait)

    def _resumed(self) -> Iterator[Event]:
        if self.run is None:
            raise UsageError("there is no reply to go on with: nothing was asked in this session")
        yield from self._events(self.run)

    def _answer(self, asking: Callable[[], list[Message]], overrides: dict[str, Any]) -> Iterator[Event]:
        asked = asking()
        self.run = self.pair.start(asked, left_out=self.left_out, **overrides)
        self.left_out = self.run.left_out
        self.given = ""
        if asked[-1]["role"] == "assistant":
            *asked, last = asked
            self.given = last["content"]
        self.messages = [*asked, {"role": "assistant", "content": self.given}]
        yield from self._events(self.run)

    def _events(self, run: Run) -> Iterator[Event]:
        try:
            yield from run.events()
        finally:
            self.messages[-1] = {"role": "assistant", "content": self.given + run.reply.text}
