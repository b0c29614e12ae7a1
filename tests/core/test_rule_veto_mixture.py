"""The rules `veto` and `bet` over one vocabulary: tokens of a mixture, against the mixture computed directly."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from exactness import EXACT, PLAIN, TIE, exact_oracle, exact_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import BASE_STOPS, Oracle, log_softmax, stop_start
from scripted import bounds
from summary import Tell

import wsd_local as wsd
from wsd_local.core.decoding import Phase
from wsd_local.core.mixing import Mixing
from wsd_local.core.mixture import Draws, mixture, reshaped
from wsd_local.core.requests import Distributions
from wsd_local.core.rules_veto import Veto
from wsd_local.core.sampling import Sampling
from wsd_local.core.written import reply_tokens
from wsd_local.errors import UsageError
from wsd_local.events import Event, Returned, Switched, Text
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.reply import Finished, Reply

Row = npt.NDArray[np.float64]
QUESTIONS = ["How do I boil an egg?", "the fox", "Why is the sky blue?", "Hello!", "Write a poem.", "1 2 3"]


# -- tokens that are chosen one by one, with the oracle's models ---------------------------------------------


@dataclass
class Mixture:
    """A greedy reply: both models are evaluated whole before each token. `nearest` is the distance from a tie."""

    oracle: Oracle
    question: str
    kind: str
    bound: float
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    drafted: list[bool] = field(default_factory=list)
    nearest: float = math.inf
    finish: str = ""

    def __post_init__(self) -> None:
        conversation = (("user", self.question),)
        self.base_prompt = self.oracle.prompt_tokens(conversation)
        self.draft_prompt = self.oracle.draft_prompt_tokens(conversation)
        while not self.finish:
            self._step()
        self.text = self.data[: stop_start(self.data, BASE_STOPS)].decode(errors="replace")

    @property
    def data(self) -> bytes:
        return self.oracle.base_model.bytes_of(self.tokens)

    def mixed(self) -> tuple[Row, Row]:
        p, q = (
            np.exp(log_softmax(model.after([*prompt, *self.tokens])).astype(np.float64))
            for model, prompt in (
                (self.oracle.base_model, self.base_prompt),
                (self.oracle.draft_model, self.draft_prompt),
            )
        )
        bound = self.bound if self.kind == "veto" else q.max() - self.bound
        self.nearest = min(self.nearest, float(np.abs(p - bound).min()))
        deferred = sum(float(p[v]) for v in range(len(p)) if p[v] < bound)
        return deferred * q + np.where(p < bound, 0.0, p), q

    def _step(self) -> None:
        mixed, q = self.mixed()
        second, first = np.partition(mixed, -2)[-2:]
        self.nearest = min(self.nearest, float(first - second))
        token = int(mixed.argmax())
        if token in self.oracle.base_model.eog:
            self.finish = "stop"
            return
        self.tokens.append(token)
        self.drafted.append(token == int(q.argmax()))
        if stop_start(self.data, BASE_STOPS) is not None:
            self.finish = "stop"
        elif len(self.tokens) >= self.max_tokens:
            self.finish = "length"


@pytest.fixture(scope="module")
def twins(kin: tuple[Path, Path]) -> Iterator[wsd.Pair]:
    with exact_pair(kin) as pair:
        yield pair


@pytest.fixture(scope="module")
def twin_oracle(kin: tuple[Path, Path]) -> Iterator[Oracle]:
    oracle = exact_oracle(kin)
    yield oracle
    oracle.close()


@pytest.mark.parametrize("chunk", [8, 1])
@pytest.mark.parametrize(("kind", "bound"), [("veto", 0.2), ("veto", 1.0), ("bet", 0.3), ("bet", 0.0), ("veto", 0.0)])
def test_the_tokens_are_those_of_the_mixture(
    twins: wsd.Pair, twin_oracle: Oracle, kind: str, bound: float, chunk: int, tell: Tell
) -> None:
    ties, sources = 0, Counter[str]()
    for question in QUESTIONS:
        ours = twins.reply(question, rule=kind, **{kind: bound}, check_chunk=chunk, max_tokens=40)
        theirs = Mixture(twin_oracle, question, kind, bound, 40)
        sources.update(token.source for token in ours.tokens)
        if ours.text != theirs.text and theirs.nearest < TIE:
            ties += 1
            continue
        assert ours.text == theirs.text
        assert ours.finish_reason == theirs.finish
        assert [token.id for token in ours.tokens] == theirs.tokens[: len(ours.tokens)]
        drafted = [token.source == "draft" for token in ours.tokens]
        assert drafted == theirs.drafted[: len(ours.tokens)]
    tell(f"mixture {kind} {bound}: {dict(sources)}, {ties} ties")
    assert ties <= 2


def test_at_its_ends_one_model_writes(twins: wsd.Pair) -> None:
    for question in QUESTIONS[:3]:
        deferred = twins.reply(question, rule="veto", veto=1.0, max_tokens=30)
        alone = twins.reply(question, mode="draft", max_tokens=30)
        assert [token.id for token in deferred.tokens][:5] == [token.id for token in alone.tokens][:5]
        kept = twins.reply(question, rule="veto", veto=0.0, max_tokens=30)
        base = twins.reply(question, mode="base", max_tokens=30)
        assert (kept.text, kept.finish_reason) == (base.text, base.finish_reason)
        assert [token.id for token in kept.tokens] == [token.id for token in base.tokens]


# -- what is drawn -------------------------------------------------------------------------------------------


def chi_squared(seen: Counter[int], expected: Row, drawn: int) -> float:
    """How many standard deviations the statistic of Pearson's test is above its mean; rare tokens count as one."""
    common = np.flatnonzero(expected * drawn >= 8)
    cells = [(float(seen[int(token)]), float(expected[token]) * drawn) for token in common]
    cells.append((drawn - sum(one for one, _ in cells), drawn - sum(two for _, two in cells)))
    cells = [(one, two) for one, two in cells if two >= 1]
    statistic = sum((one - two) ** 2 / two for one, two in cells)
    freedom = len(cells) - 1
    return float((statistic - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize(
    ("kind", "bound", "temperature"),
    [("veto", 0.04, 1.0), pytest.param("bet", 0.05, 1.0, marks=pytest.mark.slow)],
)
def test_what_is_drawn_is_distributed_as_the_mixture(
    twins: wsd.Pair, twin_oracle: Oracle, kind: str, bound: float, temperature: float, tell: Tell
) -> None:
    """The first token over many seeds, and the second one after the most frequent first one."""
    drawn = 1500
    found = [
        twins.reply(
            "the fox", rule=kind, **{kind: bound}, temperature=temperature, seed=seed, max_tokens=2, check_chunk=2
        )
        for seed in range(drawn)
    ]
    pairs = [tuple(token.id for token in reply.tokens) for reply in found]
    direct = Mixture(twin_oracle, "the fox", kind, bound, 1)
    direct.tokens.clear()
    first, _ = direct.mixed()
    far = chi_squared(Counter(tokens[0] for tokens in pairs if tokens), first, drawn)
    common, count = Counter(tokens[0] for tokens in pairs if len(tokens) == 2).most_common(1)[0]
    direct.tokens[:] = [common]
    second, _ = direct.mixed()
    seconds = Counter(tokens[1] for tokens in pairs if tokens[0] == common and len(tokens) == 2)
    later = chi_squared(seconds, second, count)
    tell(f"drawn by {kind} {bound}: {far:.1f} and {later:.1f} standard deviations from the mixture")
    assert far < 5 and later < 5
    sources = {token.source for reply in found for token in reply.tokens}
    assert sources == {"draft", "base"}


@settings(max_examples=12, deadline=None)
@given(
    numbers=st.lists(st.floats(0.01, 1), min_size=3, max_size=6),
    others=st.lists(st.floats(0.01, 1), min_size=6, max_size=6),
    kind=st.sampled_from(["veto", "bet"]),
    bound=st.floats(0, 1),
    shape=st.sampled_from([{"temperature": 1.0}, {"temperature": 0.5, "top_k": 3}, {"temperature": 2.0, "top_p": 0.7}]),
)
def test_choices_are_distributed_as_the_mixture(
    numbers: list[float], others: list[float], kind: Any, bound: float, shape: dict[str, Any]
) -> None:
    p = np.array(numbers) / sum(numbers)
    q = np.array(others[: len(p)]) / sum(others[: len(p)])
    rule = Veto(kind, bound)
    m = mixture(rule, p, q)
    assert m.sum() == pytest.approx(1)
    drawn, seen = 2500, Counter[int]()
    for seed in range(drawn):
        draws = Draws(Sampling(seed=seed, **shape), 7)
        seen[draws.choose(m, q, draws.propose(q))] += 1
    wanted = reshaped(m, Sampling(seed=0, **shape))
    frequencies = np.array([seen[token] / drawn for token in range(len(p))])
    assert np.abs(frequencies - wanted).sum() / 2 < 0.05


def test_the_mixture_is_that_of_its_definition() -> None:
    p, q = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.1, 0.1, 0.7, 0.1])
    veto = mixture(Veto("veto", 0.2), p, q)
    assert veto == pytest.approx([0.5 + 0.02, 0.3 + 0.02, 0.14, 0.02])
    bet = mixture(Veto("bet", 0.3), p, q)  # what is below 0.7 - 0.3 is deferred
    assert bet == pytest.approx([0.55, 0.05, 0.35, 0.05])


def test_settings_reshape_the_mixture() -> None:
    row = np.array([0.5, 0.3, 0.15, 0.05])
    assert reshaped(row, Sampling()) == pytest.approx([1, 0, 0, 0])
    assert reshaped(row, Sampling(temperature=1.0)) == pytest.approx(row)
    assert reshaped(row, Sampling(temperature=0.5)) == pytest.approx(row**2 / (row**2).sum())
    assert reshaped(row, Sampling(temperature=1.0, top_k=2)) == pytest.approx([0.625, 0.375, 0, 0])
    assert reshaped(row, Sampling(temperature=1.0, top_p=0.6)) == pytest.approx([0.625, 0.375, 0, 0])
    assert reshaped(row, Sampling(temperature=1.0, min_p=0.5)) == pytest.approx([0.625, 0.375, 0, 0])
    assert reshaped(row, Sampling(temperature=1.0, top_p=0.0, min_p=1.0)) == pytest.approx([1, 0, 0, 0])


# -- the engine ----------------------------------------------------------------------------------------------

MIXED: list[dict[str, Any]] = [
    {"rule": "veto", "veto": 0.2, "max_tokens": 40},
    {"rule": "bet", "bet": 0.1, "temperature": 1.0, "seed": 3, "max_tokens": 40},
]


def same(a: Reply, b: Reply) -> bool:
    ids = [[(token.id, token.source) for token in reply.tokens] for reply in (a, b)]
    turns = [[(turn.who, turn.start, turn.end, turn.reason) for turn in reply.turns] for reply in (a, b)]
    return (a.text, turns[0], ids[0], a.finish_reason) == (b.text, turns[1], ids[1], b.finish_reason)


@pytest.mark.parametrize("mixed", MIXED, ids=["greedy", "drawn"])
def test_neither_chunks_nor_other_replies_nor_a_stop_change_it(
    kin: tuple[Path, Path], twins: wsd.Pair, mixed: dict[str, Any]
) -> None:
    alone = {question: twins.reply(question, **mixed) for question in QUESTIONS[:4]}
    assert any(len(reply.turns) > 2 for reply in alone.values())
    for question, reply in alone.items():
        assert same(twins.reply(question, **mixed, check_chunk=1), reply)
    for stop_at in (0, 2, 5, 9):
        run = twins.start(QUESTIONS[0], **mixed)
        for number, _ in enumerate(run.events()):
            if number == stop_at:
                run.cancel()
        assert run.reply.finish_reason in ("cancelled", alone[QUESTIONS[0]].finish_reason)
        list(run.events())
        assert same(run.reply, alone[QUESTIONS[0]])
    usual = replace(PLAIN, **mixed)
    with wsd.Pair(draft=kin[0], base=kin[1], reply=usual, loading=replace(EXACT, parallel=3)) as many:
        fleet: Fleet[str] = Fleet(many)
        for question in alone:
            fleet.add(question, [{"role": "user", "content": question}])
        done = {key: event.reply for key, event in fleet.events() if isinstance(event, Finished)}
    assert all(same(done[question], reply) for question, reply in alone.items())


@pytest.mark.parametrize("mixed", MIXED, ids=["greedy", "drawn"])
def test_what_is_shown_is_the_reply_and_every_part_names_its_writer(twins: wsd.Pair, mixed: dict[str, Any]) -> None:
    for question in QUESTIONS:
        run = twins.start(question, **mixed)
        events = list(run.events())
        check(run.reply, events)
        assert len(run.reply.draft_ids) == run.reply.counts.drafted_tokens > 0


def check(reply: Reply, events: Sequence[Event]) -> None:
    texts = [event for event in events if isinstance(event, Text)]
    assert "".join(event.text for event in texts) == reply.text == "".join(text for _, text in reply.parts())
    assert reply.draft.text == "".join(event.text for event in texts if event.source == "draft")
    returned = [event.index for event in events if isinstance(event, Returned)]
    agreed = [turn.end for turn in reply.turns if turn.reason == "agreed"]
    assert returned[: len(agreed)] == agreed
    switched = [event for event in events if isinstance(event, Switched)]
    assert len(switched) >= sum(turn.who == "draft" for turn in reply.turns)
    assert reply.switch.reason == reply.turns[0].reason


@pytest.mark.parametrize("changes", [{"max_tokens": 7}, {"stop": ("e",)}])
def test_limits_and_stop_strings_hold(twins: wsd.Pair, changes: dict[str, Any]) -> None:
    for question in QUESTIONS:
        whole, reply = (twins.reply(question, **{**MIXED[0], **more}) for more in ({}, changes))
        if "stop" in changes:
            assert reply.text == whole.text.partition("e")[0]
        else:
            assert len(reply.tokens) <= 7 and whole.text.startswith(reply.text)


def test_by_hand_the_base_writes_the_rest(twins: wsd.Pair) -> None:
    run = twins.start(QUESTIONS[0], **MIXED[0])
    for number, _ in enumerate(run.events()):
        if number == 2:
            run.hand_over()
    base = [turn for turn in run.reply.turns if turn.who == "base"]
    assert run.reply.turns[-1] == base[-1] and base[-1].reason == run.reply.finish_reason


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"regex": "a+"}, "regex and rule veto are given"),
        ({"repeat_penalty": 1.1}, "repeat-penalty is given, and the rule veto mixes"),
        ({"draft_temperature": 0.5}, "draft-temperature is given, and the rule veto mixes"),
        ({"draft_top_k": 4}, "draft-top-k is given, and the rule veto mixes"),
    ],
)
def test_what_the_mixture_does_not_know_is_refused(twins: wsd.Pair, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        twins.reply("Hello!", rule="veto", **given)


# -- scripted models -----------------------------------------------------------------------------------------


class Letters:
    """One token for each letter; 26 ends a text."""

    def tokenize(self, text: str) -> list[int]:
        return [ord(letter) - 97 for letter in text]

    def piece(self, token: int) -> bytes:
        return bytes([97 + token]) if token < 26 else b""


def made_up(tokens: Sequence[int], salt: int, sharpness: float) -> Row:
    source = np.random.default_rng([salt, *tokens])
    row: Row = source.random(27) ** sharpness
    row[26] *= 0.2
    row /= row.sum()
    return row


def driven(machine: Mixing, sharpness: float, steps: int = 10**6) -> Iterator[Event]:
    yield from machine.take_events()
    while steps and (request := machine.request()) is not None:
        steps -= 1
        if isinstance(request, Distributions):
            for end in range(request.start, len(request.tokens) + 1):
                salt = 1 if request.role == "draft" else 2
                if not machine.distribution(made_up(request.tokens[:end], salt, sharpness)):
                    break
        else:
            machine.base_ended()
        yield from machine.take_events()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["veto", "bet"]),
    bound=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    temperature=st.sampled_from([0.0, 0.8, 1.0]),
    seed=st.integers(0, 50),
    chunk=st.sampled_from([1, 3, 8, 99]),
    max_tokens=st.sampled_from([1, 5, 40]),
    sharpness=st.sampled_from([1.0, 12.0]),
    steps=st.integers(1, 60),
)
def test_turns_tile_the_reply_and_nothing_depends_on_chunks_or_stops(
    kind: Any, bound: float, temperature: float, seed: int, chunk: int, max_tokens: int, sharpness: float, steps: int
) -> None:
    def machine(chunk: int) -> Mixing:
        return Mixing(
            Letters(),
            "ask",
            Veto(kind, bound),
            bounds(max_tokens=max_tokens, check_chunk=chunk, stops=("xyz",)),
            draft_prompt=[1, 2],
            sampling=Sampling(temperature=temperature, seed=seed),
            ends=lambda token: token == 26,
        )

    whole = machine(8)
    events = list(driven(whole, sharpness))
    turns = whole.turns
    assert whole.phase is Phase.DONE
    assert "".join(event.text for event in events if isinstance(event, Text)) == whole.text
    assert "".join(token.text for token in reply_tokens(whole)) == whole.text
    assert (turns[0].start, turns[-1].end) == (0, whole.reply_length) and whole.reply_length <= max_tokens
    assert all(before.end == after.start for before, after in itertools.pairwise(turns))
    assert all(before.who != after.who for before, after in itertools.pairwise(turns))
    assert all(turn.end > turn.start for turn in turns[1:])
    sources = [whole.token(index).source for index in range(whole.reply_length)]
    assert sources == [turn.who for turn in turns for _ in range(turn.start, turn.end)]
    halves = machine(chunk)
    list(driven(halves, sharpness, steps))
    assert whole.text.startswith(halves.text)
    list(driven(halves, sharpness))
    assert (halves.text, halves.turns, halves.finish_reason) == (whole.text, turns, whole.finish_reason)


def test_a_draft_whose_context_is_full_leaves_the_rest_to_the_base() -> None:
    machine = Mixing(
        Letters(),
        "ask",
        Veto("veto", 1.0),
        bounds(max_tokens=9),
        draft_prompt=[1],
        sampling=Sampling(),
        ends=lambda token: token == 26,
    )
    assert isinstance(machine.request(), Distributions)
    machine.distribution(made_up([1], 1, 12.0))
    machine.draft_ended("draft_limit")
    request = machine.request()
    assert isinstance(request, Distributions) and request.role == "base"
    assert not machine.distribution(made_up([1], 2, 12.0))
    assert not isinstance(machine.request(), Distributions)
    machine.continued(3)
    machine.base_ended()
    assert machine.turns[0].reason == "draft_limit" and machine.text.endswith("d")
