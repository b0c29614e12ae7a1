"""The rule `nudging`: streamed, with the embedded pair and scripted models, against rounds that are written whole."""

from __future__ import annotations

import codecs
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
from scripted import EOG, STOPS, Words, bounds
from summary import Tell

import wsd_local as wsd
from wsd_local.cli.output import summary
from wsd_local.core.decoding import Phase
from wsd_local.core.nudge import Nudge
from wsd_local.core.requests import NextBaseToken, NextDraftToken, Request, ScoreTokens
from wsd_local.core.rules import Score
from wsd_local.core.rules_nudging import Nudging
from wsd_local.core.written import reply_tokens
from wsd_local.errors import UsageError
from wsd_local.events import Event, Returned, Switched, Text
from wsd_local.paths import demo_dir
from wsd_local.reports.demo import load_questions
from wsd_local.runtime.fleet import Fleet
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.settings import LoadSettings, ReplySettings

MOST = 60
EGG = "How do I boil an egg?"

Turns = list[tuple[str, int, int, str]]


# -- rounds that are written whole, with the oracle's models ---------------------------------------------------


@dataclass
class WholeRounds:
    """A reply round by round, each written whole. `nearest` is how near a decision was to a tie."""

    oracle: Oracle
    messages: Sequence[dict[str, str]]
    bound: float
    max_tokens: int
    tokens: list[int] = field(default_factory=list)
    turns: Turns = field(default_factory=list)
    nearest: float = math.inf
    finish: str = ""
    called: str = ""
    words: tuple[str, int] = ("", 0)

    def __post_init__(self) -> None:
        self.conversation = tuple((message["role"], message["content"]) for message in self.messages)
        self.prompt = self.oracle.prompt_tokens(self.conversation)
        while not self.finish:
            if self._draft():
                self._base()
        self.text = self.data[: stop_start(self.data, BASE_STOPS)].decode(errors="replace")

    @property
    def data(self) -> bytes:
        base = self.oracle.base_model
        return base.bytes_of([*self.prompt, *self.tokens])[len(base.bytes_of(self.prompt)) :]

    def _end(self, who: str, reason: str) -> None:
        self.turns.append((who, self.turns[-1][2] if self.turns else 0, len(self.tokens), reason))

    def _over(self, who: str, reason: str, finish: str) -> bool:
        self.finish = finish
        if not self.turns or self.turns[-1][2] < len(self.tokens):
            self._end(who, reason)
        return False

    def _next(self) -> tuple[int, float]:
        """The base's most probable token, and its probability."""
        row = self.oracle.base_model.after([*self.prompt, *self.tokens])
        second, first = np.partition(row, -2)[-2:]
        best = int(row.argmax())
        p1 = math.exp(float(log_softmax(row)[best]))
        self.nearest = min(self.nearest, float(first - second), abs(p1 - self.bound))
        return best, p1

    def _drafted(self) -> tuple[str, bool]:
        """The next sixteen tokens of the draft as text, and whether it ended before."""
        model, before = self.oracle.draft_model, self.data.decode(errors="replace")
        asked = (*self.conversation, ("assistant", before)) if self.tokens else self.conversation
        tokens: list[int] = []
        counted = 0
        for token, gap in model.greedy(self.oracle.draft_prompt_tokens(asked)):
            tokens.append(token)
            self.nearest = min(self.nearest, gap)
            text = codecs.getincrementaldecoder("utf-8")(errors="replace").decode(model.bytes_of(tokens))
            text = text if self.tokens else text.lstrip()
            counted += text != ""
            if stop_start(text.encode(), BASE_STOPS) is not None or counted == 16:
                return text, False
        text = model.bytes_of(tokens).decode(errors="replace")
        return text if self.tokens else text.lstrip(), True

    def _draft(self) -> bool:
        """One round; whether the base writes now."""
        base, before = self.oracle.base_model, list(self.tokens)
        text, ended = self._drafted()
        stands = ""

        def stand(more: str) -> bool:
            nonlocal stands
            joint = base.plain(more)
            if not before:
                joint = (base.bos + base.plain(base_prompt(self.conversation) + more))[len(self.prompt) :]
            known = self.tokens[len(before) :]
            if known and joint[: len(known)] != known:
                joint = known + base.plain(more[len(stands) :])
            if joint and self.called:
                self._end("base", self.called)
                self.called = ""
            self.tokens, stands = before + joint, more
            if len(self.tokens) >= self.max_tokens:
                self.tokens = self.tokens[: self.max_tokens]
                return self._over("draft", "length", "length")
            return True if stop_start(self.data, BASE_STOPS) is None else self._over("draft", "stop", "stop")

        if (at := stop_start(text.encode(), BASE_STOPS)) is not None:
            return stand(text.encode()[:at].decode().rstrip()) and self._over("draft", "stop", "stop")
        if ended:
            who = "draft" if text.strip() else "base" if self.called else "draft"
            return stand(text.rstrip()) and self._over(who, "draft_end" if who == "draft" else "stop", "stop")
        spaces = len(text) - len(text.lstrip(" "))
        words = text.lstrip(" ").split(" ")
        outcome = "again"
        for number in range(1, len(words)):
            if words[number] == "":
                continue
            if not stand(" " * spaces + " ".join(words[:number])):
                return False
            best, p1 = self._next()
            piece = base.bytes_of([best])
            if best in base.eog:
                if p1 >= self.bound:
                    break
            elif p1 >= self.bound or (piece and (" " + words[number]).encode().startswith(piece)):
                outcome = "threshold" if p1 >= self.bound else "match"
                break
            if number + 1 < len(words) and not stand(" " * spaces + " ".join(words[: number + 1])):
                return False
        else:
            if not stand(" " * spaces + " ".join(words[:-1]) if len(words) > 1 else text):
                return False
        self.words = (stands, self.words[1] + 1 if stands == self.words[0] else 1)
        if self.words[1] == 3:
            self.tokens = before
            return self._over("draft" if not self.called else "base", "loop", "loop")
        if outcome == "again":
            return False
        self._end("draft", outcome)
        self.tokens.append(best)
        return True

    def _base(self) -> None:
        while True:
            if stop_start(self.data, BASE_STOPS) is not None:
                self._over("base", "stop", "stop")
            elif len(self.tokens) >= self.max_tokens:
                self._over("base", "length", "length")
            if self.finish:
                return
            best, p1 = self._next()
            if best in self.oracle.base_model.eog or p1 < self.bound:
                self.called = "base_end" if best in self.oracle.base_model.eog else "unsure"
                return
            self.tokens.append(best)


def turns_of(reply: Reply) -> Turns:
    return [(turn.who, turn.start, turn.end, turn.reason) for turn in reply.turns]


def clipped(turns: Turns, length: int) -> Turns:
    """What is left of turns where the end of the text was cut away."""
    return [(who, a, min(b, length), why) for i, (who, a, b, why) in enumerate(turns) if i == 0 or a < length]


def prompts() -> list[str]:
    questions = [question.messages for question in load_questions(demo_dir() / "questions.jsonl")][::40]
    found = [messages[0]["content"] for messages in questions if len(messages) == 1][:8]
    return found + [record["prompt"] for record in fixture_prompts() if record["prompt"].strip()][:8]


@pytest.mark.parametrize(
    "bound", [0.3, 0.97, *(pytest.param(bound, marks=pytest.mark.slow) for bound in (0.0, 0.8, 0.9, 0.99, 1.0))]
)
def test_the_turns_are_those_of_rounds_that_are_written_whole(
    pair: wsd.Pair, oracle: Oracle, bound: float, tell: Tell
) -> None:
    changes = ties = 0
    for prompt in prompts():
        messages = [{"role": "user", "content": prompt}]
        ours = pair.reply(messages, rule="nudging", nudging=bound, max_tokens=MOST)
        theirs = WholeRounds(oracle, messages, bound, MOST)
        changes += len(ours.turns) - 1
        if ours.text != theirs.text and theirs.nearest < TIE:
            ties += 1
            continue
        assert ours.text == theirs.text
        assert ours.finish_reason == theirs.finish
        assert turns_of(ours) == clipped(theirs.turns, len(ours.tokens))
        assert [token.id for token in ours.tokens] == theirs.tokens[: len(ours.tokens)]
    tell(f"nudging below {bound}: {changes} changes of the writer, {ties} ties")
    assert ties <= 2
    assert changes >= 50 or bound < 0.9


NUDGED: dict[str, Any] = {"rule": "nudging", "nudging": 0.97, "max_tokens": MOST}


def same(a: Reply, b: Reply) -> bool:
    ids = [[(token.id, token.source) for token in reply.tokens] for reply in (a, b)]
    return (a.text, turns_of(a), ids[0], a.finish_reason) == (b.text, turns_of(b), ids[1], b.finish_reason)


def test_neither_proposals_nor_other_replies_nor_a_stop_change_it(demo_f32: tuple[Path, Path], pair: wsd.Pair) -> None:
    alone = {prompt: pair.reply(prompt, **NUDGED) for prompt in prompts()[4:12]}
    assert any(len(reply.turns) > 3 for reply in alone.values())
    assert all(same(pair.reply(prompt, **NUDGED, speculation="auto"), reply) for prompt, reply in alone.items())
    longest = max(alone, key=lambda prompt: len(alone[prompt].turns))
    for stop_at in range(1, 20, 3):
        run = pair.start(longest, **NUDGED)
        events: list[Event] = []
        for number, event in enumerate(run.events()):
            events.append(event)
            if number == stop_at:
                run.cancel()
        part = run.reply
        assert alone[longest].text.startswith(part.text) and "".join(text for _, text in part.parts()) == part.text
        assert part.finish_reason == "cancelled" or same(part, alone[longest])
        events += run.events()
        assert same(run.reply, alone[longest])
        assert "".join(event.text for event in events if isinstance(event, Text)) == run.reply.text
    reply = replace(PLAIN, **NUDGED)
    with wsd.Pair(draft=demo_f32[0], base=demo_f32[1], reply=reply, loading=replace(EXACT, parallel=3)) as many:
        fleet: Fleet[str] = Fleet(many)
        for prompt in alone:
            fleet.add(prompt, [{"role": "user", "content": prompt}])
        done = {key: event.reply for key, event in fleet.events() if isinstance(event, Finished)}
    assert all(same(done[prompt], reply) for prompt, reply in alone.items())


def test_a_session_goes_on_under_the_rule(pair: wsd.Pair) -> None:
    with pair.session() as session:
        session.send("What is the capital of France?", **NUDGED)
        second = session.send("And of Italy?", **NUDGED)
        messages = list(session.messages[:-1])
    assert same(second, pair.reply(messages, **NUDGED)) and len(messages) == 3


def test_every_part_names_its_writer(pair: wsd.Pair) -> None:
    replies = []
    for prompt in prompts():
        run = pair.start(prompt, **NUDGED)
        events = list(run.events())
        reply = run.reply
        texts = [event for event in events if isinstance(event, Text)]
        assert "".join(event.text for event in texts) == reply.text == "".join(text for _, text in reply.parts())
        for who in ("draft", "base"):
            said = "".join(event.text for event in texts if event.source == who)
            assert said == "".join(text for writer, text in reply.parts() if writer == who)
        returned = [event for event in events if isinstance(event, Returned)]
        called = [
            (turn.end, turn.confidence, turn.reason) for turn in reply.turns if turn.reason in ("unsure", "base_end")
        ]
        assert [(event.index, event.confidence, event.reason) for event in returned][: len(called)] == called
        switched = [event.reason for event in events if isinstance(event, Switched)]
        assert switched[: 1 + len(called)] == [turn.reason for turn in reply.turns if turn.who == "draft"]
        assert (reply.switch.reason, reply.switch.rule) == (reply.turns[0].reason, "nudging")
        replies.append(reply)
    longest = max(replies, key=lambda reply: len(reply.turns))
    assert "return" in summary(longest) and "rule nudging" in summary(longest) and "window" not in summary(longest)
    assert {turn["reason"] for reply in replies for turn in reply.as_dict()["turns"]} > {"threshold", "unsure"}


@pytest.mark.parametrize("changes", [{"max_tokens": 20}, {"stop": ("e",)}, {"regex": "([a-zA-Z,.!']+ ?){30,40}"}])
def test_limits_stop_strings_and_constraints_hold(pair: wsd.Pair, changes: dict[str, Any]) -> None:
    prompt = prompts()[10]
    reply, whole = pair.reply(prompt, **{**NUDGED, **changes}), pair.reply(prompt, **NUDGED)
    if "max_tokens" in changes:
        assert len(reply.tokens) == 20 and whole.text.startswith(reply.text) and reply.finish_reason == "length"
    elif "stop" in changes:
        assert reply.text == whole.text.partition("e")[0] and (reply.stop, reply.finish_reason) == ("e", "stop")
    else:
        assert reply.constraint is not None and len(reply.turns) > 2
        assert reply.constraint.complete or reply.finish_reason == "length"


def test_a_drawn_reply_repeats_itself(pair: wsd.Pair) -> None:
    hot = {"temperature": 0.8, "draft_temperature": 0.8, "seed": 5, **NUDGED}
    assert same(pair.reply(EGG, **hot), pair.reply(EGG, **hot))


def test_a_supplied_beginning_is_read_in_every_round(pair: wsd.Pair) -> None:
    begun = [{"role": "user", "content": EGG}, {"role": "assistant", "content": "Happy to help! "}]
    reply = pair.reply(begun, **NUDGED)
    assert reply.text and "Happy to help" not in reply.text


def test_one_model_in_memory_is_refused(demo_f32: tuple[Path, Path]) -> None:
    loading = replace(LoadSettings(threads=1, ctx=512), resident="one")
    with (
        wsd.Pair(draft=demo_f32[0], base=demo_f32[1], loading=loading) as pair,
        pytest.raises(UsageError, match="rule nudging needs both models in memory"),
    ):
        pair.reply(EGG, rule="nudging")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        *(({"nudging": bound}, r"nudging is .*: it is a probability") for bound in (-0.1, 1.1, math.nan)),
        ({"threshold": 0.7}, "threshold is given, and the rule is nudging: it is for the rule window or return"),
        ({"window": 3}, "window is given, and the rule is nudging"),
        ({"check_chunk": 3}, "check-chunk is given, and the rule is nudging"),
        ({"draft_max_tokens": 3}, "draft-max-tokens is given, and the rule is nudging"),
        ({"on_draft_end": "stop"}, "on-draft-end is given, and the rule is nudging"),
        ({"ignore_eos": True}, "ignore-eos and rule nudging are given: the draft's end ends the reply"),
        ({"mode": "fixed:5"}, "rule nudging and mode fixed:5 are given: rules hold in the mode wsd alone"),
    ],
)
def test_what_does_not_go_with_the_rule_is_an_error(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ReplySettings(rule="nudging", **values)
    with pytest.raises(UsageError, match="nudging is given, and the rule is window: it is for the rule nudging"):
        ReplySettings(nudging=0.4)


# -- scripted models -----------------------------------------------------------------------------------------

TOY = Words([" the", " fox", "the", "fox"])
PROMPT = "\n\n[User]\nhi\n\n[Assistant]\n"
Says = Callable[[str], tuple[int, float]]
LONG = "a b c d e f g h"
"""A round of fifteen characters, one token each; with a space after it, a whole one."""


@dataclass
class Script:
    """Models that see the reply: the draft says what follows it, the base its best token and how probable that is."""

    draft: Callable[[str], str]
    base: Says
    asked: list[Request] = field(default_factory=list)
    left: list[bytes] = field(default_factory=list)

    def machine(self, bound: float = 0.5, **changes: Any) -> Nudge:
        limits = bounds(stops=STOPS, **changes)
        return Nudge(TOY, PROMPT, Nudging(bound), limits, plain=TOY.tokenize, is_end=lambda token: token == EOG)

    def drive(self, nudge: Nudge, steps: int = 10**6) -> Iterator[Event]:
        yield from nudge.take_events()
        while steps and (request := nudge.request()) is not None:
            steps -= 1
            self.asked.append(request)
            if isinstance(request, NextDraftToken):
                self._draft(nudge)
            elif isinstance(request, ScoreTokens):
                seen = [self._seen(request.tokens[:place]) for place in range(request.start, len(request.tokens))]
                nudge.scored([Score(-0.5, top=((token, math.log(p1 or 1e-9)),)) for token, p1 in map(self.base, seen)])
            else:
                assert isinstance(request, NextBaseToken)
                token, p1 = self.base(self._seen(request.tokens))
                if not (nudge.may_return and nudge.returns(token, p1, ends=token == EOG)):
                    if token == EOG:
                        nudge.base_ended()
                    else:
                        nudge.continued(token)
            yield from nudge.take_events()

    @staticmethod
    def _seen(tokens: Sequence[int]) -> str:
        return b"".join(map(TOY.piece, tokens)).decode(errors="replace")[len(PROMPT) :]

    def _draft(self, nudge: Nudge) -> None:
        if nudge.take_rereading() or not self.asked[:-1]:
            self.left = [bytes([byte]) for byte in self.draft(nudge.written.decode(errors="replace")).encode()]
        if self.left:
            nudge.drafted(self.left.pop(0))
        else:
            nudge.draft_ended()


def recites(text: str) -> Callable[[str], str]:
    """A draft that always writes on with this text, whatever the base wrote."""
    return lambda seen: text[len(seen) :]


def answer(script: Script, nudge: Nudge) -> tuple[str, Turns, str | None]:
    events = list(script.drive(nudge))
    assert "".join(event.text for event in events if isinstance(event, Text)) == nudge.text
    assert "".join(token.text for token in reply_tokens(nudge)) == nudge.text
    turns: Turns = [(turn.who, turn.start, turn.end, turn.reason) for turn in nudge.turns]
    return nudge.text, turns, nudge.finish_reason


def never(_: str) -> tuple[int, float]:
    return ord("x"), 0.1


def test_a_draft_of_fifteen_tokens_stands_and_the_base_is_not_asked() -> None:
    script = Script(recites(LONG), lambda _: (ord("x"), 0.9))
    assert answer(script, script.machine()) == (LONG, [("draft", 0, 15, "draft_end")], "stop")
    assert all(isinstance(request, NextDraftToken) for request in script.asked)


def test_with_sixteen_the_base_is_asked_before_the_second_word() -> None:
    script = Script(recites(LONG + "i"), lambda seen: (ord("x"), 0.9) if len(seen) < 4 else (ord("x"), 0.1))
    text, turns, finish = answer(script, script.machine())
    assert (text, finish) == ("axxx" + (LONG + "i")[4:], "stop")
    assert turns == [("draft", 0, 1, "threshold"), ("base", 1, 4, "unsure"), ("draft", 4, 16, "draft_end")]


def test_the_base_takes_over_where_its_token_begins_the_word_and_calls_back_at_once() -> None:
    script = Script(recites("a the b c d e f g h i"), lambda seen: (TOY.tokenize(" the")[0], 0.1))
    text, turns, _ = answer(script, script.machine())
    assert text == "a the b c d e f g h i"
    assert turns[:2] == [("draft", 0, 1, "match"), ("base", 1, 2, "unsure")]


def test_a_base_that_would_end_lets_the_draft_go_on() -> None:
    text = "a b c d e f g h i j k l m n o p q r"
    script = Script(recites(text), lambda _: (EOG, 0.9))
    assert answer(script, script.machine()) == (text, [("draft", 0, len(text), "draft_end")], "stop")
    unsure = Script(recites(text), lambda _: (EOG, 0.1))
    assert answer(unsure, unsure.machine())[0] == text
    assert sum(isinstance(request, NextDraftToken) for request in unsure.asked) < sum(
        isinstance(request, NextDraftToken) for request in script.asked
    )


def test_where_the_draft_ends_at_once_the_base_has_the_last_word() -> None:
    script = Script(
        lambda seen: LONG + "!" if not seen else "", lambda seen: (ord("x"), 0.9) if len(seen) < 5 else (EOG, 1)
    )
    assert answer(script, script.machine()) == ("axxxx", [("draft", 0, 1, "threshold"), ("base", 1, 5, "stop")], "stop")


def test_the_same_words_for_the_third_time_end_the_reply_and_are_not_shown() -> None:
    script = Script(
        lambda seen: " x bcdefghijklmnop" if seen else "ab cdefghijklmnopq",
        lambda seen: (ord("."), 0.9 if seen[-1:] in "bx" else 0.1),
    )
    text, turns, finish = answer(script, nudge := script.machine())
    assert (text, finish, turns[-1]) == ("ab. x. x.", "loop", ("base", 8, 9, "loop"))
    assert nudge.discarded.count(" x") == 1


@pytest.mark.parametrize(
    ("draft", "borders"),
    [
        ("a  b   c       d", ["a ", "a  b  ", "a  b   c      "]),
        ("abcdefghijklmnopqrst", []),
        (
            "a\n\nb c d e f g h",
            ["a\n\nb", "a\n\nb c", "a\n\nb c d", "a\n\nb c d e", "a\n\nb c d e f", "a\n\nb c d e f g"],
        ),
    ],
)
def test_the_base_is_asked_where_a_single_space_begins_a_word(draft: str, borders: list[str]) -> None:
    def until(border: str) -> Says:
        return lambda seen: (EOG, 1) if "!" in seen else (ord("!"), 0.9 * (seen == border))

    for border in borders:
        script = Script(lambda seen: "" if seen else draft, until(border))
        text, turns, _ = answer(script, script.machine())
        assert (text, turns[0][3]) == (border + "!", "threshold")
    script = Script(lambda seen: "" if seen else draft, never)
    assert answer(script, script.machine())[0] == (borders[-1] if borders else draft[:16])
    assert sum(isinstance(request, ScoreTokens) for request in script.asked) == len(borders)


@pytest.mark.parametrize(
    ("draft", "text", "stop"),
    [
        ("a b [User] c d e f g", "a b", "[User]"),
        ("a\n\n[User]\nmore and more", "a", "\n\n[User]"),
        ("abcdefghijkl\n\n[User] xyz", "abcdefghijkl", "\n\n[User]"),
    ],
)
def test_a_stop_string_of_the_draft_ends_the_reply_before_it(draft: str, text: str, stop: str) -> None:
    script = Script(recites(draft), never)
    nudge = script.machine()
    assert answer(script, nudge)[0] == text and (nudge.finish_reason, nudge.stop) == ("stop", stop)


def test_a_stop_string_of_both_writers_ends_the_reply_before_it() -> None:
    script = Script(
        lambda seen: "ab [Us c d e f g h" if not seen else "r] is more text than a round",
        lambda seen: (ord("e"), 0.9) if seen == "ab [Us" else never(seen),
    )
    nudge = script.machine()
    assert answer(script, nudge)[0] == "ab " and (nudge.finish_reason, nudge.stop) == ("stop", "[User]")


@pytest.mark.parametrize("most", [1, 2, 3, 7, 16, 17, 30])
def test_the_limit_is_exact(most: int) -> None:
    script = Script(
        recites("a b c d e f g h i j k l m n o p q r s t u v w"), lambda seen: (ord("x"), len(seen) % 5 / 5)
    )
    nudge = script.machine(max_tokens=most)
    text, turns, finish = answer(script, nudge)
    assert (nudge.reply_length, len(text), finish, turns[-1][3]) == (most, most, "length", "length")


def test_half_a_character_at_the_end_of_a_round_waits_for_the_next() -> None:
    text = "é" * 7 + "a" + "é" * 9
    script = Script(lambda seen: text[len(seen) :], never)
    assert answer(script, script.machine())[0] == text


def test_an_empty_draft_ends_an_empty_reply() -> None:
    for draft in ("", " \n"):
        script = Script(recites(draft), never)
        assert answer(script, script.machine()) == ("", [("draft", 0, 0, "draft_end")], "stop")


def test_handed_over_by_hand_the_base_writes_to_its_end() -> None:
    text = "a b c d e f g h i j k l m n o p q r s t u v w"
    base: Says = lambda seen: (EOG, 0.9) if len(seen) > 20 else (ord("x"), 0.6 if len(seen) % 4 else 0.1)  # noqa: E731
    whole = len(answer(script := Script(recites(text), base), script.machine())[1])
    for steps in range(60):
        script = Script(recites(text), base)
        nudge = script.machine()
        before = [event for event in script.drive(nudge, steps) if isinstance(event, Text)]
        handed, drafted = nudge.phase is not Phase.DONE, nudge.counts.drafted_tokens
        nudge.hand_over()
        shown, turns, finish = "".join(event.text for event in before), [], None
        rest = [event for event in script.drive(nudge) if isinstance(event, Text)]
        shown += "".join(event.text for event in rest)
        turns, finish = nudge.turns, nudge.finish_reason
        assert shown == nudge.text and finish == "stop" and len(turns) <= whole
        if handed:
            assert nudge.counts.drafted_tokens == drafted and {event.source for event in rest} <= {"base"}
            assert turns[-1].who == "base" and turns[-1].reason == "stop"


def test_steered_above_one_the_draft_writes_to_its_end() -> None:
    text = "a b c d e f g h i j k l m n o p q r s t u v w"
    script = Script(recites(text), lambda _: (ord(" "), 0.9))
    nudge = script.machine()
    nudge.steer(1.1)
    assert answer(script, nudge) == (text, [("draft", 0, len(text), "draft_end")], "stop")


def test_a_draft_that_cannot_go_on_leaves_the_rest_to_the_base() -> None:
    script = Script(recites(LONG + LONG), lambda seen: (ord("x"), 0.1) if len(seen) < 12 else (EOG, 0.9))
    nudge = script.machine()
    before = list(script.drive(nudge, 5))
    nudge.draft_ended("draft_limit")
    shown = [event.text for event in [*before, *script.drive(nudge)] if isinstance(event, Text)]
    assert ("".join(shown), nudge.text, nudge.finish_reason) == ("a b c" + "x" * 7, "a b c" + "x" * 7, "stop")
    assert [turn.reason for turn in nudge.turns] == ["draft_limit", "stop"]


drafts_of_words = st.lists(st.sampled_from(["the", "fox", " ", "a", "é", "\n", " ", " ["]), max_size=40).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    drafts=st.lists(drafts_of_words, min_size=1, max_size=5),
    follows=st.lists(st.sampled_from([256, 257, 258, 32, 97, 0xC3, EOG]), min_size=1, max_size=6),
    doubts=st.lists(st.floats(0, 1), min_size=1, max_size=7),
    bound=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    max_tokens=st.sampled_from([1, 5, 90, 300]),
    steps=st.integers(1, 300),
    loops=st.booleans(),
)
def test_turns_tile_the_reply_and_nothing_is_taken_back(
    drafts: list[str],
    follows: list[int],
    doubts: list[float],
    bound: float,
    max_tokens: int,
    steps: int,
    loops: bool,
) -> None:
    def script() -> Script:
        return Script(
            lambda seen: drafts[len(seen) % len(drafts)],
            lambda seen: (follows[len(seen) % len(follows)], doubts[len(seen) % len(doubts)]),
        )

    models = script()
    whole = models.machine(bound, max_tokens=max_tokens, loops=loops)
    answer(models, whole)
    turns = whole.turns
    assert (turns[0].start, turns[-1].end) == (0, whole.reply_length) and whole.reply_length <= max_tokens
    assert all(before.end == after.start for before, after in itertools.pairwise(turns))
    assert all(before.who != after.who for before, after in itertools.pairwise(turns))
    for turn in turns:
        if turn.reason == "unsure":
            assert turn.confidence is not None and turn.confidence < bound
        if turn.reason == "threshold":
            assert turn.confidence is not None and turn.confidence >= bound
    models = script()
    halves = models.machine(bound, max_tokens=max_tokens, loops=loops)
    list(models.drive(halves, steps))
    assert whole.text.startswith(halves.text)
    list(models.drive(halves))
    assert (reply_tokens(halves), halves.turns) == (reply_tokens(whole), whole.turns)
