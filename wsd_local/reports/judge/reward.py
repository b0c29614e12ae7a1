"""Scores of replies by a reward model: a GGUF file with a ranking head.

Contract: a file with a template for rerankers (`rerank`) reads the conversation and the reply in it, as a query and a
text; one with a chat template alone reads the whole conversation, the reply as its last message with the end of its
turn; one without either reads the conversation and the reply as rerankers without a template read them. Scores have the
model's own scale and compare replies to one prompt. What does not fit is an error, nothing is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from wsd_local.errors import FitError, ModelError
from wsd_local.files import file_sha256
from wsd_local.library.gguf import look_at, read_model
from wsd_local.library.naming import name_of
from wsd_local.library.resolve import model_path
from wsd_local.library.vetting import vet
from wsd_local.llama import Cancellation, Model
from wsd_local.llama.ranking import HEADS, RANK, Ranker, asked, ended, paired
from wsd_local.placement.plan import DEFAULT_CTX
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.messages import Message
from wsd_local.prompts.templates import Template
from wsd_local.reports.judge.replies import Judged, Place, ReplyFile
from wsd_local.reports.judge.summary import clustered_mean, win_rate
from wsd_local.reports.judge.verdicts import TooLongError
from wsd_local.reports.statistics import Estimate

Scores = Mapping[tuple[str, Place], float]
"""Scores by file and place."""


class RewardModel:
    """A loaded reward model; `reward_model` makes one.

    Attributes:
        name: its name for people.
        sha256: the hash of its file.
    """

    def __init__(self, ranker: Ranker, template: Template, sha256: str, cancellation: Cancellation) -> None:
        model = ranker.model
        self.name = name_of(model)
        self.sha256 = sha256
        self._ranker, self._cancellation = ranker, cancellation
        self._format = None
        if model.chat_template is not None:
            self._format = DraftFormat(model, clock=datetime.now, template=template, path=model.path)

    def stop(self) -> None:
        """Stop the evaluation in progress, from any thread; the next one is not begun."""
        self._cancellation.set()

    def tokens(self, reply: Judged) -> list[int]:
        """What the model reads of a reply."""
        talk, model = reply.talk, self._ranker.model
        query, text = _joined(talk[:-1]), talk[-1]["content"]
        found = asked(model, query, text)
        if found is None and self._format is not None:
            found = ended(model, self._format.prompt(talk).tokens)
        return paired(model, query, text) if found is None else found

    def score(self, reply: Judged) -> float:
        """The score of a reply; higher is better.

        Raises:
            TooLongError: the conversation does not fit into the context.
            CancelledError: it was stopped.
        """
        try:
            return self._ranker.score(self.tokens(reply))
        except FitError as error:
            raise TooLongError(str(error)) from error


@contextmanager
def reward_model(model: str, *, ctx: int | None, threads: int | None, n_gpu_layers: int) -> Iterator[RewardModel]:
    """The reward model of a name or path, loaded, and freed at the end.

    Args:
        model: its name or path.
        ctx: tokens of its context; None: what it was trained for, at most the usual context.
        threads: CPU threads; None: the usual number.
        n_gpu_layers: layers on GPUs, -1 all.

    Raises:
        ModelError: the file is missing, damaged, or has no ranking head.
        FitError: memory is not enough.
    """
    path: Path = model_path(model)
    look_at(path)
    require_head(path)
    vet(path)
    cancellation, template = Cancellation(), Template()
    with Model(path, n_gpu_layers=n_gpu_layers) as loaded:
        n_ctx = min(ctx or DEFAULT_CTX, loaded.n_ctx_train)
        ranker = Ranker(loaded, n_ctx, threads, cancellation)
        try:
            yield RewardModel(ranker, template, file_sha256(path), cancellation)
        finally:
            ranker.close()
            template.close()


def require_head(path: Path) -> None:
    """Raise `ModelError` unless a file has a head that scores texts, and names it.

    Without the head llama.cpp gives a number of the last hidden state as the score.
    """
    headers = read_model(path)
    kind = headers[0].integer(f"{headers[0].architecture}.pooling_type")
    if kind != RANK or not any(tensor.name in HEADS for header in headers for tensor in header.tensors):
        raise ModelError(
            f"{path}: has no head that scores texts (pooling type rank); choose a reward model or a reranker that was "
            "converted with its head"
        )


def mean_score(scores: Scores, which: str, places: Sequence[Place]) -> Estimate | None:
    """The mean score of a file with its interval; None without scores."""
    known = [place for place in places if (which, place) in scores]
    return clustered_mean([index for index, _ in known], [scores[which, place] for place in known]) if known else None


def better(scores: Scores, places: Sequence[Place]) -> Estimate | None:
    """How often A's reply has the higher score, equal ones as a half, with its interval; None without pairs."""
    both = [place for place in places if ("a", place) in scores and ("b", place) in scores]
    differences = [scores["a", place] - scores["b", place] for place in both]
    if not both:
        return None
    return win_rate([index for index, _ in both], [0.5 if not one else float(one > 0) for one in differences])


def _joined(talk: Sequence[Message]) -> str:
    return "\n\n".join(message["content"] for message in talk)


def lines(file: ReplyFile, which: str, scores: Scores) -> list[dict[str, object]]:
    """The scores of a file, for JSON."""
    return [
        {"index": place[0], "turn": place[1], "id": reply.id, "which": which, "score": scores[which, place]}
        for place, reply in file.replies.items()
        if (which, place) in scores
    ]
