"""The rule `return`: streamed, with the embedded pair and scripted models, against turns that are written whole."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import fixture_prompts
from exactness import EXACT, PLAIN, TIE, exact_oracle, exact_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import BASE_STOPS, Oracle, base_prompt, log_softmax, stop_start
from scripted import STOPS, Words, bounds, made_up_logprob
from summary import Tell

import wsd_local as wsd
from wsd_local.cli.output import summary
from wsd_local.core.decoding import Phase
from wsd_local.core.relay import Returning
from wsd_local.core.requests import NextDraftToken, ScoreTokens
from wsd_local.core.rules import Score
from wsd_local.core.rules_return import Return
from wsd_local.core.written import reply_tokens
from wsd_local.errors import UsageError
from wsd_local.events import Event, Returned, Switched, Text
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.settings import LoadSettings, ReplySettings
from wsd_local.units import plural

LIMITS: dict[str, Any] = {"draft_max_tokens": 48, "max_tokens": 72}
EGG = "How do I boil an egg?"

Turns = list[tuple[str, int, int, str]]


# -- turns that are written whole, with the oracle's models --------------------------------------------------


@dataclass
class WholeTurns:
    """A reply turn by turn: each is written whole, scored whole, cut. `nearest` is how near a decision was to a tie."""

    oracle: Oracle
    messages: Sequence[dict[str, str]]
    window: int
    threshold: float
    bound: float
    draft_max_tokens: int
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    turns: Turns = field(default_factory=list)
    nearest: float = math.inf

    def __post_init__(self) -> None:
        conversation = tuple((message["role"], message["content"]) for message in self.messages)
        self.conversation = conversation
        self.prompt = self.oracle.prompt_tokens(conversation)
        self.finish = ""
        while not self.finish:
            self._draft()
            if not self.finish:
                self._base()
        start = stop_start(self.data, BASE_STOPS)
        self.text = self.data[:start].decode(errors="replace")

    @property
    def data(self) -> bytes:
        base = self.oracle.base_model
        return base.bytes_of([*self.prompt, *self.tokens])[len(base.bytes_of(self.prompt)) :]

    def _near(self, a: float, b: float) -> None:
        self.nearest = min(self.nearest, abs(a - b))

    def _end(self, who: str, begun: int, reason: str) -> None:
        self.turns.append((who, begun, len(self.tokens), reason))

    def _draft(self) -> None:
        model, base, before = self.oracle.draft_model, self.oracle.base_model, self.data.decode(errors="replace")
        asked = (*self.conversation, ("assistant", before)) if self.tokens else self.conversation
        steps = list(itertools.islice(model.greedy(self.oracle.draft_prompt_tokens(asked)), self.draft_max_tokens))
        self.nearest = min([self.nearest, *(gap for _, gap in steps)])
        text = model.bytes_of([token for token, _ in steps]).decode(errors="replace")
        reason = "draft_limit" if len(steps) == self.draft_max_tokens else "draft_end"
        text = text if self.tokens else text.lstrip()
        if (at := stop_start(text.encode(), BASE_STOPS)) is not None:
            text, reason = text.encode()[:at].decode(), "stop"
        text, room, begun = text.rstrip(), self.max_tokens - len(self.tokens), len(self.tokens)
        new = base.plain(text)
        if not self.tokens:
            new = (base.bos + base.plain(base_prompt(self.conversation) + text))[len(self.prompt) :]
        cut = len(new) >= room
        new = new[:room]
        done = [*self.prompt, *self.tokens]
        rows = base.rows([*done, *new])
        logs = [float(log_softmax(rows[len(done) + i - 1])[token]) for i, token in enumerate(new)]
        for end in range(self.window, len(new) + 1):
            confidence = math.exp(float(np.mean(logs[end - self.window : end])))
            self._near(confidence, self.threshold)
            if confidence >= self.threshold:
                new, reason, cut = new[:end], "threshold", end >= room
                break
        else:
            reason = "length" if cut else reason
            reason = "draft_end" if reason == "draft_limit" and not text else reason
        self.tokens += new
        self._end("draft", begun, reason)
        self.finish = "stop" if reason == "stop" else "length" if cut else ""

    def _base(self) -> None:
        base, begun = self.oracle.base_model, len(self.tokens)
        while True:
            row = base.after([*self.prompt, *self.tokens])
            best = int(row.argmax())
            second, first = np.partition(row, -2)[-2:]
            self._near(float(first), float(second))
            p1 = math.exp(float(log_softmax(row)[best]))
            begins = base.bytes_of([best])[:1].isspace() or self.data.decode(errors="replace")[-1:].isspace()
            if len(self.tokens) - begun >= 8 and len(self.turns) + 2 <= 32 and begins and best not in base.eog:
                self._near(p1, self.bound)
                if p1 < self.bound:
                    self._end("base", begun, "unsure")
                    return
            if best in base.eog:
                self.finish = "stop"
                break
            self.tokens.append(best)
            if stop_start(self.data, BASE_STOPS) is not None:
                self.finish = "stop"
                break
            if len(self.tokens) >= self.max_tokens:
                self.finish = "length"
                break
        if len(self.tokens) > begun:
            self._end("base", begun, self.finish)


def turns_of(reply: Reply) -> Turns:
    return [(turn.who, turn.start, turn.end, turn.reason) for turn in reply.turns]


def clipped(turns: Turns, length: int) -> Turns:
    """What is left of turns where the end of the text was cut away."""
    return [(who, a, min(b, length), why) for i, (who, a, b, why) in enumerate(turns) if i == 0 or a < length]


@pytest.fixture(scope="module")
def pair(demo_f32: tuple[Path, Path]) -> Iterator[wsd.Pair]:
    with exact_pair(demo_f32) as pair:
        yield pair


@pytest.fixture(scope="module")
def oracle(demo_f32: tuple[Path, Path]) -> Iterator[Oracle]:
    oracle = exact_oracle(demo_f32)
    yield oracle
    oracle.close()


def prompts() -> list[str]:
    questions = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][::40]
    found = [messages[0]["content"] for messages in questions if len(messages) == 1][:10]
    return found + [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()][:8]


@pytest.mark.parametrize(
    ("bound", "threshold", "window", "chunk"),
    [
        (0.9, 0.8, 6, 8),
        *(
            pytest.param(*setting, marks=pytest.mark.slow)
            for setting in ((0.3, 0.8, 6, 8), (1.0, 0.8, 3, 512), (1.0, 0.3, 1, 5), (1.0, 2.0, 6, 8), (0.9, 0.8, 6, 1))
        ),
    ],
)
def test_the_turns_are_those_that_are_written_whole(
    pair: wsd.Pair, oracle: Oracle, bound: float, threshold: float, window: int, chunk: int, tell: Tell
) -> None:
    rule: dict[str, Any] = {"window": window, "threshold": threshold, **LIMITS}
    if threshold > 1:  # the base takes over where each turn of the draft is at its limit
        rule["draft_max_tokens"] = 7
    returns = ties = 0
    for prompt in prompts():
        messages = [{"role": "user", "content": prompt}]
        ours = pair.reply(messages, rule="return", return_=bound, check_chunk=chunk, **rule)
        theirs = WholeTurns(oracle, messages, bound=bound, **rule)
        returns += sum(turn.reason == "unsure" for turn in ours.turns)
        same = (ours.text, ours.finish_reason, turns_of(ours)) == (
            theirs.text,
            theirs.finish,
            clipped(theirs.turns, len(ours.tokens)),
        )
        if not same and theirs.nearest < TIE:
            ties += 1
        else:
            assert ours.text == theirs.text
            assert ours.finish_reason == theirs.finish
            assert turns_of(ours) == clipped(theirs.turns, len(ours.tokens))
            assert [token.id for token in ours.tokens] == theirs.tokens[: len(ours.tokens)]
    tell(f"return below {bound}, threshold {threshold}, window {window}: {returns} returns, {ties} ties")
    assert ties <= 2
    assert returns or bound < 0.9


def test_at_zero_it_is_the_rule_window(pair: wsd.Pair) -> None:
    asked = prompts()
    assert asked
    for prompt in asked:
        zero = pair.reply(prompt, rule="return", return_=0.0, **LIMITS)
        plain = pair.reply(prompt, **LIMITS)
        assert (zero.tokens, zero.turns, zero.finish_reason) == (plain.tokens, plain.turns, plain.finish_reason)
        assert replace(zero.switch, rule="window") == plain.switch


RETURNING: dict[str, Any] = {"rule": "return", "return_": 1.0, "max_tokens": 64}


def joined(parts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbouring parts of one writer as one; none is empty."""
    written = itertools.groupby((part for part in parts if part[1]), lambda part: part[0])
    return [(who, "".join(text for _, text in group)) for who, group in written]


def same(a: Reply, b: Reply) -> bool:
    ids = [[(token.id, token.source) for token in reply.tokens] for reply in (a, b)]
    return (a.text, turns_of(a), ids[0], a.finish_reason) == (b.text, turns_of(b), ids[1], b.finish_reason)


def test_neither_proposals_nor_other_replies_nor_a_stop_change_it(demo_f32: tuple[Path, Path], pair: wsd.Pair) -> None:
    alone = {prompt: pair.reply(prompt, **RETURNING) for prompt in prompts()[:4]}
    assert any(len(reply.turns) > 3 for reply in alone.values())
    assert all(same(pair.reply(prompt, **RETURNING, speculation="auto"), reply) for prompt, reply in alone.items())
    for stop_at in (3, 9, 14):
        run = pair.start(EGG, **RETURNING)
        for number, _ in enumerate(run.events()):
            if number == stop_at:
                run.cancel()
        list(run.events())
        assert same(run.reply, pair.reply(EGG, **RETURNING))
    reply = replace(PLAIN, **RETURNING)
    with wsd.Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=replace(EXACT, parallel=3)) as many:
        fleet: Fleet[str] = Fleet(many)
        for prompt in alone:
            fleet.add(prompt, [{"role": "user", "content": prompt}])
        done = {key: event.reply for key, event in fleet.events() if isinstance(event, Finished)}
    assert all(same(done[prompt], reply) for prompt, reply in alone.items())


def test_what_is_shown_is_the_reply_and_every_part_names_its_writer(pair: wsd.Pair) -> None:
    run = pair.start(EGG, **RETURNING)
    events = list(run.events())
    reply, texts = run.reply, [event for event in events if isinstance(event, Text)]
    assert "".join(event.text for event in texts) == reply.text == "".join(text for _, text in reply.parts())
    assert joined((event.source, event.text) for event in texts) == joined(reply.parts())
    assert [turn.start for turn in reply.turns[1:]] == [turn.end for turn in reply.turns[:-1]]
    returned = [event for event in events if isinstance(event, Returned)]
    assert [event.index for event in returned] == [turn.end for turn in reply.turns if turn.reason == "unsure"]
    assert len([event for event in events if isinstance(event, Switched)]) == len(returned) + 1
    values = reply.as_dict()["turns"]
    assert list(values[0]) == ["who", "from", "to", "reason", "confidence"] and len(values) == len(reply.turns)
    assert (reply.switch.reason, reply.switch.index) == (reply.turns[0].reason, reply.turns[0].end - 1)
    assert reply.draft.text == "".join(text for who, text in reply.parts() if who == "draft")
    assert plural(len(returned), "return") + " of the draft" in summary(reply)


@pytest.mark.parametrize("changes", [{"max_tokens": 20}, {"stop": (" egg",)}, {"regex": "([a-zA-Z,.!]+ ?){30,40}"}])
def test_limits_stop_strings_and_constraints_hold_for_all_turns(pair: wsd.Pair, changes: dict[str, Any]) -> None:
    reply = pair.reply(EGG, **{**RETURNING, **changes})
    whole = pair.reply(EGG, **RETURNING)
    if "max_tokens" in changes:
        assert len(reply.tokens) <= 20 and whole.text.startswith(reply.text)
    elif "stop" in changes:
        assert reply.text == whole.text.partition(" egg")[0] and reply.stop == " egg"
    else:
        assert reply.constraint is not None and len(reply.turns) > 2
        assert reply.constraint.complete or reply.finish_reason == "length"


def test_a_drawn_reply_repeats_itself(pair: wsd.Pair) -> None:
    hot = {"temperature": 0.8, "draft_temperature": 0.8, "seed": 5, **RETURNING}
    assert same(pair.reply(EGG, **hot), pair.reply(EGG, **hot))


def test_a_supplied_beginning_is_read_in_every_turn(pair: wsd.Pair) -> None:
    begun = [{"role": "user", "content": EGG}, {"role": "assistant", "content": "Happy to help! "}]
    reply = pair.reply(begun, **RETURNING)
    assert reply.text and "Happy to help" not in reply.text


def test_one_model_in_memory_is_refused(demo_f32: tuple[Path, Path]) -> None:
    loading = replace(LoadSettings(threads=1, ctx=512), resident="one")
    with wsd.Pair(draft=demo_f32[0], base=demo_f32[1], loading=loading) as pair:
        with pytest.raises(UsageError, match="rule return needs both models in memory"):
            pair.reply(EGG, rule="return")
        assert pair.reply(EGG, rule="return", return_=0.0, max_tokens=12).text


@pytest.mark.parametrize("bound", [-0.1, 1.1, math.nan])
def test_a_bound_is_a_probability(bound: float) -> None:
    with pytest.raises(UsageError, match=r"return is .*: it is a probability"):
        ReplySettings(rule="return", return_=bound)


# -- scripted models -----------------------------------------------------------------------------------------

CALM = Words(["the", " the", " fox", " is", "]\n", "\n\n"])
PROMPT = "\n\n[User]\nhi\n\n[Assistant]\n"


scripted_drafts = st.lists(st.sampled_from(["the", " fox", " is", "é", " ", "\n"]), max_size=12).map("".join)


@dataclass
class Turnwise:
    """Models whose drafts, tokens and doubts are functions of the text before them."""

    drafts: Sequence[str]
    follows: Sequence[int]
    doubts: Sequence[float]
    begun: bool = False
    left: list[bytes] = field(default_factory=list)

    def drive(self, relay: Returning, steps: int = 10**6) -> Iterator[Event]:
        yield from relay.take_events()
        while steps and (request := relay.request()) is not None:
            steps -= 1
            if isinstance(request, NextDraftToken):
                self._draft(relay)
            elif isinstance(request, ScoreTokens):
                ends = [list(request.tokens[: i + 1]) for i in range(request.start, len(request.tokens))]
                relay.scored([Score(made_up_logprob(end)) for end in ends])
            else:
                self._write(relay)
            yield from relay.take_events()

    def _draft(self, relay: Returning) -> None:
        if not self.begun:
            number = len(relay.turns) // 2 % len(self.drafts)
            self.begun, self.left = True, [bytes([byte]) for byte in self.drafts[number].encode()]
        if self.left:
            relay.drafted(self.left.pop(0))
        else:
            relay.draft_ended()
        self.begun = self.begun and relay.phase is Phase.DRAFT

    def _write(self, relay: Returning) -> None:
        at, self.begun = relay.reply_length, False
        token = self.follows[at % len(self.follows)]
        if relay.may_return and relay.returns(token, self.doubts[at % len(self.doubts)], ends=False):
            return
        relay.continued(token)


@settings(max_examples=200, deadline=None)
@given(
    drafts=st.lists(scripted_drafts, min_size=1, max_size=4),
    follows=st.lists(st.sampled_from([258, 259, 32, 97, 98]), min_size=1, max_size=6),
    doubts=st.lists(st.floats(0, 1), min_size=1, max_size=7),
    bound=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    threshold=st.sampled_from([0.0, 0.7, 2.0]),
    chunk=st.sampled_from([1, 8, 999]),
    max_tokens=st.sampled_from([5, 90, 700]),
    steps=st.integers(1, 400),
)
def test_turns_tile_the_reply_and_keep_their_bounds(
    drafts: list[str],
    follows: list[int],
    doubts: list[float],
    bound: float,
    threshold: float,
    chunk: int,
    max_tokens: int,
    steps: int,
) -> None:
    def relay() -> Returning:
        limits = bounds(max_tokens=max_tokens, check_chunk=chunk, stops=STOPS)
        return Returning(CALM, PROMPT, Return(3, threshold, bound), limits, plain=CALM.tokenize)

    whole = relay()
    events = list(Turnwise(drafts, follows, doubts).drive(whole))
    turns = whole.turns
    assert "".join(event.text for event in events if isinstance(event, Text)) == whole.text
    assert "".join(token.text for token in reply_tokens(whole)) == whole.text
    assert (turns[0].start, turns[-1].end) == (0, whole.reply_length) and whole.reply_length <= max_tokens
    assert all(before.end == after.start for before, after in itertools.pairwise(turns))
    assert all(before.who != after.who for before, after in itertools.pairwise(turns))
    assert len(turns) <= 33
    for turn in turns:
        if turn.reason == "unsure":
            assert turn.end - turn.start >= 8 and turn.confidence is not None and turn.confidence < bound
    assert bound > 0 or len(turns) <= 2
    halves, models = relay(), Turnwise(drafts, follows, doubts)
    list(models.drive(halves, steps))
    assert whole.text.startswith(halves.text)
    list(models.drive(halves))
    assert (reply_tokens(halves), halves.turns) == (reply_tokens(whole), whole.turns)
