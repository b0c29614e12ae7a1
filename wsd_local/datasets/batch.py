"""Answering a data set: the records that are left go to a fleet, and the replies into a file.

Contract: a reply is written before it is reported. A record's next turn is prompted with our own answers to the turns
before it. A failure is reported and not written, so that the same command tries that record again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from wsd_local.datasets import DataSet, Item
from wsd_local.datasets.run_file import Key
from wsd_local.datasets.shape import shape_of
from wsd_local.errors import WsdError
from wsd_local.events import Notice
from wsd_local.llama.build import version
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.messages import Message
from wsd_local.runtime.fleet import Failed, Fleet
from wsd_local.runtime.loading import roles_of
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.settings import plain


class Sink(Protocol):
    """A destination of replies: a file, or standard output."""

    @property
    def done(self) -> Mapping[Key, str]:
        """Texts of the replies that are in it already."""

    def append(self, key: Key, values: Mapping[str, Any]) -> None:
        """Add a reply."""


@dataclass(frozen=True, slots=True)
class TurnOutcome:
    """The outcome of one turn of a record: a reply that was written, an error, or a notice."""

    item: Item
    turn: int
    reply: Reply | None = None
    error: WsdError | None = None
    notice: str | None = None


def made_by(
    pair: Pair, data: DataSet, system: str | None, column: str | None = None, parallel: int | None = None
) -> dict[str, Any]:
    """All that replies depend on, ready for JSON. The pair's models must be hashed.

    `parallel` is the number of replies in progress at once; None: as many as the contexts have sequences.
    """
    settings = plain(pair.settings, pair.models.loading)
    if pair.settings.draft_temperature == 0:
        settings["draft_seed"] = None
    if pair.settings.temperature == 0 and (pair.settings.draft_temperature == 0 or settings["draft_seed"] is not None):
        settings["seed"] = None
    settings["ctx"] = [pair.models.n_ctx(role) for role in roles_of(pair.settings.mode)]
    if pair.models.plan is not None:
        settings |= {"cache_type_k": pair.models.plan.cache_type_k, "cache_type_v": pair.models.plan.cache_type_v}
    own = pair.models.base_format != BaseFormat()
    return {
        "input_sha256": data.sha256,
        "format": data.format,
        "system": system,
        "column": column,
        "llama_cpp": version(),
        "models": dict(pair.models.hashes),
        "base_format": asdict(pair.models.base_format) if own else None,
        "settings": settings,
        "shape": shape_of(pair.models, parallel or pair.models.loading.parallel),
    }


class Batch:
    """The part of `data` that `sink` does not have yet. `tokens`: lines with every token.

    `done` of `total` turns are answered, and `tokens` were written by now, those of replies in progress among them.
    """

    def __init__(
        self,
        pair: Pair,
        data: DataSet,
        sink: Sink,
        *,
        tokens: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.fleet: Fleet[tuple[int, int]] = Fleet(pair)
        self.total = sum(1 + len(item.later) for item in data.items)
        self._items = {item.index: item for item in data.items}
        self._sink = sink
        self._tokens = tokens
        self._kept = 0
        self._clock = clock
        self.done = sum(1 for index, _ in sink.done if index in self._items)
        for item in data.items:
            self._add_next(item, first=False)

    @property
    def tokens(self) -> int:
        """Tokens of the replies of this batch, unfinished ones included."""
        return self._kept + self.fleet.shown_tokens

    def outcomes(self) -> Iterator[TurnOutcome]:
        """Work until all records are answered.

        Raises:
            CancelledError: `Pair.cancel` was called; what is kept stays.
            WsdError: a reply could not be kept.
        """
        for (index, turn), event in self.fleet.events():
            item = self._items[index]
            if isinstance(event, Finished):
                self._keep(item, turn, event.reply)
                yield TurnOutcome(item, turn, reply=event.reply)
                self._add_next(item, first=True)
            elif isinstance(event, Failed):
                yield TurnOutcome(item, turn, error=event.error)
            elif isinstance(event, Notice):
                yield TurnOutcome(item, turn, notice=event.message)

    def _add_next(self, item: Item, *, first: bool) -> None:
        turn = 0
        while (item.index, turn) in self._sink.done:
            turn += 1
        if turn <= len(item.later):
            self.fleet.add((item.index, turn), conversation_of(item, turn, self._sink.done), first=first)

    def _keep(self, item: Item, turn: int, reply: Reply) -> None:
        values = {"id": item.id, "input": item.record, "finished_at": round(self._clock(), 3)}
        self._sink.append((item.index, turn), values | reply.as_dict(tokens=self._tokens))
        self.done += 1
        self._kept += len(reply.tokens)


def conversation_of(item: Item, turn: int, texts: Mapping[Key, str]) -> list[Message]:
    """The prompt of a record's turn: the record's messages, and our answers to the turns before.

    These are stripped, as the authors' loader of MT-Bench's second turn does it.
    """
    messages = list(item.messages)
    for before, question in enumerate(item.later[:turn]):
        messages.append({"role": "assistant", "content": texts[item.index, before].strip()})
        messages.append({"role": "user", "content": question})
    return messages
