"""The rules `veto` and `bet` over two vocabularies, against replies that are made without a stream."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import fixture_prompts
from exactness import EXACT, PLAIN, TIE
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import BASE_STOPS, Oracle, base_prompt, log_softmax, stop_start
from scripted import STOPS, Words, bounds, made_up_logprob
from summary import Tell

import wsd_local as wsd
from wsd_local.cli.output import summary
from wsd_local.core import words
from wsd_local.core.decoding import Phase
from wsd_local.core.requests import NextDraftToken, ScoreTokens
from wsd_local.core.rules import Score
from wsd_local.core.rules_veto import Veto
from wsd_local.core.written import reply_tokens
from wsd_local.errors import UsageError
from wsd_local.events import Event, Returned, Switched, Text
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.settings import LoadSettings, ReplySettings, changed

FRANCE = "What is the capital of France?"
Turns = list[tuple[str, int, int, str]]


# -- replies that are made without a stream, with the oracle's models ----------------------------------------


@dataclass
class WholeWords:
    """A reply in which the draft is written to its end every time it leads. `nearest` is the distance from a tie."""

    oracle: Oracle
    messages: Sequence[dict[str, str]]
    kind: str
    bound: float
    max_tokens: int
    most_drafted: int = 120
    tokens: list[int] = field(default_factory=list)
    parts: list[tuple[str, int, str]] = field(default_factory=list)
    nearest: float = math.inf
    finish: str = ""

    def __post_init__(self) -> None:
        self.conversation = tuple((message["role"], message["content"]) for message in self.messages)
        self.prompt = self.oracle.prompt_tokens(self.conversation)
        while not self.finish:
            leads = self._draft()
            if not self.finish:
                self._base(word=leads)
        self.text = self.data[: stop_start(self.data, BASE_STOPS)].decode(errors="replace")

    @property
    def data(self) -> bytes:
        base = self.oracle.base_model
        return base.bytes_of([*self.prompt, *self.tokens])[len(base.bytes_of(self.prompt)) :]

    @property
    def turns(self) -> Turns:
        """Neighbouring words of the base are one turn; a draft that kept nothing has none but at the beginning."""
        found: Turns = []
        for number, (who, end, reason) in enumerate(self.parts):
            start = found[-1][2] if found else 0
            if end == start and number:
                continue
            if found and found[-1][0] == who == "base":
                start = found.pop()[1]
            found.append((who, start, end, reason))
        return found

    def _near(self, a: float, b: float) -> None:
        self.nearest = min(self.nearest, abs(a - b))

    def _draft(self) -> bool:
        """A turn of the draft; whether it leads on."""
        model, before = self.oracle.draft_model, self.data.decode(errors="replace")
        asked = (*self.conversation, ("assistant", before)) if self.tokens else self.conversation
        prompt = self.oracle.draft_prompt_tokens(asked)
        steps = list(itertools.islice(model.greedy(prompt), self.most_drafted))
        self.nearest = min([self.nearest, *(gap for _, gap in steps)])
        drafted = [token for token, _ in steps]
        raw = model.bytes_of(drafted).decode(errors="replace")
        text = raw if self.tokens else raw.lstrip()
        lead, ended = len(raw.encode()) - len(text.encode()), "draft_end"
        if (at := stop_start(text.encode(), BASE_STOPS)) is not None:
            text, ended = text.encode()[:at].decode(), "stop"
        new = self._tokenised(text.rstrip())
        room = self.max_tokens - len(self.tokens)
        cut, new = len(new) >= room, new[:room]
        claims = self._claims(prompt, drafted) if self.kind == "bet" else []
        kept = self._standing(new, lambda at: self._claimed(claims, drafted, at + lead))
        had = bool(self.tokens)
        self.tokens += new[:kept]
        if kept < len(new):
            self.parts.append(("draft", len(self.tokens), "veto"))
            return True
        reason = "length" if cut else ended
        self.parts.append(("draft", len(self.tokens), reason))
        if cut:
            self.finish = "length"
        elif ended == "stop" or had or new:
            self.finish = "stop"
        return False

    def _tokenised(self, text: str) -> list[int]:
        base = self.oracle.base_model
        if self.tokens:
            return base.plain(text)
        return (base.bos + base.plain(base_prompt(self.conversation) + text))[len(self.prompt) :]

    def _claims(self, prompt: Sequence[int], drafted: Sequence[int]) -> list[float]:
        rows = self.oracle.draft_model.rows([*prompt, *drafted])
        return [math.exp(float(log_softmax(rows[len(prompt) - 1 + i]).max())) for i in range(len(drafted))]

    def _claimed(self, claims: Sequence[float], drafted: Sequence[int], place: int) -> float:
        if self.kind == "veto":
            return 1.0
        end = 0
        for claim, token in zip(claims, drafted, strict=True):
            end += len(self.oracle.draft_model.bytes_of([token]))
            if place < end:
                return claim
        raise AssertionError(f"byte {place} of {end}")

    def _standing(self, new: Sequence[int], claim: Callable[[int], float]) -> int:
        """How many tokens stand, word by word."""
        base, done = self.oracle.base_model, [*self.prompt, *self.tokens]
        rows = base.rows([*done, *new])
        word, bound, at = 0, 0.0, 0
        for index, token in enumerate(new):
            piece, before = base.bytes_of([token]), base.bytes_of(new[:index])
            if index == 0 or piece[:1].isspace() or before.decode(errors="replace")[-1:].isspace():
                word, top = index, claim(at)
                bound = self.bound if self.kind == "veto" else top - self.bound
            at += len(piece)
            p = math.exp(float(log_softmax(rows[len(done) + index - 1])[token]))
            self._near(p, bound)
            if p < bound:
                return word
        return len(new)

    def _base(self, *, word: bool) -> None:
        """The base writes a word, or all the rest."""
        base, begun = self.oracle.base_model, len(self.tokens)
        while True:
            row = base.after([*self.prompt, *self.tokens])
            best = int(row.argmax())
            second, first = np.partition(row, -2)[-2:]
            self._near(float(first), float(second))
            begins = base.bytes_of([best])[:1].isspace() or self.data.decode(errors="replace")[-1:].isspace()
            if word and len(self.tokens) > begun and (begins or best in base.eog):
                self.parts.append(("base", len(self.tokens), "agreed"))
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
        self.parts.append(("base", len(self.tokens), self.finish))


def turns_of(reply: Reply) -> Turns:
    return [(turn.who, turn.start, turn.end, turn.reason) for turn in reply.turns]


def clipped(turns: Turns, length: int) -> Turns:
    """What is left of turns where the end of the text was cut away."""
    return [(who, a, min(b, length), why) for i, (who, a, b, why) in enumerate(turns) if i == 0 or a < length]


def ended(turns: Turns, finish: str) -> Turns:
    """The turns, the last one with what ended the reply: the draft's end may have followed the base's word."""
    who, start, end, reason = turns[-1]
    return [*turns[:-1], (who, start, end, finish if reason == "agreed" else reason)]


def prompts(count: int = 8) -> list[str]:
    questions = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][::50]
    found = [messages[0]["content"] for messages in questions if len(messages) == 1][:count]
    return found + [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()][:4]


@pytest.mark.parametrize(
    ("kind", "bound", "chunk"),
    [
        ("veto", 0.5, 8),
        ("bet", 0.4, 8),
        *(
            pytest.param(*setting, marks=pytest.mark.slow)
            for setting in (
                ("veto", 0.0, 8),
                ("veto", 0.02, 512),
                ("veto", 0.9, 1),
                ("veto", 1.0, 8),
                ("bet", 0.0, 8),
                ("bet", 0.05, 1),
                ("bet", 0.8, 512),
                ("bet", 1.0, 8),
            )
        ),
    ],
)
def test_the_words_are_those_that_are_judged_whole(
    pair: wsd.Pair, oracle: Oracle, kind: str, bound: float, chunk: int, tell: Tell
) -> None:
    refused = ties = 0
    for prompt in prompts():
        messages = [{"role": "user", "content": prompt}]
        ours = pair.reply(messages, rule=kind, **{kind: bound}, check_chunk=chunk, max_tokens=64)
        theirs = WholeWords(oracle, messages, kind, bound, 64)
        refused += sum(reason == "veto" for _, _, reason in theirs.parts)
        same = (ours.text, ours.finish_reason, turns_of(ours)) == (
            theirs.text,
            theirs.finish,
            clipped(ended(theirs.turns, theirs.finish), len(ours.tokens)),
        )
        if not same and theirs.nearest < TIE:
            ties += 1
            continue
        assert ours.text == theirs.text
        assert turns_of(ours) == clipped(ended(theirs.turns, theirs.finish), len(ours.tokens))
        assert ours.finish_reason == theirs.finish
        assert [token.id for token in ours.tokens] == theirs.tokens[: len(ours.tokens)]
    tell(f"{kind} {bound}: {refused} words refused, {ties} ties")
    assert ties <= 2
    assert bool(refused) == ((kind, bound) not in (("veto", 0.0), ("bet", 1.0)))


# -- the engine ----------------------------------------------------------------------------------------------

LEADING: dict[str, Any] = {"rule": "veto", "veto": 0.1, "max_tokens": 64}


def same(a: Reply, b: Reply) -> bool:
    ids = [[(token.id, token.source) for token in reply.tokens] for reply in (a, b)]
    return (a.text, turns_of(a), ids[0], a.finish_reason) == (b.text, turns_of(b), ids[1], b.finish_reason)


def test_neither_other_replies_nor_a_stop_change_it(demo_f32: tuple[Path, Path], pair: wsd.Pair) -> None:
    alone = {prompt: pair.reply(prompt, **LEADING) for prompt in prompts()[:4]}
    assert any(len(reply.turns) > 3 for reply in alone.values())
    assert all(same(pair.reply(prompt, **LEADING, speculation="auto"), reply) for prompt, reply in alone.items())
    whole = pair.reply(FRANCE, **LEADING)
    for stop_at in (0, 2, 5, 9, 14):
        run = pair.start(FRANCE, **LEADING)
        for number, _ in enumerate(run.events()):
            if number == stop_at:
                run.cancel()
        assert whole.text.startswith(run.reply.text)
        list(run.events())
        assert same(run.reply, whole)
    reply = replace(PLAIN, **LEADING)
    with wsd.Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=replace(EXACT, parallel=3)) as many:
        fleet: Fleet[str] = Fleet(many)
        for prompt in alone:
            fleet.add(prompt, [{"role": "user", "content": prompt}])
        done = {key: event.reply for key, event in fleet.events() if isinstance(event, Finished)}
    assert all(same(done[prompt], reply) for prompt, reply in alone.items())


def test_what_is_shown_is_the_reply_and_every_part_names_its_writer(pair: wsd.Pair) -> None:
    run = pair.start(FRANCE, **LEADING)
    events = list(run.events())
    reply, texts = run.reply, [event for event in events if isinstance(event, Text)]
    assert "".join(event.text for event in texts) == reply.text == "".join(text for _, text in reply.parts())
    assert [turn.start for turn in reply.turns[1:]] == [turn.end for turn in reply.turns[:-1]]
    returned = [event for event in events if isinstance(event, Returned)]
    assert len(returned) > 1 and {event.reason for event in returned} == {"agreed"}
    assert [event.index for event in returned] == [turn.end for turn in reply.turns if turn.reason == "agreed"]
    assert len([event for event in events if isinstance(event, Switched)]) == len(returned) + 1
    assert reply.switch.reason == reply.turns[0].reason == "veto" and reply.switch.rule == "veto"
    assert reply.draft.text == "".join(text for who, text in reply.parts() if who == "draft")
    assert f"{len(returned)} returns of the draft" in summary(reply)
    for turn in reply.turns:
        if turn.reason == "veto":
            assert turn.confidence is not None and turn.confidence > reply.switch.threshold == 0.9


@pytest.mark.parametrize("number", range(4))
def test_at_zero_the_draft_writes_alone(pair: wsd.Pair, number: int) -> None:
    prompt = prompts()[number]
    free = pair.reply(prompt, rule="veto", veto=0.0, max_tokens=64)
    assert {token.source for token in free.tokens} == {"draft"}
    assert same(free, pair.reply(prompt, rule="bet", bet=1.0, max_tokens=64))
    assert free.switch.reason in ("draft_end", "length")


@pytest.mark.parametrize("changes", [{"max_tokens": 20}, {"stop": (" Paris",)}, {"regex": "([a-zA-Z,.!]+ ?){30,40}"}])
def test_limits_stop_strings_and_constraints_hold_for_all_turns(pair: wsd.Pair, changes: dict[str, Any]) -> None:
    reply = pair.reply(FRANCE, **{**LEADING, **changes})
    whole = pair.reply(FRANCE, **LEADING)
    if "max_tokens" in changes:
        assert len(reply.tokens) <= 20 and whole.text.startswith(reply.text)
    elif "stop" in changes:
        assert reply.text == whole.text.partition(" Paris")[0] and reply.stop == " Paris"
    else:
        assert reply.constraint is not None and len(reply.turns) > 2
        assert reply.constraint.complete or reply.finish_reason == "length"


def test_a_supplied_beginning_and_a_second_turn_are_read(pair: wsd.Pair) -> None:
    begun = [{"role": "user", "content": FRANCE}, {"role": "assistant", "content": "Happy to help! "}]
    reply = pair.reply(begun, **LEADING)
    assert reply.text and "Happy to help" not in reply.text
    with pair.session() as chat:
        chat.send(FRANCE, **LEADING)
        later = chat.send("How do I boil an egg?", **LEADING)
        assert same(later, pair.reply(chat.messages[:-1], **LEADING))


def test_by_hand_the_base_writes_the_rest(pair: wsd.Pair) -> None:
    run = pair.start(FRANCE, **LEADING)
    for event in run.events():
        if isinstance(event, Returned):
            run.hand_over()
    reply = run.reply
    assert reply.turns[-1].who == "base" and reply.turns[-2].reason == "user"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": "veto", "veto": -0.1}, "veto is -0.1: it is a probability"),
        ({"rule": "bet", "bet": 1.5}, "bet is 1.5: it is a probability"),
        ({"rule": "bet", "bet": math.nan}, "bet is nan: it is a probability"),
        ({"veto": 0.5}, "veto is given, and the rule is window: it is for the rule veto"),
        ({"rule": "veto", "bet": 0.4}, "bet is given, and the rule is veto: it is for the rule bet"),
        ({"rule": "veto", "threshold": 0.5}, "threshold is given, and the rule is veto"),
        ({"rule": "bet", "window": 3}, "window is given, and the rule is bet"),
        ({"rule": "veto", "on_draft_end": "stop"}, "on-draft-end is given, and the rule is veto"),
        ({"rule": "veto", "draft_max_tokens": 5}, "draft-max-tokens is given, and the rule is veto"),
        ({"rule": "veto", "ignore_eos": True}, "ignore-eos and rule veto are given"),
        ({"rule": "bet", "speculation": "lookup"}, "speculation lookup and rule bet are given"),
        ({"rule": "veto", "mode": "base"}, "rule veto and mode base are given"),
    ],
)
def test_what_the_rules_do_not_use_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace(".", r"\.")):
        changed(ReplySettings(), given)


def test_what_the_pair_cannot_do_is_refused(demo_f32: tuple[Path, Path], pair: wsd.Pair) -> None:
    for name in ("temperature", "draft_temperature"):
        with pytest.raises(UsageError, match=f"{name.replace('_', '-')} is given, .* different vocabularies"):
            pair.reply(FRANCE, rule="veto", **{name: 0.7})
    loading = replace(LoadSettings(threads=1, ctx=512), resident="one")
    with (
        wsd.Pair(draft=demo_f32[0], base=demo_f32[1], loading=loading) as one,
        pytest.raises(UsageError, match="rule bet needs both models in memory"),
    ):
        one.reply(FRANCE, rule="bet")


# -- scripted models -----------------------------------------------------------------------------------------

CALM = Words(["the", " the", " fox", " is", "]\n", "\n\n", "ox is"])
PROMPT = "\n\n[User]\nhi\n\n[Assistant]\n"

scripted_drafts = st.lists(st.sampled_from(["the", " fox", " is", "é", " ", "\n", "."]), max_size=12).map("".join)


@dataclass
class Script:
    """Models whose drafts and tokens are functions of how often they were asked and of the text before them."""

    drafts: Sequence[str]
    follows: Sequence[int | None]
    claims: Sequence[float] = (1.0,)
    turn: int = 0
    begun: bool = False
    left: list[bytes] = field(default_factory=list)

    def drive(self, machine: words.Words, steps: int = 10**6) -> Iterator[Event]:
        yield from machine.take_events()
        while steps and (request := machine.request()) is not None:
            steps -= 1
            if isinstance(request, NextDraftToken):
                self._draft(machine)
            elif isinstance(request, ScoreTokens):
                ends = [list(request.tokens[: i + 1]) for i in range(request.start, len(request.tokens))]
                machine.scored([Score(made_up_logprob(end)) for end in ends])
            else:
                self._write(machine)
            yield from machine.take_events()

    def _draft(self, machine: words.Words) -> None:
        if not self.begun:
            self.begun, self.left = True, [bytes([b]) for b in self.drafts[self.turn % len(self.drafts)].encode()]
            self.turn += 1
        if self.left:
            if machine.needs_claims:
                machine.claimed(self.claims[len(self.left) % len(self.claims)])
            machine.drafted(self.left.pop(0))
        else:
            machine.draft_ended()

    def _write(self, machine: words.Words) -> None:
        self.begun = False
        token = self.follows[machine.reply_length % len(self.follows)]
        if machine.may_return and machine.returns(0 if token is None else token, 0.5, ends=token is None):
            return
        if token is None:
            machine.base_ended()
        else:
            machine.continued(token)


def machine(kind: Any, bound: float, **limits: Any) -> words.Words:
    allowed = bounds(stops=STOPS, draft_max_tokens=10**6, **limits)
    return words.Words(CALM, PROMPT, Veto(kind, bound), allowed, plain=CALM.tokenize)


@settings(max_examples=250, deadline=None)
@given(
    drafts=st.lists(scripted_drafts, min_size=1, max_size=4),
    follows=st.lists(st.sampled_from([258, 259, 32, 97, 98, None]), min_size=1, max_size=6),
    claims=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    kind=st.sampled_from(["veto", "bet"]),
    bound=st.sampled_from([0.0, 0.4, 0.5, 0.7, 1.0]),
    chunk=st.sampled_from([1, 3, 8, 999]),
    max_tokens=st.sampled_from([1, 5, 90]),
    steps=st.integers(1, 400),
)
def test_turns_tile_the_reply_and_nothing_depends_on_chunks_or_stops(
    drafts: list[str],
    follows: list[int | None],
    claims: list[float],
    kind: str,
    bound: float,
    chunk: int,
    max_tokens: int,
    steps: int,
) -> None:
    whole = machine(kind, bound, max_tokens=max_tokens)
    events = list(Script(drafts, follows, claims).drive(whole))
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
    halves, models = machine(kind, bound, max_tokens=max_tokens, check_chunk=chunk), Script(drafts, follows, claims)
    list(models.drive(halves, steps))
    assert whole.text.startswith(halves.text)
    list(models.drive(halves))
    assert (halves.text, halves.turns, halves.finish_reason) == (whole.text, turns, whole.finish_reason)


def test_a_word_is_refused_whole_and_the_base_writes_one() -> None:
    """The draft's second word has one improbable token, its first one: nothing of the word is shown."""
    run = machine("veto", 0.5)
    run.drafted(b"the fox is. ")
    assert (request := run.request()) is not None and isinstance(request, ScoreTokens)
    assert request.start == run.prompt_length and len(request.tokens) == run.prompt_length + 2
    run.scored([Score(math.log(0.9)), Score(math.log(0.5))])
    assert run.text == "the"
    run.drafted(b"the")
    run.draft_ended()
    request = run.request()
    assert isinstance(request, ScoreTokens) and len(request.tokens) == run.prompt_length + 5
    run.scored([Score(math.log(0.9)), Score(math.log(0.499)), Score(math.log(0.9))])
    assert run.text == "the fox" and run.turns[0].reason == "veto"
    assert run.turns[0].confidence == pytest.approx(0.501)
    for token in (257, ord("y")):
        assert not (run.may_return and run.returns(token, 0.9, ends=False))
        run.continued(token)
    assert run.returns(ord(" "), 0.9, ends=False)
    assert run.text == "the fox they" and isinstance(run.request(), NextDraftToken)
    run.draft_ended()
    assert (run.phase, run.finish_reason, run.turns[-1].reason) == (Phase.DONE, "stop", "stop")


def test_the_draft_that_cannot_go_on_leaves_the_rest_to_the_base() -> None:
    run = machine("veto", 0.0)
    run.drafted(b"the fox")
    run.draft_ended("draft_limit")
    while isinstance(request := run.request(), ScoreTokens):
        run.scored([Score(-1.0)] * (len(request.tokens) - request.start))
    for token in b" is the":
        assert not run.may_return
        run.continued(token)
    run.base_ended()
    assert (run.text, run.finish_reason) == ("the fox is the", "stop")


def test_an_empty_draft_leaves_the_answer_to_the_base() -> None:
    run = machine("bet", 0.5)
    run.draft_ended()
    run.continued(ord("x"))
    assert not run.may_return
    run.base_ended()
    assert run.text == "x" and [turn.who for turn in run.turns] == ["draft", "base"]
