"""A judge's grades of openings: the aligned one and those that the base sampled itself.

Contract: each opening is graded alone, as the reply to its conversation, from 1 to 10 by expected value
(`reports.judge`). An answer is kept under a name that holds a hash of the opening, so that one about another text
never counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsd_local.prompts.messages import Message
from wsd_local.reports.judge.asking import grading
from wsd_local.reports.judge.questions import JudgeQuestion
from wsd_local.reports.judge.summary import mass_warnings
from wsd_local.reports.judge.verdicts import grade
from wsd_local.reports.mechanism.ranks import Ranking, Scored, ranking
from wsd_local.reports.mechanism.records import Case

Answers = Mapping[tuple[int, int, str], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Judging:
    """The ranks by a judge's grades. `judge` is its identity, `mass` its mean probability of a grade at all."""

    judge: Mapping[str, Any]
    mass: float
    ranking: Ranking

    @property
    def warnings(self) -> list[str]:
        """What speaks against this judge, a line each."""
        return mass_warnings(self.mass)


def questions(cases: Sequence[Case]) -> list[JudgeQuestion]:
    """A question for each opening, the aligned one of a prompt first."""
    return [
        JudgeQuestion((*case.place, name), case.draft.id, grading(_talk(case, text)))
        for case in cases
        for name, text in _named(case)
    ]


def judging(identity: Mapping[str, Any], answers: Answers, cases: Sequence[Case]) -> Judging | None:
    """The ranks of prompts of which every opening is graded; None without any."""
    scored, masses = list[Scored](), list[float]()
    for case in cases:
        keys = [(*case.place, name) for name, _ in _named(case)]
        if not keys or not all(key in answers for key in keys):
            continue
        (aligned, mass), *own = [grade(answers[key]) for key in keys]
        scored.append((aligned, [value for value, _ in own]))
        masses += [mass, *(mass for _, mass in own)]
    ranks = ranking(scored)
    return None if ranks is None else Judging(identity, math.fsum(masses) / len(masses), ranks)


def _named(case: Case) -> Iterator[tuple[str, str]]:
    """The name and the text of each opening; none without an aligned one."""
    if case.opening.logprobs:
        openings = {"aligned": case.opening, **{f"own {number}": one for number, one in enumerate(case.own, 1)}}
        for name, one in openings.items():
            yield f"{name} {hashlib.sha256(one.text.encode()).hexdigest()[:12]}", one.text


def _talk(case: Case, text: str) -> list[Message]:
    """The conversation with an opening as its reply, after what was supplied of it."""
    *before, last = case.messages
    if last["role"] != "assistant":
        return [*case.messages, Message(role="assistant", content=text)]
    return [*before, Message(role="assistant", content=last["content"] + text)]
