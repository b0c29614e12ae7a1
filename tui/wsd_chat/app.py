"""The chat: what can be done by key, by slash command and from the palette.

Contract: an action that needs the store or the models starts it and returns (see `wsd_chat.frame`). Going to another
chat stops the reply that is written there, never the loading of a pair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Literal

from textual import on
from textual.app import SystemCommand
from textual.screen import Screen

from wsd_chat import commands as keys
from wsd_chat.entries import Entry, entries, tokens_of
from wsd_chat.frame import in_turn
from wsd_chat.screens.box import Ask, HelpScreen, LogScreen
from wsd_chat.turns import Turns
from wsd_chat.widgets.chat_list import ChatList
from wsd_chat.widgets.message import MessageView
from wsd_local.errors import UsageError
from wsd_local.settings import ReplySettings, changed

FRAMES = 25


class ChatApp(Turns):
    """The terminal chat."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._deleted: list[int] = []
        self._interrupted = 0.0

    def on_mount(self) -> None:
        """Load the pair, show the chat, begin to listen."""
        self.theme = self._look.theme if self._look.theme in self.available_themes else self.theme
        self.show_list(None)
        self.models.idle = self._prepare
        self.set_interval(1 / FRAMES, self._listen)
        self.composer.focus()
        self.load(self.wanted)
        if self._first_chat is not None:
            self.start(self.open_chat(self._first_chat))

    # -- chats -----------------------------------------------------------------------------------------------

    def open_chat(self, chat_id: int | None, *, passing: bool = False) -> Coroutine[Any, Any, None]:
        """Show another chat, or an empty one; `passing` keeps it in no file. A reply that is written stops."""
        self.stop_reply()
        self.editing = None
        return self._open_chat(chat_id, passing=passing)

    @in_turn
    async def _open_chat(self, chat_id: int | None, *, passing: bool) -> None:
        shown = await self.desk.do(self.talk.open, chat_id, self._first_system, passing=passing)
        if self.turn is not None:
            self.turn.view = None
        self.chosen, self.sub_title = None, self.talk.title
        self.status.note = "off the record" if passing else ""
        await self.transcript.show(shown)
        self.refresh_list()
        if len(self.screen_stack) == 1:
            self.composer.focus()

    @on(ChatList.Opened)
    def opened(self, message: ChatList.Opened) -> None:
        """A chat was chosen in the list."""
        self.start(self.open_chat(message.chat_id))
        self.show_list(None)

    @on(ChatList.Left)
    def left(self) -> None:
        """Back from the list of chats to the message."""
        self.show_list(None)
        self.composer.focus()

    def action_new_chat(self) -> None:
        """An empty chat; it is kept from the first question on."""
        self.start(self.open_chat(None))

    def action_off_record(self) -> None:
        """An empty chat that is kept in no file."""
        self.start(self.open_chat(None, passing=True))
        self.say("this chat is off the record: it is kept in no file")

    def action_chats(self) -> None:
        """Show or hide the list of chats."""
        listed = self.query_one(ChatList)
        self.show_list(not listed.display)
        if listed.display:
            listed.focus_search()
        else:
            self.composer.focus()

    def action_search(self) -> None:
        """Search in all chats."""
        self.show_list(True)
        self.query_one(ChatList).focus_search()

    def action_branch(self, step: int) -> None:
        """Show the next branch of the tree, or of the message that was chosen."""
        if not self.busy:
            chosen = next((entry for entry in self.transcript.entries if entry.id == self.chosen), None)
            self.start(self._branch(step, chosen))

    @in_turn
    async def _branch(self, step: int, chosen: Entry | None) -> None:
        shown, at, count = await self.desk.do(self.talk.step, step, chosen)
        self.chosen = None
        self.status.note = f"branch {at} of {count}"
        await self.transcript.show(shown)

    def action_export(self) -> None:
        """Write the chat to a file."""
        if self.chat_id is None:
            self.say("there is nothing to export yet", "warning")
            return
        self._asking("Export to (.md or .json)", f"chat-{self.chat_id}.md", self._export)

    def _asking(self, question: str, value: str, then: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Do something with the answer to a question, if there is one."""

        def answered(answer: str | None) -> None:
            if answer:
                self.start(then(answer))

        self.push_screen(Ask(question, value), answered)

    @in_turn
    async def _export(self, name: str) -> None:
        from wsd_local.errors import reason
        from wsd_local.files import check_file, write_text
        from wsd_local.paths import expanded

        kind: Literal["json", "markdown"] = "json" if name.endswith(".json") else "markdown"

        def write() -> None:
            check_file(path := expanded(name))
            write_text(path, self.talk.export(kind), private=True)

        try:
            await self.desk.do(write)
        except OSError as error:
            self.say(f"{name}: cannot be written: {reason(error)}", "error")
        else:
            self.say(f"written to {name}")

    def action_rename(self) -> None:
        """Rename the chat."""
        if self.chat_id is not None:
            self._asking("Title", self.talk.title, self._rename)

    @in_turn
    async def _rename(self, title: str) -> None:
        self.sub_title = await self.desk.do(self.talk.rename, title)
        self.refresh_list()

    def action_delete(self) -> None:
        """Delete the chat; it can be brought back."""
        if self.chat_id is not None and self.talk.passing is None:
            self.start(self._delete(self.chat_id))

    async def _delete(self, chat: int) -> None:
        await self._stopped()
        await self.desk.do(self.store.delete, chat)
        self._deleted.append(chat)
        await self.open_chat(None)
        self.say("deleted; Alt+Z brings it back")

    async def _stopped(self) -> None:
        """Wait until the reply that is written has been kept."""
        self.stop_reply()
        while self.turn is not None:
            await asyncio.sleep(1 / FRAMES)

    def action_undo(self) -> None:
        """Bring back the chat that was deleted last."""
        if self._deleted:
            self.start(self._undo(self._deleted.pop()))

    async def _undo(self, chat: int) -> None:
        await self.desk.do(self.store.restore, chat)
        await self.open_chat(chat)

    # -- slash commands ----------------------------------------------------------------------------------------

    def slash(self, line: str) -> None:
        """Do what a slash command says."""
        name, _, argument = line.partition(" ")
        values: dict[str, Callable[[str], None]] = {
            "threshold": self.set_threshold,
            "system": self._say_system,
            "title": lambda title: self.start(self._rename(title)),
        }
        if name in values and argument:
            self.composer.remember(f"/{line}")
            values[name](argument)
            return
        command = keys.slash(name)
        if command is None:
            self.say(f"there is no command /{name}; F1 shows all", "warning")
            return
        self.composer.remember(f"/{line}")
        self.call_later(self.run_action, command.action)

    def _say_system(self, system: str) -> None:
        self.start(self._set_system(system))
        self.say("the system prompt holds for the next questions")

    @in_turn
    async def _set_system(self, system: str | None) -> None:
        await self.desk.do(self.talk.configure, self.status.pair, system)

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

    # -- stopping and steering ---------------------------------------------------------------------------------

    def action_stop(self) -> None:
        """Leave off editing, else stop the reply, else stop the loading of a pair."""
        if self.busy:
            self.stop_reply()
        elif self.editing is not None:
            self.editing = None
            self.composer.put("")
        elif self._loading is not None:
            self.models.stop(self._loading)

    def action_interrupt(self) -> None:
        """Ctrl-C: stop; twice within two seconds: leave."""
        now = asyncio.get_running_loop().time()
        if not self.busy and now - self._interrupted < 2:
            self.exit()
        elif not self.busy:
            self.say("Ctrl+C again leaves")
        self._interrupted = now
        self.stop_reply()

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

    # -- other screens -----------------------------------------------------------------------------------------

    def action_switch_view(self) -> None:
        """Look into the last reply, token by token."""
        replies = [entry for entry in self.transcript.entries if entry.role == "assistant" and entry.text]
        if replies and not self.busy:
            chosen = next((entry for entry in replies if entry.id == self.chosen), replies[-1])
            self.start(self._look_into(chosen))
        else:
            self.say("there is no reply to look into yet", "warning")

    @in_turn
    async def _look_into(self, entry: Entry) -> None:
        from wsd_chat.screens.switch_view import SwitchView

        book = self.talk.book
        branch = await self.desk.do(entries, book, entry.parent)
        tokens = tokens_of(entry, await self.desk.do(book.tokens, entry.id))
        self.push_screen(SwitchView(entry, tokens, self.messages(branch), self.models))

    def action_models(self) -> None:
        """Choose a pair, or two models that are here."""
        from wsd_chat.screens.model_picker import Choice, ModelPicker

        def chosen(choice: Choice | None) -> None:
            if isinstance(choice, tuple):
                self.load(replace(self.wanted, pair=None, draft=choice[0], base=choice[1]))
            elif choice is not None:
                self.load(replace(self.wanted, pair=choice, draft=None, base=None))

        self.push_screen(ModelPicker(self.status.pair), chosen)

    def action_settings(self) -> None:
        """What the next replies are made with, and presets."""
        self.start(self._settings())

    async def _settings(self) -> None:
        from wsd_chat.screens.settings import SettingsScreen

        presets = await self.desk.do(self.store.presets)
        current = {"threshold": self.threshold, **self.overrides, "system": self.talk.system or ""}

        def chosen(values: dict[str, Any] | None) -> None:
            if values is not None:
                self.start(self._set_system(values.pop("system") or None))
                self.overrides = values
                self.set_threshold(values.get("threshold", self.threshold))

        async def keep(preset: Any) -> None:
            await self.desk.do(self.store.save_preset, preset)

        screen = SettingsScreen(current, presets, keep, self.status.pair, self.wanted.settings)
        self.push_screen(screen, chosen)

    def action_compare(self) -> None:
        """Base alone, draft alone and both, side by side."""
        question = self.asked()
        if question is None or self.busy:
            self.say("ask something first; the last question is compared", "warning")
        else:
            self.start(self._compare(question.id))

    @in_turn
    async def _compare(self, question: int) -> None:
        from wsd_chat.screens.compare import CompareScreen

        branch = await self.desk.do(entries, self.talk.book, question)
        self.push_screen(CompareScreen(self.models, self.messages(branch), dict(self.overrides)))

    def action_log(self) -> None:
        """What llama.cpp said."""
        self.push_screen(LogScreen(self.log_file))

    def action_help(self) -> None:
        """All keys."""
        self.push_screen(HelpScreen())

    # -- copying -----------------------------------------------------------------------------------------------

    @on(MessageView.Chosen)
    def mark(self, message: MessageView.Chosen) -> None:
        """Mark the message that was clicked; a second click takes the mark away."""
        self.chosen = None if self.chosen == message.entry.id else message.entry.id
        for view in self.query(MessageView):
            view.set_class(view.entry.id == self.chosen, "chosen")

    def _meant(self) -> str:
        """Text of the chosen message, else of the last reply."""
        shown = self.transcript.entries
        chosen = [entry for entry in shown if entry.id == self.chosen]
        replies = [entry for entry in shown if entry.role == "assistant"]
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
        from wsd_chat.terminal.clipboard import copy

        program = copy(text)
        if program is not None:
            self.say(f"copied ({len(text)} characters, by {program})")
        else:
            self.copy_to_clipboard(text)
            self.say("sent to the terminal's clipboard; whether it took it cannot be told", "warning")

    # -- the palette -------------------------------------------------------------------------------------------

    async def action_quit(self) -> None:
        """Leave."""
        self.exit()

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        """All commands in the palette too."""
        yield from super().get_system_commands(screen)
        for command in keys.COMMANDS:
            yield SystemCommand(command.name, command.help, self._runs(command.action))

    def _runs(self, action: str) -> Callable[[], Any]:
        return lambda: self.call_later(self.run_action, action)
