"""The chat: one screen that puts transcript, composer, list of chats and status line together.

Contract: everything that takes time happens in the worker's thread or in a thread of Textual's; the screen takes news
twenty-five times a second. What a person typed is never lost: where it cannot be answered, it goes back into the
composer.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from textual import on
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.filter import LineFilter
from textual.screen import Screen
from textual.widgets import Footer, Header

from wsd_chat import keys
from wsd_chat.book import entries, entry_of, label, messages_of
from wsd_chat.chats import ChatList
from wsd_chat.composer import Composer
from wsd_chat.guard import VISIBLE
from wsd_chat.screens import Ask, HelpScreen, LogScreen, ModelPicker, SettingsScreen
from wsd_chat.status import StatusLine
from wsd_chat.steps import SwitchView
from wsd_chat.talk import (
    Answering,
    Began,
    Ended,
    Loaded,
    Loading,
    Pulse,
    Reading,
    Said,
    Wanted,
    load_job,
)
from wsd_chat.transcript import Entry, MessageView, Transcript
from wsd_chat.worker import Failed, Worker
from wsd_local.atomic import write_text
from wsd_local.errors import UsageError, WsdError
from wsd_local.events import Checked, Notice, Switched, Text
from wsd_local.paths import expanded
from wsd_local.power import on_battery
from wsd_local.reply import Finished
from wsd_local.settings import ReplySettings, changed
from wsd_local.store import ReplyWriter, Store, StoreError
from wsd_local.target import check_file

GREETING = (
    "Ask something. A small aligned model opens the reply (italic); the base model takes over at the mark.\n\n"
    "This is the embedded pair, for trying the machinery: ask it for the capital of France, or how to boil an egg.\n"
    "For real use, F8 shows pairs that fit this machine, and fetches one."
)
FRAMES = 25


class ChatApp(App[None]):
    """The terminal chat."""

    CSS = """
    Screen { layers: base; }
    #middle { height: 1fr; }
    #talk { width: 1fr; }
    ChatList { width: 30; display: none; }
    .-wide ChatList { display: block; }
    .-listed ChatList { display: block; }
    .-unlisted ChatList { display: none; }
    .-narrow ChatList { width: 100%; }
    .-narrow.-listed #talk { display: none; }
    .-low Footer, .-low Header { display: none; }
    """
    TITLE = "wsd-chat"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-middle"), (120, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (24, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[Any]] = [
        *keys.bindings(),
        Binding("ctrl+c", "interrupt", "stop, twice quits", show=False, priority=True),
    ]

    def __init__(
        self,
        wanted: Wanted,
        store: Store,
        *,
        chat: int | None = None,
        log: Path | None = None,
        system: str | None = None,
        off_record: bool = False,
    ) -> None:
        super().__init__()
        self.wanted = wanted
        self.store = store
        self.passing: Store | None = Store(":memory:") if off_record else None
        self.log_file = log
        self.system = self._first_system = system
        self.overrides: dict[str, Any] = {}
        self.chat_id = chat
        self.head: int | None = None
        self.models = Worker()
        self.answering = Answering()
        self._writer: ReplyWriter | None = None
        self._view: MessageView | None = None
        self._editing: Entry | None = None
        self._chosen: int | None = None
        self._trouble_told = ""
        self._key = ""
        self._kept_in: Store = store
        self._deleted: list[int] = []
        self._interrupted = 0.0

    # -- the screen -----------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        yield Header(icon="")
        with Horizontal(id="middle"):
            yield ChatList(self.store)
            with Vertical(id="talk"):
                yield Transcript(id="transcript")
                yield Composer(id="composer")
        yield StatusLine()
        yield Footer(compact=True)

    async def on_mount(self) -> None:
        """Load the pair, show the chat, begin to listen."""
        self.theme = "textual-dark"
        self.transcript.greeting = GREETING
        self.query_one("#empty").update(GREETING)  # type: ignore[attr-defined]
        self.models.idle = self._prepare
        self.set_interval(1 / FRAMES, self._listen)
        self.query_one(Composer).focus()
        self.load(self.wanted)
        if self.chat_id is not None:
            await self.open_chat(self.chat_id)

    @property
    def transcript(self) -> Transcript:
        """The conversation on the screen."""
        return self.query_one(Transcript)

    @property
    def status(self) -> StatusLine:
        """The line at the bottom."""
        return self.query_one(StatusLine)

    @property
    def book(self) -> Store:
        """Where this chat is kept: in the file, or in memory if it is off the record."""
        return self.passing or self.store

    @property
    def threshold(self) -> float:
        """The threshold that the next reply begins with."""
        return float(self.overrides.get("threshold", self.wanted.settings.get("threshold", 0.8)))

    def say(self, message: str, severity: str = "information") -> None:
        """Tell a person something in passing."""
        self.notify(message, severity=severity, markup=False)  # type: ignore[arg-type]

    # -- models ----------------------------------------------------------------------------------------------

    def load(self, wanted: Wanted) -> None:
        """Load a pair in the worker."""
        self.wanted = wanted
        self.status.pair, self.status.phase, self.status.pulse = wanted.name, "loading", None
        self.status.threshold = self.threshold
        self.models.do(partial(load_job, wanted=wanted))

    def _prepare(self, worker: Worker) -> None:
        if not on_battery() and self.wanted.prepare:
            self.answering.prepare(worker)

    # -- saying something --------------------------------------------------------------------------------------

    @on(Composer.Submitted)
    async def submitted(self, message: Composer.Submitted) -> None:
        """Send what was written, or do what a slash command says."""
        composer = self.query_one(Composer)
        if message.text.startswith("/") and "\n" not in message.text:
            await self._slash(message.text[1:])
            return
        if self._writer is not None:
            self.say("a reply is being written; Esc stops it", "warning")
            return
        composer.remember(message.text)
        parent = self.head
        if self._editing is not None:
            parent, self._editing = self._editing.parent, None
        await self._ask(message.text, parent)

    async def _ask(self, text: str, parent: int | None) -> None:
        try:
            chat = self._chat()
            question = self.book.add(chat, parent, "user", text)
        except WsdError as error:
            await self._trouble(str(error))
            return
        self.head = question
        await self._show()
        await self._answer(question)

    async def _answer(self, question: int, **overrides: Any) -> None:
        chat, branch = self._chat(), entries(self.book, question)
        try:
            settings = self.overrides | overrides
            changed(ReplySettings(), {name: value for name, value in settings.items() if name != "system"})
            name = self.status.pair
            self._writer = self.book.begin_reply(chat, question, pair=name, settings=settings)
        except WsdError as error:
            await self._trouble(str(error))
            return
        key = self._key = self._key_of(self._writer.id)
        # While text streams, the collector walks through new objects only; through all of them it takes 0.1 s.
        gc.freeze()
        self._view = await self.transcript.add(Entry(self._writer.id, question, "assistant", "", "writing"))
        self.head = self._writer.id
        self.models.do(lambda worker: self.answering.answer(worker, key, messages_of(branch, self.system), settings))

    def _key_of(self, message: int) -> str:
        """A reply's name in news; a chat off the record counts its messages anew."""
        self._kept_in = self.book
        return f"{id(self.book)}:{message}"

    def _chat(self) -> int:
        if self.chat_id is None:
            self.chat_id = self.book.create(pair=self.status.pair, system=self.system)
        return self.chat_id

    # -- news ------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if not self.is_running or not self.screen_stack[0].query(StatusLine):
            return
        for news in self.models.take():
            try:
                await self._take(news)
            except WsdError as error:
                # The reply goes on; what the file could not take is said with the next change, or lost with this one.
                self._told(str(error))
        if self._writer is not None and self._writer.trouble is not None:
            self._told(str(self._writer.trouble))
        if self._view is not None and self._view.is_attached:
            await self._view.flush()

    def _told(self, trouble: str) -> None:
        """Say once what keeps going wrong."""
        if trouble != self._trouble_told:
            self._trouble_told = trouble
            self.say(trouble, "error")

    async def _take(self, news: Any) -> None:
        status = self.status
        if isinstance(news, Loading):
            status.phase = f"loading the {news.role} {news.fraction:.0%}"
        elif isinstance(news, Loaded):
            status.phase, self.sub_title = "ready", news.name
            for note in news.notes:
                self.say(note, "warning")
        elif isinstance(news, Reading):
            status.phase = f"{news.role} reads {news.done / max(news.total, 1):.0%}"
        elif isinstance(news, Pulse):
            status.pulse, status.phase = news, news.phase
        elif isinstance(news, Said):
            await self._heard(news)
        elif isinstance(news, Ended):
            status.phase = "ready"
            self._view = None
            gc.unfreeze()
        elif isinstance(news, Failed):
            await self._failed(news)
        elif isinstance(news, Began):
            status.phase = "drafting"

    async def _heard(self, news: Said) -> None:
        event, writer = news.event, self._writer
        view = self._view if self._view is not None and self._view.is_attached else None
        if writer is None or news.key != self._key:
            return
        if isinstance(event, Text):
            writer.text(event)
            if view is not None:
                view.say(event.text)
        elif isinstance(event, Switched):
            writer.switched(event)
            if view is not None:
                view.switch(label(event.reason, event.confidence))
        elif isinstance(event, Checked):
            writer.checked(event)
        elif isinstance(event, Notice):
            self.say(event.message, "warning")
        elif isinstance(event, Finished):
            self._writer = None
            try:
                writer.finish(event.reply)
            except StoreError as error:
                self._told(f"this reply could not be kept: {error}")
                if view is not None:
                    await self._closed_with(view, replace(view.entry, state="finished"))
                return
            await self._settled(writer.id, view)

    async def _settled(self, message: int, view: MessageView | None) -> None:
        """Show a reply as it was kept, if it is on the screen still."""
        if view is not None:
            await self._closed_with(view, entry_of(self._kept_in, self._kept_in.message(message)))
        self._listed()

    async def _closed_with(self, view: MessageView, entry: Entry) -> None:
        await view.close(entry)
        shown = self.transcript.entries
        if shown and shown[-1].id == entry.id:
            shown[-1] = entry

    async def _failed(self, news: Failed) -> None:
        self.status.phase = "ready" if self.models.pair is not None else "no pair"
        writer, view = self._writer, self._view
        self._writer, self._view = None, None
        if writer is not None:
            writer.fail(news.message)
            row = self._kept_in.message(writer.id)
            if row.text:
                await self._settled(writer.id, view if view is not None and view.is_attached else None)
            elif row.parent is not None and self._kept_in is self.book and self.head == writer.id:
                await self._take_back(row.parent)
        await self._trouble(news.message)

    async def _take_back(self, question: int) -> None:
        """A question that could not be answered goes back into the composer."""
        asked = self.book.message(question)
        self.head = asked.parent
        self.book.withdraw(question)
        await self._show()
        composer = self.query_one(Composer)
        if not composer.text:
            composer.put(asked.text)

    async def _trouble(self, message: str) -> None:
        """An error as a message with a next step, in the conversation."""
        hint = "" if "wsd-local" in message or "--" in message else " · F8 chooses another pair, F12 shows the log"
        await self.transcript.add(Entry(-1, None, "error", f"{message}{hint}"))
        self.transcript.entries.pop()

    # -- chats -----------------------------------------------------------------------------------------------

    async def open_chat(self, chat_id: int | None) -> None:
        """Show another chat, or an empty one."""
        self.action_stop()
        self.passing = None
        self.chat_id, self.head, self._editing, self._view = chat_id, None, None, None
        self.system, self.sub_title = self._first_system, ""
        if chat_id is not None:
            row = self.store.chat(chat_id)
            self.head, self.system, self.sub_title = row.head, row.system, row.title
        await self._show()
        self.query_one(Composer).focus()

    async def _show(self) -> None:
        await self.transcript.show(entries(self.book, self.head))
        self._listed()

    def _listed(self) -> None:
        self.query_one(ChatList).refresh_rows(self.chat_id)

    @on(ChatList.Opened)
    async def opened(self, message: ChatList.Opened) -> None:
        """A chat was chosen in the list."""
        try:
            await self.open_chat(message.chat_id)
        except WsdError as error:
            self.say(str(error), "error")
        self.remove_class("-listed")

    async def _slash(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        composer = self.query_one(Composer)
        if name in ("threshold", "system", "title") and argument:
            composer.remember(f"/{line}")
            if name == "threshold":
                self.set_threshold(argument)
            elif name == "system":
                self._set_system(argument)
                self.say("the system prompt holds for the next questions")
            elif self.chat_id is not None:
                self.book.rename(self.chat_id, argument)
                self._listed()
            return
        command = keys.slash(name)
        if command is None:
            self.say(f"there is no command /{name}; F1 shows all", "warning")
            return
        composer.remember(f"/{line}")
        await self.run_action(command.action)

    def _set_system(self, system: str | None) -> None:
        self.system = system
        if self.chat_id is not None:
            self.book.configure(self.chat_id, pair=self.status.pair, system=system, preset=None)

    def set_threshold(self, value: float | str) -> None:
        """Let another threshold hold, for the reply that is being drafted too."""
        try:
            threshold = float(value)
            changed(ReplySettings(), {"threshold": threshold})
        except (ValueError, UsageError):
            self.say(f"the threshold must be a number of at least 0, not {value!r}", "warning")
            return
        self.overrides["threshold"] = threshold
        self.status.threshold = threshold
        if (run := self.answering.run) is not None:
            run.steer(threshold)

    async def run_action(self, *arguments: Any, **named: Any) -> bool:
        """Do something; what the store or a model cannot do is said, and ends nothing."""
        try:
            return await super().run_action(*arguments, **named)
        except WsdError as error:
            self.say(str(error), "error")
            return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While another screen is over the chat, its keys do nothing to the chat below."""
        names = {command.action.partition("(")[0] for command in keys.COMMANDS} - {"quit"}
        if len(self.screen_stack) > 1 and action in names:
            return False
        return super().check_action(action, parameters)

    # -- actions -----------------------------------------------------------------------------------------------

    def action_stop(self) -> None:
        """Stop the reply; what is there stays. Otherwise leave off editing."""
        if self._editing is not None and self._writer is None:
            self._editing = None
            self.query_one(Composer).put("")
        if self._writer is not None or self.status.phase.startswith("loading"):
            self.models.stop()

    def action_interrupt(self) -> None:
        """Ctrl-C: stop; twice within two seconds: leave."""
        now = self._loop_time()
        if self._writer is None and now - self._interrupted < 2:
            self.exit()
        elif self._writer is None:
            self.say("Ctrl+C again leaves")
        self._interrupted = now
        self.action_stop()

    def _loop_time(self) -> float:
        import asyncio

        return asyncio.get_running_loop().time()

    async def action_new_chat(self) -> None:
        """An empty chat; it is kept from the first question on."""
        await self.open_chat(None)

    async def action_off_record(self) -> None:
        """An empty chat that is kept in no file."""
        await self.open_chat(None)
        self.passing = Store(":memory:")
        self.say("this chat is off the record: it is kept in no file")

    def action_chats(self) -> None:
        """Show or hide the list of chats."""
        listed = self.query_one(ChatList)
        shown = listed.display
        self.set_class(not shown, "-listed")
        self.set_class(shown, "-unlisted")
        if not shown:
            listed.focus_search()
        else:
            self.query_one(Composer).focus()

    def action_search(self) -> None:
        """Search in all chats."""
        self.remove_class("-unlisted")
        self.add_class("-listed")
        self.query_one(ChatList).focus_search()

    def action_hand_over(self) -> None:
        """Let the base go on now."""
        if (run := self.answering.run) is not None:
            run.hand_over()

    def action_keep_drafting(self) -> None:
        """Let the draft write to its end."""
        if (run := self.answering.run) is not None:
            run.steer(2.0)
            self.say("the draft goes on to its end")

    def action_slide(self, by: float) -> None:
        """Move the threshold."""
        self.set_threshold(round(min(max(self.threshold + by, 0.0), 1.05), 2))

    async def action_regenerate(self) -> None:
        """Answer the last question anew."""
        if self._writer is not None or self.head is None:
            return
        last = self.book.message(self.head)
        question = last.parent if last.role == "assistant" else last.id
        if question is None:
            return
        self.head = question
        await self._show()
        await self._answer(question)

    async def action_go_on(self) -> None:
        """Go on with a stopped reply."""
        if self._writer is not None or self.head is None:
            return
        row = self.book.message(self.head)
        view = self.transcript.view_of(row.id)
        if row.role != "assistant" or row.state == "finished" or view is None:
            self.say("the last reply is complete", "warning")
            return
        key, branch = self._key_of(row.id), entries(self.book, row.id)
        self._key = key
        self._writer, self._view = (
            self.book.continue_reply(row.id, pair=self.status.pair, settings=self.overrides),
            view,
        )

        def job(worker: Worker) -> None:
            if not self.answering.go_on(worker, key):
                self.answering.answer(worker, key, messages_of(branch, self.system), dict(self.overrides))

        self.models.do(job)

    def action_edit(self) -> None:
        """Put the last question back into the composer; sending it makes another branch."""
        asked = [entry for entry in self.transcript.entries if entry.role == "user"]
        if asked and self._writer is None:
            self._editing = asked[-1]
            self.query_one(Composer).put(asked[-1].text)
            self.query_one(Composer).focus()
            self.say("edit and press Enter: the old branch stays (Alt+Left)")

    async def action_branch(self, step: int) -> None:
        """Show the sibling of the last message that has any."""
        if self._writer is not None:
            return
        for entry in reversed(self.transcript.entries):
            if entry.place[1] > 1:
                family = self.book.siblings(entry.id)
                other = family[(entry.place[0] - 1 + step) % len(family)]
                self.head = self.book.leaf(other)
                self.book.set_head(self._chat(), self.head)
                await self._show()
                return
        self.say("there is one branch only; F5 or F7 make another", "warning")

    def action_switch_view(self) -> None:
        """Look into the last reply, token by token."""
        replies = [
            entry for entry in self.transcript.entries if entry.role == "assistant" and "timings" in entry.report
        ]
        if replies and self._writer is None:
            last = replies[-1]
            branch = entries(self.book, last.parent)
            tokens = self.book.tokens(last.id)
            self.push_screen(SwitchView(last, tokens, messages_of(branch, self.system), self.models))
        else:
            self.say("there is no finished reply to look into", "warning")

    def action_models(self) -> None:
        """Choose a pair."""

        def chosen(name: str | None) -> None:
            if name is not None:
                self.load(replace(self.wanted, pair=name, draft=None, base=None))

        self.push_screen(ModelPicker(self.status.pair), chosen)

    def action_settings(self) -> None:
        """Threshold, sampling, system prompt, presets."""

        def chosen(values: dict[str, Any] | None) -> None:
            if values is None:
                return
            self._set_system(values.pop("system") or None)
            self.overrides = values
            self.set_threshold(values.get("threshold", self.threshold))

        current = {"threshold": self.threshold, **self.overrides, "system": self.system or ""}
        self.push_screen(SettingsScreen(current, self.store, self.status.pair), chosen)

    def action_compare(self) -> None:
        """Base alone, draft alone and both, side by side."""
        from wsd_chat.compare import CompareScreen

        asked = [entry for entry in self.transcript.entries if entry.role == "user"]
        if not asked or self._writer is not None:
            self.say("ask something first; the last question is compared", "warning")
            return
        branch = entries(self.book, asked[-1].id)
        self.push_screen(CompareScreen(self.models, messages_of(branch, self.system), dict(self.overrides)))

    @on(MessageView.Chosen)
    def chosen(self, message: MessageView.Chosen) -> None:
        """Mark the message that was clicked; a second click takes the mark away."""
        self._chosen = None if self._chosen == message.entry.id else message.entry.id
        for view in self.query(MessageView):
            view.set_class(view.entry.id == self._chosen, "chosen")

    def _meant(self) -> str:
        """Text of the chosen message, else of the last reply."""
        entries = self.transcript.entries
        chosen = [entry for entry in entries if entry.id == self._chosen]
        replies = [entry for entry in entries if entry.role == "assistant"]
        return (chosen or replies)[-1].text if chosen or replies else ""

    def action_copy(self) -> None:
        """Copy the chosen message, else the last reply."""
        if text := self._meant():
            self._copied(text)

    def action_copy_code(self) -> None:
        """Copy the last code block of that message."""
        blocks = self._meant().split("```")[1::2]
        if blocks:
            self._copied(blocks[-1].partition("\n")[2].rstrip("\n"))
        else:
            self.say("there is no code block", "warning")

    def _copied(self, text: str) -> None:
        from wsd_chat.clipboard import copy

        program = copy(text)
        if program is not None:
            self.say(f"copied ({len(text)} characters, by {program})")
        else:
            self.copy_to_clipboard(text)
            self.say("sent to the terminal's clipboard; whether it took it cannot be told", "warning")

    def action_export(self) -> None:
        """Write the chat to a file."""
        if self.chat_id is None:
            self.say("there is nothing to export yet", "warning")
            return

        def named(name: str | None) -> None:
            if not name or self.chat_id is None:
                return
            kind: Literal["json", "markdown"] = "json" if name.endswith(".json") else "markdown"
            try:
                check_file(path := expanded(name))
                write_text(path, self.book.export(self.chat_id, kind))
                self.say(f"written to {name}")
            except OSError as error:
                self.say(f"{name}: cannot be written: {error.strerror}", "error")
            except WsdError as error:
                self.say(str(error), "error")

        self.push_screen(Ask("Export to (.md or .json)", f"chat-{self.chat_id}.md"), named)

    def action_rename(self) -> None:
        """Rename the chat."""
        if (chat := self.chat_id) is None:
            return

        def named(title: str | None) -> None:
            if not title:
                return
            try:
                self.book.rename(chat, title)
                self.sub_title = title
                self._listed()
            except WsdError as error:
                self.say(str(error), "error")

        self.push_screen(Ask("Title", self.book.chat(chat).title), named)

    async def action_delete(self) -> None:
        """Delete the chat; it can be brought back."""
        if self.chat_id is None or self.passing is not None:
            return
        self.store.delete(self.chat_id)
        self._deleted.append(self.chat_id)
        await self.open_chat(None)
        self.say("deleted; Alt+Z brings it back")

    async def action_undo(self) -> None:
        """Bring back the chat that was deleted last."""
        if self._deleted:
            chat = self._deleted.pop()
            self.store.restore(chat)
            await self.open_chat(chat)

    def action_log(self) -> None:
        """What llama.cpp said."""
        self.push_screen(LogScreen(self.log_file))

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(HelpScreen())

    async def action_quit(self) -> None:
        """Leave."""
        self.exit()

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        """All commands in the palette too."""
        yield from super().get_system_commands(screen)
        for command in keys.COMMANDS:
            yield SystemCommand(command.name, command.help, self._runs(command.action))

    def get_line_filters(self) -> Sequence[LineFilter]:
        """The guard comes last: no text can steer the terminal."""
        return [*super().get_line_filters(), VISIBLE]

    def _runs(self, action: str) -> Callable[[], Any]:
        async def run() -> None:
            await self.run_action(action)

        return lambda: self.call_later(run)

    async def on_unmount(self) -> None:
        """Nothing is left running."""
        if self._writer is not None:
            self._writer.close()
        self.models.close()
