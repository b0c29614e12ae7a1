"""Opening the screens over the chat: what they show is read first, what was chosen on them is put into effect.

Contract: the screens themselves know neither the store nor the conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.app import App

from wsd_chat.chats import Chats
from wsd_chat.conversation import Conversation
from wsd_chat.entries import Entry, entries
from wsd_chat.next_settings import NextSettings
from wsd_chat.pair_loading import PairLoading
from wsd_chat.store_thread import StoreThread, in_order
from wsd_local.runtime.worker import Worker
from wsd_local.store import Preset
from wsd_local.store.reading import messages_of, tokens_of


class Screens:
    """What can be opened over the chat. Its modules are imported when they are needed: the chat starts faster."""

    def __init__(
        self,
        app: App[None],
        conversation: Conversation,
        thread: StoreThread,
        models: Worker,
        chats: Chats,
        pairs: PairLoading,
        settings: NextSettings,
    ) -> None:
        self.thread = thread
        self._app, self._conversation, self._models = app, conversation, models
        self._chats, self._pairs, self._settings = chats, pairs, settings

    @in_order
    async def switch_view(self, reply: Entry) -> None:
        """A reply token by token."""
        from wsd_chat.screens.switch_view import SwitchView

        store = self._conversation.current_store
        branch = await self.thread.do(entries, store, reply.parent)
        tokens = tokens_of(reply.text, reply.report, await self.thread.do(store.messages.tokens, reply.id))
        messages = messages_of(branch, self._conversation.system)
        self._app.push_screen(SwitchView(reply, tokens, messages, self._models))

    @in_order
    async def compare(self, question: Entry) -> None:
        """Base alone, draft alone and both, on the same question."""
        from wsd_chat.screens.compare import CompareScreen

        branch = await self.thread.do(entries, self._conversation.current_store, question.id)
        messages = messages_of(branch, self._conversation.system)
        self._app.push_screen(CompareScreen(self._models, messages, dict(self._settings.overrides)))

    def models(self) -> None:
        """Choose a pair, or two models."""
        from wsd_chat.screens.model_picker import Choice, ModelPicker

        wanted = self._pairs.wanted

        def chosen(choice: Choice | None) -> None:
            if isinstance(choice, tuple):
                self._pairs.load(replace(wanted, pair=None, draft=choice[0], base=choice[1]))
            elif choice is not None:
                self._pairs.load(replace(wanted, pair=choice, draft=None, base=None))

        self._app.push_screen(ModelPicker(wanted.name), chosen)

    async def settings(self, changed: Callable[[], None]) -> None:
        """Settings of the next replies, and presets. `changed` is called once others were chosen."""
        from wsd_chat.screens.settings import SettingsScreen

        presets = await self.thread.do(self._conversation.store.presets.all)
        settings = self._settings
        name, value = settings.bound
        current = {name: value, **settings.overrides, "system": self._conversation.system or ""}

        def chosen(values: dict[str, Any] | None) -> None:
            if values is not None:
                self._chats.set_system(values.pop("system") or None)
                settings.overrides = values
                changed()

        async def keep(preset: Preset) -> None:
            await self.thread.do(self._conversation.store.presets.save, preset)

        pair = self._pairs.wanted.name
        self._app.push_screen(SettingsScreen(current, presets, keep, pair, settings.own), chosen)

    def log(self, path: Path | None) -> None:
        """What llama.cpp and the program have logged."""
        from wsd_chat.screens.log import LogScreen

        self._app.push_screen(LogScreen(path))

    def help(self) -> None:
        """All keys and commands."""
        from wsd_chat.screens.help import HelpScreen

        self._app.push_screen(HelpScreen())
