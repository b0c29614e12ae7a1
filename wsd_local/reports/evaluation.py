"""The paper's claim in miniature: the embedded pair on its held-out questions.

Contract: replies come from the ordinary engine, greedily, at most `MAX_TOKENS` tokens a reply, and their text is judged
by the rules of `wsd_local.reports.demo`. Everything is measured, nothing recorded. `measure` answers all questions in
each of `WAYS`, every n-th (at most `SWEEP_QUESTIONS`) at each point of the two sweeps, and lets the base
read the replies of both models once more, for its perplexity.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wsd_local.errors import UsageError, reason
from wsd_local.paths import demo_dir
from wsd_local.prompts.messages import conversation
from wsd_local.reports.demo import MEASURED_GROUP, DemoQuestion, Verdict, judge, load_questions
from wsd_local.reports.perplexity import Perplexity, perplexity, reply_logprobs
from wsd_local.runtime.pair import Pair
from wsd_local.settings import ReplySettings

USUAL = ReplySettings()
BASE, DRAFT, WSD = "base alone", "draft alone", f"WSD, threshold {USUAL.threshold:g}"

WAYS: Mapping[str, dict[str, Any]] = {
    BASE: {"mode": "base"},
    DRAFT: {"mode": "draft"},
    WSD: {"threshold": USUAL.threshold},
    **{f"fixed:{kept}": {"mode": f"fixed:{kept}"} for kept in (1, 3, 6, 12)},
}
"""The rows of the first table and their settings."""

THRESHOLDS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Swept with the default window."""

WINDOWS = (2, 4, 6, 8, 10, 12)
"""In base tokens; swept with the default threshold."""

SWEEP_QUESTIONS = 70
PREFIXES = range(25)
MAX_TOKENS = 256

Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WayRow:
    """One way of answering, over all its questions.

    Shares lie between 0 and 1. Positions and tokens count base tokens, those of the draft alone its own; `mean_drafted`
    counts draft tokens. `switches` are pairs of a switch position and its number of replies; `without_switch` counts
    the others. `window` and `threshold` are null where nothing is checked. `mean_s` and `median_s` are
    seconds for a whole reply.
    """

    way: str
    questions: int
    window: int | None
    threshold: float | None
    well: float
    right: float
    right_of_well: float | None
    mean_switch: float | None
    median_switch: float | None
    switches: tuple[tuple[int, int], ...]
    without_switch: int
    mean_kept: float
    mean_drafted: float
    mean_tokens: float
    mean_s: float
    median_s: float

    @property
    def checked(self) -> bool:
        """Whether windows decide in this way of answering."""
        return self.window is not None


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """Perplexities after the first `prefix_tokens` base tokens of replies; null where no reply is longer.

    `aligned` are all replies of the draft alone, `aligned_right` and `aligned_wrong` its right and its other ones,
    `own` those of the base alone.
    """

    prefix_tokens: int
    aligned: Perplexity | None
    aligned_right: Perplexity | None
    aligned_wrong: Perplexity | None
    own: Perplexity | None


@dataclass(frozen=True, slots=True)
class DemoResults:
    """All that `measure` found."""

    ways: tuple[WayRow, ...]
    thresholds: tuple[WayRow, ...]
    windows: tuple[WayRow, ...]
    perplexity: tuple[PrefixRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: a list for each table, fields as in `WayRow` and `PrefixRow`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class JudgedReply:
    """The figures of one reply. `tokens` counts all of it, `kept` the opening; `index` is the switch position."""

    text: str
    verdict: Verdict
    index: int | None
    kept: int
    drafted: int
    tokens: int
    seconds: float


Known = MutableMapping[tuple[str, str], JudgedReply]
"""Replies by the way of answering and the question's id."""


def questions(path: Path | None = None, limit: int | None = None) -> list[DemoQuestion]:
    """The measured questions of a file, or the embedded pair's own held-out ones.

    Raises:
        UsageError: the file is not a questions file, or none of its questions is one to measure.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}: it counts questions and must be at least 1")
    where = path or demo_dir() / "questions.jsonl"
    try:
        questions = load_questions(where)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read: {reason(error)}") from error
    except ValueError as error:
        raise UsageError(str(error) if str(where) in str(error) else f"{where}: {error}") from error
    found = [question for question in questions if question.group == MEASURED_GROUP]
    if not found:
        raise UsageError(f"{where}: there is no question of the group {MEASURED_GROUP!r} in it")
    return found[:limit]


def stride(count: int) -> int:
    """Sweeps use every n-th of `count` questions; this is n."""
    return math.ceil(count / SWEEP_QUESTIONS)


def steps(count: int) -> int:
    """How often `measure` calls its `step` for `count` questions."""
    swept = len(range(0, count, stride(count)))
    return (len(WAYS) + 1) * count + (len(THRESHOLDS) + len(WINDOWS) - 2) * swept


def measure(pair: Pair, questions: Sequence[DemoQuestion], step: Step, known: Known | None = None) -> DemoResults:
    """Answer, judge and read again. `step` is called after every reply, and after every question read.

    Replies in `known`, by way and question, are not asked for again; new ones are added to it.
    """
    kept = {} if known is None else known
    answers = {way: _answers(pair, questions, settings, kept, way, step) for way, settings in WAYS.items()}
    every = stride(len(questions))
    swept, usual = questions[::every], answers[WSD][::every]

    def sweep(name: str, points: Sequence[float], default: float) -> tuple[WayRow, ...]:
        rows = []
        for point in points:
            way, settings = f"WSD, {name} {point:g}", {name: point}
            found = usual if point == default else _answers(pair, swept, settings, kept, way, step)
            rows.append(_row(pair, way, settings, found))
        return tuple(rows)

    defaults = pair.settings
    return DemoResults(
        ways=tuple(_row(pair, way, settings, answers[way]) for way, settings in WAYS.items()),
        thresholds=sweep("threshold", THRESHOLDS, WAYS[WSD]["threshold"]),
        windows=sweep("window", WINDOWS, defaults.window),
        perplexity=_perplexity(pair, questions, answers, step),
    )


def _answers(
    pair: Pair, questions: Sequence[DemoQuestion], settings: Mapping[str, Any], known: Known, way: str, step: Step
) -> list[JudgedReply]:
    for question in questions:
        if (way, question.id) in known:
            continue
        reply = pair.reply(question.messages, max_tokens=MAX_TOKENS, **settings)
        step(way)
        known[way, question.id] = JudgedReply(
            text=reply.text,
            verdict=judge(question, reply.text),
            index=reply.switch.index,
            kept=reply.draft.tokens,
            drafted=reply.draft.drafted_tokens,
            tokens=len(reply.tokens),
            seconds=reply.timings.total_s,
        )
    return [known[way, question.id] for question in questions]


def _row(pair: Pair, way: str, settings: Mapping[str, Any], answers: Sequence[JudgedReply]) -> WayRow:
    checked = "mode" not in settings
    return row(
        way,
        answers,
        window=settings.get("window", pair.settings.window) if checked else None,
        threshold=settings.get("threshold", pair.settings.threshold) if checked else None,
    )


def row(
    way: str, answers: Sequence[JudgedReply], *, window: int | None = None, threshold: float | None = None
) -> WayRow:
    """Answers as one row. ValueError without any."""
    if not answers:
        raise ValueError("no answers")
    switches = [answer.index for answer in answers if answer.index is not None]
    well = [answer.verdict for answer in answers if answer.verdict.well]
    return WayRow(
        way=way,
        questions=len(answers),
        window=window,
        threshold=threshold,
        well=len(well) / len(answers),
        right=statistics.fmean(answer.verdict.right for answer in answers),
        right_of_well=statistics.fmean(verdict.right for verdict in well) if well else None,
        mean_switch=statistics.fmean(switches) if switches else None,
        median_switch=statistics.median(switches) if switches else None,
        switches=tuple(sorted(Counter(switches).items())),
        without_switch=len(answers) - len(switches),
        mean_kept=statistics.fmean(answer.kept for answer in answers),
        mean_drafted=statistics.fmean(answer.drafted for answer in answers),
        mean_tokens=statistics.fmean(answer.tokens for answer in answers),
        mean_s=statistics.fmean(answer.seconds for answer in answers),
        median_s=statistics.median(answer.seconds for answer in answers),
    )


# -- perplexity ----------------------------------------------------------------------------------------------


def _perplexity(
    pair: Pair, questions: Sequence[DemoQuestion], answers: Mapping[str, Sequence[JudgedReply]], step: Step
) -> tuple[PrefixRow, ...]:
    right: list[list[float]] = []
    wrong: list[list[float]] = []
    own: list[list[float]] = []
    for question, drafted, written in zip(questions, answers[DRAFT], answers[BASE], strict=True):
        asked = conversation(question.messages)
        (right if drafted.verdict.right else wrong).append(reply_logprobs(pair, asked, drafted.text))
        own.append(reply_logprobs(pair, asked, written.text))
        step("perplexity")
    rows = (
        PrefixRow(k, *(perplexity(replies, k) for replies in ([*right, *wrong], right, wrong, own))) for k in PREFIXES
    )
    return tuple(row for row in rows if row.aligned or row.own)
