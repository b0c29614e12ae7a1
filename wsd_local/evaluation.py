"""The paper's claim in miniature: the embedded pair on its held-out questions.

Contract: asks every question in several ways through the ordinary engine and judges the text by the rules of
`wsd_local.demo`. A row is measured, never recorded.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsd_local.demo import MEASURED_GROUP, Question, Verdict, judge, load_questions
from wsd_local.errors import UsageError
from wsd_local.pairs import Pair
from wsd_local.paths import demo_dir
from wsd_local.reply import Reply

WAYS: Mapping[str, dict[str, Any]] = {
    "base alone": {"mode": "base"},
    "draft alone": {"mode": "draft"},
    "WSD, threshold 0.8": {"threshold": 0.8},
    "one token (fixed:1)": {"mode": "fixed:1"},
    "WSD, threshold 0.3": {"threshold": 0.3},
    "WSD, threshold 0.5": {"threshold": 0.5},
    "WSD, threshold 0.95": {"threshold": 0.95},
}
"""The rows of the table and their settings."""


@dataclass(frozen=True, slots=True)
class Row:
    """One way of answering, over all questions. Shares lie between 0 and 1, positions count base tokens."""

    way: str
    questions: int
    well: float
    right: float
    right_of_well: float | None
    median_switch: float | None
    mean_kept: float
    without_switch: int
    mean_tokens: float
    mean_s: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def questions(path: Path | None = None, limit: int | None = None) -> list[Question]:
    """The measured questions of a file, or the embedded pair's own held-out ones.

    Raises:
        UsageError: the file is not a questions file.
    """
    try:
        asked = load_questions(path or demo_dir() / "questions.jsonl")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}") from error
    found = [question for question in asked if question.group == MEASURED_GROUP]
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: it counts questions and must be at least 1")
    return found[:limit]


def measure(pair: Pair, asked: Sequence[Question], step: Callable[[], None]) -> Iterator[Row]:
    """A row for each of `WAYS`; `step` is called after every reply."""
    for way, settings in WAYS.items():
        replies, verdicts = [], []
        for question in asked:
            reply = pair.reply(question.messages, max_tokens=256, **settings)
            replies.append(reply)
            verdicts.append(judge(question, reply.text))
            step()
        yield _row(way, replies, verdicts)


def _row(way: str, replies: Sequence[Reply], verdicts: Sequence[Verdict]) -> Row:
    switches = [reply.switch.index for reply in replies if reply.switch.index is not None]
    well = [verdict for verdict in verdicts if verdict.well]
    return Row(
        way=way,
        questions=len(replies),
        well=len(well) / len(verdicts),
        right=statistics.mean(verdict.right for verdict in verdicts),
        right_of_well=statistics.mean(verdict.right for verdict in well) if well else None,
        median_switch=statistics.median(switches) if switches else None,
        mean_kept=statistics.mean(reply.draft.tokens for reply in replies),
        without_switch=sum(1 for reply in replies if reply.switch.index is None),
        mean_tokens=statistics.mean(len(reply.tokens) for reply in replies),
        mean_s=statistics.mean(reply.timings.total_s for reply in replies),
    )
