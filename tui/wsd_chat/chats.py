"""Chats: opening, renaming, deleting, exporting them, and going from branch to branch.

Contract: going to another chat stops the reply in progress, never the loading of a pair. A deleted chat can be restored
until the program ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

from wsd_chat.conversation import Conversation
from wsd_chat.replies import Replies
from wsd_chat.store_thread import StoreThread, in_order
from wsd_chat.view import View

STEP_S = 0.04
"""How often the end of a stopped reply is looked for."""

OFF_RECORD = "off the record"
"""What the status line shows of a chat that is kept in no file."""


class Chats:
    """What can be done with whole chats. `system` is the system prompt that a new one begins with."""

    def __init__(
        self, view: View, conversation: Conversation, thread: StoreThread, replies: Replies, system: str | None
    ) -> None:
        self.thread = thread
        self._view, self._conversation, self._replies = view, conversation, replies
        self._system = system
        self._deleted: list[int] = []

    def open(self, chat: int | None, *, off_record: bool = False) -> Coroutine[Any, Any, None]:
        """Show another chat, or an empty one; with `off_record` it is kept in no file."""
        self._replies.stop()
        self._replies.editing = None
        return self._open(chat, off_record=off_record)

    @in_order
    async def _open(self, chat: int | None, *, off_record: bool) -> None:
        shown = await self.thread.do(self._conversation.open, chat, self._system, off_record=off_record)
        if self._replies.turn is not None:
            self._replies.turn.view = None
        view = self._view
        view.sub_title = self._conversation.title
        view.status.note, view.status.branch = OFF_RECORD if off_record else "", ""
        view.status.progress = None
        view.transcript.choose(None)
        await view.transcript.show(shown)
        view.refresh_list(self._conversation.listed)
        view.composer.focus()

    def new(self, *, off_record: bool = False) -> None:
        """An empty chat; it is kept from the first question on, unless it is `off_record`."""
        self._view.start(self.open(None, off_record=off_record))
        if off_record:
            self._view.say("this chat is off the record: it is kept in no file")

    def branch(self, step: int) -> None:
        """Show another branch of the chat, or of the fork at the chosen message."""
        if not self._replies.busy:
            self._view.start(self._branch(step))

    @in_order
    async def _branch(self, step: int) -> None:
        transcript = self._view.transcript
        shown, at, count = await self.thread.do(self._conversation.step, step, transcript.chosen)
        transcript.choose(None)
        self._view.status.branch = f"branch {at} of {count}"
        await transcript.show(shown)

    def export(self) -> None:
        """Write the chat to a file whose name is asked for."""
        if self._conversation.chat is None:
            self._view.say("there is nothing to export yet", "warning")
        else:
            number = self._conversation.listed
            name = "chat.md" if number is None else f"chat-{number}.md"
            self._view.ask_for("Export to (.md or .json)", name, self._export)

    @in_order
    async def _export(self, name: str) -> None:
        from wsd_local.errors import reason
        from wsd_local.files import check_file, write_text
        from wsd_local.paths import expanded

        kind: Literal["json", "markdown"] = "json" if name.endswith(".json") else "markdown"

        def write() -> None:
            check_file(path := expanded(name))
            write_text(path, self._conversation.export(kind), private=True)

        try:
            await self.thread.do(write)
        except OSError as error:
            self._view.say(f"{name}: cannot be written: {reason(error)}", "error")
        else:
            self._view.say(f"written to {name}")

    def rename(self, title: str | None = None) -> None:
        """Give the chat another title; None asks for it."""
        if title is not None:
            self._view.start(self._rename(title))
        elif self._conversation.chat is not None:
            self._view.ask_for("Title", self._conversation.title, self._rename)

    @in_order
    async def _rename(self, title: str) -> None:
        self._view.sub_title = await self.thread.do(self._conversation.rename, title)
        self._view.refresh_list(self._conversation.listed)

    def set_system(self, system: str | None) -> None:
        """Another system prompt for the next questions."""
        self._view.start(self._set_system(system))

    @in_order
    async def _set_system(self, system: str | None) -> None:
        await self.thread.do(self._conversation.configure, self._view.status.pair, system)

    def delete(self) -> None:
        """Delete the chat; `restore` brings it back."""
        if self._conversation.chat is not None and self._conversation.memory is None:
            self._view.start(self._delete(self._conversation.chat))

    async def _delete(self, chat: int) -> None:
        self._replies.stop()
        while self._replies.busy:
            await asyncio.sleep(STEP_S)
        await self.thread.do(self._conversation.store.chats.delete, chat)
        self._deleted.append(chat)
        await self.open(None)
        self._view.say("deleted; Alt+Z restores it")

    def restore(self) -> None:
        """Bring back the chat that was deleted last."""
        if self._deleted:
            self._view.start(self._restore(self._deleted.pop()))

    async def _restore(self, chat: int) -> None:
        await self.thread.do(self._conversation.store.chats.restore, chat)
        await self.open(chat)
