"""One GGUF file as llama.cpp computes with it: its logits against transformers', and whether its replies end.

Contract: the file is loaded once, and freed at the end of `with`. Replies are greedy.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wsd_local.core.contexts import Question
from wsd_local.library.gguf import read_model
from wsd_local.library.vetting import vet
from wsd_local.llama import Cancellation, Context, ContextOptions
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.templates import Template
from wsd_local.reports.draft_check import tensors
from wsd_local.reports.draft_check.conversations import ANSWERED, ASKED
from wsd_local.reports.draft_check.figures import Endings, Logits
from wsd_local.reports.draft_check.reference import LONGEST, POSITIONS, Reference
from wsd_local.reports.pair_check.reading import end_probability
from wsd_local.runtime.llama_file import LlamaFile
from wsd_local.settings import LoadSettings
from wsd_local.system.child import Observer

REPLY = 256
"""Tokens of a reply at most: half of what a draft may write."""
_TOGETHER = 10
"""Replies that are written at once."""
_LIKELY = float(np.log(0.01))


class LoadedFile:
    """A file in memory, and what it computes."""

    def __init__(self, path: Path, loading: LoadSettings, observer: Observer) -> None:
        self._path, self._loading, self._observer = path, loading, observer
        self._cancellation = Cancellation()

    def __enter__(self) -> LoadedFile:
        self._observer.stoppable(self._cancellation.set)
        self._observer.progress(f"loading {self._path.name}", 0.0)
        vet(self._path, self._goes_on)
        self.model = LlamaFile("draft", self._path, self._loading).open(None, lambda *_: self._goes_on())
        return self

    def __exit__(self, *_: object) -> None:
        self.model.close()

    def _goes_on(self) -> bool:
        return not self._cancellation.is_set

    def _context(self, **options: Any) -> Context:
        return Context(self.model, ContextOptions(threads=self._loading.threads, **options), self._cancellation)

    def logits(self, reference: Reference) -> Logits:
        """How far the file is from transformers, with caches of 32 bits, so that only the weights count."""
        bits = tensors.bits(read_model(self._path))
        rows = sum(len(prompt.rows) for prompt in reference.prompts)
        if reference.prompts[0].rows.shape[1] != self.model.n_vocab:
            return Logits(self._path.name, bits, rows, None, None, None)
        context = self._context(
            n_ctx=LONGEST, n_rows=POSITIONS, cache_type_k="f32", cache_type_v="f32", flash_attn="off"
        )
        found: list[tuple[float, bool, float]] = []
        try:
            for index, prompt in enumerate(reference.prompts):
                self._observer.progress(f"{self._path.name} reads", index / len(reference.prompts))
                first = len(prompt.tokens) - len(prompt.rows)

                def answer(position: int, row: int, prompt: Any = prompt, first: int = first) -> None:
                    found.append(compared(prompt.rows[position - first], context.distribution(row)))

                context.ask(Question(0, prompt.tokens, first, answer))
        finally:
            context.close()
        divergences, same, largest = zip(*found, strict=True)
        return Logits(
            self._path.name, bits, rows, statistics.fmean(divergences), statistics.fmean(same), float(np.max(largest))
        )

    def endings(self) -> Endings:
        """How many replies end by themselves, and how probable an end is after a whole answer."""
        template = Template()
        try:
            form = DraftFormat(self.model, template=template, path=self._path)
            asked = [form.prompt([messages]).tokens for messages in ASKED]
            answered = [form.prompt(messages).tokens for messages in ANSWERED]
        finally:
            template.close()
        longest = max(map(len, (*asked, *answered))) + REPLY
        context = self._context(n_ctx=longest, n_seq=_TOGETHER, cells=longest * _TOGETHER)
        try:
            ended = 0
            for start in range(0, len(asked), _TOGETHER):
                share = start / len(asked)
                ended += self._written(context, asked[start : start + _TOGETHER], share, _TOGETHER / len(asked))
            probability = statistics.fmean(end_probability(context, tokens) for tokens in answered)
        finally:
            context.close()
        return Endings(len(asked), ended, REPLY, probability)

    def _written(self, context: Context, prompts: Sequence[Sequence[int]], done: float, share: float) -> int:
        """Replies to prompts that ended by themselves; `done` and `share` of all for the progress."""
        texts = {seq: list(prompt) for seq, prompt in enumerate(prompts)}
        ended = 0
        for count in range(REPLY):
            if not texts:
                break
            self._observer.progress("the draft replies", done + share * count / REPLY)
            chosen: dict[int, int] = {}

            def choose(seq: int, _position: int, row: int, chosen: dict[int, int] = chosen) -> None:
                chosen[seq] = context.best(row)

            questions = [Question(seq, text, len(text) - 1, partial(choose, seq)) for seq, text in texts.items()]
            while left := [question for question in questions if not question.done]:
                context.step(left)
            for seq, token in chosen.items():
                if self.model.is_eog(token):
                    ended += 1
                    del texts[seq]
                else:
                    texts[seq].append(token)
        return ended


def compared(theirs: npt.NDArray[np.float32], ours: npt.NDArray[np.float64]) -> tuple[float, bool, float]:
    """Kullback-Leibler divergence, whether the first choice is the same, and the largest difference of a likely token.

    Args:
        theirs: transformers' log-probabilities of all tokens.
        ours: llama.cpp's probabilities of them.
    """
    logs = np.log(np.maximum(ours, 1e-300))
    wide = theirs.astype(np.float64)
    likely = wide >= _LIKELY
    divergence = np.maximum(0.0, np.sum(np.exp(wide) * (wide - logs)))  # what is no number stays none
    largest = np.max(np.abs(wide - logs), initial=0.0, where=likely)
    return float(divergence), int(ours.argmax()) == int(wide.argmax()), float(largest)
