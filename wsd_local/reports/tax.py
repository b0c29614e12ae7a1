"""The alignment tax: how much a way of answering loses, or gains, in arithmetic and in writing programs.

Contract: `asked` makes a data set's records into the conversations of a task; `measured` marks replies that were
written. Programs are executed by the function that the caller passes in, so that this module executes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from wsd_local.datasets import BadRecord, DataSet, Item
from wsd_local.prompts.messages import Message
from wsd_local.reports import gsm8k, humaneval
from wsd_local.reports.columns import Comparison, Marks, comparisons, shares
from wsd_local.reports.statistics import Estimate

TaskName = Literal["gsm8k", "humaneval"]
TITLES: Mapping[str, str] = {"gsm8k": "GSM8K, last number of the answer", "humaneval": "HumanEval, pass@1"}
_NEEDED = {"gsm8k": ("question", "answer"), "humaneval": ("prompt", "test", "entry_point")}
_LIMITS: Mapping[str, dict[str, Any]] = {
    "gsm8k": {"max_tokens": gsm8k.MAX_TOKENS},
    "humaneval": {"max_tokens": humaneval.MAX_TOKENS, "stop": humaneval.STOPS},
}

Execute = Callable[[str], tuple[bool, str]]
"""Runs a program: whether it succeeded, and why not."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One reply's mark: `found` is the number that was extracted, or why a program failed. `strict`: see `gsm8k`."""

    index: int
    id: str
    right: bool
    found: str | None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class TaskResults:
    """The figures of one task. `asked` counts records, `answered` those that all columns answered."""

    task: str
    asked: int
    answered: int
    right: Mapping[str, Estimate]
    strict: Mapping[str, Estimate]
    comparisons: Sequence[Comparison]
    marks: Mapping[str, Sequence[Mark]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def settings_of(task: TaskName) -> dict[str, Any]:
    """Settings of a task's replies that every column shares."""
    return dict(_LIMITS[task])


def asked(task: TaskName, data: DataSet) -> DataSet:
    """A data set whose records are asked as the task asks them; records without its fields are bad."""
    items: list[Item] = []
    bad: list[BadRecord] = list(data.bad)
    for item in data.items:
        missing = [name for name in _NEEDED[task] if not isinstance(item.record.get(name), str)]
        if missing:
            bad.append(BadRecord(item.index, item.line, f"has no `{missing[0]}`, which {task} needs"))
        else:
            items.append(replace(item, messages=_messages(task, item.record), later=(), unused=()))
    return replace(data, format=_FORMATS[task], items=items, bad=sorted(bad, key=lambda one: one.index))


_FORMATS = {"gsm8k": "gsm8k, 4 examples as turns", "humaneval": "humaneval, the function continued"}


def _messages(task: TaskName, record: Mapping[str, Any]) -> list[Message]:
    return gsm8k.messages(record["question"]) if task == "gsm8k" else humaneval.messages(record["prompt"])


def marked(task: TaskName, values: Mapping[str, Any], execute: Execute) -> Mark:
    """The mark of a reply, from its line in a file of replies."""
    record, text = values["input"], values["text"]
    if task == "humaneval":
        succeeded, why = execute(humaneval.program(record, text))
        return Mark(values["index"], values["id"], succeeded, why or None)
    found = gsm8k.flexible(text)
    stated = gsm8k.is_right(gsm8k.strict(text), record["answer"])
    return Mark(values["index"], values["id"], gsm8k.is_right(found, record["answer"]), found, stated)


def measured(task: TaskName, count: int, marks: Mapping[str, Iterable[Mark]]) -> TaskResults:
    """Figures from the marks of each column's replies. `count`: records that were asked."""
    kept = {name: sorted(found, key=lambda mark: mark.index) for name, found in marks.items()}
    right: Marks = {name: {mark.index: mark.right for mark in found} for name, found in kept.items()}
    strict: Marks = {
        name: {mark.index: mark.strict for mark in found if mark.strict is not None} for name, found in kept.items()
    }
    figures = shares(right)
    answered = next(iter(figures.values())).count if figures else 0
    return TaskResults(task, count, answered, figures, shares(strict), comparisons(right), kept)
