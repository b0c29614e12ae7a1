"""Proposals change time and never a token, cost nearly nothing where they do not pay, and pay where they can."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import fixture_conversations, fixture_prompts, vocabularies, vocabulary
from exactness import EXACT
from free_proposals import Flat, eager
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import BASE_LIKE_TEMPLATE, random_llama
from makers_more import random_mamba, random_sliding
from summary import Tell

from wsd_local.core import speculation
from wsd_local.core.costs import Acceptance, Costs, Experience, break_even, expected
from wsd_local.core.decoding import Phase
from wsd_local.core.lookup import GRAM, LONGEST, PLACES, LookUp
from wsd_local.core.speculation import Evaluation, Speculator
from wsd_local.core.translation import translated
from wsd_local.errors import WsdError
from wsd_local.events import Reading, Text
from wsd_local.llama import Cancellation, Context, ContextOptions, Model
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.reply import Reply
from wsd_local.settings import LoadSettings

PROMPTS = [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()]
COPY = "Say this again word by word: the quick brown fox jumps over the lazy dog, and the lazy dog sleeps on."


def exact_pair(paths: tuple[Path, Path]) -> Pair:
    """A pair whose logits do not depend on the shape of a batch."""
    return Pair(draft=paths[0], base=paths[1], loading=EXACT)


@pytest.fixture(scope="module")
def pair(kin: tuple[Path, Path]) -> Iterator[Pair]:
    with eager(kin) as pair:
        yield pair


# -- the same tokens -----------------------------------------------------------------------------------------


def both(pair: Pair, prompt: Any, source: str = "auto", **asked: Any) -> tuple[Reply, Reply]:
    """A reply without proposals and one with them."""
    return pair.reply(prompt, speculation="off", **asked), pair.reply(prompt, speculation=source, **asked)


def assert_same(plain: Reply, other: Reply) -> None:
    assert [(t.id, t.text, t.source) for t in other.tokens] == [(t.id, t.text, t.source) for t in plain.tokens]
    assert (other.text, other.finish_reason, other.switch) == (plain.text, plain.finish_reason, plain.switch)
    assert (plain.speculation.rounds, plain.speculation.proposed_tokens) == (0, 0)


@pytest.mark.parametrize("source", ["auto", "draft", "lookup"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.8, 2.0])
def test_greedy_replies_are_the_same(pair: Pair, source: str, threshold: float, tell: Tell) -> None:
    proposed = accepted = 0
    for prompt in PROMPTS[:12]:
        plain, other = both(pair, prompt, source, threshold=threshold, max_tokens=90, draft_max_tokens=40)
        assert_same(plain, other)
        proposed += other.speculation.proposed_tokens
        accepted += other.speculation.accepted_tokens
        did = other.speculation
        assert did.accepted_tokens <= did.examined_tokens <= did.proposed_tokens
        assert did.acceptance == (did.accepted_tokens / did.proposed_tokens if did.proposed_tokens else None)
    tell(f"proposals, {source}, threshold {threshold}: {accepted} of {proposed} taken")
    assert 0 < accepted <= proposed


def test_the_embedded_pair(demo_f32: tuple[Path, Path], tell: Tell) -> None:
    """Its draft and base know the same language: most of what the draft proposes is taken."""
    with eager(demo_f32) as pair:
        total = [0, 0]
        for _, messages in fixture_conversations()[::6]:
            plain, other = both(pair, messages, max_tokens=80)
            assert_same(plain, other)
            total[0] += other.speculation.accepted_tokens
            total[1] += other.speculation.proposed_tokens
        tell(f"embedded pair: {total[0]} of {total[1]} proposals taken")
        assert total[0] > 20


@pytest.mark.parametrize("max_tokens", range(1, 24))
def test_no_proposal_leads_over_the_limit(pair: Pair, max_tokens: int) -> None:
    plain, other = both(pair, PROMPTS[2], threshold=0.3, max_tokens=max_tokens, ignore_eos=True)
    assert_same(plain, other)
    assert len(other.tokens) <= max_tokens


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0.8},
        {"temperature": 1.3, "top_k": 20, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 0.7, "repeat_penalty": 1.2, "frequency_penalty": 0.3},
        {"repeat_penalty": 1.4, "presence_penalty": 0.5},
        {"grammar": "root ::= [a-z ]+"},
        {"probabilities": True},
        {"mode": "base"},
        {"mode": "draft"},
        {"mode": "fixed:3"},
    ],
    ids=lambda sampling: " ".join(sampling),
)
def test_samplers_grammars_and_modes(pair: Pair, sampling: dict[str, Any]) -> None:
    """Samplers see each token once and in order, so the same seed gives the same reply."""
    proposed = 0
    for seed, prompt in zip(range(5), [COPY, *PROMPTS[3:7]], strict=True):
        plain, other = both(pair, prompt, seed=seed, threshold=0.3, max_tokens=60, draft_max_tokens=30, **sampling)
        assert_same(plain, other)
        probabilities = [[t.prob for t in reply.tokens if t.source == "base"] for reply in (plain, other)]
        assert probabilities[1] == pytest.approx(probabilities[0], abs=1e-4)
        proposed += other.speculation.proposed_tokens
    assert proposed


def test_a_stop_string_inside_of_proposals(pair: Pair) -> None:
    whole = pair.reply(COPY, threshold=0.0, max_tokens=60, speculation="off").text
    proposed = 0
    for at in range(10, min(50, len(whole) - 3), 5):
        plain, other = both(pair, COPY, threshold=0.0, max_tokens=60, stop=(whole[at : at + 3],))
        assert_same(plain, other)
        proposed += other.speculation.proposed_tokens
    assert proposed


@pytest.mark.slow
@pytest.mark.parametrize("names", [("llama-bpe", "gpt-2"), ("phi-3", "llama-bpe")])
def test_two_vocabularies(names: tuple[str, str], tmp_path: Path) -> None:
    """The draft's proposals are text to the base; where it would write the same, they are taken."""
    draft, base = (vocabulary(name) for name in names)
    files = (
        random_llama(tmp_path / "draft.gguf", draft, seed=0, chat_template=BASE_LIKE_TEMPLATE),
        random_llama(tmp_path / "base.gguf", base, seed=1),
    )
    with eager(files) as pair:
        for prompt in PROMPTS[:2]:
            plain, other = both(pair, prompt, "draft", threshold=0.0, max_tokens=40, draft_max_tokens=20)
            assert_same(plain, other)
            assert other.speculation.proposed_tokens


def test_a_sliding_window_forgets_refused_tokens(tmp_path: Path) -> None:
    with eager((random_llama(tmp_path / "d.gguf", seed=2), random_sliding(tmp_path / "b.gguf", seed=1))) as pair:
        for prompt in [COPY, *PROMPTS[:4]]:
            plain, other = both(pair, prompt, threshold=0.3, max_tokens=120, draft_max_tokens=30, ignore_eos=True)
            assert_same(plain, other)
            assert other.speculation.proposed_tokens


def test_a_stop_in_the_middle_of_proposals_can_be_gone_on_with(pair: Pair) -> None:
    asked: dict[str, Any] = {"threshold": 0.3, "max_tokens": 60, "draft_max_tokens": 20, "ignore_eos": True}
    plain = pair.reply(COPY, speculation="off", **asked)
    for after in range(1, 40, 3):
        run = pair.start(COPY, **asked)
        texts, seen = "", count()
        for event in run.events():
            texts += event.text if isinstance(event, Text) else ""
            if next(seen) == after:
                pair.cancel()
        pair.models.cancellation.clear()
        for event in run.events():
            texts += event.text if isinstance(event, Text) else ""
        assert run.machine.phase is Phase.DONE
        assert texts == run.reply.text == plain.text
        assert run.reply.speculation.proposed_tokens


def test_conversations_reuse_what_proposals_left(pair: Pair) -> None:
    """Refused tokens in the caches of both models do not show in later turns."""
    texts, proposed = [], 0
    for source in ("off", "auto"):
        with pair.session() as chat:
            asked: dict[str, Any] = {"speculation": source, "threshold": 0.3, "max_tokens": 30}
            replies = [chat.send(text, **asked) for text in (COPY, PROMPTS[1], COPY)]
            texts.append([reply.text for reply in replies])
            proposed = sum(reply.speculation.proposed_tokens for reply in replies)
    assert texts[0] == texts[1] and proposed


def test_what_cannot_take_tokens_back_gets_no_proposals(kin: tuple[Path, Path], tmp_path: Path) -> None:
    loading = LoadSettings(ctx=2048, threads=1, resident="one")
    with eager(kin, loading=loading) as pair:
        assert pair.reply(COPY, max_tokens=60).speculation.rounds == 0
    with eager((kin[0], random_mamba(tmp_path / "m.gguf", seed=1))) as pair:
        assert pair.reply(COPY, max_tokens=60).speculation.rounds == 0


@pytest.mark.slow
def test_sampled_tokens_have_the_models_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Tell
) -> None:
    """Chi-square of what stands after a proposal, taken or refused, against the softmax of the model itself."""
    monkeypatch.setattr(speculation, "FRESH", 0)
    base = random_llama(tmp_path / "m.gguf", seed=3)
    draws = 1000
    with eager((base, base)) as pair:
        asked: dict[str, Any] = {"mode": "fixed:2", "max_tokens": 6, "temperature": 1.0, "top_k": 3, "ignore_eos": True}
        found: dict[tuple[int, ...], int] = {}
        proposed = accepted = 0
        for seed in range(draws):
            reply = pair.reply(COPY, seed=seed, speculation="draft", **asked)
            ids = tuple(token.id for token in reply.tokens[2:5])
            found[ids] = found.get(ids, 0) + 1
            proposed += reply.speculation.proposed_tokens
            accepted += reply.speculation.accepted_tokens
        prompt = [*reply.prompt_ids["base"], *(token.id for token in reply.tokens[:2])]
    probabilities = dict(_three_most(base, prompt))
    assert proposed > draws and 0 < accepted < proposed
    assert set(found) <= set(probabilities)
    square = sum((found.get(ids, 0) - draws * p) ** 2 / (draws * p) for ids, p in probabilities.items())
    tell(
        f"{draws} samples after proposals: chi-square {square:.1f} (26 degrees of freedom), "
        f"{accepted} of {proposed} taken"
    )
    assert square < 54.1  # exceeded by one in a thousand


def _three_most(path: Path, prompt: list[int]) -> Iterator[tuple[tuple[int, int, int], float]]:
    """Triples of next tokens that top-k 3 leaves, with their probabilities, from plain evaluations."""
    model = Model(path, n_gpu_layers=0)
    options = ContextOptions(n_ctx=2048, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    context = Context(model, options, Cancellation())

    def next_tokens(tokens: list[int]) -> list[tuple[int, float]]:
        every = np.array([context.logprobs(0, [*tokens, token], len(tokens))[0] for token in candidates(tokens)])
        best = np.argsort(every)[-3:]
        weights = np.exp(every[best])
        return [(candidates(tokens)[i], float(w / weights.sum())) for i, w in zip(best, weights, strict=True)]

    def candidates(tokens: list[int]) -> list[int]:
        return [token for token in range(model.n_vocab) if not model.is_eog(token)]

    try:
        for first, p in next_tokens(prompt):
            for second, q in next_tokens([*prompt, first]):
                for third, r in next_tokens([*prompt, first, second]):
                    yield (first, second, third), p * q * r
    finally:
        context.close()
        model.close()


# -- the policy ----------------------------------------------------------------------------------------------


class Letters:
    """A vocabulary of bytes."""

    n_vocab = 256

    def tokenize_text(self, text: str) -> list[int]:
        return list(text.encode())

    def piece(self, token: int) -> bytes:
        return bytes([token])


class Stage:
    """An engine with a made-up clock, whose draft model writes `A`. Planning takes `planning` seconds.

    `drafting` is called with the number of tokens that the draft model evaluates, `asked` has what it read, `judged`
    is how many tokens the logits at hand suffice for.
    """

    draft_room = 4096

    def __init__(self, planning: float = 0.0, held: int = 0) -> None:
        self.now = 0.0
        self.planning = planning
        self.held = held
        self.reads = False
        self.judged = -1
        self.drafting: Callable[[int], None] = lambda tokens: None
        self.asked: list[list[int]] = []

    def clock(self) -> float:
        return self.now

    def unread(self, tokens: Sequence[int]) -> bool:
        return self.reads

    def live(self, tokens: Sequence[int], following: Sequence[int]) -> int:
        self.now += self.planning
        return min(self.judged, len(following))

    def held_by_draft(self, tokens: Sequence[int]) -> int:
        return self.held

    def forced(self) -> Sequence[int]:
        return ()

    def allowed(self, tokens: Sequence[int]) -> int:
        return len(tokens)

    def draft(self, tokens: Sequence[int]) -> int | None:
        self.asked.append(list(tokens))
        unread = max(1, len(tokens) - self.held)
        self.held += unread
        self.drafting(unread)
        return 65


def on_cpu(price: float) -> Callable[[int], float]:
    """Seconds of `n` tokens in one batch, where `price` is that of one: a 3B model's on two cores."""
    known = {1: 1.0, 2: 1.69, 4: 2.14, 8: 4.17, 16: 6.08, 64: 23.4}
    return lambda n: price * float(np.interp(n, list(known), list(known.values())))


def on_gpu(price: float) -> Callable[[int], float]:
    """The same where a batch costs little more than one token."""
    return lambda n: price * (1 + 0.01 * n)


def played(
    drafting: float,
    verifying: Callable[[int], float],
    rate: float,
    seed: int,
    experience: Experience,
    length: int = 256,
    thinking: float = 0.0,
) -> float:
    """How many times as fast as plain decoding one made-up continuation is, with 10% of noise in every time.

    To think about proposals once takes `thinking`.
    """
    dice = random.Random(seed)
    stage = Stage(thinking, held=60)
    speculator = Speculator(experience, "base", Letters(), Letters(), [1] * 50, 50, lookup=False)

    def spend(role: Any, tokens: int, seconds: float, **outcome: Any) -> None:
        seconds *= dice.uniform(0.9, 1.1)
        stage.now += seconds
        speculator.observe(Evaluation(role, tokens, seconds, **outcome))

    speculator.observe(Evaluation("base", agreed=[1.0] * 10 + [0.0] * 2))
    for size in (1, 1, 1, 64):
        experience.costs["draft"].saw(size, drafting * max(1, size / 2))
    experience.costs["base"].saw(64, verifying(64))
    stage.drafting = lambda tokens: spend("draft", tokens, drafting * max(1, tokens / 2))
    tokens = [65] * 60
    while len(tokens) < 60 + length:
        proposed = len(speculator.propose(tokens, min(31, 59 + length - len(tokens)), (), stage))
        taken = next((i for i in range(proposed) if dice.random() >= rate), proposed)
        spend("base", proposed + 1, verifying(proposed + 1), written=taken + 1, accepted=taken)
        tokens = tokens + [65] * (taken + 1)
        stage.held = min(stage.held, len(tokens) - 1)
    return length * verifying(1) / stage.now


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(
    drafting=st.floats(0.01, 1.5),
    rate=st.floats(0, 1),
    shape=st.sampled_from([on_cpu, on_gpu]),
    seed=st.integers(0, 1000),
    length=st.sampled_from([256, 40, 16]),
    thinking=st.sampled_from([0, 0.005, 0.05, 0.4]),
)
def test_it_is_never_much_slower_than_plain(
    drafting: float,
    rate: float,
    shape: Callable[[float], Callable[[int], float]],
    seed: int,
    length: int,
    thinking: float,
) -> None:
    """Whatever things cost and whatever is taken: long replies each, short ones together."""
    experience = Experience()
    speeds = [played(drafting, shape(1.0), rate, seed + i, experience, length, thinking) for i in range(512 // length)]
    if length == 256:
        assert min(speeds) > 0.97
    assert len(speeds) / sum(1 / speed for speed in speeds) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("thinking", [0.0, 0.005, 0.05])
@pytest.mark.parametrize(("shape", "least"), [(on_gpu, 5.0), (on_cpu, 1.7)])
def test_what_was_lost_does_not_end_it(
    shape: Callable[[float], Callable[[int], float]], least: float, thinking: float
) -> None:
    """After replies of which nothing was taken it rests, and comes back where everything is."""
    experience = Experience()
    for seed in range(4):
        played(0.1, shape(1.0), 0.0, seed, experience, thinking=thinking)
    speeds = [played(0.1, shape(1.0), 1.0, seed, experience, thinking=thinking) for seed in range(6)]
    assert speeds[-1] > least


def test_a_rest_at_the_beginning_loses_nothing_the_draft_had_written() -> None:
    experience = Experience(lost=1.0)
    experience.costs["base"].saw(1, 0.01)
    speculator, stage = Speculator(experience, "base", Letters(), None, [1], 1, lookup=False), Stage()
    stage.judged = 99
    before, beyond = b"prompt and", b" more of it and on and on" * 9
    for written in range(len(beyond)):
        tokens = [*before, *beyond[:written]]
        if proposed := speculator.propose(tokens, 9, [] if written else [*beyond], stage):
            break
        speculator.observe(Evaluation("base", 1, 0.01, written=1))
    assert written > 5
    assert bytes(proposed) == beyond[written : written + 9]


def test_making_a_reply_and_looking_at_it_changes_nothing_that_is_shared() -> None:
    """Costs age, and acceptance is doubted, when the work on another text begins: not when it is prepared."""
    experience = Experience()
    for seconds in (1.0, 2.0, 9.0):
        experience.costs["base"].saw(1, seconds)
    for _ in range(50):
        experience.acceptance["draft"].saw(1, 0)
    before = experience.costs["base"].of(1), vars(experience.acceptance["draft"]).copy()
    speculators = [Speculator(experience, "base", Letters(), Letters(), [1], 1) for _ in range(3)]
    assert all(speculator.report().rounds == 0 for speculator in speculators)
    assert (experience.costs["base"].of(1), vars(experience.acceptance["draft"])) == before
    speculators[0].observe(Evaluation("base", 1, 5.0))
    assert experience.costs["base"].of(1) == 7.0  # the last of another text, and this one
    assert vars(experience.acceptance["draft"]) != before[1]


def test_a_report_can_be_read_in_the_middle_of_a_round() -> None:
    experience = Experience(costs={"draft": Flat(0.01), "base": Flat(1.0)})
    speculator, stage = Speculator(experience, "base", Letters(), Letters(), [1], 1, lookup=False), Stage()
    tokens = [65] * 9
    for _ in range(2):
        assert not speculator.propose(tokens, 5, (), stage)
        speculator.observe(Evaluation("base", 1, 1.0, written=1))
        tokens = [*tokens, 65]
    assert len(speculator.propose(tokens, 5, (), stage)) == 5
    speculator.observe(Evaluation("base", 6, 1.0, written=2, accepted=2))
    first, lost = speculator.report(), experience.lost
    assert first == speculator.report() and experience.lost == lost
    assert (first.rounds, first.proposed_tokens, first.accepted_tokens, first.examined_tokens) == (1, 5, 2, 2)
    speculator.observe(Evaluation("base", written=1))
    assert (speculator.report().rounds, speculator.report().examined_tokens) == (1, 3)


@given(rate=st.floats(0, 1), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_prices_that_change_are_noticed(rate: float, seed: int) -> None:
    """The first reply was written while the machine was busy: nothing of it may hold for the second."""
    experience = Experience()
    played(0.1, on_cpu(4.0), rate, seed, experience)
    assert played(0.3, on_cpu(1.0), rate, seed, experience) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drafting", "shape", "rate", "least"),
    [(0.1, on_gpu, 0.9, 2.5), (0.1, on_gpu, 0.7, 1.6), (0.3, on_gpu, 0.9, 1.5), (0.07, on_cpu, 0.95, 1.3)],
)
def test_it_is_faster_where_it_can_be(
    drafting: float, shape: Callable[[float], Callable[[int], float]], rate: float, least: float
) -> None:
    speeds = sorted(played(drafting, shape(1.0), rate, seed, Experience()) for seed in range(11))
    assert speeds[5] > least


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "drafting", "shape"),
    [
        ("CPU, draft token 0.34, as 1B/3B", 0.34, on_cpu),
        ("CPU, draft token 0.07, as 160M/3B", 0.07, on_cpu),
        ("GPU, draft token 0.3", 0.3, on_gpu),
        ("GPU, draft token 0.1", 0.1, on_gpu),
        ("draft as slow as the base", 1.0, on_cpu),
    ],
)
def test_what_simulated_pairs_gain(
    what: str, drafting: float, shape: Callable[[float], Callable[[int], float]], tell: Tell
) -> None:
    """The table of `docs/performance.md`."""
    rates = (0.0, 0.6, 0.8, 0.9, 1.0)
    speeds = [[played(drafting, shape(1.0), rate, seed, Experience()) for seed in range(11)] for rate in rates]
    medians = [sorted(each)[5] for each in speeds]
    told = ", ".join(f"{rate:g}: {median:.2f}" for rate, median in zip(rates, medians, strict=True))
    tell(f"{what}: as fast as token by token at acceptance {told}; least {min(map(min, speeds)):.3f}")
    assert min(map(min, speeds)) > 0.97
    assert all(later > earlier - 0.02 for earlier, later in pairwise(medians))


@given(rate=st.floats(0, 0.99), length=st.integers(0, 20))
def test_expected_tokens_of_a_round(rate: float, length: int) -> None:
    """Token `i` is made if all proposals before it were taken."""
    assert expected(rate, length) == pytest.approx(sum(rate**i for i in range(length + 1)))


@given(drafting=st.floats(0.001, 2), slope=st.floats(0, 1.5))
def test_break_even_is_where_the_best_length_begins_to_pay(drafting: float, slope: float) -> None:
    def cost(length: int) -> float:
        return 1 + length * (drafting + slope)

    least = break_even([cost(length) for length in range(1, 16)], 1.0)
    if least is None:
        assert drafting + slope >= 1 - 1e-9
        return
    best = [max(expected(rate, length) / cost(length) for length in range(1, 16)) for rate in (least - 1e-4, least)]
    assert best[0] <= 1 + 1e-3 and best[1] >= 1 - 1e-3


def test_costs_are_medians_and_lie_on_lines_between() -> None:
    costs = Costs()
    assert not costs.known
    costs.saw(64, 640.0)
    for seconds in (30.0, 1000.0, 28.0):
        costs.saw(1, seconds)
    assert costs.known
    assert (costs.of(1), costs.of(64), costs.of(128)) == (30.0, 640.0, 1280.0)
    assert costs.of(32) == pytest.approx(30 + 610 * 31 / 63)
    costs.saw(8, 5000.0)  # an outlier: sixty-four took less
    assert costs.of(8) == 640.0


def test_acceptance_follows_what_happens_and_doubts_itself_in_another_text() -> None:
    acceptance = Acceptance(0.5)
    for _ in range(100):
        acceptance.saw(9, 1)
    assert acceptance.rate == pytest.approx(0.9, abs=0.01)
    acceptance.renew()
    assert acceptance.rate == pytest.approx(0.9, abs=0.01)
    acceptance.saw(0, 8)
    assert acceptance.rate < 0.4


def looked_up(tokens: Sequence[int], most: int) -> tuple[list[int], int]:
    """The plain way: compare all places where the last tokens stood before."""
    last = tokens[-GRAM:]
    places = [p for p in range(GRAM, len(tokens)) if list(tokens[p - GRAM : p]) == list(last)][-PLACES:]
    if len(tokens) <= GRAM or not places or most < 1:
        return [], 0

    def same(place: int) -> int:
        return next(
            (n for n in range(LONGEST) if place - n < 1 or tokens[place - 1 - n] != tokens[len(tokens) - 1 - n]),
            LONGEST,
        )

    place = max(places, key=lambda place: (same(place), place))
    longer = list(tokens)
    while len(longer) < len(tokens) + most:
        longer.append(longer[place + len(longer) - len(tokens)])
    return longer[len(tokens) :], same(place)


@given(st.lists(st.integers(0, 2), max_size=80), st.integers(0, 12), st.integers(1, 7))
def test_look_up_finds_the_longest_match(tokens: list[int], most: int, step: int) -> None:
    lookup = LookUp()
    for end in [*range(0, len(tokens), step), len(tokens)]:
        assert lookup.find(tokens[:end], most) == looked_up(tokens[:end], most)


def test_text_goes_from_one_vocabulary_to_another() -> None:
    models = [Model(path, n_gpu_layers=0, vocab_only=True) for path in vocabularies() if path.stat().st_size < 6e6]
    assert len(models) > 2
    try:
        for text in (
            "plain words, and more of them",
            " a space before",
            "käse 日本 👩‍👩‍👧",
            "\tx = 1\n\n\n",
            ",",
            "ing",
        ):
            for source in models:
                tokens = source.tokenize_text(text)
                written = b"".join(map(source.piece, tokens))
                assert translated(tokens, source, source) == tokens
                for target in models:
                    found = translated(tokens, source, target)
                    assert b"".join(map(target.piece, found)) == written, (text, source.path, target.path)
    finally:
        for model in models:
            model.close()


def test_half_a_character_waits_for_its_rest() -> None:
    euro = list("€".encode())
    assert translated([*b"ab", *euro[:2]], Letters(), Doubled()) == Doubled().tokenize_text("ab")
    experience = Experience(costs={"draft": Flat(0.01), "base": Flat(1.0)})
    speculator, stage = Speculator(experience, "base", Letters(), Letters(), [1], 1, lookup=False), Stage()
    for tokens in ([1], [1], [1, *euro[:2]]):
        assert not speculator.propose(tokens, 5, (), stage)
        speculator.observe(Evaluation("base", 1, 1.0, written=1))
    assert not stage.asked
    assert speculator.propose([1, *euro], 5, (), stage)
    assert stage.asked[0] == [1, *euro]


class Doubled(Letters):
    """Letters under other numbers."""

    n_vocab = 0

    def tokenize_text(self, text: str) -> list[int]:
        return [byte + 256 for byte in text.encode()]

    def piece(self, token: int) -> bytes:
        return bytes([token - 256])


def test_what_the_draft_had_written_already_comes_first(kin: tuple[Path, Path]) -> None:
    """Its tokens after the switch that were checked together with it cost nothing to verify."""
    asked: dict[str, Any] = {"threshold": 0.0, "check_chunk": 16, "max_tokens": 14, "ignore_eos": True}
    with exact_pair((kin[0], kin[0])) as pair:  # a base that would write the same
        plain, other = both(pair, PROMPTS[0], "draft", **asked)
    assert_same(plain, other)
    assert other.speculation.accepted_tokens >= 7
    assert other.timings.base_evaluated_tokens <= plain.timings.base_evaluated_tokens - 7


@pytest.mark.parametrize(
    ("mode", "source", "phase", "missed"),
    [
        ("wsd", "draft", Phase.CONTINUE, False),
        ("wsd", "draft", Phase.DRAFT, True),
        ("draft", "auto", Phase.CONTINUE, True),
        ("draft", "off", Phase.CONTINUE, True),
    ],
)
def test_a_draft_that_fails_is_missed_only_where_it_is_needed(
    kin: tuple[Path, Path], mode: str, source: str, phase: Phase, missed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"mode": mode, "threshold": 0.0, "max_tokens": 24, "ignore_eos": True}
    with eager(kin) as pair:
        plain = pair.reply(COPY, **asked, speculation="off")
        draft, jobs = pair.models.context("draft"), list[Any]()
        advance, step = pair.engine.advance, draft.step
        failed = 0

        def watched(now: Any) -> bool:
            jobs[:] = now
            return advance(now)

        def failing(questions: Any) -> None:
            nonlocal failed
            if jobs[0].machine.phase is phase:
                failed += 1
                raise WsdError("llama.cpp failed with status -3")
            step(questions)

        monkeypatch.setattr(pair.engine, "advance", watched)
        monkeypatch.setattr(draft, "step", failing)
        if missed:
            with pytest.raises(WsdError, match="status -3"):
                pair.reply(COPY, **asked, speculation=source)
        else:
            assert_same(plain, pair.reply(COPY, **asked, speculation=source))
        assert failed == 1


def test_cancelling_is_no_measurement(kin: tuple[Path, Path]) -> None:
    """A prompt whose reading was stopped tells nothing of what tokens cost."""
    with exact_pair(kin) as pair:
        pair.reply(COPY, max_tokens=10, ignore_eos=True)
        costs = pair.models.experience.costs["base"]
        before = list(costs._seen[1])
        run = pair.start(COPY * 30, mode="base", max_tokens=30, ignore_eos=True)
        for event in run.events():
            if isinstance(event, Reading):
                pair.cancel()
        assert run.machine.phase is not Phase.DONE
        assert list(costs._seen[1]) == before[-1:]


def test_reading_a_prompt_is_no_loss() -> None:
    """A first evaluation that carries the prompt has no proposals and is not measured against a token's price."""
    experience = Experience(costs={"draft": Flat(0.01), "base": Flat(1.0)})
    speculator, stage = Speculator(experience, "base", Letters(), Letters(), [1], 1, lookup=False), Stage()
    tokens = [65] * 9
    stage.reads = True
    assert not speculator.propose(tokens, 5, [66, 67], stage)
    speculator.observe(Evaluation("base", 9, 100.0, written=1))
    assert speculator.report().saved_s == 0
    stage.reads = False
    proposed = []
    for n in (1, 2, 3):
        proposed.append(len(speculator.propose(tokens + [65] * n, 5, (), stage)))
        speculator.observe(Evaluation("base", 1, 1.0, written=1))
    assert proposed[:2] == [0, 0] and proposed[2] > 0


def test_a_context_that_is_nearly_full(tmp_path: Path) -> None:
    """Two draft tokens may be many base tokens: no more of them than have room."""
    draft, base = (vocabulary(name) for name in ("llama-bpe", "gpt-2"))
    files = (
        random_llama(tmp_path / "draft.gguf", draft, seed=0, chat_template=BASE_LIKE_TEMPLATE),
        random_llama(tmp_path / "base.gguf", base, seed=1),
    )
    loading = LoadSettings(ctx=160, threads=1, cache_type_k="f32", cache_type_v="f32", flash_attn="off")
    with eager(files, loading=loading) as pair:
        asked: dict[str, Any] = {"threshold": 0.0, "max_tokens": 500, "ignore_eos": True}
        plain, other = both(pair, "hi", "draft", **asked)
        assert_same(plain, other)
        assert other.finish_reason == "length" and other.speculation.proposed_tokens


def test_a_reply_can_be_looked_at_while_a_prompt_is_read(kin: tuple[Path, Path]) -> None:
    with eager(kin) as pair:
        run = pair.start(COPY * 30, max_tokens=20, ignore_eos=True)
        texts: list[str] = []
        for event in run.events():
            if not texts and isinstance(event, Text):
                run.hand_over()
            texts.append(run.reply.text)
        assert run.machine.phase is Phase.DONE and len(set(texts)) > 2
