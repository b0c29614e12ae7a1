"""What the figures of a pair mean: a finding for each symptom, and a verdict on the pair.

Contract: pure; figures in, findings out, always one for each symptom and in the same order. Bounds stand here, and
docs/guide/check-pair.md says what they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wsd_local.reports.pair_check.figures import PairFigures, gaps, perplexities
from wsd_local.reports.statistics import mean
from wsd_local.reports.verdicts import Finding, Verdict, tally, worst
from wsd_local.runtime.misplaced import CHOOSE_BASE, CHOOSE_DRAFT, SWAPPED

CERTAIN = 0.5
"""Probability of the end of a whole answer from which on a model answers as an instruct model."""
RECOGNISED = 0.25
"""By how much an instruct prompt raises it for a base without a template that knows such prompts."""
UNENDING = 0.05
"""Probability of the end of a whole answer below which a model does not know it."""
SAME = 0.15
"""Mean difference of log-probabilities up to which two models are one, perhaps quantised differently."""
SOME, MANY = 0.25, 0.5
"""Shares of replies from which on a symptom is a warning, and a fault."""
NEARLY_ALL = 0.9
"""Share of drafts from which on the base is always, or never, confident."""
BROKEN, FALLBACK, LONG_WORDS = 0.05, 0.02, 2.5
"""Shares of broken words and of tokens for parts of characters, and tokens of a word, above which a vocabulary is
a warning; at twice as much it is a fault."""
WORSE = 0.05
"""Nats per byte by which a base that knows less is worse than the draft at least."""
BETTER_FORMAT = 0.02
"""Nats per byte by which another base format is better at least."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """All findings about a pair."""

    figures: PairFigures
    findings: tuple[Finding, ...]

    @property
    def is_pair(self) -> bool:
        """Whether no fault was found."""
        return worst(self.findings) != "fault"

    @property
    def verdict(self) -> Literal["good enough", "usable with care", "not a pair"]:
        """The verdict on the pair."""
        words: dict[Verdict, Literal["good enough", "usable with care", "not a pair"]]
        words = {"ok": "good enough", "warning": "usable with care", "fault": "not a pair"}
        return words[worst(self.findings)]

    def summary(self) -> str:
        """One line about the pair."""
        return f"{self.figures.draft} and {self.figures.base}: {self.verdict}{tally(self.findings)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "verdict": self.verdict,
            "findings": [asdict(finding) for finding in self.findings],
            "figures": self.figures.as_dict(),
        }


def judge(figures: PairFigures) -> Judgement:
    """The findings about a pair."""
    return Judgement(figures, tuple(symptom(figures) for symptom in SYMPTOMS))


# -- the models ------------------------------------------------------------------------------------------------


def _one_model(figures: PairFigures) -> Finding:
    same = figures.sameness
    distance = same.difference
    if same.file:
        figure = "both are the same file"
    elif distance is None:
        return Finding("one model twice", "ok", "the models have different vocabularies")
    else:
        figure = f"their log-probabilities differ by {distance:.2f} a token"
        if distance > SAME:
            return Finding("one model twice", "ok", figure)
    return Finding(
        "one model twice",
        "fault",
        figure,
        "a model that continues its own opening writes what it would write alone",
        "choose another model, a plain pretrained and larger one, with --base",
    )


def _draft_is_base(figures: PairFigures) -> bool:
    """Without a template, unless it is sure of the end of an answer; with one, if nothing ever ends."""
    roles, drafts = figures.roles, figures.drafts
    if roles.draft_template:
        return roles.draft_end < UNENDING and drafts.ended < SOME * drafts.count
    return roles.draft_end < CERTAIN


def _base_is_tuned(figures: PairFigures) -> bool:
    """By its name, unless it expects no end of an answer; else by its template, if it ends answers without it too."""
    roles = figures.roles
    if roles.base_tuned_by_name:
        return roles.base_end >= UNENDING
    return roles.base_template and min(roles.base_end, roles.base_end_plain) >= CERTAIN


def _template(there: bool) -> str:
    return "it has a chat template" if there else "it has no chat template"


def _draft_model(figures: PairFigures) -> Finding:
    roles, drafts = figures.roles, figures.drafts
    name = "draft model"
    figure = (
        f"{_template(roles.draft_template)}, ends a whole answer with a probability of {roles.draft_end:.2f}, "
        f"and ended {drafts.ended} of {drafts.count} drafts"
    )
    if _draft_is_base(figures):
        remedy = SWAPPED if _base_is_tuned(figures) else CHOOSE_DRAFT
        return Finding(name, "fault", figure, f"{figures.draft} is a base model, and it writes the openings", remedy)
    if not roles.draft_template:
        cause = f"{figures.draft} reads the base's format, which it may not have been trained on"
        return Finding(name, "warning", figure, cause, CHOOSE_DRAFT)
    return Finding(name, "ok", figure)


def _base_model(figures: PairFigures) -> Finding:
    roles = figures.roles
    name = "base model"
    figure = (
        f"{_template(roles.base_template)}, and ends a whole answer with a probability of {roles.base_end:.2f} in an "
        f"instruct prompt, {roles.base_end_plain:.2f} in its own format"
    )
    if _base_is_tuned(figures):
        stated = " by its name" if roles.base_tuned_by_name else ""
        remedy = SWAPPED if _draft_is_base(figures) else CHOOSE_BASE
        return Finding(name, "fault", figure, f"{figures.base} is an instruct model{stated}", remedy)
    knows = roles.base_end >= CERTAIN and (roles.base_template or roles.base_end >= roles.base_end_plain + RECOGNISED)
    if knows or roles.base_tuned_by_name:
        cause = f"{figures.base} has seen many instruct prompts, or is an instruct model"
        return Finding(name, "warning", figure, cause, f"if it is one, {CHOOSE_BASE}")
    return Finding(name, "ok", figure)


def _thinking(figures: PairFigures) -> Finding:
    drafts = figures.drafts
    figure = f"{drafts.thinking} of {drafts.count} drafts think aloud, {drafts.empty} hold no text"
    if drafts.thinking < SOME * drafts.count:
        return Finding("thinking aloud", "ok", figure)
    return Finding(
        "thinking aloud",
        "fault" if drafts.empty >= MANY * drafts.count else "warning",
        figure,
        f"{figures.draft} is a thinking model: its thoughts take time and tokens, and are no opening",
        f"{CHOOSE_DRAFT} that does not think, or raise --draft-max-tokens so that an opening follows",
    )


def _vocabularies(figures: PairFigures) -> Finding:
    words = figures.words
    broken = words.broken / max(1, words.words)
    fallback = words.fallback / max(1, words.base_tokens)
    length = words.base_tokens / max(1, words.words)
    moved = words.moved / max(1, words.draft_tokens)
    figure = (
        f"{broken:.1%} of words broken by base tokens, {length:.2f} base tokens a word, {fallback:.1%} for parts of "
        f"characters; {moved:.1%} of the draft's tokens end inside a base token"
    )
    excess = max(broken / BROKEN, fallback / FALLBACK, length / LONG_WORDS)
    if excess <= 1:
        return Finding("vocabularies", "ok", figure)
    return Finding(
        "vocabularies",
        "fault" if excess > 2 else "warning",
        figure,
        f"the vocabulary of {figures.base} does not suit this text: windows and hand-overs fall inside words",
        "choose a base whose vocabulary covers the language of your prompts",
    )


# -- what they do together -------------------------------------------------------------------------------------


def _confidence(figures: PairFigures) -> Finding:
    found = figures.switches
    name = "confidence of the base"
    figure = (
        f"of {found.drafts} drafts of at least {found.window} base tokens it takes over {found.first} at the first "
        f"window and {found.never} never (threshold {found.threshold:g}, window {found.window})"
    )
    if found.drafts and found.never >= NEARLY_ALL * found.drafts:
        cause = "the base would not write what the draft writes, so that the draft answers alone"
        return Finding(name, "warning", figure, cause, "lower --threshold or --window, or choose a larger base")
    if found.drafts and found.first >= NEARLY_ALL * found.drafts:
        cause = "any opening satisfies the base, so that the draft hardly counts"
        return Finding(name, "warning", figure, cause, "raise --threshold or --window")
    return Finding(name, "ok", figure)


def _knowledge(figures: PairFigures) -> Finding:
    texts = figures.likelihoods
    shown = [
        f"{what} {draft:.2f} / {base:.2f}"
        for what, found in (
            ("good answers", texts.answers),
            ("the draft's replies", texts.drafts),
            ("the base's own", texts.base),
        )
        if found
        for draft, base in [perplexities(found)]
    ]
    figure = f"perplexity per byte under draft / base: {', '.join(shown)}"
    worse = mean(gaps(texts.answers))
    figure += f"; the draft's lead in good answers {worse.value:+.3f} nats ({worse.between('{:+.3f}'.format)})"
    if worse.low is None or worse.low <= 0:
        return Finding("knowledge", "ok", figure)
    return Finding(
        "knowledge",
        "fault" if worse.low > WORSE else "warning",
        figure,
        f"{figures.base} knows less than {figures.draft}, so that replies get worse where it takes over",
        "choose a larger base with --base, or a finer quantisation of it",
    )


def _loops(figures: PairFigures) -> Finding:
    drafts, replies = figures.drafts, figures.replies
    figure = (
        f"{drafts.looped} of {drafts.count} drafts and {replies.looped} of {replies.count} replies after the switch"
    )
    share = max(drafts.looped / max(1, drafts.count), replies.looped / max(1, replies.count))
    if share < SOME:
        return Finding("loops", "ok", figure)
    who = figures.draft if drafts.looped * replies.count > replies.looped * drafts.count else figures.base
    return Finding(
        "loops",
        "fault" if share >= MANY and replies.looped >= MANY * replies.count else "warning",
        figure,
        f"{who} repeats itself when it writes greedily",
        "set --repeat-penalty 1.1 (--draft-repeat-penalty for the draft), or choose a larger model",
    )


def _leaks(figures: PairFigures) -> Finding:
    replies = figures.replies
    most = Counter(replies.leaks).most_common(3)
    examples = f": {', '.join(repr(marker) for marker, _ in most)}" if most else ""
    figure = f"markers of prompts in {len(replies.leaks)} of {replies.read} texts of the base{examples}"
    if len(replies.leaks) < SOME * replies.read / 2:
        return Finding("leaking markers", "ok", figure)
    return Finding(
        "leaking markers",
        "fault" if len(replies.leaks) >= MANY * replies.read else "warning",
        figure,
        f"{figures.base} begins another message in a format whose marker does not end the reply",
        f"add --stop {most[0][0]!r}, or set a base format that this base knows",
    )


def _format(figures: PairFigures) -> Finding:
    formats = figures.formats
    others = {name: formats.gain(name) for name in formats.answers if name != formats.current}
    best = max(others, key=lambda name: others[name].value)
    gain = others[best]
    figure = (
        f"{best} gives good answers {gain.value:+.3f} nats per byte ({gain.between('{:+.3f}'.format)}) against "
        f"{formats.current}"
    )
    if gain.low is None or gain.low <= BETTER_FORMAT:
        return Finding("base format", "ok", figure)
    return Finding(
        "base format",
        "warning",
        figure,
        f"{figures.base} expects good answers in another format than the one it reads",
        f"set the format {best}: --base-format {best}",
    )


SYMPTOMS: Sequence[Callable[[PairFigures], Finding]] = (
    _one_model,
    _draft_model,
    _base_model,
    _thinking,
    _vocabularies,
    _confidence,
    _knowledge,
    _loops,
    _leaks,
    _format,
)
"""What is judged, in the order of the lines."""
