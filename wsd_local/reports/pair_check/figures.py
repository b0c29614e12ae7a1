"""What is measured of a pair, as plain values.

Contract: pure; no judgement (see `judging`). Log-likelihoods are natural and of whole texts; divided by the bytes of
the text they compare models with different vocabularies. Probabilities lie between 0 and 1.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsd_local.reports.statistics import Estimate, difference


@dataclass(frozen=True, slots=True)
class Roles:
    """What each model is, by its header and by what it expects after a whole answer.

    `draft_end` is the draft's mean probability of a token that ends the text, in its own template; `base_end` the same
    of the base in an instruct prompt (its own template, else the draft's), `base_end_plain` in its base format.
    """

    draft_template: bool
    base_template: bool
    base_tuned_by_name: bool
    draft_end: float
    base_end: float
    base_end_plain: float


@dataclass(frozen=True, slots=True)
class Drafts:
    """Whole drafts, of which so many ended by themselves, think aloud, hold no text, or loop."""

    count: int
    ended: int
    thinking: int
    empty: int
    looped: int


@dataclass(frozen=True, slots=True)
class Words:
    """The base's tokens of the drafts and of the good answers.

    `broken` words end or begin inside a base token; `moved` of the draft's `draft_tokens` end inside one; `fallback` of
    the `base_tokens` stand for parts of characters.
    """

    words: int
    broken: int
    draft_tokens: int
    moved: int
    base_tokens: int
    fallback: int

    def __add__(self, other: Words) -> Words:
        return Words(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


def _values(words: Words) -> list[int]:
    return list(asdict(words).values())


@dataclass(frozen=True, slots=True)
class Switches:
    """Drafts of at least `window` base tokens: how many the base takes over at the `first` window, or `never`."""

    window: int
    threshold: float
    drafts: int
    first: int
    never: int


@dataclass(frozen=True, slots=True)
class Text:
    """A text of `size` bytes and the log-likelihood that each model gives it."""

    size: int
    draft: float
    base: float


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """Texts under both models: good answers alone, without any prompt; the draft's replies and the base's own replies,
    each after its question as the model reads it."""

    answers: tuple[Text, ...]
    drafts: tuple[Text, ...]
    base: tuple[Text, ...]


def perplexities(texts: Sequence[Text]) -> tuple[float, float]:
    """Perplexity per byte of all texts together under the draft and under the base."""
    size = sum(text.size for text in texts)
    return tuple(math.exp(-sum(getattr(text, role) for text in texts) / size) for role in ("draft", "base"))  # type: ignore[return-value]


def gaps(texts: Sequence[Text]) -> list[float]:
    """By how much the draft's log-likelihood of each text exceeds the base's, per byte."""
    return [(text.draft - text.base) / text.size for text in texts]


@dataclass(frozen=True, slots=True)
class Replies:
    """Replies by both models: in how many what follows the draft's part loops, and what leaked where.

    `leaks` has a marker for each reply, of the pair or of the base alone, that contains one.
    """

    count: int
    looped: int
    read: int
    leaks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Formats:
    """The log-likelihood per byte that the base gives the beginning of each good answer, in each base format."""

    current: str
    answers: dict[str, tuple[float, ...]]

    def gain(self, name: str) -> Estimate:
        """By how much a format exceeds the current one, paired by answers."""
        return difference(self.answers[self.current], self.answers[name])


@dataclass(frozen=True, slots=True)
class Sameness:
    """Whether both models are one: the same bytes, or with one vocabulary the same log-probabilities.

    `difference` is the mean difference of the log-probabilities of a token; None where the vocabularies differ.
    """

    file: bool
    difference: float | None


@dataclass(frozen=True, slots=True)
class PairFigures:
    """All that is measured of the models `draft` and `base`, which are their names."""

    draft: str
    base: str
    roles: Roles
    drafts: Drafts
    words: Words
    switches: Switches
    likelihoods: Likelihoods
    replies: Replies
    formats: Formats
    sameness: Sameness

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of texts and formats the sums."""
        values = asdict(self)
        values["perplexity_per_byte"] = {
            name: dict(zip(("draft", "base"), perplexities(texts), strict=True)) if texts else None
            for name in values.pop("likelihoods")
            if (texts := getattr(self.likelihoods, name)) is not None
        }
        values["formats"] = {
            "current": self.formats.current,
            "gains": {name: asdict(self.formats.gain(name)) for name in self.formats.answers},
            "log_likelihood_per_byte": {name: statistics.fmean(found) for name, found in self.formats.answers.items()},
        }
        return values
