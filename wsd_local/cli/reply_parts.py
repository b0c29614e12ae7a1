"""Parts of an evaluation that let a judge, or a reward model, compare the replies to a set of prompts.

Contract: the replies are those of a `Sample`; verdicts and scores go into files beside them, which the same command
continues. The pair is freed before a model on this machine judges, so that never more than one of the two is loaded.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsd_local.cli.columns import Answers
from wsd_local.cli.judge import follow_judge, is_endpoint, opened_judge
from wsd_local.errors import CancelledError, UsageError, WsdError
from wsd_local.reports.evidence.judging import JUDGED, SCORED, Judged, Scored

if TYPE_CHECKING:
    from wsd_local.cli.columns import Answering
    from wsd_local.cli.set_parts import Sample
    from wsd_local.reports.evidence.part import Claim, Findings
    from wsd_local.reports.judge.record import VerdictFile
    from wsd_local.reports.judge.replies import Place, ReplyFile
    from wsd_local.reports.judge.reward import RewardModel
    from wsd_local.reports.judge.verdicts import Judge


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """The judge: a model by name or path, or an address and the model's name there; settings of loading."""

    judge: str
    model: str | None
    settings: Mapping[str, Any]

    @classmethod
    def checked(cls, judge: str, model: str | None, threads: int | None) -> JudgeChoice:
        """The judge of options, which is looked for now and loaded later.

        Raises:
            UsageError: the options do not agree.
            ModelError: the model is not on this machine.
        """
        from wsd_local.library.gguf import look_at
        from wsd_local.library.resolve import model_path

        if is_endpoint(judge):
            if model is None:
                raise UsageError("--judge is an endpoint: name the model there with --judge-model")
            return cls(judge, model, {})
        if model is not None:
            raise UsageError("--judge-model is given, and --judge is no endpoint: leave it out")
        look_at(model_path(judge))
        return cls(judge, None, {} if threads is None else {"threads": threads})

    @contextmanager
    def opened(self, answering: Answering) -> Iterator[Judge]:
        """The judge, ready to be asked; the pair is freed if it is on this machine."""
        begun = time.monotonic()
        if not is_endpoint(self.judge):
            answering.release()
        try:
            with opened_judge(self.judge, self.model, self.settings, answering.reporter, answering.interrupt) as judge:
                answering.loading_s += time.monotonic() - begun
                yield judge
        finally:
            answering.interrupt.on_request(lambda: None)


def source_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """What the replies of a run depend on, short enough to stand in the head of a file of verdicts."""
    from wsd_local.datasets.run_file import INDIFFERENT

    settings = {name: value for name, value in run["settings"].items() if name not in INDIFFERENT}
    rest = {name: value for name, value in run.items() if name not in ("shape", "settings")}
    known = json.dumps([rest, settings], sort_keys=True, ensure_ascii=False)
    return {"models": run["models"], "made_by_sha256": hashlib.sha256(known.encode()).hexdigest()}


def verdict_file(path: Path, about: Mapping[str, Any], runs: Mapping[str, Any]) -> VerdictFile:
    """A file of verdicts about the replies of some runs, opened to continue it."""
    from wsd_local.reports.judge.record import VerdictFile
    from wsd_local.version import __version__

    inputs = {which: source_of(run) for which, run in runs.items()}
    return VerdictFile(path, {"version": __version__, **about, "inputs": inputs}, option="--out")


def pairs_of(answering: Answering) -> list[tuple[str, str]]:
    """Columns to compare: the first one in which both models write, with each other one."""
    from wsd_local.runtime.loading import roles_of

    names = [column.name for column in answering.columns]
    first = next((column.name for column in answering.columns if len(roles_of(column.mode)) > 1), names[0])
    return [(first, name) for name in names if name != first]


@dataclass(frozen=True, slots=True)
class _Replies:
    """The replies of each column to the prompts that all of them answered."""

    files: Mapping[str, ReplyFile]
    places: Sequence[Place]
    runs: Mapping[str, Any]
    failed: int


def _replies(sample: Sample, count: int) -> _Replies:
    from wsd_local.reports.judge.replies import read_replies, shared_places

    answers: Answers = sample.answers(count)
    columns = sample.answering.columns
    files = {column.name: read_replies(sample.folder / f"{sample.name}.{column.slug}.jsonl") for column in columns}
    wanted = {(values["index"], values["turn"]) for lines in answers.lines.values() for values in lines}
    kept = [set(shared_places([files[columns[0].name], file], partial=True)) for file in files.values()]
    places = sorted(set.intersection(wanted, *kept))
    runs = {column.name: answers.lines[sample.name, column.name][0]["run"] for column in columns}
    return _Replies(files, places, runs, answers.failed + sample.bad)


class JudgePart:
    """Replies compared by a judge, in both orders."""

    name = "judge"
    claim: Claim = JUDGED

    def __init__(self, sample: Sample, choice: JudgeChoice | None) -> None:
        self._sample, self._choice = sample, choice

    def open(self) -> int:
        """Read the prompts; their number."""
        return self._sample.open()

    def measure(self, count: int) -> Findings:
        """Answer the first `count` prompts, and ask the judge about the replies."""
        replies = _replies(self._sample, count)
        compared = []
        assert self._choice is not None, "a part without a judge is left out"
        with self._choice.opened(self._sample.answering) as judge:
            for a, b in pairs_of(self._sample.answering):
                compared.append(self._compared(judge, a, b, replies))
        failed = replies.failed + sum(one.too_long for one in compared)
        runs = {f"{self._sample.name}.{name}": run for name, run in replies.runs.items()}
        return Judged(judge.identity, compared).findings(failed, runs)

    def _compared(self, judge: Judge, a: str, b: str, replies: _Replies) -> Any:
        from wsd_local.reports.evidence.judging import PairJudged
        from wsd_local.reports.judge.questions import comparisons
        from wsd_local.reports.judge.summary import compared, comparison_of

        one, other = replies.files[a], replies.files[b]
        answering = self._sample.answering
        about = {"ask": "mt_bench", "judge": judge.identity}
        slugs = {column.name: column.slug for column in answering.columns}
        path = self._sample.folder / f"judge.{slugs[a]}.{slugs[b]}.jsonl"
        with verdict_file(path, about, {"a": replies.runs[a], "b": replies.runs[b]}) as sink:
            questions = list(comparisons("mt_bench", one, other, replies.places))
            work = follow_judge(judge, questions, sink, answering.reporter, answering.interrupt)
            pairs = compared(sink.done, one, other, replies.places)
        if not pairs:
            raise WsdError(f"no reply of {a} and {b} was judged in both orders: they are too long for the judge")
        return PairJudged(a, b, comparison_of(pairs), len(work.too_long))


class RewardPart:
    """Replies scored by a reward model."""

    name = "reward"
    claim: Claim = SCORED

    def __init__(self, sample: Sample, model: str, threads: int | None) -> None:
        self._sample, self._model, self._threads = sample, model, threads

    def open(self) -> int:
        """Read the prompts; their number."""
        return self._sample.open()

    def measure(self, count: int) -> Findings:
        """Answer the first `count` prompts, and score the replies."""
        from wsd_local.reports.judge.reward import reward_model

        replies, answering = _replies(self._sample, count), self._sample.answering
        answering.release()
        answering.reporter.wait("loading the reward model")
        try:
            with reward_model(self._model, ctx=None, threads=self._threads, n_gpu_layers=-1) as model:
                answering.interrupt.on_request(model.stop)
                scores, too_long = self._scores(model, replies)
        finally:
            answering.interrupt.on_request(lambda: None)
        if not scores:
            raise WsdError("no reply was scored: they are too long for the reward model")
        identity = {"model": model.name, "sha256": model.sha256}
        runs = {f"{self._sample.name}.{name}": run for name, run in replies.runs.items()}
        found = Scored(identity, list(replies.files), pairs_of(answering), replies.places, scores)
        return found.findings(replies.failed + too_long, runs)

    def _scores(self, model: RewardModel, replies: _Replies) -> tuple[dict[tuple[str, Place], float], int]:
        """Scores by column and place, and how many replies did not fit."""
        from wsd_local.reports.judge.verdicts import TooLongError

        answering = self._sample.answering
        about = {"ask": "score", "judge": {"model": model.name, "sha256": model.sha256}}
        total, too_long = len(replies.places) * len(replies.files), 0
        with (
            verdict_file(self._sample.folder / "reward.jsonl", about, replies.runs) as sink,
            answering.reporter.counting("reply", total, 0) as tick,
        ):
            for number, (place, name) in enumerate((place, name) for place in replies.places for name in replies.files):
                if (*place, name) not in sink.done:
                    try:
                        sink.append((*place, name), [model.score(replies.files[name].replies[place])], {})
                    except TooLongError:
                        too_long += 1
                tick(number + 1)
                if answering.interrupt.requested:
                    raise CancelledError("interrupted")
            found = {
                (name, place): sink.done[(*place, name)][0]
                for place in replies.places
                for name in replies.files
                if (*place, name) in sink.done
            }
        return found, too_long
