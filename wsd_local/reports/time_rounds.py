"""Measuring whole replies: rounds over the prompts of a data set, into a file that a stopped run continues.

Contract: in a round the ways answer one prompt after each other, each from empty caches; the one that begins rotates
from prompt to prompt and from repetition to repetition. A round is on the disk before the next one begins, and one that
was stopped is measured again as a whole. Before the first round every way answers once, unmeasured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsd_local.datasets import DataSet, Item
from wsd_local.datasets.batch import made_by
from wsd_local.datasets.run_file import RunFile
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.llama.options import default_threads
from wsd_local.reports.columns import Column
from wsd_local.reports.contention import Watch
from wsd_local.reports.times import Round, TimedReply
from wsd_local.runtime.loading import forget
from wsd_local.runtime.pair import Pair
from wsd_local.settings import ReplySettings, changed

OPTION = "--out"
WARM_TOKENS = 32
"""Tokens of an unmeasured reply, at most."""


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """One round: whether it was measured, or an error."""

    item: Item
    error: WsdError | None = None


class Rounds:
    """The rounds of `data` that `file` does not have yet. `done` of `total` are measured.

    Args:
        pair: loaded, its models hashed; its settings are those that the columns share.
        data: the prompts; of several turns the first is asked.
        file: opened here for this pair, these prompts, columns and this machine's threads and layers.
        columns: the ways of answering.
        repeat: rounds of each prompt.
        stopped: whether to stop.

    Raises:
        UsageError: the file was made by something else, or a line of it is no round.
    """

    def __init__(
        self,
        pair: Pair,
        data: DataSet,
        file: RunFile,
        columns: Sequence[Column],
        repeat: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pair, self._data, self._file, self._stopped = pair, data, file, stopped
        self._usual = pair.settings
        self._settings = {column.name: column.over(pair.settings) for column in columns}
        file.begin(made_by(pair, data, None) | {"measured": _measured(pair, columns)})
        self._keys = [(item.index, number) for number in range(repeat) for item in data.items]
        self.total = len(self._keys)
        self.rounds()

    @property
    def done(self) -> int:
        """Rounds that are measured."""
        return sum(key in self._file.done for key in self._keys)

    def outcomes(self) -> Iterator[RoundOutcome]:
        """Measure what is left; a prompt that cannot be answered in every way has no round.

        Raises:
            CancelledError: the work was stopped; what is measured stays.
            WsdError: a round could not be written, or the ways cannot answer at all.
        """
        left = [key for key in self._keys if key not in self._file.done]
        items = {item.index: item for item in self._data.items}
        failed = set[int]()
        warm = False
        for index, number in left:
            if index in failed:
                continue
            item = items[index]
            try:
                if not warm:
                    self._replies(item, list(self._settings), {"max_tokens": WARM_TOKENS})
                    warm = True
                values = self._round(item, number).as_dict()
            except CancelledError:
                raise
            except WsdError as error:
                failed.add(index)
                yield RoundOutcome(item, error)
                continue
            finally:
                self._pair.settings = self._usual
            text = next(iter(values["replies"].values()))["text"]
            self._file.append((index, number), {"text": text, "id": item.id, "input": item.record, **values})
            yield RoundOutcome(item)

    def _round(self, item: Item, number: int) -> Round:
        names = list(self._settings)
        first = (item.index + number) % len(names)
        order = [*names[first:], *names[:first]]
        watch = Watch()
        replies = self._replies(item, order, {})
        elsewhere = watch.elsewhere()
        return Round(item.index, tuple(order), {name: replies[name] for name in names}, elsewhere)

    def _replies(self, item: Item, order: Sequence[str], most: Mapping[str, int]) -> dict[str, TimedReply]:
        found = {}
        for name in order:
            if self._stopped():
                raise CancelledError("interrupted")
            own = self._settings[name]
            shorter = {key: min(value, getattr(own, key)) for key, value in most.items()}
            found[name] = _answer(self._pair, item, changed(own, shorter))
        return found

    def rounds(self) -> list[Round]:
        """The rounds of these prompts that are in the file.

        Raises:
            UsageError: a line is no round.
        """
        wanted = set(self._keys)
        return [
            _read(self._file, values) for values in self._file.values() if (values["index"], values["turn"]) in wanted
        ]


def _answer(pair: Pair, item: Item, settings: ReplySettings) -> TimedReply:
    """One reply from empty caches."""
    pair.settings = settings
    forget(pair.models)
    reply = pair.reply(list(item.messages), whole=True)
    if reply.finish_reason == "cancelled":
        raise CancelledError("interrupted")
    times = reply.timings
    return TimedReply(
        text=reply.text,
        seconds=times.total_s,
        first_text_s=times.first_text_s,
        tokens=len(reply.tokens),
        kept=reply.draft.tokens if reply.base.model is not None else 0,
        draft_evaluated=times.draft_evaluated_tokens,
        base_evaluated=times.base_evaluated_tokens,
        finish_reason=reply.finish_reason,
    )


def _measured(pair: Pair, columns: Sequence[Column]) -> dict[str, Any]:
    """What times depend on beside what the replies depend on, ready for JSON."""
    placements = {} if pair.models.plan is None else pair.models.plan.placements
    return {
        "columns": {column.name: dict(column.settings) for column in columns},
        "cpu_threads": pair.models.loading.threads or default_threads(),
        "cores": os.cpu_count(),
        "gpu_layers": {role: one.gpu_layers for role, one in placements.items()},
        "proposals": pair.settings.speculation,
    }


def _read(file: RunFile, values: Mapping[str, Any]) -> Round:
    try:
        return Round.of(values)
    except (KeyError, TypeError) as error:
        where = f"{file.path}, round {values['turn']} of record {values['index']}"
        raise UsageError(f"{where}: is no whole round ({error}); remove the line, or choose another {OPTION}") from None
