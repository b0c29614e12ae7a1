"""What the records of many prompts say about the mechanism, with intervals.

Contract: pure; the same records give the same figures. Intervals are bootstrap intervals over prompts. Positions count
base tokens of a reply from 0. The switch is that of `calibration.deriving`.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from wsd_local.calibration.deriving import Setting, switch_index
from wsd_local.core.alignment import common_prefix
from wsd_local.reports.mechanism.grades import Judging
from wsd_local.reports.mechanism.ranks import Ranking, ranking
from wsd_local.reports.mechanism.recording import Openings
from wsd_local.reports.mechanism.records import Case
from wsd_local.reports.mechanism.windows import KINDS, Window, kind_of
from wsd_local.reports.perplexity import pooled, surprises
from wsd_local.reports.statistics import Estimate, Resampled, estimates, mean, share, uncertain

HEAD = 16
"""Tokens that count as the beginning of a reply."""
PREFIXES = (0, 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128)
PLACES = ((0, 0), (1, 1), (2, 2), (3, 3), *((n << k, (n + 1 << k) - 1) for k in range(1, 9) for n in (2, 3)))
"""Ranges of positions whose agreement is counted together: single ones, then twice as many after each two."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Perplexity to the base of the first `HEAD` tokens of aligned replies, of their rest, and their quotient."""

    replies: int
    head: Estimate
    rest: Estimate
    quotient: Estimate


@dataclass(frozen=True, slots=True)
class PrefixRow:
    """Perplexity to the base after the first `prefix` tokens: of all that follows, and of the next token alone.

    Of aligned replies, `replies` of which are longer, and of the base's own openings, None where none is longer.
    """

    prefix: int
    replies: int
    rest: Estimate
    next: Estimate
    own_rest: Estimate | None
    own_next: Estimate | None


@dataclass(frozen=True, slots=True)
class LengthRow:
    """The share of the base's own openings that the aligned one beats by the likelihood of their first tokens alone."""

    tokens: int
    beats: Estimate


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """How often the base's most probable token is the draft's, at the positions from `first` to `last`."""

    first: int
    last: int
    tokens: int
    share: Estimate


@dataclass(frozen=True, slots=True)
class Switched:
    """One prompt's switch: its position, the window's text and its kind, and what follows.

    `base` is what the base writes from there, `draft` the draft's own text of as many base tokens. They are the same
    for `agreed` of `compared` tokens, the end of the base's text being one; both are 0 where the draft ends at the
    switch, or the context was full.
    """

    id: str
    prompt: str
    index: int
    kind: str
    window: str
    kept: str
    base: str
    draft: str
    agreed: int
    compared: int


@dataclass(frozen=True, slots=True)
class Switches:
    """Where the base takes over, at one setting.

    `early` is the share of prompts whose switch lies within the length of an opening; `kinds` the share of switches of
    each kind that occurs. `agreed` is the mean number of tokens for which base and draft go on alike, `alike` the share
    of switches from which they do to the end of what is compared, `at_once` of those where the first token differs.
    """

    places: tuple[Switched, ...]
    without: int
    median: float | None
    early: Estimate
    kinds: Mapping[str, Estimate]
    agreed: Estimate | None
    alike: Estimate | None
    at_once: Estimate | None

    @property
    def positions(self) -> list[tuple[int, int]]:
        """Positions and their numbers of replies."""
        return sorted(Counter(one.index for one in self.places).items())


@dataclass(frozen=True, slots=True)
class MechanismResults:
    """All figures.

    `sources` counts where aligned replies are from; `gain` is the share of the draft's tokens after the first `HEAD`
    that are the base's most probable ones, minus that within them.
    """

    prompts: int
    sources: Mapping[str, int]
    setting: Setting
    openings: Openings
    beginning: Beginning | None
    perplexity: tuple[PrefixRow, ...]
    likelihood: Ranking | None
    by_length: tuple[LengthRow, ...]
    judging: Judging | None
    switches: Switches
    agreement: tuple[AgreementRow, ...]
    gain: Estimate | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def measured(
    cases: Sequence[Case], setting: Setting, openings: Openings, judging: Judging | None = None
) -> MechanismResults:
    """The figures of cases; the setting says where they switch. ValueError without any."""
    if not cases:
        raise ValueError("no cases")
    resampled = Resampled(len(cases))
    return MechanismResults(
        prompts=len(cases),
        sources=dict(Counter(case.source for case in cases)),
        setting=setting,
        openings=openings,
        beginning=_beginning([case.aligned for case in cases], resampled),
        perplexity=tuple(_prefixes(cases, resampled)),
        likelihood=_likelihood(cases, openings.tokens),
        by_length=tuple(_by_length(cases, openings.tokens)),
        judging=judging,
        switches=_switches(cases, setting, openings),
        agreement=tuple(_agreement([case.draft.agrees for case in cases], resampled)),
        gain=_gain([case.draft.agrees for case in cases]),
    )


# -- perplexities and likelihoods ----------------------------------------------------------------------------


def _beginning(replies: Sequence[Sequence[float]], resampled: Resampled) -> Beginning | None:
    long = [[reply] if len(reply) > HEAD else [] for reply in replies]
    spans = ((0, HEAD), (HEAD, None))
    head, rest = pooled(long, spans, resampled)
    if head is None or rest is None:
        return None
    nats, counts = surprises(long, spans)
    means = resampled.ratios(nats, counts)
    [quotient] = estimates(np.exp(means[:, :1] - means[:, 1:]), nats[:, :1])
    return None if quotient is None else Beginning(quotient.count, head, rest, quotient)


def _prefixes(cases: Sequence[Case], resampled: Resampled) -> Iterator[PrefixRow]:
    rest, following = [(k, None) for k in PREFIXES], [(k, k + 1) for k in PREFIXES]
    aligned, own = [[case.aligned] for case in cases], [[one.logprobs for one in case.own] for case in cases]
    columns = [pooled(groups, spans, resampled) for groups in (aligned, own) for spans in (rest, following)]
    for prefix, (after, then, own_after, own_then) in zip(PREFIXES, zip(*columns, strict=True), strict=True):
        if after is not None and then is not None:
            yield PrefixRow(prefix, after.count, after, then, own_after, own_then)


def _likelihood(cases: Sequence[Case], length: int) -> Ranking | None:
    """The ranks by the mean log-probability of the first so many tokens of each opening that has some."""
    return ranking(
        [
            (
                statistics.fmean(case.opening.logprobs[:length]),
                [statistics.fmean(one.logprobs[:length]) for one in case.own if one.logprobs],
            )
            for case in cases
            if case.opening.logprobs
        ]
    )


def _by_length(cases: Sequence[Case], most: int) -> Iterator[LengthRow]:
    for length in [*(1 << power for power in range(most.bit_length()) if 1 << power < most), most]:
        if (found := _likelihood(cases, length)) is not None:
            yield LengthRow(length, found.beats)


# -- agreement -----------------------------------------------------------------------------------------------


def _agreement(agrees: Sequence[Sequence[bool]], resampled: Resampled) -> Iterator[AgreementRow]:
    parts = [[reply[first : last + 1] for first, last in PLACES] for reply in agrees]
    tokens = np.array([[len(part) or math.nan for part in row] for row in parts])
    hits = np.array([[sum(part) if part else math.nan for part in row] for row in parts])
    shares = estimates(resampled.ratios(hits, tokens), hits)
    for (first, last), one, count in zip(PLACES, shares, np.nansum(tokens, axis=0), strict=True):
        if one is not None:
            yield AgreementRow(first, last, int(count), uncertain(one))


def _gain(agrees: Sequence[Sequence[bool]]) -> Estimate | None:
    long = [reply for reply in agrees if len(reply) > HEAD]
    if not long:
        return None
    return mean([statistics.fmean(reply[HEAD:]) - statistics.fmean(reply[:HEAD]) for reply in long])


# -- switches ------------------------------------------------------------------------------------------------


def _switches(cases: Sequence[Case], setting: Setting, openings: Openings) -> Switches:
    indices = [switch_index(case.draft.logprobs, setting) for case in cases]
    places = [_switched(case, index, setting) for case, index in zip(cases, indices, strict=True) if index is not None]
    kinds = [one.kind for one in places]
    compared = [one for one in places if one.compared]
    return Switches(
        places=tuple(places),
        without=len(cases) - len(places),
        median=statistics.median(one.index for one in places) if places else None,
        early=share([index is not None and index < openings.tokens for index in indices]),
        kinds={kind: share([one == kind for one in kinds]) for kind in KINDS if kind in kinds},
        agreed=mean([one.agreed for one in compared]) if compared else None,
        alike=share([one.agreed == one.compared for one in compared]) if compared else None,
        at_once=share([one.agreed == 0 for one in compared]) if compared else None,
    )


def _switched(case: Case, index: int, setting: Setting) -> Switched:
    draft, kept = case.draft, index + 1
    ends = [0, *accumulate(map(len, case.pieces))]
    place = Window("".join(case.pieces), ends[kept - setting.window], ends[kept], case.prompt)
    own = next((one for one in draft.continuations if one.start == kept), None)
    length = 0 if own is None else len(own.tokens) + own.ended  # its end is one of its tokens
    following = draft.tokens[kept : kept + length]
    return Switched(
        id=draft.id,
        prompt=case.prompt,
        index=index,
        kind=kind_of(place),
        window=place.inside,
        kept=place.text[: place.end],
        base=case.continued.get(kept, ""),
        draft="".join(case.pieces[kept : kept + length]),
        agreed=0 if own is None else common_prefix(own.tokens, following),
        compared=len(following),
    )
