"""`eval mechanism` as tables, as parts of a page, and as a page.

Contract: pure; `MechanismResults` in, `Table`s, `Chart`s and HTML out. `mechanism_parts` is what a page of several
evaluations takes; `aligned_note` says what the aligned replies are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wsd_local.reports.charts import Scale, bars, histograms, lines
from wsd_local.reports.columns_page import interval, points
from wsd_local.reports.html import CHART_BINS, Chart, Table, page, percent, range_name, short, whole_percent
from wsd_local.reports.mechanism.figures import HEAD, MechanismResults, Switched
from wsd_local.reports.mechanism.ranks import Ranking
from wsd_local.reports.mechanism.records import DRAFT
from wsd_local.reports.mechanism.windows import MEANINGS
from wsd_local.reports.runs import binned, bins
from wsd_local.reports.runs_page import TERMINAL_BINS
from wsd_local.reports.statistics import NO_INTERVAL_NOTE, Estimate
from wsd_local.units import plural

EXAMPLES = 10
"""Switches that a page shows; JSON has all of them."""
_FEW, _FEW_CHARACTERS, _CHARACTERS = 3, 60, 200
_BOOTSTRAP = f"interval: 95 % by the bootstrap over the prompts · {NO_INTERVAL_NOTE}"
_POSITION = "position (base token of the draft, from 0)"


def mechanism_tables(found: MechanismResults) -> list[Table]:
    """All figures, with a few short examples: what a terminal shows."""
    return [
        _claims(found),
        *_perplexity(found),
        *_ranks(found),
        *_lengths(found),
        *_positions(found, TERMINAL_BINS),
        *_kinds(found),
        *_agreement(found),
        *_after(found),
        *_examples(found, _FEW, _FEW_CHARACTERS),
    ]


def mechanism_parts(found: MechanismResults) -> list[Chart | Table]:
    """All figures as charts and tables."""
    return [
        _claims(found),
        *_perplexity_charts(found),
        *_rank_charts(found),
        *_lengths(found),
        *_switch_charts(found),
        *_agreement_chart(found),
        *_after(found),
        *_examples(found, EXAMPLES, _CHARACTERS),
    ]


def mechanism_page(found: MechanismResults, made: Sequence[str] = ()) -> str:
    """`eval mechanism` as a page; `made` says what was measured, and with what."""
    lead = [
        "A reply is hard for a pretrained base to begin and easy to continue; that is why a small aligned draft can "
        "begin it. Here is what that looks like for this pair, and what would refute it.",
        aligned_note(found),
        *made,
    ]
    return page("The mechanism: well begun is half done", lead, mechanism_parts(found))


def aligned_note(found: MechanismResults) -> str:
    """What the aligned replies are, in a sentence."""
    parts = [
        f"the draft's greedy reply for {plural(count, 'prompt')}"
        if source == DRAFT
        else f"the field `{source}` of the data set for {plural(count, 'prompt')}"
        for source, count in found.sources.items()
    ]
    setting = f"threshold {found.setting.threshold:g} and window {found.setting.window}"
    return f"Aligned reply: {', '.join(parts)}. Switches are those of the draft's reply with {setting}."


# -- claims --------------------------------------------------------------------------------------------------


def _claims(found: MechanismResults) -> Table:
    title = f"The mechanism on {plural(found.prompts, 'prompt')}"
    columns = ("claim", "figure", "value", "interval", "refuted\nby")
    return Table(title, columns, tuple(_claimed(found)), f"{aligned_note(found)} · {_BOOTSTRAP}")


def _claimed(found: MechanismResults) -> Iterator[tuple[str, ...]]:
    if (begun := found.beginning) is not None:
        figure = f"perplexity of the first {HEAD} tokens of an aligned reply over that of the rest"
        yield "hard to begin", figure, *_number(begun.quotient), "1 or less"
    for ranked, by, scores, refuted in (
        (found.likelihood, "unlikely opening", "the base finds less likely than the aligned one", "50% or more"),
        (_judged(found), "better opening", "the judge grades lower than the aligned one", "50% or less"),
    ):
        if ranked is not None:
            yield by, f"share of the base's own openings that {scores}", *_share(ranked.beats), refuted
    early = f"share of prompts with a switch within the first {found.openings.tokens} tokens"
    yield "early switch", early, *_share(found.switches.early), "50% or less"
    if (gain := found.gain) is not None:
        figure = f"agreement of the base with the draft after the first {HEAD} tokens minus within them, in points"
        yield "agreement grows", figure, points(gain.value), gain.between(points), "0 or less"


def _judged(found: MechanismResults) -> Ranking | None:
    return None if found.judging is None else found.judging.ranking


def _number(one: Estimate | None) -> tuple[str, str]:
    """A figure and its interval."""
    return ("", "") if one is None else (f"{one.value:.2f}", one.between("{:.2f}".format))


def _share(one: Estimate | None) -> tuple[str, str]:
    return ("", "") if one is None else (percent(one.value), interval(one))


# -- perplexity ----------------------------------------------------------------------------------------------


def _perplexity(found: MechanismResults) -> Iterator[Table]:
    if not found.perplexity:
        return
    rows = tuple(
        (
            str(row.prefix),
            str(row.replies),
            *_number(row.rest),
            *_number(row.next),
            *(_number(one)[0] for one in (row.own_rest, row.own_next)),
        )
        for row in found.perplexity
    )
    columns = ("given", "replies", "rest", "interval", "next\ntoken", "interval", "base's own:\nrest", "next\ntoken")
    note = (
        "given: first base tokens of the aligned reply · replies: those that are longer · rest, next token: perplexity "
        "to the base of all that follows, and of the next token alone; 1 is no surprise at all · base's own: "
        f"openings of at most {plural(found.openings.tokens, 'token')} that it sampled at temperature 1 · {_BOOTSTRAP}"
    )
    yield Table("How surprising an aligned reply is to the base, given its first tokens", columns, rows, note)


def _perplexity_charts(found: MechanismResults) -> Iterator[Chart]:
    for table in _perplexity(found):
        next_token = "Hard to begin: the next token", "Perplexity to the base of the next token alone"
        yield _perplexity_chart(found, table, *next_token, "next")
        rest = "Easy to continue: the whole rest", "Perplexity to the base of all that follows"
        yield _perplexity_chart(found, table, *rest, "rest")


def _perplexity_chart(found: MechanismResults, table: Table, title: str, caption: str, field: str) -> Chart:
    places: dict[str, list[tuple[float, float]]] = {}
    for row in found.perplexity:
        for series, name in (("aligned replies", field), ("the base's own openings", f"own_{field}")):
            if (one := getattr(row, name)) is not None:
                places.setdefault(series, []).append((float(row.prefix), one.value))
    drawn = lines(
        places,
        "base tokens of the reply that are given",
        Scale("perplexity", short, log=field == "next"),
        marked=lambda _series, number: number in (0, 4),
    )
    return Chart(title, f"{caption}, by the number of tokens that are given.", drawn, table)


# -- ranks ---------------------------------------------------------------------------------------------------


def _rankings(found: MechanismResults) -> dict[str, Ranking]:
    by = {"base's likelihood": found.likelihood, "judge's grade": _judged(found)}
    return {name: ranked for name, ranked in by.items() if ranked is not None}


def _ranks(found: MechanismResults) -> Iterator[Table]:
    rankings = _rankings(found)
    if not rankings:
        return
    rows = tuple(
        (
            name,
            str(one.prompts),
            *_number(one.rank),
            *_share(one.beats),
            percent(one.best.value),
            percent(one.worst.value),
            f"{one.aligned.value:.2f}",
            f"{one.own.value:.2f}",
            one.difference.between("{:+.2f}".format),
        )
        for name, one in rankings.items()
    )
    columns = (
        *("by", "prompts", "mean\nrank", "interval", "beats", "interval", "best", "worst"),
        *("aligned\nscore", "own\nscore", "difference,\ninterval"),
    )
    most = max(one.openings for one in rankings.values())
    note = (
        f"rank: from 1, the best, to {most} at most · beats: share of the base's own openings that the aligned one "
        "beats, 50% if they do not differ · best, worst: share of prompts in which it beats all, or none · score: mean "
        "log-probability of a token, in nats, or expected grade from 1 to 10"
    )
    judged = "" if found.judging is None else f" · judge: {found.judging.judge['model']}"
    title = f"The aligned opening among {most - 1} that the base samples itself"
    yield Table(title, columns, rows, f"{note} · {_BOOTSTRAP}{judged}")


def _lengths(found: MechanismResults) -> Iterator[Table]:
    if not found.by_length:
        return
    rows = tuple((str(row.tokens), *_share(row.beats)) for row in found.by_length)
    note = (
        "beats: as above, by the first tokens alone · samples at temperature 1 gather improbable tokens as they grow, "
        f"and any coherent text then beats them: short openings say whether the base would begin so · {_BOOTSTRAP}"
    )
    title = "The aligned opening by likelihood, by the number of first tokens that count"
    yield Table(title, ("tokens", "beats", "interval"), rows, note)


def _rank_charts(found: MechanismResults) -> Iterator[Chart]:
    for table in _ranks(found):
        rankings = _rankings(found)
        ranks = range(1, max(one.openings for one in rankings.values()) + 1)
        counts = {f"by the {name}": [dict(one.ranks).get(rank, 0) for rank in ranks] for name, one in rankings.items()}
        drawn = histograms(list(map(str, ranks)), counts, x="rank of the aligned opening (1 is the best)", y="prompts")
        yield Chart(table.title, "Prompts by the rank of their aligned opening.", drawn, table)


# -- switches ------------------------------------------------------------------------------------------------


def _positions(found: MechanismResults, most: int) -> Iterator[Table]:
    """Positions in at most so many ranges."""
    counts = found.switches.positions
    if not counts:
        return
    ranges = bins([0, *(at for at, _ in counts)], most)
    rows = tuple((range_name(*place), str(count)) for place, count in zip(ranges, binned(counts, ranges), strict=True))
    yield Table("Where the base takes over", ("position", "replies"), rows, f"{_POSITION} · {_without(found)}")


def _without(found: MechanismResults) -> str:
    return f"{plural(found.switches.without, 'reply')} without a switch"


def _kinds(found: MechanismResults) -> Iterator[Table]:
    switches = found.switches
    if not switches.places:
        return
    first = {one.kind: one for one in reversed(switches.places)}
    rows = tuple(
        (kind, *_share(one), MEANINGS[kind], _shown(first[kind].window, _FEW_CHARACTERS))
        for kind, one in switches.kinds.items()
    )
    early = f"{percent(switches.early.value)} of the prompts within the first {found.openings.tokens} tokens"
    note = f"median position {switches.median:g}, {early}, {_without(found)} · {_BOOTSTRAP}"
    title = f"What kind of text holds the window at {plural(len(switches.places), 'switch')}"
    yield Table(title, ("kind", "switches", "interval", "what it is", "the first one's window"), rows, note)


def _switch_charts(found: MechanismResults) -> Iterator[Chart]:
    for table in _positions(found, CHART_BINS):
        names, counts = zip(*table.rows, strict=True)
        drawn = histograms(names, {"switches": list(map(int, counts))}, x=_POSITION, y="replies")
        yield Chart(table.title, f"Replies by the position of the switch; {_without(found)}.", drawn, table)
    for table in _kinds(found):
        kinds = found.switches.kinds
        shares = {"switches": [one.value for one in kinds.values()]}
        drawn = bars(list(kinds), shares, axis="share of the switches", label=whole_percent)
        yield Chart(table.title, "The first rule that fits counts, from the top.", drawn, table)


def _after(found: MechanismResults) -> Iterator[Table]:
    switches = found.switches
    if switches.agreed is None:
        return
    rows = (
        ("base tokens alike, mean", *_number(switches.agreed)),
        ("the first token differs", *_share(switches.at_once)),
        ("alike to the end of what is compared", *_share(switches.alike)),
    )
    most = max(one.compared for one in switches.places)
    title = f"The base's continuation and the discarded draft after {plural(switches.agreed.count, 'switch')}"
    note = f"compared: {plural(most, 'token')} at most, as many as the draft still had · {_BOOTSTRAP}"
    yield Table(title, ("", "value", "interval"), rows, note)


def _examples(found: MechanismResults, most: int, length: int) -> Iterator[Table]:
    shown = [one for one in found.switches.places if one.compared][:most]
    if not shown:
        return
    columns = ("prompt", "kept, its end", "the base goes on", "the draft would have", "alike")
    note = "alike: base tokens up to the first that differs, of those compared · JSON has every switch"
    title = "What the discarded draft would have said: examples"
    yield Table(title, columns, tuple(_example(one, length) for one in shown), note)


def _example(one: Switched, length: int) -> tuple[str, ...]:
    texts = (_shown(one.kept, length, end=True), _shown(one.base, length), _shown(one.draft, length))
    return one.id, *texts, f"{one.agreed} of {one.compared}"


def _shown(text: str, length: int, *, end: bool = False) -> str:
    """A text in one line, with its line feeds marked, and the beginning or the end of it where it is long."""
    line = " ".join(text.strip(" ").replace("\n", " ⏎ ").split())
    if len(line) <= length:
        return line
    return f"…{line[-length:]}" if end else f"{line[:length]}…"


# -- agreement -----------------------------------------------------------------------------------------------


def _agreement(found: MechanismResults) -> Iterator[Table]:
    if not found.agreement:
        return
    rows = tuple(
        (range_name(row.first, row.last), str(row.share.count), str(row.tokens), *_share(row.share))
        for row in found.agreement
    )
    note = f"agree: share of the draft's tokens that are the base's most probable ones in their place · {_BOOTSTRAP}"
    yield Table(
        "How often the base agrees with the draft", ("position", "replies", "tokens", "agree", "interval"), rows, note
    )


def _agreement_chart(found: MechanismResults) -> Iterator[Chart]:
    for table in _agreement(found):
        series = {
            name: [(float(row.first), at) for row in found.agreement if (at := getattr(row.share, field)) is not None]
            for name, field in (("agreement", "value"), ("interval, low", "low"), ("interval, high", "high"))
        }
        drawn = lines(
            {name: places for name, places in series.items() if places},
            _POSITION,
            Scale("share of the draft's tokens", whole_percent, most=1.0),
            marked=lambda series, number: series == "agreement" and number % 4 == 0,
            colours=(0, 6, 6),
        )
        caption = (
            "Share of the draft's tokens that are the base's most probable ones; ranges stand at their first position."
        )
        yield Chart(table.title, caption, drawn, table)
