"""The chat's app: what is on the screen, and which key, slash command or line of the palette does what.

Contract: everything that takes time happens in the models' thread (`Worker`), in the store's (`StoreThread`), or in a
thread of Textual's; a handler starts it and returns. What the commands do is in `chats` and `replies`; this module puts
the parts together and opens the other screens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding
from textual.screen import Screen

from wsd_chat import commands
from wsd_chat.chats import OFF_RECORD, Chats
from wsd_chat.conversation import Conversation
from wsd_chat.copying import chosen_text, last_code_block, put_into_clipboard
from wsd_chat.layout import ChatLayout
from wsd_chat.model_jobs import Wanted
from wsd_chat.next_settings import NextSettings
from wsd_chat.pair_loading import PairLoading
from wsd_chat.replies import KEEP_DRAFTING, Replies
from wsd_chat.screens.opening import Screens
from wsd_chat.store_thread import StoreThread
from wsd_chat.terminal.alt_f import accept_alt_f
from wsd_chat.theme import KeptTheme
from wsd_chat.widgets.chat_list import ChatList
from wsd_chat.widgets.composer import Composer
from wsd_local.errors import UsageError, WsdError
from wsd_local.runtime.power import on_battery
from wsd_local.runtime.worker import Worker
from wsd_local.store import Store

FRAMES = 25
"""How often the screen shows what the models have published, each second."""
AGAIN_S = 2.0
"""Within this time a second Ctrl+C quits."""


class ChatApp(ChatLayout):
    """The terminal chat. `lost` is what could not be kept when the program ended, for people."""

    BINDINGS: ClassVar[list[Any]] = [
        *commands.bindings(),
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
        accept_alt_f()
        super().__init__(store)
        self.thread = StoreThread()
        self.models = Worker()
        self.conversation = Conversation(store, system, Store(":memory:") if off_record else None)
        self.settings = NextSettings(wanted.in_effect)
        self.pairs = PairLoading(self, self.models, self.settings, wanted)
        self.replies = Replies(self, self.conversation, self.thread, self.models, self.pairs, self.settings)
        self.chats = Chats(self, self.conversation, self.thread, self.replies, system)
        self.screens = Screens(self, self.conversation, self.thread, self.models, self.chats, self.pairs, self.settings)
        self.lost: str | None = None
        self._first_chat, self._log_file = chat, log
        self._interrupted = 0.0
        self._kept_theme = KeptTheme(None if store.path is None else store.path.with_name("wsd-chat.json"))

    # -- the screen --------------------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Load the pair, show the chat, begin to listen to the models."""
        theme = self._kept_theme.name
        self.theme = theme if theme in self.available_themes else self.theme
        self.show_list(None)
        self.models.idle = self._prepare
        self.set_interval(1 / FRAMES, self._listen)
        self.composer.focus()
        self.pairs.load(self.pairs.wanted)
        self.status.note = OFF_RECORD if self.conversation.memory is not None else ""
        if self._first_chat is not None:
            self.start(self.chats.open(self._first_chat))

    async def on_unmount(self) -> None:
        """Nothing is left running."""
        self.lost = await self.replies.close()
        self.thread.close()

    def watch_theme(self, theme: str) -> None:
        """A theme that was chosen holds the next time too."""
        if self.is_running and self._kept_theme.name != theme:
            self.start(self.thread.do(self._kept_theme.keep, theme))

    def _listen(self) -> None:
        if self.is_running:
            self.replies.listen()

    def _prepare(self, worker: Worker) -> None:
        """In the models' thread, while no task waits."""
        if not on_battery() and self.pairs.wanted.prepare:
            self.replies.answering.prepare(worker)

    # -- commands: keys, slash commands, the palette -----------------------------------------------------------------

    async def run_action(self, *arguments: Any, **named: Any) -> bool:
        """Run a command; an error that people can act on is shown, and ends nothing."""
        try:
            return await super().run_action(*arguments, **named)
        except WsdError as error:
            self.say(str(error), "error")
            return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While another screen is over the chat, its keys do nothing to the chat below."""
        names = {command.action.partition("(")[0] for command in commands.COMMANDS} - {"quit"}
        if len(self.screen_stack) > 1 and action in names:
            return False
        return super().check_action(action, parameters)

    def get_system_commands(self, screen: Screen[Any]) -> Iterator[SystemCommand]:
        """All commands are in the palette too."""
        yield from super().get_system_commands(screen)
        for command in commands.COMMANDS:
            yield SystemCommand(command.name, command.help, self._later(command.action))

    def _later(self, action: str) -> Callable[[], None]:
        def run() -> None:
            self.call_later(self.run_action, action)

        return run

    def on_composer_submitted(self, message: Composer.Submitted) -> None:
        """Send what was written, or run the slash command."""
        if message.text.startswith("/") and "\n" not in message.text:
            self._slash(message.text[1:])
        elif self.replies.busy:
            self.say("a reply is being written; Esc stops it", "warning")
        else:
            self.composer.remember(message.text)
            self.replies.ask(message.text)

    def on_composer_paged(self, message: Composer.Paged) -> None:
        """Scroll the conversation while a person writes."""
        if message.step < 0:
            self.transcript.scroll_page_up()
        else:
            self.transcript.scroll_page_down()

    def on_chat_list_opened(self, message: ChatList.Opened) -> None:
        """A chat was chosen in the list."""
        self.start(self.chats.open(message.chat_id))
        self.show_list(None)

    def on_chat_list_left(self) -> None:
        """Back from the list of chats to the message."""
        self.show_list(None)
        self.composer.focus()

    def _slash(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        values: dict[str, Callable[[str], None]] = {
            "threshold": self._set_threshold,
            "system": self._set_system,
            "title": self.chats.rename,
        }
        command = commands.slash(name)
        if name in values and argument:
            values[name](argument)
        elif command is not None:
            self.call_later(self.run_action, command.action)
        else:
            self.say(f"unknown command /{name}; F1 shows all", "warning")
            return
        self.composer.remember(f"/{line}")

    def _set_system(self, system: str) -> None:
        self.chats.set_system(system)
        self.say("the system prompt applies from the next question on")

    def _set_threshold(self, value: float | str) -> None:
        """Another threshold, also for the reply that is being drafted."""
        try:
            self.settings.set_threshold(value)
        except UsageError as error:
            self.say(str(error), "warning")
            return
        self._settings_changed()

    def _settings_changed(self) -> None:
        """Show what the next reply goes by; a threshold is also that of the reply that is being drafted."""
        name, value = self.status.bound = self.settings.bound
        if name == "threshold":
            self.replies.steer(value)

    def action_new_chat(self) -> None:
        """An empty chat."""
        self.chats.new()

    def action_off_record(self) -> None:
        """An empty chat that is kept in no file."""
        self.chats.new(off_record=True)

    def action_chats(self) -> None:
        """Show or hide the list of chats."""
        chat_list = self.query_one(ChatList)
        self.show_list(not chat_list.display)
        if chat_list.display:
            chat_list.focus_search()
        else:
            self.composer.focus()

    def action_search(self) -> None:
        """Search in all chats."""
        self.show_list(True)
        self.query_one(ChatList).focus_search()

    def action_branch(self, step: int) -> None:
        """Another branch of the chat, or of the fork at the chosen message."""
        self.chats.branch(step)

    def action_export(self) -> None:
        """Write the chat to a file."""
        self.chats.export()

    def action_rename(self) -> None:
        """Rename the chat."""
        self.chats.rename()

    def action_delete(self) -> None:
        """Delete the chat."""
        self.chats.delete()

    def action_undo(self) -> None:
        """Restore the chat that was deleted last."""
        self.chats.restore()

    def action_regenerate(self) -> None:
        """Answer the last question again."""
        self.replies.regenerate()

    def action_continue(self) -> None:
        """Continue the last reply."""
        self.replies.continue_()

    def action_edit(self) -> None:
        """Edit the chosen question, else the last one."""
        question = self.transcript.question
        if question is not None and not self.replies.busy:
            self.replies.edit(question)

    def action_stop(self) -> None:
        """Stop the reply, else stop editing, else stop loading a pair."""
        if self.replies.busy:
            self.replies.stop()
        elif self.replies.editing is not None:
            self.replies.stop_editing()
        else:
            self.pairs.stop()

    def action_interrupt(self) -> None:
        """Ctrl+C: stop; a second time quits."""
        now = asyncio.get_running_loop().time()
        if not self.replies.busy and now - self._interrupted < AGAIN_S:
            self.exit()
        elif not self.replies.busy:
            self.say("Ctrl+C again quits")
        self._interrupted = now
        self.replies.stop()

    async def action_quit(self) -> None:
        """Quit."""
        self.exit()

    def action_hand_over(self) -> None:
        """Let the base continue now."""
        self.replies.hand_over()

    def action_keep_drafting(self) -> None:
        """Let the draft write to its end."""
        if self.replies.steer(KEEP_DRAFTING):
            self.say("the draft writes to its end")

    def action_slide(self, by: float) -> None:
        """Move the threshold."""
        self._set_threshold(round(min(max(self.settings.threshold + by, 0.0), 1.05), 2))

    def action_switch_view(self) -> None:
        """The last reply, or the chosen one, token by token."""
        reply = self.transcript.reply
        if reply is not None and not self.replies.busy:
            self.start(self.screens.switch_view(reply))
        else:
            self.say("there is no complete reply yet", "warning")

    def action_compare(self) -> None:
        """Base alone, draft alone and both, side by side."""
        question = self.transcript.question
        if question is not None and not self.replies.busy:
            self.start(self.screens.compare(question))
        else:
            self.say("ask something first; the last question is compared", "warning")

    def action_models(self) -> None:
        """Choose a pair, or two models."""
        self.screens.models()

    def action_settings(self) -> None:
        """Settings of the next replies, and presets."""
        self.start(self.screens.settings(self._settings_changed))

    def action_log(self) -> None:
        """What llama.cpp and the program have logged."""
        self.screens.log(self._log_file)

    def action_help(self) -> None:
        """All keys and commands."""
        self.screens.help()

    def action_copy(self) -> None:
        """Copy the chosen message, else the last reply."""
        if text := chosen_text(self.transcript):
            put_into_clipboard(self, text)

    def action_copy_code(self) -> None:
        """Copy the last code block of that message."""
        code = last_code_block(chosen_text(self.transcript))
        if code is not None:
            put_into_clipboard(self, code)
        else:
            self.say("there is no code block", "warning")
