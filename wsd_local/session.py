"""A conversation over a pair.

Contract: what was shown stays in the conversation, also of a cancelled reply. The KV caches of both models are reused
from turn to turn by longest common prefix, because every run names whole prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from wsd_local.events import Event
from wsd_local.prompts import Message, conversation
from wsd_local.reply import Reply

if TYPE_CHECKING:
    from wsd_local.pairs import Pair
    from wsd_local.running import Run


@dataclass(slots=True)
class Session:
    """A conversation over a pair. What was shown stays in it, also of a cancelled reply.

    `messages` is all of it; the models do not see its first `left_out` turns, which the context has no room for.
    """

    pair: Pair
    system: str | None = None
    messages: list[Message] = field(default_factory=list)
    run: Run | None = None
    left_out: int = 0

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
        asked = [*self.messages, *conversation(text)]
        self.run = self.pair.start(asked, left_out=self.left_out, **overrides)
        self.left_out = self.run.left_out
        self.messages = [*asked, {"role": "assistant", "content": ""}]
        yield from self._events(self.run)

    def resume(self) -> Iterator[Event]:
        """Go on with a cancelled reply, in the phase in which it stopped."""
        if self.run is not None:
            yield from self._events(self.run)

    def _events(self, run: Run) -> Iterator[Event]:
        try:
            yield from run.events()
        finally:
            self.messages[-1] = {"role": "assistant", "content": run.reply.text}
