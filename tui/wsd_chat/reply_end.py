"""How a reply ends: kept, kept later, or given up.

Contract: the store is used in order with all other work (`wsd_chat.store_thread`). A reply that cannot be written is
tried again until it is; one that failed before its first word gives its question back to the composer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wsd_chat.conversation import Begun, Conversation
from wsd_chat.entries import Entry, entries
from wsd_chat.store_thread import StoreThread, in_order
from wsd_chat.view import View
from wsd_chat.widgets.message import MessageView
from wsd_local.errors import WsdError
from wsd_local.runtime.reply import Reply
from wsd_local.runtime.worker import Task
from wsd_local.store import GoneError, StoreError

RETRY_S = 3.0
"""Until a reply that could not be written is tried again."""


@dataclass(slots=True)
class Turn:
    """A reply from the moment in which it is requested until it is kept; `begun` once it is in the store."""

    typed: str | None = None
    begun: Begun | None = None
    view: MessageView | None = None
    task: Task | None = None
    reply: Reply | None = None
    stopped: bool = False
    ending: bool = False

    @property
    def key(self) -> str | None:
        """Its name in news."""
        return None if self.begun is None else self.begun.key


class ReplyEnd:
    """Keeps replies that are complete, and takes back those that failed."""

    def __init__(self, view: View, conversation: Conversation, thread: StoreThread) -> None:
        self.thread = thread
        self._view, self._conversation = view, conversation
        self._trouble_shown = ""

    async def keep(self, turn: Turn) -> None:
        """Write a reply that is complete, or was stopped; called in order."""
        begun = turn.begun
        assert begun is not None
        try:
            kept = await self.thread.do(self._conversation.finish, begun, turn.reply)
        except WsdError as error:
            if turn.view is not None:
                turn.view.close(replace(turn.view.entry, state="unsaved"))
            self.report_once(str(error))
            self._settle_later(turn)
            return
        await self._show_kept(turn, kept)

    async def give_up(self, turn: Turn, message: str) -> None:
        """Take back a reply that failed before its first word, with its question; called in order."""
        begun = turn.begun
        assert begun is not None
        try:
            outcome = await self.thread.do(self._conversation.fail, begun, message)
            if self._conversation.current_store is begun.store and self._conversation.chat == begun.chat:
                await self._view.transcript.show(await self.thread.do(self._conversation.entries))
            if outcome.text is not None:
                self._view.composer.put_back(outcome.text)
        except WsdError as error:
            self.report_once(str(error))
        self._view.refresh_list(self._conversation.listed)
        await self.warn(message)

    async def warn(self, message: str) -> None:
        """Show an error with a next step below the conversation."""
        hint = "" if "wsd-local" in message or "--" in message else " · F8 chooses another pair, F12 shows the log"
        await self._view.transcript.warn(f"{message}{hint}")

    def report_once(self, trouble: str) -> None:
        """Show an error that may come again and again, once."""
        if trouble != self._trouble_shown:
            self._trouble_shown = trouble
            self._view.say(trouble, "error")

    def update(self, turn: Turn, entry: Entry) -> None:
        """Show a reply as it is in the store, if it is on the screen."""
        shown = self._view.transcript.entries
        if turn.view is not None and turn.view.is_attached:
            turn.view.close(entry)
            if shown and shown[-1].id == entry.id:
                shown[-1] = entry

    def _settle_later(self, turn: Turn) -> None:
        self._view.start_later(RETRY_S, lambda: self._settle(turn))

    @in_order
    async def _settle(self, turn: Turn) -> None:
        """Try again to write a reply that could not be written."""
        begun = turn.begun
        assert begun is not None
        try:
            await self.thread.do(self._conversation.settle)
            kept = await self.thread.do(entries, begun.store, begun.writer.id)
        except GoneError:
            return
        except StoreError:
            self._settle_later(turn)
            return
        self._trouble_shown = ""
        await self._show_kept(turn, kept)

    async def _show_kept(self, turn: Turn, kept: list[Entry]) -> None:
        self.update(turn, kept[-1])
        begun, conversation = turn.begun, self._conversation
        if (
            turn.view is None
            and begun is not None
            and (conversation.current_store, conversation.head) == (begun.store, begun.writer.id)
        ):
            await self._view.transcript.show(kept)
        self._view.refresh_list(self._conversation.listed)
