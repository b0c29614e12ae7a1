"""Questions and replies in the app: asking, listening to the models, stopping, answering anew, going on.

Contract: a question is in the store before its reply begins to stream. What a person typed is never lost: where it
cannot be kept or answered, it goes back into the composer, and a message says why. The screen takes news twenty-five
times a second.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from textual import on

from wsd_chat.endings import Endings, Turn
from wsd_chat.entries import Entry, label, messages_of
from wsd_chat.frame import in_turn
from wsd_chat.model_jobs import Began, Ended, Loaded, Loading, Pulse, Reading, Said, Wanted, load_job
from wsd_chat.widgets.composer import Composer
from wsd_chat.widgets.greeting import greeting
from wsd_local.errors import WsdError
from wsd_local.events import Checked, Notice, Switched, Text
from wsd_local.prompts.messages import Message
from wsd_local.runtime.power import on_battery
from wsd_local.runtime.reply import Finished
from wsd_local.runtime.worker import Failed, Worker
from wsd_local.settings import ReplySettings, changed


class Turns(Endings):
    """The app, as far as it talks with models."""

    # -- models ----------------------------------------------------------------------------------------------

    def load(self, wanted: Wanted) -> None:
        """Load a pair in the models' thread, in place of one that is being loaded."""
        if self._loading is not None:
            self.models.stop(self._loading)
        self.wanted = wanted
        self.status.pair, self.status.phase, self.status.pulse = wanted.name, "loading", None
        self.status.threshold = self.threshold
        self._loading = self.models.submit(partial(load_job, wanted=wanted))

    def _prepare(self, worker: Worker) -> None:
        if not on_battery() and self.wanted.prepare:
            self.answering.prepare(worker)

    # -- asking ------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a reply is asked for, written, or being kept."""
        return self.turn is not None

    def ask(self, text: str) -> None:
        """Send a question, in place of the one that is edited if there is one."""
        edited, self.editing = self.editing, None
        self.turn = Turn(text)
        self.status.phase = "saving"
        self.start(self._ask(self.turn, text, edited))

    @in_turn
    async def _ask(self, turn: Turn, text: str, edited: Entry | None) -> None:
        parent = self.talk.head if edited is None else edited.parent
        await self.transcript.echo(text, parent)
        shown = self.transcript.entries
        settings = dict(self.overrides)
        try:
            self._check(settings)
            turn.begun = await self.desk.do(self.talk.ask, text, parent, pair=self.status.pair, settings=settings)
        except Exception as error:
            self.turn, self.editing = None, edited
            self._rest()
            await self.transcript.show(shown[:-1] if edited is None else await self._entries(shown[:-1]))
            self.composer.put_back(text)
            await self._warn(str(error) if isinstance(error, WsdError) else f"internal error: {error!r}")
            return
        await self._answer(turn, settings)
        self.refresh_list()
        self.sub_title = self.talk.title

    async def _entries(self, otherwise: list[Entry]) -> list[Entry]:
        try:
            return await self.desk.do(self.talk.entries)
        except WsdError:
            return otherwise

    @staticmethod
    def _check(settings: Mapping[str, Any]) -> None:
        changed(ReplySettings(), {name: value for name, value in settings.items() if name != "system"})

    async def _answer(self, turn: Turn, settings: dict[str, Any]) -> None:
        """Show a reply that is in the store, and have it written."""
        begun = turn.begun
        assert begun is not None
        key, messages = begun.key, messages_of(begun.branch, self.talk.system)
        await self.transcript.show(begun.branch)
        if begun.goes_on:
            turn.view = self.transcript.view_of(begun.writer.id)
            if turn.view is not None:
                self._close_view(turn, replace(turn.view.entry, state="writing"))
        else:
            question = begun.branch[-1].id
            turn.view = await self.transcript.add(Entry(begun.writer.id, question, "assistant", "", "writing"))
        # While text streams, the collector walks through new objects only; through all of them it takes 0.1 s.
        gc.freeze()

        def job(worker: Worker) -> None:
            if not (begun.goes_on and self.answering.go_on(worker, key)):
                self.answering.answer(worker, key, messages, settings)

        self._rest("waits for the pair" if self._loading is not None else None)
        turn.task = self.models.submit(job)
        if turn.stopped:
            self.models.stop(turn.task)

    def action_regenerate(self) -> None:
        """Answer the last question anew."""
        if not self.busy and self.talk.head is not None:
            self.turn = Turn()
            self.start(self._again(self.turn, goes_on=False))

    def action_go_on(self) -> None:
        """Go on with a stopped reply."""
        if self.busy or self.talk.head is None:
            return
        if self.models.pair is None and self._loading is None:
            self.say("no pair is loaded; F8 chooses one, then F6 goes on", "warning")
            return
        self.turn = Turn()
        self.start(self._again(self.turn, goes_on=True))

    @in_turn
    async def _again(self, turn: Turn, *, goes_on: bool) -> None:
        settings = dict(self.overrides)
        try:
            self._check(settings)
            begin = self.talk.go_on if goes_on else self.talk.regenerate
            turn.begun = await self.desk.do(begin, pair=self.status.pair, settings=settings)
        finally:
            if turn.begun is None:
                self.turn = None
        if turn.begun is not None:
            await self._answer(turn, settings)
        elif goes_on:
            self.say("the last reply is complete", "warning")

    def action_edit(self) -> None:
        """Put the chosen question, else the last one, into the composer; sending it makes another branch."""
        question = self.asked()
        if question is not None and not self.busy:
            self.editing = question
            self.composer.put(question.text)
            self.composer.focus()
            self.say("edit and press Enter: the old branch stays (Alt+Left)")

    def stop_reply(self) -> None:
        """Stop the reply that is asked for or written, and nothing else."""
        if self.turn is not None:
            self.turn.stopped = True
            if self.turn.task is not None:
                self.models.stop(self.turn.task)

    # -- news ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        if not self.is_running:
            return
        for news in self.models.news():
            self._take(news)
        turn = self.turn
        if turn is not None and turn.begun is not None and turn.begun.writer.trouble is not None:
            self._tell_once(str(turn.begun.writer.trouble))
        if turn is not None and turn.view is not None and turn.view.is_attached:
            turn.view.flush()

    def _take(self, news: Any) -> None:
        status, turn = self.status, self.turn
        if isinstance(news, Loading):
            status.phase = f"loading the {news.role} {news.fraction:.0%}"
        elif isinstance(news, Loaded):
            self._loaded(news)
        elif isinstance(news, Reading):
            reads = news.done < news.total
            status.phase = f"{news.role} reads {news.done / max(news.total, 1):.0%}" if reads else self._phase
        elif isinstance(news, Pulse):
            status.pulse = news
            self._rest(news.phase)
        elif isinstance(news, Said) and turn is not None and news.key == turn.key:
            self._heard(turn, news)
        elif isinstance(news, Began):
            self._rest("drafting")
        elif isinstance(news, Ended):
            gc.unfreeze()
            if turn is not None and news.key == turn.key and not turn.ending:
                self._end(turn)
            else:
                self._rest()
        elif isinstance(news, Failed):
            self._failed(news)

    def _loaded(self, news: Loaded) -> None:
        self._loading = None
        self._phase = self.status.phase = "ready"
        if not self.talk.title:
            self.sub_title = news.name
        self.transcript.greet(greeting(news, self.wanted))
        for note in news.notes:
            self.say(note, "warning")

    def _heard(self, turn: Turn, news: Said) -> None:
        assert turn.begun is not None
        event, writer = news.event, turn.begun.writer
        if isinstance(event, Text):
            writer.text(event)
            self._rest("continuing" if event.source == "base" else "drafting")
            if turn.view is not None:
                turn.view.say(event.text)
        elif isinstance(event, Switched):
            writer.switched(event)
            if turn.view is not None:
                turn.view.switch(label(event.reason, event.confidence))
        elif isinstance(event, Checked):
            writer.checked(event)
        elif isinstance(event, Notice):
            self.say(event.message, "warning")
        elif isinstance(event, Finished):
            turn.reply = event.reply
            self._end(turn)

    # -- the composer ------------------------------------------------------------------------------------------

    @on(Composer.Submitted)
    def submitted(self, message: Composer.Submitted) -> None:
        """Send what was written, or do what a slash command says."""
        if message.text.startswith("/") and "\n" not in message.text:
            self.slash(message.text[1:])
        elif self.busy:
            self.say("a reply is being written; Esc stops it", "warning")
        else:
            self.composer.remember(message.text)
            self.ask(message.text)

    @on(Composer.Paged)
    def paged(self, message: Composer.Paged) -> None:
        """Scroll the conversation while a person writes."""
        if message.step < 0:
            self.transcript.scroll_page_up()
        else:
            self.transcript.scroll_page_down()

    def slash(self, line: str) -> None:
        """Do what a slash command says."""
        raise NotImplementedError

    def messages(self, branch: list[Entry]) -> list[Message]:
        """What the models read of a branch."""
        return messages_of(branch, self.talk.system)
