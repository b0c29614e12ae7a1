"""The conversation that is open, on a store in memory: questions and replies are there together or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replies import reply
from wsd_chat.conversation import Begun, Conversation
from wsd_chat.entries import Entry, entries

from wsd_local.errors import UsageError
from wsd_local.events import Checked, Switched, Text
from wsd_local.store import ReplyWriter, Store, StoreError
from wsd_local.store.reading import messages_of, tokens_of
from wsd_local.store.replies import Replies


@pytest.fixture
def talk() -> Iterator[Conversation]:
    """An empty conversation."""
    with Store(":memory:") as store:
        yield Conversation(store)


def asked(talk: Conversation, text: str = "one?") -> Begun:
    """A question whose reply is begun."""
    return talk.ask(text, talk.head, pair="demo", settings={})


def answered(talk: Conversation, text: str = "one?") -> Begun:
    """A question and its reply."""
    begun = asked(talk, text)
    talk.finish(begun, reply("Great ", f"answer to {text}"))
    return begun


def states(talk: Conversation) -> list[tuple[str, str, str]]:
    """The branch that is shown."""
    return [(entry.role, entry.text, entry.state) for entry in talk.entries()]


def test_a_reply_that_failed_takes_its_question_back(talk: Conversation) -> None:
    answered(talk)
    before, head = states(talk), talk.head
    outcome = talk.fail(asked(talk, "two?"), "no memory")
    assert outcome.text == "two?" and states(talk) == before and talk.head == head
    assert talk.chat is not None and talk.store.chats.get(talk.chat).head == head


def test_answering_anew_in_vain_deletes_nothing(talk: Conversation) -> None:
    answered(talk)
    before = states(talk)
    begun = talk.regenerate(pair="demo", settings={})
    assert begun is not None
    assert talk.fail(begun, "no memory").text is None
    assert states(talk) == before and talk.chat is not None
    assert len(talk.store.messages.of(talk.chat)) == 2


def test_a_question_that_cannot_be_begun_is_not_kept(talk: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(talk)
    before = states(talk)

    def full(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Replies, "begin", full)
    with pytest.raises(StoreError):
        asked(talk, "two?")
    assert states(talk) == before and talk.chat is not None and len(talk.store.messages.of(talk.chat)) == 2


@pytest.mark.parametrize("how", ["fail", "close", "stop"])
@pytest.mark.parametrize("first", ["cancelled", "failed"])
def test_going_on_in_vain_leaves_the_reply_as_it_was(talk: Conversation, first: str, how: str) -> None:
    begun = asked(talk)
    begun.writer.text(Text("Half a", "draft"))
    if first == "cancelled":
        talk.finish(begun, None)
    else:
        talk.fail(begun, "the first error")
    row = talk.store.messages.get(begun.writer.id)
    again = talk.continue_(pair="another", settings={"threshold": 0.5})
    assert again is not None and talk.store.messages.get(begun.writer.id).state == "writing"
    if how == "fail":
        talk.fail(again, "no pair is loaded")
    elif how == "close":
        again.writer.close()
    else:
        talk.finish(again, None)
    assert talk.store.messages.get(begun.writer.id) == row and row.state == first


def test_a_reply_stopped_before_its_first_word_is_no_message(talk: Conversation) -> None:
    talk.finish(asked(talk, "one?"), None)
    assert states(talk)[-1] == ("assistant", "", "cancelled")
    begun = asked(talk, "two?")
    assert [message["content"] for message in messages_of(begun.branch, None)] == ["one?", "two?"]


def test_a_reply_that_could_not_be_written_is_written_later(
    talk: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asked(talk)
    finish = ReplyWriter.finish

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(ReplyWriter, "finish", full)
    with pytest.raises(StoreError):
        talk.finish(begun, reply("Great ", "answer"))
    monkeypatch.setattr(ReplyWriter, "finish", finish)
    answered(talk, "two?")
    assert [entry.text for entry in talk.entries()] == ["one?", "Great answer", "two?", "Great answer to two?"]


def test_a_reply_whose_chat_was_deleted_is_given_up(talk: Conversation) -> None:
    begun = asked(talk)
    assert talk.chat is not None
    talk.store.chats.erase(talk.chat)
    with pytest.raises(StoreError, match="deleted"):
        talk.finish(begun, reply("Great ", "answer"))
    talk.open(None, None)
    answered(talk, "two?")
    assert len(talk.entries()) == 2


MOVES = st.lists(st.tuples(st.sampled_from(["ask", "again", "edit"]), st.integers(0, 9)), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(moves=MOVES)
def test_every_branch_can_be_reached_both_ways(moves: list[tuple[str, int]]) -> None:
    with Store(":memory:") as store:
        talk = Conversation(store)
        answered(talk)
        for number, (move, at) in enumerate(moves):
            shown = talk.entries()
            if move == "ask":
                answered(talk, f"question {number}")
            elif move == "again" and (begun := talk.regenerate(pair="demo", settings={})) is not None:
                talk.finish(begun, reply("Another ", f"{number}"))
            else:
                edited = [entry for entry in shown if entry.role == "user"]
                parent = edited[at % len(edited)].parent
                talk.finish(talk.ask(f"edited {number}", parent, pair="demo", settings={}), reply("An ", "answer"))
        assert talk.chat is not None
        leaves = store.messages.leaves(talk.chat)
        if len(leaves) == 1:
            with pytest.raises(UsageError, match="one branch"):
                talk.step(1)
            return
        other = Conversation(store)
        other.open(talk.chat, None)  # as after a restart
        for by in (1, -1):
            seen = []
            for _ in leaves:
                shown, at, count = other.step(by)
                seen.append(shown[-1].id)
                assert count == len(leaves) and leaves[at - 1] == shown[-1].id == store.chats.get(talk.chat).head
            assert sorted(seen) == sorted(leaves)


def test_a_chosen_message_changes_its_own_fork(talk: Conversation) -> None:
    answered(talk, "one?")
    first = talk.entries()
    talk.finish(talk.ask("other?", None, pair="demo", settings={}), reply("Another ", "answer"))
    answered(talk, "more?")
    regenerated = talk.regenerate(pair="demo", settings={})
    assert regenerated is not None
    talk.finish(regenerated, reply("Again ", "more"))
    fork = talk.entries()[0]
    assert fork.place == (2, 2)
    shown, _, _ = talk.step(-1, fork)
    assert [entry.text for entry in shown] == [entry.text for entry in first]


def test_the_tokens_of_a_reply_that_was_cut_are_its_texts() -> None:
    with Store(":memory:") as store:
        talk = Conversation(store)
        begun = asked(talk)
        begun.writer.text(Text("Great ", "draft"))
        begun.writer.text(Text("answer", "draft"))
        begun.writer.checked(Checked(0, (0.5, 0.9), (None, 0.8)))
        begun.writer.switched(Switched("threshold", 1, 2, 0.8))
        begun.writer.text(Text(" of mine", "base"))
        entry = talk.finish(begun, None)[-1]
        found = tokens_of(entry.text, entry.report, store.messages.tokens(entry.id))
        assert [(token.text, token.source) for token in found] == [
            ("Great ", "draft"),
            ("answer", "draft"),
            (" of mine", "base"),
        ]
        assert [(token.prob, token.window) for token in found[:2]] == [(0.5, None), (0.9, 0.8)]
        assert entry.label == "0.80" and entry.drafted == len("Great answer")


def test_entries_carry_their_place(talk: Conversation, tmp_path: Path) -> None:
    answered(talk)
    begun = talk.regenerate(pair="demo", settings={})
    assert begun is not None
    talk.finish(begun, reply("Again ", "one"))
    shown: list[Entry] = entries(talk.store, talk.head)
    assert [entry.place for entry in shown] == [(1, 1), (2, 2)]


def test_a_reply_cut_at_its_length_limit_is_continued_and_a_complete_one_is_not(talk: Conversation) -> None:
    begun = asked(talk)
    talk.finish(begun, replace(reply("Great ", "answer"), finish_reason="length"))
    again = talk.continue_(pair="demo", settings={})
    assert again is not None and again.continues and again.branch[-1].text == "Great answer"
    again.writer.text(Text(" and more", "base"))
    talk.finish(again, None)
    assert states(talk)[-1] == ("assistant", "Great answer and more", "cancelled")
    answered(talk, "two?")
    assert talk.continue_(pair="demo", settings={}) is None
