"""Questions and replies: asking, following what the models write, stopping, answering again, continuing.

Contract: a question is in the store before its reply begins to stream. Typed text is never lost: where it cannot be
kept or answered, it goes back into the composer, and a message says why. One reply is in progress at a time.
"""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import Any

from wsd_chat.conversation import Conversation
from wsd_chat.entries import Entry, label
from wsd_chat.model_jobs import Answering, Began, Emitted, Ended, Loaded, Loading
from wsd_chat.next_settings import NextSettings
from wsd_chat.pair_loading import PairLoading
from wsd_chat.reply_end import ReplyEnd, Turn
from wsd_chat.store_thread import StoreThread, in_order
from wsd_chat.view import View
from wsd_local.core.decoding import Phase
from wsd_local.errors import WsdError
from wsd_local.events import Checked, Notice, Reading, Switched, Text
from wsd_local.runtime.reply import Finished, ReplyProgress
from wsd_local.runtime.worker import TaskFailed, Worker
from wsd_local.store.reading import messages_of

LEAVE_S = 1.5
"""How long the end of the program waits for another program that locks the store."""
KEEP_DRAFTING = 2.0
"""A threshold that no window reaches: the draft writes to its end."""
PHASES = {Phase.DRAFT: "drafting", Phase.CONTINUE: "continuing", Phase.DONE: "ready"}


class Replies:
    """The reply in progress, and everything that can be done with replies."""

    def __init__(
        self,
        view: View,
        conversation: Conversation,
        thread: StoreThread,
        models: Worker,
        pairs: PairLoading,
        settings: NextSettings,
    ) -> None:
        self.thread = thread
        self.turn: Turn | None = None
        self.editing: Entry | None = None
        """The question that the next message replaces, on another branch."""
        self.answering = Answering()
        self._view, self._conversation, self._models = view, conversation, models
        self._pairs, self._settings = pairs, settings
        self._end = ReplyEnd(view, conversation, thread)
        self._phase: str | None = None

    @property
    def busy(self) -> bool:
        """Whether a reply is requested, written, or being kept."""
        return self.turn is not None

    # -- asking ------------------------------------------------------------------------------------------------------

    def ask(self, text: str) -> None:
        """Send a question, in place of the one that is edited if there is one."""
        edited, self.editing = self.editing, None
        self.turn = Turn(text)
        self._view.status.phase = "saving"
        self._view.start(self._ask(self.turn, text, edited))

    @in_order
    async def _ask(self, turn: Turn, text: str, edited: Entry | None) -> None:
        conversation, transcript = self._conversation, self._view.transcript
        parent = conversation.head if edited is None else edited.parent
        await transcript.echo(text, parent)
        shown = transcript.entries
        try:
            settings = self._settings.checked()
            pair = self._view.status.pair
            turn.begun = await self.thread.do(conversation.ask, text, parent, pair=pair, settings=settings)
        except Exception as error:
            self.turn, self.editing = None, edited
            self._show_phase(None)
            await transcript.show(shown[:-1] if edited is None else await self._entries(shown[:-1]))
            self._view.composer.put_back(text)
            await self._end.warn(str(error) if isinstance(error, WsdError) else f"internal error: {error!r}")
            return
        await self._answer(turn, settings)
        self._view.refresh_list(self._conversation.listed)
        self._view.sub_title = conversation.title

    async def _entries(self, otherwise: list[Entry]) -> list[Entry]:
        try:
            return await self.thread.do(self._conversation.entries)
        except WsdError:
            return otherwise

    def regenerate(self) -> None:
        """Answer the last question again, on another branch."""
        if not self.busy and self._conversation.head is not None:
            self.turn = Turn()
            self._view.start(self._again(self.turn, continues=False))

    def continue_(self) -> None:
        """Continue a reply that was stopped, failed, or reached its length limit."""
        if self.busy or self._conversation.head is None:
            return
        if self._models.pair is None and not self._pairs.in_progress:
            self._view.say("no pair is loaded; F8 chooses one, then F6 continues", "warning")
            return
        self.turn = Turn()
        self._view.start(self._again(self.turn, continues=True))

    @in_order
    async def _again(self, turn: Turn, *, continues: bool) -> None:
        conversation = self._conversation
        try:
            settings = self._settings.checked()
            begin = conversation.continue_ if continues else conversation.regenerate
            turn.begun = await self.thread.do(begin, pair=self._view.status.pair, settings=settings)
        finally:
            if turn.begun is None:
                self.turn = None
        if turn.begun is not None:
            await self._answer(turn, settings)
        elif continues:
            self._view.say("the last reply is complete", "warning")

    def edit(self, question: Entry) -> None:
        """Put a question into the composer; sending it makes another branch."""
        self.editing = question
        self._view.composer.put(question.text)
        self._view.composer.focus()
        self._view.say("edit and press Enter: the old branch stays (Alt+Left)")

    def stop_editing(self) -> None:
        """The next message is a new one again."""
        self.editing = None
        self._view.composer.put("")

    async def _answer(self, turn: Turn, settings: dict[str, Any]) -> None:
        """Show a reply that is in the store, and let the models write it."""
        begun, transcript = turn.begun, self._view.transcript
        assert begun is not None
        self._view.status.branch = ""
        key, messages = begun.key, messages_of(begun.branch, self._conversation.system)
        await transcript.show(begun.branch)
        if begun.continues:
            turn.view = transcript.view_of(begun.writer.id)
            if turn.view is not None:
                self._end.update(turn, replace(turn.view.entry, state="writing"))
        else:
            question = begun.branch[-1].id
            turn.view = await transcript.add(Entry(begun.writer.id, question, "assistant", "", "writing"))
        # While text streams, the collector walks through new objects only; through all of them it takes 0.1 s.
        gc.freeze()

        def job(worker: Worker) -> None:
            if not (begun.continues and self.answering.continue_(worker, key)):
                self.answering.answer(worker, key, messages, settings)

        self._show_phase("waiting for the pair" if self._pairs.in_progress else None)
        turn.task = self._models.submit(job)
        if turn.stopped:
            self._models.stop(turn.task)

    # -- stopping and steering ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop the reply in progress, and nothing else."""
        if self.turn is not None:
            self.turn.stopped = True
            if self.turn.task is not None:
                self._models.stop(self.turn.task)

    def steer(self, threshold: float) -> bool:
        """Another threshold for the reply that is being drafted; returns whether one is in progress."""
        run = self.answering.run
        if run is not None:
            run.steer(threshold)
        return run is not None

    def hand_over(self) -> None:
        """Let the base continue now."""
        if (run := self.answering.run) is not None:
            run.hand_over()

    # -- news of the models ------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Show what the models have published since the last call."""
        for news in self._models.news():
            self._take(news)
        turn = self.turn
        if turn is not None and turn.begun is not None and turn.begun.writer.trouble is not None:
            self._end.report_once(str(turn.begun.writer.trouble))
        if turn is not None and turn.view is not None and turn.view.is_attached:
            turn.view.flush()

    def _take(self, news: object) -> None:
        status, turn = self._view.status, self.turn
        if isinstance(news, Loading):
            self._pairs.advanced(news)
        elif isinstance(news, Loaded):
            self._phase = None
            self._pairs.loaded(news, self._conversation.title)
        elif isinstance(news, ReplyProgress):
            status.progress = news
            self._show_phase(PHASES[news.phase])
        elif isinstance(news, Emitted) and turn is not None and news.key == turn.key:
            self._follow(turn, news)
        elif isinstance(news, Began):
            status.progress = None
            self._show_phase("drafting")
        elif isinstance(news, Ended):
            gc.unfreeze()
            if turn is not None and news.key == turn.key and not turn.ending:
                self._ended(turn)
            else:
                self._show_phase(None)
        elif isinstance(news, TaskFailed):
            self._failed(news)

    def _follow(self, turn: Turn, news: Emitted) -> None:
        assert turn.begun is not None
        event, writer = news.event, turn.begun.writer
        if isinstance(event, Text):
            writer.text(event)
            self._show_phase("continuing" if event.source == "base" else "drafting")
            if turn.view is not None:
                turn.view.append(event.text)
        elif isinstance(event, Switched):
            writer.switched(event)
            if turn.view is not None and not turn.view.entry.label:  # later turns of the draft have no mark
                turn.view.switch(label(event.reason, event.confidence))
        elif isinstance(event, Checked):
            writer.checked(event)
        elif isinstance(event, Reading):
            reads = f"{event.model} reads {event.done:,} of {event.total:,} tokens"
            self._view.status.phase = reads if event.done < event.total else self._phase or self._pairs.idle_phase
        elif isinstance(event, Notice):
            self._view.say(event.message, "warning")
        elif isinstance(event, Finished):
            turn.reply = event.reply
            self._ended(turn)

    def _show_phase(self, phase: str | None) -> None:
        """Show what the models do; None is nothing, and does not hide how far a pair is loaded."""
        self._phase, status = phase, self._view.status
        if phase is not None or not status.phase.startswith("loading"):
            status.phase = phase or self._pairs.idle_phase

    # -- the end of a reply ------------------------------------------------------------------------------------------

    def _ended(self, turn: Turn) -> None:
        turn.ending = True
        self._show_phase(None)
        self._view.start(self._keep(turn))

    @in_order
    async def _keep(self, turn: Turn) -> None:
        try:
            await self._end.keep(turn)
        finally:
            self.turn = None

    def _failed(self, news: TaskFailed) -> None:
        turn = self.turn
        if self._pairs.failed(news):
            self._view.start(self._end.warn(news.message))
        elif turn is not None and news.task is turn.task and not turn.ending:
            turn.ending = True
            gc.unfreeze()
            self._show_phase(None)
            self._view.start(self._give_up(turn, news.message))
        elif not news.task.stopped:
            self._show_phase(None)
            self._view.start(self._end.warn(news.message))

    @in_order
    async def _give_up(self, turn: Turn, message: str) -> None:
        try:
            await self._end.give_up(turn, message)
        finally:
            self.turn = None

    async def close(self) -> str | None:
        """End everything, and keep what was written if the store allows it soon. Returns what is lost, for people."""
        turn, self.turn = self.turn, None
        self._conversation.store.hurry(LEAVE_S)
        await asyncio.to_thread(self._models.close)
        for news in self._models.news():
            if turn is not None and isinstance(news, Emitted) and news.key == turn.key and turn.begun is not None:
                if isinstance(news.event, Text):
                    turn.begun.writer.text(news.event)
                elif isinstance(news.event, Finished):
                    turn.reply = news.event.reply
        async with self.thread.order:
            begun = None if turn is None else turn.begun
            lost = None
            if turn is not None and begun is None and turn.typed:
                lost = "the last question could not be written, and is not kept"
            try:
                await self.thread.do(self._conversation.close, begun, None if turn is None else turn.reply)
            except WsdError as error:
                lost = f"{error}; the end of the last reply is not kept"
        return lost
