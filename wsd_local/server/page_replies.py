"""Replies that the page asks for: which one begins, and which are in progress.

Contract: a question is in the store before its reply streams (see `page_writing`). The event loop never waits for the
store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from wsd_local.errors import UsageError, WsdError
from wsd_local.events import Event
from wsd_local.prompts.messages import Message
from wsd_local.runtime.reply import Finished
from wsd_local.server.page_writing import Writing
from wsd_local.server.service import ReplyRequest, ServedModel, Service, UnknownModelError
from wsd_local.settings import changed, of_mode
from wsd_local.store import Store, turns
from wsd_local.store.reading import messages_of

_COMPARED = ("text", "finish_reason", "draft", "base", "switch", "turns", "timings")
"""What a comparison shows of a reply."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to answer: see `wsd_local.server.page_api.Question`."""

    action: Literal["ask", "again", "continue"]
    model: str
    chat: int | None = None
    head: int | None = None
    edits: int | None = None
    text: str = ""
    system: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


class Replies:
    """The replies in progress."""

    def __init__(self, service: Service, store: Store) -> None:
        self._service, self._store = service, store
        self._writing: dict[int, Writing] = {}

    async def begin(self, wanted: Wanted) -> tuple[Writing, AsyncIterator[dict[str, Any]]]:
        """A reply that has begun, and its events; the first names it, the last says how it is kept.

        Raises:
            WsdError: it cannot begin; the store is as it was before.
        """
        model = self._model(wanted.model)
        changed(self._service.defaults, {**of_mode(model.mode), **wanted.settings})
        begun, messages, made = await asyncio.to_thread(self._begin, wanted, model)
        request = ReplyRequest(wanted.model, messages, dict(wanted.settings), truncate=True)
        writing = Writing(self._service, begun, request, made)
        self._writing[begun.writer.id] = writing
        writing.task.add_done_callback(lambda _: self._writing.pop(begun.writer.id, None))
        return writing, await writing.begun_events()

    def stop(self, message: int) -> bool:
        """Stop a reply; whether it was in progress here."""
        writing = self._writing.get(message)
        if writing is not None:
            writing.stop()
        return writing is not None

    async def compare(
        self, model: str, head: int, settings: Mapping[str, Any], held: AsyncExitStack
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a reply that is not kept, to the last question up to `head`. Closing `held` stops it.

        Raises:
            WsdError: it cannot begin.
        """
        messages = await asyncio.to_thread(self._question, head)
        request = ReplyRequest(model, messages, dict(settings), truncate=True)
        found = await held.enter_async_context(self._service.replies(request))

        async def events() -> AsyncIterator[dict[str, Any]]:
            try:
                async for _, event in found:
                    yield _compared(event)
            except WsdError as error:
                yield {"event": "failed", "message": str(error)}

        return events()

    # -- in threads --------------------------------------------------------------------------------------------------

    def _begin(self, wanted: Wanted, model: ServedModel) -> tuple[turns.Begun, list[Message], bool]:
        """The reply in the store, what the models read, and whether a chat was made for it."""
        store, pair = self._store, model.pair
        settings = dict(wanted.settings) | ({} if model.mode == "wsd" else {"mode": model.mode})
        if wanted.action == "ask":
            return self._ask(wanted, pair, settings)
        if wanted.head is None:
            raise UsageError("head is missing: it names the message that is shown last")
        again = turns.regenerate if wanted.action == "again" else turns.continue_
        begun = again(store, wanted.head, pair=pair, settings=settings)
        if begun is None:
            raise UsageError("there is no question yet" if wanted.action == "again" else "the last reply is complete")
        return begun, self._messages(begun), False

    def _ask(self, wanted: Wanted, pair: str, settings: dict[str, Any]) -> tuple[turns.Begun, list[Message], bool]:
        store, chat = self._store, wanted.chat
        if not wanted.text.strip():
            raise UsageError("the question is empty")
        parent = wanted.head if wanted.edits is None else store.messages.get(wanted.edits).parent
        made = chat is None
        if chat is None:
            chat = store.chats.create(pair=pair, system=wanted.system or None)
        begun = turns.ask(store, chat, parent, wanted.text, before=wanted.head, pair=pair, settings=settings)
        return begun, self._messages(begun), made

    def _messages(self, begun: turns.Begun) -> list[Message]:
        return messages_of(self._store.messages.branch(begun.head), self._store.chats.get(begun.chat).system)

    def _question(self, head: int) -> list[Message]:
        branch = self._store.messages.branch(head)
        while branch and branch[-1].role != "user":
            branch.pop()
        if not branch:
            raise UsageError("there is no question that could be compared")
        return messages_of(branch, self._store.chats.get(branch[-1].chat).system)

    def _model(self, name: str) -> ServedModel:
        for model in self._service.models():
            if model.id == name:
                return model
        raise UnknownModelError(f"there is no model {name!r} on this server")


def _compared(event: Event) -> dict[str, Any]:
    if not isinstance(event, Finished):
        return event.as_dict()
    reply = event.reply.as_dict()
    return {"event": "finished", "reply": {name: reply[name] for name in _COMPARED}}
