"""Which job has which sequence of which context.

Contract: a job keeps its sequence as long as no other needs it. A new job gets the free sequence that already holds
most of its tokens; sequences that no job of an evaluation uses are freed only as far as its tokens need their cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wsd_local.core.alignment import common_prefix
from wsd_local.core.contexts import Question, TokenContext
from wsd_local.runtime.job import Job


class Seats:
    """The sequences of one model's context."""

    def __init__(self) -> None:
        self._owners: dict[int, Job] = {}

    def of(self, job: Job) -> int | None:
        """The job's sequence; None if it has none yet."""
        return next((seq for seq, owner in self._owners.items() if owner is job), None)

    def assign(self, context: TokenContext, chosen: Mapping[Job, Question], jobs: Sequence[Job]) -> None:
        """Give each question a sequence: its job's own, else the free one that holds most of its tokens."""
        owners = self._owners
        seats = {job: seq for seq, job in owners.items()}
        for job, question in chosen.items():
            if job not in seats:
                free = [seq for seq in range(context.n_seq) if owners.get(seq) not in chosen]
                idle = [seq for seq in free if owners.get(seq) not in jobs] or free
                seq = max(idle, key=lambda seq: common_prefix(context.held(seq), question.tokens))
                seats.pop(owners.get(seq, job), None)
                owners[seq], seats[job] = job, seq
            question.seq = seats[job]

    def make_room(self, context: TokenContext, chosen: Mapping[Job, Question], room: int) -> None:
        """Free sequences without a question, as far as `room` cells do not suffice for them too."""
        for seq in range(context.n_seq):
            if self._owners.get(seq) not in chosen:
                held = len(context.held(seq))
                if held > room:
                    context.forget(seq)
                else:
                    room -= held
