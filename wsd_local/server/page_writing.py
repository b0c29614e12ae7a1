"""One reply from its beginning to its end in the store, and its events on the way to the page.

Contract: a reply ends when it is complete, when it is stopped, or when whoever reads its events goes away; what was
written stays in each case. One that failed before its first word takes its question back, and a chat that was made for
it. One that cannot be written is tried again until it can. The event loop never waits for the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from wsd_local.errors import WsdError
from wsd_local.events import Checked, Event, Switched, Text
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.server.page_chats import entry_in, without_path
from wsd_local.server.service import ReplyRequest, Service
from wsd_local.store import GoneError, StoreError, turns

RETRY_S = 3.0
"""Until a reply that could not be written is tried again."""

FAILED = "the server failed; its log says why"

_log = logging.getLogger(__name__)


class Writing:
    """A reply in progress. It begins at once; `made`: its chat was made for it."""

    def __init__(self, service: Service, begun: turns.Begun, request: ReplyRequest, made: bool) -> None:
        self._service, self._begun, self._request, self._made = service, begun, request, made
        self._items: asyncio.Queue[dict[str, Any] | WsdError | None] = asyncio.Queue()
        self._trouble = ""
        self._has_begun = False
        self._follows = asyncio.create_task(self._follow())
        self.task = asyncio.create_task(self._write())

    async def begun_events(self) -> AsyncIterator[dict[str, Any]]:
        """Its events, as soon as it has begun. Leaving them early stops it.

        Raises:
            WsdError: it cannot begin; nothing of it is in the store.
        """
        try:
            first = await self._items.get()
        except asyncio.CancelledError:
            self.stop()
            raise
        if isinstance(first, WsdError):
            raise first
        return self._events(first)

    def stop(self) -> None:
        """Stop it; its text stays. Does nothing after its end."""
        self._follows.cancel()

    # -- to the page -------------------------------------------------------------------------------------------------

    async def _events(self, item: dict[str, Any] | None) -> AsyncIterator[dict[str, Any]]:
        try:
            while item is not None:
                yield item
                following = await self._items.get()
                assert not isinstance(following, WsdError)
                item = following
        finally:
            self.stop()

    # -- from the service --------------------------------------------------------------------------------------------

    async def _follow(self) -> Reply | None:
        reply = None
        async with self._service.replies(self._request) as events:
            opening = await asyncio.to_thread(self._opening)
            self._has_begun = True
            self._items.put_nowait(opening)
            async for _, event in events:
                if isinstance(event, Finished):
                    reply = event.reply
                else:
                    self._record(event)
                    self._items.put_nowait(event.as_dict())
        return reply

    def _opening(self) -> dict[str, Any]:
        """In a thread: the first event, which names the chat, the question and the reply."""
        begun, store = self._begun, self._begun.store
        return {
            "event": "begun",
            "chat": store.chats.get(begun.chat).as_dict(),
            "question": None if begun.continues else entry_in(store, begun.head),
            "reply": entry_in(store, begun.writer.id),
        }

    def _record(self, event: Event) -> None:
        writer = self._begun.writer
        if isinstance(event, Text):
            writer.text(event)
        elif isinstance(event, Checked):
            writer.checked(event)
        elif isinstance(event, Switched):
            writer.switched(event)
        trouble = "" if writer.trouble is None else without_path(self._begun.store, writer.trouble)
        if trouble and trouble != self._trouble:
            self._items.put_nowait({"event": "notice", "message": trouble})
        self._trouble = trouble

    # -- into the store ----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        try:
            reply = await self._follows
        except asyncio.CancelledError:
            if not self._follows.cancelled():
                raise
            reply = None
        except Exception as error:
            await self._give_up(error)
            return
        await self._keep(reply)

    async def _keep(self, reply: Reply | None) -> None:
        begun = self._begun
        while True:
            try:
                await asyncio.to_thread(self._end, reply)
                kept = await asyncio.to_thread(entry_in, begun.store, begun.writer.id)
            except GoneError:
                self._close({"event": "failed", "message": "the chat was deleted while its reply was written"})
                return
            except StoreError as error:
                self._close({"event": "unsaved", "message": without_path(begun.store, error)})
                await asyncio.sleep(RETRY_S)
            else:
                self._close({"event": "kept", "entry": kept})
                return

    def _end(self, reply: Reply | None) -> None:
        if reply is None:
            self._begun.writer.close()
        else:
            self._begun.writer.finish(reply)

    async def _give_up(self, error: Exception) -> None:
        """Keep what there is of a reply that failed; with nothing written take it back, with its question."""
        store = self._begun.store
        message = without_path(store, error) if isinstance(error, WsdError) else FAILED
        if not isinstance(error, WsdError):
            _log.error("a reply failed", exc_info=error)
        entry = None
        try:
            entry = await asyncio.to_thread(self._fail, message)
        except WsdError as trouble:
            message = f"{message}; {without_path(store, trouble)}"
        if self._has_begun:
            self._close({"event": "failed", "message": message, "entry": entry})
        else:
            self._items.put_nowait(error if isinstance(error, WsdError) else WsdError(message))

    def _fail(self, message: str) -> dict[str, Any] | None:
        """In a thread: the reply if it stays."""
        begun = self._begun
        outcome = turns.fail(begun, message)
        if outcome.text is not None and self._made and not begun.store.messages.of(begun.chat):
            begun.store.chats.erase(begun.chat)
        return entry_in(begun.store, begun.writer.id) if outcome.head == begun.writer.id else None

    def _close(self, last: dict[str, Any]) -> None:
        self._items.put_nowait(last)
        self._items.put_nowait(None)
