"""A conversation over a pair.

Contract: what was shown stays in the conversation, also of a cancelled reply. The KV caches of both models are reused
from turn to turn by longest common prefix, because every run names whole prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wsd_local.errors import CancelledError, FitError
from wsd_local.events import Event
from wsd_local.prompts import Message, conversation
from wsd_local.reply import Reply
from wsd_local.tokens import common_prefix

if TYPE_CHECKING:
    from wsd_local.pairs import Pair
    from wsd_local.running import Run


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

    def __post_init__(self) -> None:
        if self.system is not None and not self.messages:
            self.messages.append({"role": "system", "content": self.system})

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.run = None

    def send(self, text: str, **overrides: Any) -> Reply:
        """Say something and return the answer when it is done."""
        for _ in self.stream(text, **overrides):
            pass
        assert self.run is not None
        return self.run.reply

    def stream(self, text: str, **overrides: Any) -> Iterator[Event]:
        """Say something; the answer's events. Nothing is added to the conversation if it cannot be asked."""
        if self.messages and not self.messages[-1]["content"]:
            del self.messages[-2:]  # a question whose answer was stopped before its first word
        yield from self._answer([*self.messages, *conversation(text)], overrides)

    def regenerate(self, **overrides: Any) -> Iterator[Event]:
        """Answer the last question anew; the events. The old answer leaves the conversation, a fork keeps it.

        Raises:
            UsageError: there is no question.
        """
        asked = self.messages[:-1] if self.messages and self.messages[-1]["role"] == "assistant" else self.messages
        yield from self._answer(asked, overrides)

    def complete(self, **overrides: Any) -> Iterator[Event]:
        """Go on with an answer of which only the text is left: the last message is its beginning; events of the rest.

        Raises:
            UsageError: there is nothing to answer.
        """
        yield from self._answer(self.messages, overrides)

    def resume(self) -> Iterator[Event]:
        """Go on with a cancelled reply, in the phase in which it stopped."""
        if self.run is not None:
            yield from self._events(self.run)

    def fork(self, length: int | None = None) -> Session:
        """A conversation that begins with the first `length` messages of this one, or with all of them.

        What both have in common is not evaluated again, whichever goes on first.
        """
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
            probes = [self.pair.start([*self.messages, *conversation(text)], left_out=self.left_out) for text in "ab"]
        except FitError:
            return True
        for (role, tokens), (_, others) in zip(probes[0].preread(), probes[1].preread(), strict=True):
            known = tokens[: common_prefix(tokens, others)]
            if stopped():
                return False
            try:
                if known:
                    self.pair.context(role).read(0, known)
            except CancelledError:
                self.pair.cancellation.clear()
                return False
        return True

    def _answer(self, asked: list[Message], overrides: dict[str, Any]) -> Iterator[Event]:
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
