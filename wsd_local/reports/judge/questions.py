"""A judge's work: the questions about files of replies, asked in order, their answers kept.

Contract: an answer is kept before the next question is asked, and what is kept is not asked again. A question that does
not fit into the judge's context is counted, and nothing of it is cut; it is not kept, so that a larger context can
answer it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from wsd_local.reports.judge.asking import Asked, Way, comparison, grading
from wsd_local.reports.judge.record import Key
from wsd_local.reports.judge.replies import Place, ReplyFile
from wsd_local.reports.judge.verdicts import ORDERS, Judge, TooLongError, normalised


class Sink(Protocol):
    """What keeps answers."""

    @property
    def done(self) -> Mapping[Key, tuple[float, ...]]:
        """The answers that are kept."""
        ...

    def append(self, key: Key, logprobs: Sequence[float], more: Mapping[str, Any]) -> None:
        """Keep an answer."""


@dataclass
class Memory:
    """Keeps answers in memory alone."""

    done: dict[Key, tuple[float, ...]] = field(default_factory=dict)

    def append(self, key: Key, logprobs: Sequence[float], more: Mapping[str, Any]) -> None:
        """Keep an answer."""
        self.done[key] = tuple(logprobs)


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """A question about the reply, or the two replies, of one place."""

    key: Key
    id: str
    asked: Asked


@dataclass(slots=True)
class Work:
    """How far the work is: questions asked now, seconds that they took, and those that did not fit."""

    asked: int = 0
    seconds: float = 0.0
    too_long: list[tuple[JudgeQuestion, str]] = field(default_factory=list)


def comparisons(way: Way, a: ReplyFile, b: ReplyFile, places: Sequence[Place]) -> Iterator[JudgeQuestion]:
    """Both orders of each place, one after the other."""
    for place in places:
        one, other = a.replies[place], b.replies[place]
        for order in ORDERS:
            first, second = (one, other) if order == "ab" else (other, one)
            yield JudgeQuestion((*place, order), one.id, comparison(way, first.talk, second.talk))


def gradings(files: Mapping[str, ReplyFile], places: Sequence[Place]) -> Iterator[JudgeQuestion]:
    """The reply of each file to each prompt; `files` by the names that answers are kept under."""
    for place in places:
        for which, file in files.items():
            reply = file.replies[place]
            yield JudgeQuestion((*place, which), reply.id, grading(reply.talk))


def ask(
    judge: Judge,
    questions: Sequence[JudgeQuestion],
    sink: Sink,
    step: Callable[[Work], None] = lambda _work: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Work:
    """Ask what is not kept yet. `step` is called after each question.

    Raises:
        CancelledError: the work was stopped; what is kept stays.
        WsdError: the judge cannot answer, or an answer cannot be kept.
    """
    work = Work()
    for question in questions:
        if question.key in sink.done:
            continue
        begun = clock()
        try:
            logprobs = judge.logprobs(question.asked)
        except TooLongError as error:
            work.too_long.append((question, str(error)))
        else:
            seconds = clock() - begun
            work.asked, work.seconds = work.asked + 1, work.seconds + seconds
            sink.append(question.key, logprobs, _about(question, logprobs, seconds))
        step(work)
    return work


def _about(question: JudgeQuestion, logprobs: Sequence[float], seconds: float) -> dict[str, Any]:
    probabilities, mass = normalised(logprobs)
    answers = question.asked.answers
    return {
        "id": question.id,
        "probabilities": dict(zip(answers, probabilities, strict=True)),
        "mass": mass,
        "seconds": round(seconds, 3),
    }
