"""Which job has which sequence of which context.

Contract: a job keeps its sequence as long as no other needs it. A new job gets the free sequence whose text it goes on
with; where there is none, the one that was unused for longest, so that one conversation does not cost another one its
cache. Sequences that no job of an evaluation uses are freed only as far as its tokens need their cells, the one that
was unused for longest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from wsd_local.core.alignment import common_prefix
from wsd_local.core.contexts import Question, TokenContext
from wsd_local.runtime.job import Job


class Seats:
    """The sequences of one model's context."""

    def __init__(self) -> None:
        self._owners: dict[int, Job] = {}
        self._used: dict[int, int] = {}
        self._time = 0

    def of(self, job: Job) -> int | None:
        """The job's sequence; None if it has none yet."""
        return next((seq for seq, owner in self._owners.items() if owner is job), None)

    def assign(self, context: TokenContext, chosen: Mapping[Job, Question], jobs: Sequence[Job]) -> None:
        """Give each question a sequence: its job's own, or a free one."""
        owners = self._owners
        self._time += 1
        seats = {job: seq for seq, job in owners.items()}
        for job, question in chosen.items():
            if job not in seats:
                free = [seq for seq in range(context.n_seq) if owners.get(seq) not in chosen]
                idle = [seq for seq in free if owners.get(seq) not in jobs] or free
                seq = self._best(context, idle, question)
                seats.pop(owners.get(seq, job), None)
                owners[seq], seats[job] = job, seq
            question.seq = seats[job]
            self._used[question.seq] = self._time

    def _best(self, context: TokenContext, free: Iterable[int], question: Question) -> int:
        """The sequence that holds most of a question's tokens, if that is half of the shorter one, else the oldest."""
        same = {seq: common_prefix(context.held(seq), question.tokens) for seq in free}
        best = max(same, key=lambda seq: (same[seq], self._used.get(seq, 0)))
        if same[best] * 2 >= min(question.end, len(context.held(best))) > 0:
            return best
        return min(same, key=lambda seq: (self._used.get(seq, 0), -same[seq]))

    def make_room(self, context: TokenContext, chosen: Mapping[Job, Question], room: int) -> None:
        """Free sequences without a question, as far as `room` cells do not suffice for them too."""
        unused = [seq for seq in range(context.n_seq) if self._owners.get(seq) not in chosen]
        for seq in sorted(unused, key=lambda seq: self._used.get(seq, 0), reverse=True):
            held = len(context.held(seq))
            if held > room:
                context.forget(seq)
            else:
                room -= held
