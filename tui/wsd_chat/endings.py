"""How a reply ends in the app: kept, stopped, or failed.

Contract: the store is asked in turn, never by a handler itself. A reply that cannot be written is tried again until it
is; one that failed before its first word gives its question back to the composer.
"""

from __future__ import annotations

import asyncio
import gc
from dataclasses import dataclass, replace
from typing import Any

from wsd_chat.conversation import Begun
from wsd_chat.entries import Entry, entries
from wsd_chat.frame import Frame, in_turn
from wsd_chat.model_jobs import Said
from wsd_chat.widgets.message import MessageView
from wsd_local.errors import WsdError
from wsd_local.events import Text
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.runtime.worker import Failed, Task
from wsd_local.store import GoneError, StoreError

LEAVE_S = 1.5
"""How long the end of the program waits for another program that holds the store."""
RETRY_S = 3.0
"""Until a reply that could not be written is tried again."""


@dataclass(slots=True)
class Turn:
    """A reply from the moment in which it is asked for until it is kept; `begun` once it is in the store."""

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


class Endings(Frame):
    """The app, as far as replies end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.turn: Turn | None = None
        self.editing: Entry | None = None
        self.lost: str | None = None
        """What could not be kept when the program ended, for people."""
        self._trouble_shown = ""
        self._phase = "ready"

    def _rest(self, phase: str | None = None) -> None:
        """Show what the models do when none of them reads a prompt; None is nothing."""
        idle = "loading" if self._loading is not None else "no pair" if self.models.pair is None else "ready"
        self._phase = phase or idle
        if phase is not None or not self.status.phase.startswith("loading"):
            self.status.phase = self._phase

    def _tell_once(self, trouble: str) -> None:
        """Show once what keeps going wrong."""
        if trouble != self._trouble_shown:
            self._trouble_shown = trouble
            self.say(trouble, "error")

    def _end(self, turn: Turn) -> None:
        turn.ending = True
        self._rest()
        self.start(self._finish(turn))

    @in_turn
    async def _finish(self, turn: Turn) -> None:
        begun = turn.begun
        assert begun is not None
        try:
            kept = await self.desk.do(self.talk.finish, begun, turn.reply)
        except WsdError as error:
            if turn.view is not None:
                turn.view.close(replace(turn.view.entry, state="unsaved"))
            self._tell_once(str(error))
            self._settle_later(turn)
            return
        finally:
            self.turn = None
        await self._show_kept(turn, kept)

    def _settle_later(self, turn: Turn) -> None:
        self.set_timer(RETRY_S, lambda: self.start(self._settle(turn)))

    @in_turn
    async def _settle(self, turn: Turn) -> None:
        """Try again to write a reply that could not be written."""
        begun = turn.begun
        assert begun is not None
        try:
            await self.desk.do(self.talk.settle)
            kept = await self.desk.do(entries, begun.book, begun.writer.id)
        except GoneError:
            return
        except StoreError:
            self._settle_later(turn)
            return
        self._trouble_shown = ""
        await self._show_kept(turn, kept)

    async def _show_kept(self, turn: Turn, kept: list[Entry]) -> None:
        """A reply as it is in the store, where it is on the screen."""
        self._close_view(turn, kept[-1])
        begun = turn.begun
        if (
            turn.view is None
            and begun is not None
            and (self.talk.book, self.talk.head) == (begun.book, begun.writer.id)
        ):
            await self.transcript.show(kept)
        self.refresh_list()

    def _close_view(self, turn: Turn, entry: Entry) -> None:
        shown = self.transcript.entries
        if turn.view is not None and turn.view.is_attached:
            turn.view.close(entry)
            if shown and shown[-1].id == entry.id:
                shown[-1] = entry

    def _failed(self, news: Failed) -> None:
        turn = self.turn
        if news.task is self._loading:
            self._loading = None
            self.status.phase = "no pair"
            self.start(self._warn(news.message))
        elif turn is not None and news.task is turn.task and not turn.ending:
            turn.ending = True
            gc.unfreeze()
            self._rest()
            self.start(self._give_up(turn, news.message))
        elif not news.task.stopped:
            self._rest()
            self.start(self._warn(news.message))

    @in_turn
    async def _give_up(self, turn: Turn, message: str) -> None:
        begun = turn.begun
        assert begun is not None
        try:
            outcome = await self.desk.do(self.talk.fail, begun, message)
            if self.talk.book is begun.book and self.talk.chat == begun.chat:
                await self.transcript.show(await self.desk.do(self.talk.entries))
            if outcome.text is not None:
                self.composer.put_back(outcome.text)
        except WsdError as error:
            self._tell_once(str(error))
        finally:
            self.turn = None
        self.refresh_list()
        await self._warn(message)

    async def _warn(self, message: str) -> None:
        """An error as a message with a next step, in the conversation."""
        hint = "" if "wsd-local" in message or "--" in message else " · F8 chooses another pair, F12 shows the log"
        await self.transcript.warn(f"{message}{hint}")

    async def on_unmount(self) -> None:
        """Nothing is left running, and what was written of a reply is kept if the store lets us soon."""
        turn, self.turn = self.turn, None
        self.store.hurry(LEAVE_S)
        await asyncio.to_thread(self.models.close)
        for news in self.models.news():
            if turn is not None and isinstance(news, Said) and news.key == turn.key and turn.begun is not None:
                if isinstance(news.event, Text):
                    turn.begun.writer.text(news.event)
                elif isinstance(news.event, Finished):
                    turn.reply = news.event.reply
        async with self.turns:
            begun = None if turn is None else turn.begun
            if turn is not None and begun is None and turn.typed:
                self.lost = "the last question could not be written, and is not kept"
            try:
                await self.desk.do(self.talk.close, begun, None if turn is None else turn.reply)
            except WsdError as error:
                self.lost = f"{error}; the end of the last reply is not kept"
        self.desk.close()
