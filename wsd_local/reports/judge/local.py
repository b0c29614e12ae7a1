"""A judge on this machine: any GGUF file with a chat template.

Contract: an answer's log-probability is that of its tokens after the rendered question, as the model's own tokenizer
writes them there, summed over the answer alone and after a space; nothing is sampled and no text is parsed. Answers of
several tokens count with all of them; where one begins another ("1" and "10"), the longer one is subtracted from the
shorter. One question is evaluated at a time, and what it has in common with the last one is not evaluated again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from wsd_local.core.alignment import common_prefix
from wsd_local.core.contexts import Question
from wsd_local.errors import FitError, ModelError, room_advice
from wsd_local.files import HashProgress
from wsd_local.library.naming import name_of
from wsd_local.llama import Sequences
from wsd_local.llama.build import version
from wsd_local.prompts.messages import Message
from wsd_local.reports.judge.asking import Asked
from wsd_local.reports.judge.verdicts import LEAST, TooLongError
from wsd_local.runtime.llama_file import LoadProgress
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.pair import load

Tokens = tuple[int, ...]
_SPELLINGS = ("", " ")
"""What an answer may have before it: chat templates end with a line feed, or with what a space belongs after."""


@contextmanager
def local_judge(
    model: str,
    settings: Mapping[str, Any],
    progress: LoadProgress | None = None,
    hashing: HashProgress | None = None,
) -> Iterator[LocalJudge]:
    """The judge of a model by name or path, loaded, and freed at the end. `settings` are those of loading.

    Raises:
        ModelError: the file is missing, damaged, no text generator, or has no chat template.
        FitError: memory is not enough.
        CancelledError: `progress` returned False.
    """
    with load(draft=model, mode="draft", progress=progress, **settings) as pair:
        pair.models.hash_files(hashing)
        yield LocalJudge(pair.models)


class LocalJudge:
    """A loaded model as a judge: the draft of `models`, whose files were hashed.

    Raises:
        ModelError: it has no chat template.
    """

    def __init__(self, models: LoadedModels) -> None:
        model = models.model("draft")
        if model.chat_template is None:
            raise ModelError(
                f"{model.path}: has no chat template, so it cannot be asked; choose an instruct model as the judge"
            )
        self._models = models
        self._model = model
        options = models.context("draft").options
        self._identity = {
            "model": name_of(model),
            "sha256": models.hashes.get("draft"),
            "llama_cpp": version(),
            "cache_types": [options.cache_type_k, options.cache_type_v],
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The model with its hash, and what its arithmetic depends on."""
        return dict(self._identity)

    def stop(self) -> None:
        """Stop the evaluation in progress, from any thread; the next one is not begun."""
        self._models.cancellation.set()

    def logprobs(self, asked: Asked) -> tuple[float, ...]:
        """Natural log-probabilities of beginning with each of the answers.

        Raises:
            TooLongError: the question does not fit into the context.
            CancelledError: it was stopped.
        """
        context = self._models.context("draft")
        try:
            prompt, spelled = self._tokens(asked)
        except FitError as error:
            raise TooLongError(str(error)) from error
        longest = max(map(len, spelled))
        if longest > context.n_ctx:
            advice = room_advice(context.n_ctx, self._model.n_ctx_train)
            raise TooLongError(f"the question has {longest} tokens, and the judge's context {context.n_ctx}; {advice}")
        found = answer_logprobs(context, prompt, list(spelled))
        sums: dict[str, list[float]] = {answer: [] for answer in asked.answers}
        for tokens, answer in spelled.items():
            sums[answer].append(found[tokens])
        return tuple(max(LEAST, log_sum(values)) for values in sums.values())

    def _tokens(self, asked: Asked) -> tuple[Tokens, dict[Tokens, str]]:
        """The question, and the question with each spelling of each answer."""
        write = self._models.draft_format.prompt
        spelled: dict[Tokens, str] = {}
        for before in _SPELLINGS:
            for answer in asked.answers:
                reply = Message(role="assistant", content=before + answer)
                spelled.setdefault(tuple(write([*asked.messages, reply]).tokens), answer)
        return tuple(write(asked.messages).tokens), spelled


def answer_logprobs(context: Sequences, prompt: Tokens, wholes: Sequence[Tokens]) -> dict[Tokens, float]:
    """Log-probabilities of what distinguishes token lists that begin with a prompt and are not the same.

    They are those of ending there, as far as the lists tell: what continues one of them is subtracted from it.
    """
    start = min(common_prefix(prompt, whole) for whole in wholes)
    start = min(start, min(map(len, wholes)) - 1)
    found: dict[Tokens, float] = {}

    def answer(_position: int, row: int) -> None:
        found.update((whole, context.score(row, whole[start]).logprob) for whole in wholes)

    context.ask(Question(0, list(wholes[0][:start]), start - 1, answer))
    for whole in wholes:
        if len(whole) > start + 1:
            found[whole] += math.fsum(context.logprobs(0, list(whole), start + 1))
    return {whole: _without_longer(whole, found) for whole in wholes}


def _without_longer(whole: Tokens, found: Mapping[Tokens, float]) -> float:
    longer = [found[other] for other in found if len(other) > len(whole) and other[: len(whole)] == whole]
    if not longer:
        return found[whole]
    left = 1 - math.exp(min(0.0, log_sum(longer) - found[whole]))
    return found[whole] + math.log(left) if left > 0 else -math.inf


def log_sum(values: Sequence[float]) -> float:
    """The logarithm of the sum of probabilities, each given by its logarithm; that of 0 without any."""
    top = max(values, default=-math.inf)
    return top if math.isinf(top) else top + math.log(math.fsum(math.exp(value - top) for value in values))
