"""The conversation that is open: which chat, which branch, and how questions and replies get into the store.

Contract: knows no screen and no Textual. Its methods, properties excepted, wait for the store, so they run in a thread
of their own (`wsd_chat.store_thread`), one at a time. A method that fails changes nothing, neither here nor, as far as
that can be known, in the store: a question is kept together with its reply, or not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from wsd_chat.entries import Entry, entries
from wsd_local.errors import UsageError
from wsd_local.runtime.reply import Reply
from wsd_local.store import GoneError, ReplyWriter, Store, StoreError, turns
from wsd_local.store.turns import FailedReply


@dataclass(slots=True)
class Begun(turns.Begun):
    """A reply that is in the store and can be written. `branch` ends in the question, or in the reply it continues."""

    branch: list[Entry] = field(default_factory=list)


@dataclass(slots=True)
class Conversation:
    """One chat of a store, or of `memory`, a store in memory, while it is off the record."""

    store: Store
    system: str | None = None
    memory: Store | None = None
    chat: int | None = None
    head: int | None = None
    title: str = ""
    _owed: list[tuple[ReplyWriter, Reply]] = field(default_factory=list)

    @property
    def current_store(self) -> Store:
        """Where this chat is kept: in the file, or in memory if it is off the record."""
        return self.memory or self.store

    @property
    def listed(self) -> int | None:
        """The chat's number in the list of chats; None if it is not there, or not yet."""
        return self.chat if self.memory is None else None

    def entries(self) -> list[Entry]:
        """The branch that is shown."""
        return entries(self.current_store, self.head)

    # -- chats -----------------------------------------------------------------------------------------------

    def open(self, chat: int | None, system: str | None, *, off_record: bool = False) -> list[Entry]:
        """Go to another chat, or to an empty one with this system prompt."""
        row = None if chat is None else self.store.chats.get(chat)
        shown = [] if row is None else entries(self.store, row.head)
        self.memory = Store(":memory:") if off_record else None
        self.chat, self.head, self.title = chat, None if row is None else row.head, "" if row is None else row.title
        self.system = system if row is None else row.system
        return shown

    def rename(self, title: str) -> str:
        """Give the chat another title; returns it as it is kept."""
        if self.chat is None:
            raise UsageError("there is no chat yet: ask something first")
        self.current_store.chats.rename(self.chat, title)
        self.title = self.current_store.chats.get(self.chat).title
        return self.title

    def configure(self, pair: str, system: str | None) -> None:
        """Keep another system prompt for the next questions."""
        if self.chat is not None:
            self.current_store.chats.configure(self.chat, pair=pair, system=system, preset=None)
        self.system = system

    def export(self, kind: Literal["markdown", "json"]) -> str:
        """The chat as text."""
        if self.chat is None:
            raise UsageError("there is nothing to export yet")
        return self.current_store.export(self.chat, kind)

    def step(self, by: int, entry: Entry | None = None) -> tuple[list[Entry], int, int]:
        """Show another branch: the next in the order of the tree, or of the fork at `entry`.

        Returns its entries, its number among the branches, and how many there are.
        """
        if self.chat is None or self.head is None:
            raise UsageError("there is one branch only; F5 or F7 make another")
        leaves = self.current_store.messages.leaves(self.chat)
        if len(leaves) < 2:
            raise UsageError("there is one branch only; F5 or F7 make another")
        if entry is not None and entry.place[1] > 1:
            family = self.current_store.messages.siblings(entry.id)
            head = self.current_store.messages.leaf(family[(family.index(entry.id) + by) % len(family)])
        elif self.head in leaves:
            head = leaves[(leaves.index(self.head) + by) % len(leaves)]
        else:
            head = self.current_store.messages.leaf(self.head)
        self.current_store.messages.set_head(self.chat, head)
        self.head = head
        return self.entries(), leaves.index(head) + 1, len(leaves)

    # -- questions and replies -------------------------------------------------------------------------------

    def ask(self, text: str, parent: int | None, *, pair: str, settings: Mapping[str, Any]) -> Begun:
        """Keep a question and begin its reply."""
        self.settle()
        store = self.current_store
        chat = self.chat if self.chat is not None else store.chats.create(pair=pair, system=self.system)
        self.chat = chat
        begun = self._shown(turns.ask(store, chat, parent, text, before=self.head, pair=pair, settings=settings))
        self.title = self.title or store.chats.get(chat).title
        return begun

    def regenerate(self, *, pair: str, settings: Mapping[str, Any]) -> Begun | None:
        """Begin another reply to the last question; None if there is no question."""
        if self.chat is None or self.head is None:
            return None
        self.settle()
        begun = turns.regenerate(self.current_store, self.head, pair=pair, settings=settings)
        return None if begun is None else self._shown(begun)

    def continue_(self, *, pair: str, settings: Mapping[str, Any]) -> Begun | None:
        """Continue the last reply; None if there is none, or if it is complete.

        A reply that was stopped or failed can be continued, and one that was cut at its length limit.
        """
        if self.chat is None or self.head is None:
            return None
        self.settle()
        begun = turns.continue_(self.current_store, self.head, pair=pair, settings=settings)
        return None if begun is None else self._shown(begun)

    def _shown(self, begun: turns.Begun) -> Begun:
        """The reply with the branch that it stands on, which is shown from now on."""
        try:
            branch = entries(begun.store, begun.head)
        except Exception:
            with contextlib.suppress(StoreError):
                turns.fail(begun, "its branch cannot be read")
            raise
        self.head = begun.writer.id
        own = {one.name: getattr(begun, one.name) for one in fields(begun)}
        return Begun(**own, branch=branch)

    def finish(self, begun: Begun, reply: Reply | None) -> list[Entry]:
        """Keep a reply that came to its end, or with None was stopped before it began; returns its branch.

        What cannot be written now is written by `settle`, at the latest before the next question.
        """
        try:
            if reply is None:
                begun.writer.close()
            else:
                begun.writer.finish(reply)
        except GoneError:
            raise
        except StoreError:
            if reply is not None:
                self._owed.append((begun.writer, reply))
            raise
        return entries(begun.store, begun.writer.id)

    def fail(self, begun: Begun, message: str) -> FailedReply:
        """The reply failed. One of which nothing was written is taken back, with its question."""
        outcome = turns.fail(begun, message)
        here = self.current_store is begun.store and self.chat == begun.chat and self.head == begun.writer.id
        if here:
            self.head = outcome.head
        return outcome

    def close(self, begun: Begun | None, reply: Reply | None) -> None:
        """Keep what there is of the last reply; the program ends."""
        try:
            self.settle()
        finally:
            if begun is not None:
                self.finish(begun, reply)

    def settle(self) -> None:
        """Write what could not be written."""
        while self._owed:
            writer, reply = self._owed[0]
            with contextlib.suppress(GoneError):
                writer.finish(reply)
            self._owed.pop(0)
