"""Measures a loaded pair: what it writes to the probes, and what its models expect.

Contract: nothing is printed and nothing judged. Replies are greedy and short, with the pair's own window, threshold and
base format. Works with any number of sequences, and with one model in memory at a time, which are then loaded in turn.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

from wsd_local.errors import CancelledError, ModelError
from wsd_local.files import file_sha256
from wsd_local.library.naming import name_of
from wsd_local.paths import demo_dir
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.known_formats import known_formats
from wsd_local.prompts.messages import Message
from wsd_local.prompts.templates import Template
from wsd_local.reports.pair_check import probes, reading, texts
from wsd_local.reports.pair_check.figures import (
    Drafts,
    Formats,
    Likelihoods,
    PairFigures,
    Replies,
    Roles,
    Sameness,
    Switches,
    Text,
    Words,
)
from wsd_local.reports.pair_check.probes import Probe
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.misplaced import is_tuned
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.settings import ReplySettings

DRAFT_TOKENS, REPLY_TOKENS, BASE_TOKENS = 96, 112, 64
"""Base tokens, at most, of each whole draft, of each reply of the pair, and of each reply of the base alone."""
FORMAT_CHARACTERS = 160
"""Characters of each good answer that the base reads in every format: a format matters where an answer begins."""
CTX, PARALLEL = 1024, 4
"""Context of each sequence, and replies at once: probes and replies are short."""

CONFIGURED = ("window", "threshold")
OVERRIDES: dict[str, Any] = {
    name: value for name, value in asdict(ReplySettings()).items() if name not in CONFIGURED
} | {"speculation": "off", "loop_guard": "on"}
"""Settings of the replies, whatever is configured."""
_WHOLE_DRAFT: dict[str, Any] = {
    "threshold": 1.1,
    "on_draft_end": "stop",
    "max_tokens": DRAFT_TOKENS,
    "draft_max_tokens": 2 * DRAFT_TOKENS,
    "loop_guard": "off",
}

Step = Callable[[str], None]
"""Called with what is worked on, `steps` times, as the work goes on."""


def steps(count: int) -> int:
    """Calls of `step` for so many probes: three replies, the reading of each model, and the formats."""
    return 6 * count + 3


def probes_for(pair: Pair) -> Sequence[Probe]:
    """The probes that a pair is examined with: others for the embedded one, which was trained for few questions."""
    embedded = all(demo_dir() in path.parents for path in pair.models.paths.values())
    return probes.DEMO_PROBES if embedded else probes.PROBES


def measure(pair: Pair, step: Step, asked: Sequence[Probe]) -> PairFigures:
    """All figures of a pair whose settings are changed by `OVERRIDES`.

    Raises:
        ModelError: a model cannot be used, such as a draft whose template refuses every question.
        FitError: a probe does not fit into a context.
        CancelledError: the work was stopped.
    """
    return _Measuring(pair, step, asked).figures()


@dataclass(frozen=True, slots=True)
class _Reader:
    """One model's log-likelihoods of the good answers alone, of the drafts and of the base's replies; and of each token
    of the answers."""

    answers: list[list[float]]
    drafts: list[float]
    base: list[float]
    end: float


class _Measuring:
    def __init__(self, pair: Pair, step: Step, asked: Sequence[Probe]) -> None:
        self._pair, self._models, self._step, self._probes = pair, pair.models, step, asked
        self._draft, self._base = pair.models.model("draft"), pair.models.model("base")
        self._asked: list[list[Message]] = [[Message(role="user", content=probe.question)] for probe in asked]
        self._answered = [
            [*question, Message(role="assistant", content=probe.answer)]
            for question, probe in zip(self._asked, asked, strict=True)
        ]

    def figures(self) -> PairFigures:
        whole = self._replies("the draft writes", **_WHOLE_DRAFT)
        own = self._replies("the base writes", mode="base", max_tokens=BASE_TOKENS)
        replies = self._replies("both write", max_tokens=REPLY_TOKENS)
        drafts, written = [reply.draft.text for reply in whole], [reply.text for reply in own]
        with self._models.queue.held():
            by_draft = self._by_draft(drafts, written)
            by_base = self._by_base(drafts, written)
            instructed = self._instructed_end()
            formats = self._formats()
        return PairFigures(
            name_of(self._draft),
            name_of(self._base),
            Roles(
                self._draft.chat_template is not None,
                self._base.chat_template is not None,
                is_tuned(self._base),
                by_draft.end,
                instructed,
                by_base.end,
            ),
            drafts_seen(whole, [self._draft.spelled_out(reply.draft_ids) for reply in whole]),
            self._words([*drafts, *(probe.answer for probe in self._probes)]),
            self._switches(whole),
            _likelihoods([probe.answer for probe in self._probes], drafts, written, by_draft, by_base),
            self._seen(own, replies),
            formats,
            Sameness(self._same_file(), self._difference(by_draft.answers, by_base.answers)),
        )

    # -- replies -----------------------------------------------------------------------------------------------

    def _replies(self, what: str, **changes: Any) -> list[Reply]:
        replies: dict[int, Reply] = {}
        self._step(what)
        for index, reply in self._pair.replies([probe.question for probe in self._probes], **changes):
            if reply.finish_reason == "cancelled":
                raise CancelledError("stopped")
            replies[index] = reply
            self._step(what)
        return [replies[index] for index in range(len(self._probes))]

    def _words(self, found: Sequence[str]) -> Words:
        return reduce(add, (texts.words_of(text, self._draft, self._base) for text in found))

    def _switches(self, whole: Sequence[Reply]) -> Switches:
        settings = self._pair.settings
        windows = [[token.window for token in reply.tokens if token.source == "draft"] for reply in whole]
        long = [found for found in windows if any(window is not None for window in found)]
        passes = [texts.first_pass(found, settings.threshold) for found in long]
        return Switches(settings.window, settings.threshold, len(long), passes.count(0), passes.count(None))

    def _seen(self, own: Sequence[Reply], replies: Sequence[Reply]) -> Replies:
        headings = self._models.base_format.headings.values()
        spellings = {text for name in ("bos", "eos") if len(text := self._draft.special_spelling(name)) > 2}
        read = [reply.base.text for reply in (*own, *replies)]
        leaks = [leak for text in read if (leak := texts.leaked(text, headings, spellings)) is not None]
        looped = sum(reply.finish_reason == "loop" for reply in replies)
        return Replies(len(replies), looped, len(read), tuple(leaks))

    # -- what the models expect --------------------------------------------------------------------------------

    def _by_draft(self, drafts: Sequence[str], written: Sequence[str]) -> _Reader:
        context, form = self._models.context("draft"), self._models.draft_format
        alone, opened, continued, ends = [], [], [], []
        for index, probe in enumerate(self._probes):
            self._step("the draft reads")
            prompt = form.prompt(self._asked[index]).tokens
            alone.append(reading.after_text(context, reading.PLAIN, probe.answer))
            opened.append(math.fsum(reading.after_tokens(context, prompt, drafts[index])))
            continued.append(math.fsum(reading.after_tokens(context, prompt, written[index])))
            ends.append(reading.end_probability(context, form.prompt(self._answered[index]).tokens))
        return _Reader(alone, opened, continued, statistics.fmean(ends))

    def _by_base(self, drafts: Sequence[str], written: Sequence[str]) -> _Reader:
        context, form = self._models.context("base"), self._models.base_format
        alone, opened, continued, ends = [], [], [], []
        for index, probe in enumerate(self._probes):
            self._step("the base reads")
            prompt = form.prompt(self._asked[index])
            alone.append(reading.after_text(context, reading.PLAIN, probe.answer))
            opened.append(math.fsum(reading.after_text(context, prompt, drafts[index])))
            continued.append(math.fsum(reading.after_text(context, prompt, written[index])))
            whole = context.model.tokenize(form.prompt(self._answered[index]))
            ends.append(reading.end_probability(context, whole))
        return _Reader(alone, opened, continued, statistics.fmean(ends))

    def _instructed_end(self) -> float:
        context = self._models.context("base")
        with _instruct_prompts(self._models) as prompt:
            return statistics.fmean(reading.end_probability(context, prompt(asked)) for asked in self._answered)

    def _formats(self) -> Formats:
        context, own = self._models.context("base"), self._models.base_format
        forms = known_formats()
        current = next((name for name, form in forms.items() if form == own), "the pair's own")
        forms.setdefault(current, own)
        found: dict[str, list[float]] = {name: [] for name in forms}
        for asked, probe in zip(self._asked, self._probes, strict=True):
            self._step("the base reads other formats")
            beginning = texts.beginning(probe.answer, FORMAT_CHARACTERS)
            for name, form in forms.items():
                scores = reading.after_text(context, form.prompt(asked), beginning)
                found[name].append(math.fsum(scores) / len(beginning.encode()))
        return Formats(current, {name: tuple(values) for name, values in found.items()})

    # -- one model twice ---------------------------------------------------------------------------------------

    def _same_file(self) -> bool:
        paths, loading = self._models.paths, self._models.loading
        draft, base = paths["draft"], paths["base"]
        if loading.lora("draft") != loading.lora("base"):
            return False
        if draft.samefile(base):
            return True
        return draft.stat().st_size == base.stat().st_size and file_sha256(draft) == file_sha256(base)

    def _difference(self, draft: Sequence[Sequence[float]], base: Sequence[Sequence[float]]) -> float | None:
        """The mean difference of the tokens' log-probabilities; None if the models cut the answers differently."""
        tokens = [[model.tokenize_text(probe.answer) for probe in self._probes] for model in (self._draft, self._base)]
        if tokens[0] != tokens[1]:
            return None
        pairs = [zip(one, other, strict=False) for one, other in zip(draft, base, strict=True)]
        return statistics.fmean(abs(one - other) for pair in pairs for one, other in pair)


def drafts_seen(whole: Sequence[Reply], raw: Sequence[str]) -> Drafts:
    """What whole drafts show; `raw` is what the draft model wrote, with its control tokens spelled."""
    return Drafts(
        count=len(whole),
        ended=sum(reply.switch.reason == "draft_end" for reply in whole),
        thinking=sum(map(texts.thinks, raw)),
        empty=sum(not reply.draft.text.strip() for reply in whole),
        looped=sum(texts.loops(reply.draft.text) for reply in whole),
    )


def _likelihoods(
    answers: Sequence[str], drafts: Sequence[str], written: Sequence[str], draft: _Reader, base: _Reader
) -> Likelihoods:
    def rows(read: Sequence[str], one: Sequence[float], other: Sequence[float]) -> tuple[Text, ...]:
        found = zip((len(text.encode()) for text in read), one, other, strict=True)
        return tuple(Text(*values) for values in found if values[0])

    alone = (list(map(math.fsum, reader.answers)) for reader in (draft, base))
    return Likelihoods(
        rows(answers, *alone), rows(drafts, draft.drafts, base.drafts), rows(written, draft.base, base.base)
    )


@contextmanager
def _instruct_prompts(models: LoadedModels) -> Iterator[Callable[[list[Message]], list[int]]]:
    """What makes the base's tokens of a conversation in an instruct format: its own template, or else the draft's."""
    base, draft = models.model("base"), models.model("draft")
    template = Template()
    own = None
    try:
        if base.chat_template is not None:
            with suppress(ModelError):  # a template that cannot be used is none
                form = DraftFormat(base, models.base_format, template=template, path=models.paths["base"])
                form.prompt([Message(role="user", content="Hello")])
                own = form

        def tokens(messages: list[Message]) -> list[int]:
            if own is not None:
                return own.prompt(messages).tokens
            spelled = draft.spelled_out(models.draft_format.prompt(messages).tokens)
            found = base.tokenize_text(spelled, special=True)
            return found if base.bos in (None, found[0]) else [base.bos, *found]

        yield tokens
    finally:
        template.close()
