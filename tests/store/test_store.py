"""The chat store: branches, streaming, search, other programs, kills, files that must not be touched."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from replies import asked, reply

from wsd_local.errors import UsageError
from wsd_local.events import Checked, Switched, Text
from wsd_local.prompts.messages import Message
from wsd_local.store import Preset, Store, StoreError, finding, schema
from wsd_local.store import file as store_file
from wsd_local.store.chats import BIN_DAYS

if TYPE_CHECKING:
    from sqlite_utils import Database

KILLS = 200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chats.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as opened:
        yield opened


class HandTimer:
    """A timer that a test lets run out."""

    started: list[HandTimer]

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self.seconds, self.call, self.daemon, self.live = seconds, call, False, False

    def start(self) -> None:
        self.live = True

    def cancel(self) -> None:
        self.live = False


class HandTimers:
    """Makes timers and remembers them."""

    def __init__(self) -> None:
        self.made: list[HandTimer] = []

    def __call__(self, seconds: float, call: Callable[[], None]) -> HandTimer:
        self.made.append(HandTimer(seconds, call))
        return self.made[-1]

    def run_out(self) -> None:
        for timer in [timer for timer in self.made if timer.live]:
            timer.live = False
            timer.call()


# -- chats --------------------------------------------------------------------------------------------------


def test_a_chat_is_titled_by_its_first_question(store: Store) -> None:
    chat, _ = asked(store, "\n  How do I\tboil an egg?\nAnd a potato?")
    assert store.chats.get(chat).title == "How do I boil an egg?"
    store.messages.add(chat, store.chats.get(chat).head, "user", "Another")
    assert store.chats.get(chat).title == "How do I boil an egg?"
    long, _ = asked(store, "word " * 40)
    assert len(store.chats.get(long).title) <= 60
    assert store.chats.get(long).title.endswith("word…")
    named = store.chats.create(title="Mine", pair="laptop", system="Be brief.", preset="short")
    store.messages.add(named, None, "user", "Hello")
    row = store.chats.get(named)
    assert (row.title, row.pair, row.system, row.preset, row.messages) == ("Mine", "laptop", "Be brief.", "short", 1)


def test_chats_come_with_the_newest_activity_first(store: Store) -> None:
    first, question = asked(store)
    second, _ = asked(store)
    assert [chat.id for chat in store.chats.find()] == [second, first]
    store.messages.add(first, question, "assistant", "In water.")
    assert [chat.id for chat in store.chats.find()] == [first, second]
    assert [chat.id for chat in store.chats.find(limit=1)] == [first]
    row = store.chats.get(first)
    assert row.created < row.updated
    assert row.created.tzinfo is not None


def test_a_deleted_chat_comes_back_for_thirty_days(path: Path) -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    with Store(path, clock=lambda: now) as store:
        kept, old, new = (asked(store, f"question {n}")[0] for n in range(3))
        store.chats.delete(old)
        store.chats.delete(kept)
        store.chats.restore(kept)
        now += timedelta(days=10)
        store.chats.delete(new)
        assert [chat.id for chat in store.chats.find()] == [kept]
        assert {chat.id for chat in store.chats.find(deleted=True)} == {old, new}
        assert [hit.chat for hit in store.search("question")] == [kept]
        now += timedelta(days=BIN_DAYS - 10, seconds=1)
        assert store.chats.empty_bin() == 1
        assert {chat.id for chat in store.chats.find(deleted=True)} == {new}
        now += timedelta(days=9)
        assert store.chats.empty_bin() == 0
    now += timedelta(days=1)
    with Store(path, clock=lambda: now) as store:  # whoever opens the store empties the bin
        assert store.chats.find(deleted=True) == []
        assert [chat.id for chat in store.chats.find()] == [kept]
        with pytest.raises(UsageError, match=f"no chat {old}"):
            store.chats.restore(old)


def test_an_erased_chat_leaves_nothing_in_the_file(path: Path) -> None:
    with Store(path) as store:
        kept, _ = asked(store, "This stays, with a pomegranate.")
        gone, question = asked(store, "The word is xylophonist, and nobody else says it. " * 200)
        writer = store.replies.begin(gone, question, pair="demo", settings={})
        writer.text(Text("zwitscher " * 2000, "draft"))
        writer.flush()
        writer.finish(reply("zwitscher " * 2000, "zwitscher"))
        store.chats.erase(gone)
        assert [chat.id for chat in store.chats.find()] == [kept]
    content = path.read_bytes()
    assert b"pomegranate" in content
    for word in (b"xylophonist", b"zwitscher"):
        assert word not in content


CANARY = "xylophonist"


def holding(folder: Path) -> list[str]:
    """Names of the files in a folder that hold the canary."""
    return [file.name for file in sorted(folder.iterdir()) if CANARY.encode() in file.read_bytes()]


@pytest.mark.parametrize("how", ["erase", "bin", "withdraw"])
def test_what_is_deleted_leaves_the_log_too_while_others_have_the_file_open(path: Path, how: str) -> None:
    now = datetime.now(UTC)
    with Store(path) as open_elsewhere, Store(path, clock=lambda: now) as store:
        chat, question = asked(store, f"The word is {CANARY}. " * 50)
        assert open_elsewhere.chats.get(chat).messages == 1
        assert holding(path.parent)
        if how == "erase":
            store.chats.erase(chat)
        elif how == "withdraw":
            store.messages.withdraw(question)
            store.chats.rename(chat, "another title")
        else:
            store.chats.delete(chat)
            now += timedelta(days=BIN_DAYS, seconds=1)
            assert store.chats.empty_bin() == 1
        found = holding(path.parent)
        assert found == [] or how == "withdraw"
        if how == "withdraw":  # the first question's line was the title as well
            store.chats.erase(chat)
        assert holding(path.parent) == []
        assert open_elsewhere.chats.find() == []


def test_what_is_deleted_while_somebody_reads_leaves_the_log_with_the_next_change(path: Path) -> None:
    with Store(path) as store:
        chat, _ = asked(store, f"The word is {CANARY}.")
        reader = sqlite3.connect(path, isolation_level=None)
        try:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM messages").fetchone() == (1,)
            store.chats.erase(chat)
        finally:
            reader.close()
        store.chats.create()
        assert holding(path.parent) == []


@pytest.mark.skipif(os.name == "nt", reason="expected: Windows has no such permissions")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_chats_are_their_owners_alone(tmp_path: Path, umask: int) -> None:
    data = tmp_path / "data"
    code = (
        "import os, sys; os.umask(int(sys.argv[1])); from wsd_local.store import Store, default_path\n"
        "store = Store(); store.chats.create(); print([oct(f.stat().st_mode & 0o777) for f in "
        "sorted(default_path().parent.iterdir())], oct(default_path().parent.stat().st_mode & 0o777))"
    )
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(umask)],
            env={**os.environ, "WSD_LOCAL_DATA": str(data)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == "['0o600', '0o600', '0o600'] 0o700"
        (data / "chats.db").chmod(0o644)  # as an older program left it


def test_a_long_chat_can_be_deleted(store: Store) -> None:
    chat, parent = asked(store)
    with sqlite3.connect(store._file.path or "") as db:
        for number in range(parent + 1, parent + 3000):
            db.execute(
                "INSERT INTO messages (id, chat, parent, role, text, state, created) "
                "VALUES (?, ?, ?, 'user', 'x', 'finished', '2030-01-01')",
                (number, chat, number - 1),
            )
    db.close()
    assert len(store.messages.branch(parent + 2999)) == 3000
    assert store.messages.leaf(parent) == parent + 2999
    store.chats.erase(chat)
    assert store.search("x") == []


def test_what_is_not_there_is_said(store: Store) -> None:
    chat, question = asked(store)
    other, foreign = asked(store)
    for call in (
        store.chats.get,
        store.messages.get,
        store.messages.branch,
        store.messages.siblings,
        store.messages.leaf,
        store.chats.delete,
        store.chats.erase,
    ):
        with pytest.raises(UsageError, match="99"):
            call(99)
    with pytest.raises(UsageError, match=f"no message {foreign} in chat {chat}"):
        store.messages.add(chat, foreign, "user", "?")
    with pytest.raises(UsageError, match="no message"):
        store.messages.set_head(chat, foreign)
    with pytest.raises(UsageError, match="role"):
        store.messages.add(chat, question, "tool", "?")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="too large"):
        store.chats.get(10**30)
    with pytest.raises(UsageError, match="no reply"):
        store.replies.resume(question, pair="demo", settings={})
    assert store.chats.get(other).messages == 1


def test_presets(store: Store) -> None:
    store.presets.save(Preset("short", "laptop", "Be brief.", {"temperature": 0.5, "stop": ["\n"]}))
    store.presets.save(Preset("plain"))
    store.presets.save(Preset("short", "demo", None, {"temperature": 0.0}))
    assert store.presets.all() == [Preset("plain"), Preset("short", "demo", None, {"temperature": 0.0})]
    with pytest.raises(UsageError, match="name"):
        store.presets.save(Preset(" "))


# -- branches -----------------------------------------------------------------------------------------------


class Branches(RuleBasedStateMachine):
    """A tree in the store against a tree in a dictionary."""

    @initialize()
    def begin(self) -> None:
        self.store = Store(":memory:")
        self.chats = [self.store.chats.create(), self.store.chats.create()]
        self.parents: dict[int, int | None] = {}
        self.chat_of: dict[int, int] = {}
        self.heads: dict[int, int | None] = dict.fromkeys(self.chats)

    @rule(data=st.data())
    def say(self, data: st.DataObject) -> None:
        chat = data.draw(st.sampled_from(self.chats))
        parent = data.draw(st.sampled_from([None, *(m for m, c in self.chat_of.items() if c == chat)]))
        added = self.store.messages.add(chat, parent, data.draw(st.sampled_from(["user", "assistant"])), "text")
        self.parents[added], self.chat_of[added], self.heads[chat] = parent, chat, added

    @precondition(lambda self: bool(self.parents))
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(sorted(self.parents)))
        leaf = self.store.messages.leaf(message)
        self.store.messages.set_head(self.chat_of[message], leaf)
        self.heads[self.chat_of[message]] = leaf
        assert message in [row.id for row in self.store.messages.branch(leaf)]

    @invariant()
    def agree(self) -> None:
        for message in self.parents:
            path, at = [], message
            while at is not None:
                path.append(at)
                at = self.parents[at]  # type: ignore[assignment]
            branch = self.store.messages.branch(message)
            assert [row.id for row in branch] == path[::-1]
            assert [row.parent for row in branch] == [None, *path[:0:-1]]
            key = (self.chat_of[message], self.parents[message])
            siblings = [m for m, parent in self.parents.items() if (self.chat_of[m], parent) == key]
            assert self.store.messages.siblings(message) == siblings
            leaf = self.store.messages.leaf(message)
            assert leaf not in self.parents.values()
            assert message in [row.id for row in self.store.messages.branch(leaf)]
        for chat, head in self.heads.items():
            row = self.store.chats.get(chat)
            assert (row.head, row.messages) == (head, list(self.chat_of.values()).count(chat))

    def teardown(self) -> None:
        self.store.close()


Branches.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
TestBranches = Branches.TestCase


# -- replies ------------------------------------------------------------------------------------------------


def test_a_reply_is_kept_with_all_that_is_known_of_it(store: Store) -> None:
    chat, question = asked(store)
    writer = store.replies.begin(chat, question, pair="demo", settings={"threshold": 0.8, "stop": ()})
    assert store.chats.get(chat).head == writer.id
    assert store.messages.get(writer.id).state == "writing"
    said = reply("Great\nquestion!\n", "Take\nwater.")
    writer.text(Text("Great\nquestion!\n", "draft"))
    writer.finish(said)
    message = store.messages.get(writer.id)
    assert (message.text, message.state, message.parent) == (said.text, "finished", question)
    assert message.parts == [("draft", "Great\nquestion!\n"), ("base", "Take\nwater.")]
    assert message.reply is not None
    assert (message.reply.pair, message.reply.finish_reason) == ("demo", "stop")
    assert message.reply.settings == {"threshold": 0.8, "stop": []}
    report = said.as_dict()
    for name in ("switch", "counts", "provenance", "timings"):
        assert message.reply.report[name] == report[name]
    assert message.reply.report["discarded"] == " not kept"
    assert message.reply.report["draft"]["drafted_tokens"] == 9
    assert message.reply.ended is not None and message.reply.ended >= message.created
    assert store.messages.tokens(writer.id) == said.tokens
    assert store.messages.tokens(question) == ()
    writer.text(Text("late", "base"))
    writer.close()
    assert store.messages.get(writer.id) == message


def test_what_is_said_is_on_the_disk_when_the_timer_has_run_out(path: Path) -> None:
    timers = HandTimers()
    with Store(path, timer=timers, flush_s=0.5) as store, Store(path) as other:
        chat, question = asked(store)
        writer = store.replies.begin(chat, question, pair="demo", settings={})
        assert timers.made == []
        writer.text(Text("Great ", "draft"))
        writer.text(Text("question! ", "draft"))
        assert [timer.seconds for timer in timers.made] == [0.5]
        assert timers.made[0].daemon
        assert other.messages.get(writer.id).text == ""
        timers.run_out()
        shown = other.messages.get(writer.id)
        assert (shown.text, shown.state) == ("Great question! ", "writing")
        timers.run_out()
        assert len(timers.made) == 1
        writer.checked(Checked(0, (0.5, 0.6, 0.7), (None, None, 0.6)))
        writer.checked(Checked(2, (0.9,), (0.7,)))
        writer.switched(Switched("threshold", 2, 3, 0.7))
        writer.text(Text("Boil it.", "base", 0.25))
        timers.run_out()
        shown = other.messages.get(writer.id)
        assert shown.parts == [("draft", "Great question! "), ("base", "Boil it.")]
        assert shown.reply is not None
        assert shown.reply.report == {
            "switch": {"reason": "threshold", "index": 2, "kept_tokens": 3, "confidence": 0.7},
            "checked": {"probs": [0.5, 0.6, 0.9], "windows": [None, None, 0.7]},
            "pieces": [[6, "draft", None], [10, "draft", None], [8, "base", 0.25]],
        }
        writer.text(Text(" And", "base"))
        writer.finish(reply("Great question! ", "Boil it. And eat."))
        assert not any(timer.live for timer in timers.made)
        assert other.messages.get(writer.id).text == "Great question! Boil it. And eat."


def test_the_real_timer_writes_in_silence(path: Path) -> None:
    written = threading.Event()

    def timer(seconds: float, call: Callable[[], None]) -> threading.Timer:
        def called() -> None:
            call()
            written.set()

        return threading.Timer(seconds, called)

    with Store(path, timer=timer, flush_s=0.01) as store:
        chat, question = asked(store)
        writer = store.replies.begin(chat, question, pair="demo", settings={})
        writer.text(Text("Great", "draft"))
        assert written.wait(60)
        assert store.messages.get(writer.id).text == "Great"


def test_replies_that_end_early(store: Store) -> None:
    chat, question = asked(store)
    failed = store.replies.begin(chat, question, pair="demo", settings={})
    failed.text(Text("Great", "draft"))
    failed.fail("the context is full")
    message = store.messages.get(failed.id)
    assert (message.text, message.state) == ("Great", "failed")
    assert message.reply is not None and message.reply.error == "the context is full"
    with pytest.raises(ZeroDivisionError), store.replies.begin(chat, question, pair="demo", settings={}) as left:
        left.text(Text("Well", "draft"))
        raise ZeroDivisionError
    assert (store.messages.get(left.id).text, store.messages.get(left.id).state) == ("Well", "cancelled")
    stopped = store.replies.begin(chat, question, pair="demo", settings={})
    stopped.finish(reply("So", "", reason="cancelled"))
    assert (store.messages.get(stopped.id).text, store.messages.get(stopped.id).state) == ("So", "cancelled")
    assert store.messages.siblings(stopped.id) == [failed.id, left.id, stopped.id]


def test_a_closed_store_leaves_no_reply_open(path: Path) -> None:
    with Store(path) as store:
        chat, question = asked(store)
        writer = store.replies.begin(chat, question, pair="demo", settings={})
        writer.text(Text("Great", "draft"))
    with Store(path) as store:
        assert (store.messages.get(writer.id).text, store.messages.get(writer.id).state) == ("Great", "cancelled")
    with pytest.raises(StoreError, match="closed"):
        writer._file.reading().__enter__()


def test_a_stopped_reply_goes_on_under_its_id(store: Store) -> None:
    chat, question = asked(store)
    writer = store.replies.begin(chat, question, pair="demo", settings={})
    writer.finish(reply("Great\nquestion!\n", "Take\n", reason="cancelled"))
    again = store.replies.resume(writer.id, pair="laptop", settings={"seed": 1})
    assert again.id == writer.id
    with pytest.raises(StoreError, match="just now"):
        store.replies.resume(writer.id, pair="demo", settings={})
    again.text(Text("water.", "base"))
    again.flush()
    message = store.messages.get(writer.id)
    assert (message.text, message.state) == ("Great\nquestion!\nTake\nwater.", "writing")
    again.finish(reply("Great\nquestion!\n", "Take\nwater.\nMuch."))
    message = store.messages.get(writer.id)
    assert (message.text, message.state) == ("Great\nquestion!\nTake\nwater.\nMuch.", "finished")
    assert message.reply is not None and message.reply.pair == "laptop"
    assert store.chats.get(chat).messages == 2


def test_a_reply_that_begins_at_given_text_is_kept_whole(store: Store) -> None:
    """After a restart the models are given what was there, and the reply is what they add."""
    chat, question = asked(store)
    writer = store.replies.begin(chat, question, pair="demo", settings={}, given="Sure:\n")
    writer.text(Text("Great\n", "draft"))
    writer.close()
    assert store.messages.get(writer.id).parts == [("given", "Sure:\n"), ("draft", "Great\n")]
    again = store.replies.resume(writer.id, pair="demo", settings={})
    given: Message = {"role": "assistant", "content": "Sure:\nGreat\n"}
    again.finish(reply("question!\n", "Take water.", messages=({"role": "user", "content": "?"}, given)))
    message = store.messages.get(writer.id)
    assert message.parts == [("given", "Sure:\n"), ("draft", "Great\nquestion!\n"), ("base", "Take water.")]
    third = store.replies.resume(writer.id, pair="demo", settings={})
    given = {"role": "assistant", "content": message.text}
    third.finish(reply("", "\nMuch.", messages=(given,)))
    assert "".join(text for _, text in store.messages.get(writer.id).parts) == store.messages.get(writer.id).text
    edited = store.replies.resume(writer.id, pair="demo", settings={})
    edited.finish(reply("", "No.", messages=({"role": "assistant", "content": "Other: "},)))
    assert store.messages.get(writer.id).parts == [("given", "Other: "), ("base", "No.")]


def test_a_continued_reply_that_ends_early_keeps_the_first_report(store: Store) -> None:
    chat, question = asked(store)
    writer = store.replies.begin(chat, question, pair="demo", settings={})
    first = reply("Great\n", "", reason="cancelled")
    writer.finish(first)
    with store.replies.resume(writer.id, pair="demo", settings={}) as again:
        again.checked(Checked(2, (0.9,), (0.7,)))
        again.text(Text("question!", "draft"))
    message = store.messages.get(writer.id)
    assert message.parts == [("draft", "Great\nquestion!")]
    assert message.reply is not None
    assert message.reply.report["timings"] == first.as_dict()["timings"]
    assert message.reply.report["switch"] == first.as_dict()["switch"]
    assert message.reply.report["checked"] == {"probs": [None, None, 0.9], "windows": [None, None, 0.7]}
    assert message.reply.report["pieces"] == [[6, "draft", None], [9, "draft", None]]
    assert store.messages.tokens(writer.id) == first.tokens


def test_tokens_of_a_continued_reply_are_those_of_both_runs(store: Store) -> None:
    chat, question = asked(store)
    first = reply("Great\n", "Take\n", reason="cancelled")
    writer = store.replies.begin(chat, question, pair="demo", settings={})
    writer.finish(first)
    second = reply("", "water.\n", messages=({"role": "assistant", "content": first.text},))
    store.replies.resume(writer.id, pair="demo", settings={}).finish(second)
    assert store.messages.tokens(writer.id) == (*first.tokens, *second.tokens)


def test_a_reply_whose_chat_is_erased_meanwhile(path: Path) -> None:
    timers = HandTimers()
    with Store(path, timer=timers) as store:
        chat, question = asked(store)
        writer = store.replies.begin(chat, question, pair="demo", settings={})
        store.chats.erase(chat)
        writer.text(Text("Great", "draft"))
        timers.run_out()
        assert isinstance(writer.trouble, StoreError)
        with pytest.raises(StoreError, match="deleted while"):
            writer.finish(reply("Great", ""))


def test_a_write_that_failed_is_made_up_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "BUSY_S", 0.0)
    timers = HandTimers()
    with Store(path, timer=timers) as store:
        chat, question = asked(store)
        writer = store.replies.begin(chat, question, pair="demo", settings={})
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        writer.text(Text("Great", "draft"))
        timers.run_out()
        assert isinstance(writer.trouble, StoreError)
        assert store.messages.get(writer.id).text == ""
        blocker.execute("ROLLBACK")
        blocker.close()
        timers.run_out()
        assert writer.trouble is None
        assert store.messages.get(writer.id).text == "Great"


def test_one_thread_writes_while_another_reads(path: Path) -> None:
    with Store(path, flush_s=0.001) as store:
        chat, question = asked(store)
        writer = store.replies.begin(chat, question, pair="demo", settings={})

        def write() -> None:
            for number in range(300):
                writer.text(Text(f"{number} ", "draft"))
                if number % 10 == 0:
                    writer.flush()
            writer.finish(reply(said, ""))

        said = "".join(f"{number} " for number in range(300))
        thread = threading.Thread(target=write)
        thread.start()
        while thread.is_alive():
            message = store.messages.get(writer.id)
            assert said.startswith(message.text)
            assert "".join(text for _, text in message.parts) == message.text
            store.chats.find("3")
        thread.join()
        assert store.messages.get(writer.id).text == said


def test_off_the_record_means_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    with Store(":memory:") as store:
        assert store.path is None
        chat, question = asked(store)
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(store.messages.get(question).text))
        thread.start()
        thread.join()
        assert results == ["How do I boil an egg?"]
        store.replies.begin(chat, question, pair="demo", settings={}).finish(reply("Great", ""))
        assert [hit.chat for hit in store.search("great")] == [chat]
    assert not (tmp_path / "data").exists()


# -- text of all kinds --------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=()), max_size=60), query=st.text(max_size=30))
def test_any_text_is_kept_and_any_query_is_understood(store: Store, text: str, query: str) -> None:
    chat, question = asked(store, text)
    clean = finding.clean(text)
    assert store.messages.get(question).text == clean
    writer = store.replies.begin(chat, question, pair=text, settings={"stop": [text]}, given=text)
    writer.text(Text(text, "draft"))
    writer.flush()
    writer.finish(reply(text, text, messages=({"role": "assistant", "content": text},)))
    assert store.messages.get(writer.id).text == clean * 3
    for wanted in (text, query, f'"{text}', f"{query}*"):
        store.chats.find(wanted)
        for hit in store.search(wanted):
            assert all(0 <= a < b <= len(hit.snippet) for a, b in hit.marks)
    store.export(chat, "markdown").encode()
    store.export(chat, "json").encode()
    store.chats.erase(chat)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("egg", {"en"}),
        ("eg", {"en"}),
        ("EGGS", {"en"}),
        ("gg", set()),
        ("boil egg", {"en"}),
        ('"boil two"', {"en"}),
        ('"boil tw"', set()),
        ("鸡蛋", {"zh"}),
        ("煮鸡", {"zh"}),
        ("蛋鸡", set()),
        ("卵", {"ja"}),
        ("ゆで", {"ja"}),
        ("계란", {"ko"}),
        ("ไข่", {"th"}),
        ("uber", {"de"}),
        ("ÜBER straße", {"de"}),
        ("🎉", {"sign"}),
        ("100%", {"sign"}),
        ("%", {"sign"}),
        ("_", set()),
        ("C++", {"sign"}),
        ("AND", set()),
        ("a OR b NOT (", set()),
        ("body:egg", set()),
        ("", set()),
        ("  ", set()),
    ],
)
def test_search(store: Store, query: str, found: set[str]) -> None:
    said = {
        "en": "Please boil two eggs for me.",
        "zh": "请问怎么煮鸡蛋？",
        "ja": "卵のゆで方を教えて",
        "ko": "계란을 삶는 방법",
        "th": "วิธีต้มไข่",
        "de": "Über die Straße",
        "sign": "C++ 🎉 100%",
    }
    chats = {name: asked(store, text)[0] for name, text in said.items()}
    assert {hit.chat for hit in store.search(query)} == {chats[name] for name in found}
    for chat in store.chats.find(query) if query.strip() else []:
        store.chats.rename(chat.id, "other")
    if query.strip():
        assert {chat.id for chat in store.chats.find(query)} == {chats[name] for name in found}


def test_a_snippet_marks_what_was_found(store: Store) -> None:
    chat, _ = asked(store, "far " * 100 + "\nBoil Ëggs\tand eggs, " + "more " * 100)
    (hit,) = store.search("egg")
    assert [hit.snippet[a:b] for a, b in hit.marks] == ["Ëgg", "egg"]
    assert hit.snippet[0] == hit.snippet[-1] == "…"
    assert "\n" not in hit.snippet
    assert hit.title == store.chats.get(chat).title
    asked(store, "怎么煮鸡蛋？")
    (hit,) = store.search("鸡蛋")
    assert [hit.snippet[a:b] for a, b in hit.marks] == ["鸡蛋"]


def test_a_reply_is_found_when_it_is_done(store: Store) -> None:
    chat, question = asked(store)
    writer = store.replies.begin(chat, question, pair="demo", settings={})
    writer.text(Text("鸡蛋 potatoes", "draft"))
    writer.flush()
    assert store.search("potato") == []
    writer.finish(reply("鸡蛋 potatoes", "", reason="cancelled"))
    assert [hit.message for hit in store.search("potato")] == [writer.id]
    assert [hit.message for hit in store.search("鸡蛋")] == [writer.id]
    again = store.replies.resume(writer.id, pair="demo", settings={})
    assert store.search("potato") == []
    again.finish(reply("carrots", ""))
    assert store.search("potato") == []
    assert [hit.message for hit in store.search("carrot")] == [writer.id]
    check_index(store)


def check_index(store: Store) -> None:
    """The index is that of the messages, and the file is sound."""
    with store._file.changing() as db:
        db.execute("INSERT INTO messages_fts (messages_fts, rank) VALUES ('integrity-check', 1)")
        assert [tuple(row) for row in db.execute("PRAGMA integrity_check")] == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


# -- export -------------------------------------------------------------------------------------------------


def test_exports(store: Store) -> None:
    chat = store.chats.create(system="Be brief.")
    question = store.messages.add(chat, None, "user", "How do I boil an egg?")
    one = store.replies.begin(chat, question, pair="demo", settings={"seed": 1})
    one.finish(reply("Great question! I am happy to help you with exactly this. ", "Take water."))
    two = store.replies.begin(chat, question, pair="demo", settings={"seed": 2})
    two.fail("no more memory")
    store.messages.set_head(chat, one.id)
    text = store.export(chat, "markdown")
    assert text.startswith("# How do I boil an egg?\n")
    assert "## System\n\nBe brief.\n" in text
    opened = "opened by the small one up to “…am happy to help you with exactly this.”"
    assert f"## Assistant\n\n({opened}, continued by the large one at token 6)\n\nGreat question!" in text
    assert "no more memory" not in text
    every = store.export(chat, "markdown", all_branches=True)
    assert f"## Assistant (message {two.id}, after {question})\n\n(failed: no more memory)" in every
    values = json.loads(store.export(chat, "json", all_branches=True))
    assert values["chat"] == store.chats.get(chat).as_dict()
    assert [message["id"] for message in values["messages"]] == [question, one.id, two.id]
    assert values["messages"][1]["reply"]["settings"] == {"seed": 1}
    assert [token["source"] for token in values["messages"][1]["tokens"]] == ["draft", "base"]
    empty = store.chats.create()
    assert json.loads(store.export(empty, "json"))["messages"] == []
    assert "Untitled" in store.export(empty, "markdown")


# -- files --------------------------------------------------------------------------------------------------


def second(db: Database) -> None:
    """A step that today's program does not know."""
    db.execute("ALTER TABLE chats ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0")


def test_the_file_of_the_first_schema_goes_on(path: Path) -> None:
    with Store(path, steps=(schema.first,)) as store:
        chat, question = asked(store)
    with Store(path, steps=(schema.first, second)) as store:
        assert store.chats.get(chat).title == "How do I boil an egg?"
        assert store.messages.branch(question)[0].text == "How do I boil an egg?"
        with store._file.reading() as db:
            assert db.execute("SELECT pinned FROM chats").fetchone()[0] == 0
            assert schema.applied(db) == ["first", "second"]


def test_a_step_that_fails_changes_nothing(path: Path) -> None:
    def broken(db: Database) -> None:
        db.execute("ALTER TABLE chats ADD COLUMN pinned INTEGER")
        db.execute("ALTER TABLE elsewhere ADD COLUMN pinned INTEGER")

    with Store(path) as store:
        chat, _ = asked(store)
    with pytest.raises(StoreError, match="no such table: elsewhere"):
        Store(path, steps=(*schema.STEPS, broken))
    with Store(path) as store:
        assert store.chats.get(chat).messages == 1
        with store._file.reading() as db:
            assert "pinned" not in db.execute("SELECT * FROM chats").fetchone().keys()  # noqa: SIM118 - a sqlite3.Row


@pytest.mark.parametrize("log", [False, True], ids=["closed", "killed"])
def test_a_newer_file_is_refused_and_not_touched(path: Path, log: bool) -> None:
    with Store(path, steps=(*schema.STEPS, second)) as store:
        asked(store)
        files = {file: file.read_bytes() for file in path.parent.iterdir() if not file.name.endswith("-shm")}
    if log:  # as a killed program leaves it
        for file, content in files.items():
            file.write_bytes(content)
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert ("chats.db-wal" in before) == log
    with pytest.raises(StoreError, match=r"newer wsd-local \(it knows second\).*not touched"):
        Store(path)
    after = {file.name: file.read_bytes() for file in path.parent.iterdir() if not (log and file.name.endswith("-shm"))}
    assert after == before


def test_a_file_of_another_program_is_refused_and_not_touched(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE recipes (name)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="no chat store"):
        Store(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_files_that_are_none(path: Path) -> None:
    path.write_text("Dear diary, " * 500)
    with pytest.raises(StoreError, match="no chat store"):
        Store(path)
    assert path.read_text() == "Dear diary, " * 500
    with pytest.raises(StoreError, match="folder"):
        Store(path.parent)
    with pytest.raises(StoreError, match=r"diary.txt.*cannot be opened"):
        (path.parent / "diary.txt").write_text("")
        Store(path.parent / "diary.txt" / "chats.db")


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with Store(path) as store:
        chat, _ = asked(store)
        assert [row.id for row in store.chats.find()] == [chat]


@pytest.mark.parametrize("damage", ["cut", "zeros"])
def test_a_damaged_file_is_one_line(path: Path, damage: str) -> None:
    with Store(path) as store:
        for number in range(50):
            asked(store, f"{number} " * 500)
    content = path.read_bytes()
    middle = len(content) // 2 // 4096 * 4096
    path.write_bytes(content[:middle] if damage == "cut" else content[:4096] + bytes(len(content) - 4096))
    with pytest.raises(StoreError, match="damaged") as caught, Store(path) as store:
        for chat in store.chats.find("4"):
            store.export(chat.id, "json", all_branches=True)
        store.search("4")
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    folder.chmod(0o500)
    try:
        (folder / "probe").touch()
    except OSError:
        with pytest.raises(StoreError, match=r"chats\.db.*permissions"):
            Store(folder / "chats.db")
    else:
        pytest.skip("expected: this user writes everywhere")
    finally:
        folder.chmod(0o700)


def test_names_of_files_may_be_odd(tmp_path: Path) -> None:
    path = tmp_path / "a ?mode=memory&x#y %41.db"
    with Store(path) as store:
        asked(store)
    with Store(path) as store:
        assert len(store.chats.find()) == 1
    assert path.exists()


# -- other programs -----------------------------------------------------------------------------------------

PRELUDE = """
import os, sys
from pathlib import Path
from wsd_local.core.limits import Counts
from wsd_local.core.written import ReplyToken
from wsd_local.events import Text
from wsd_local.runtime.reply import Part, Reply, Switch, Timings
from wsd_local.store import Store

path = Path(sys.argv[1])

def tell(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # one write: lines of two processes do not mix

def whole(number):
    return "".join(f"{number}.{word} " for word in range(40))

def finished(number):
    text = whole(number)
    tokens = tuple(ReplyToken(i, word + " ", "draft", 0.5, None) for i, word in enumerate(text.split()))
    return Reply((), text, "stop", Part("d", text, 40), Part("b", "", 0), Switch(None, "draft_end", None, 6, 0.8),
                 Timings(), tokens, "", Counts())
"""

NURSERY = (
    PRELUDE
    + """
import psutil, sqlite3

def stream():
    store = Store(path, flush_s=0.001)
    chat = store.chats.create()
    question = store.messages.add(chat, None, "user", "Go on")
    tell("chat", chat)
    while True:
        writer = store.replies.begin(chat, question, pair="demo", settings={})
        tell("begun", writer.id)
        for place, word in enumerate(whole(writer.id).split(), 1):
            writer.text(Text(word + " ", "draft"))
            if place % 8 == 0:
                writer.flush()  # beside the timer: there is more to be cut through
        writer.finish(finished(writer.id))
        tell("finished", writer.id)

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            stream()
        except BaseException as error:
            tell("error", repr(error))
            os._exit(1)
    tell("child", child)
    os.waitpid(child, 0)
    tell("dead", child)
"""
)

ADDER = (
    PRELUDE
    + """
with Store(path) as store:
    chat = store.chats.create(title=sys.argv[2])
    parent = None
    for number in range(100):
        parent = store.messages.add(chat, parent, "user", f"{sys.argv[2]} {number}")
        writer = store.replies.begin(chat, parent, pair="demo", settings={})
        writer.text(Text("some", "draft"))
        writer.flush()
        writer.finish(finished(writer.id))
        parent = writer.id
"""
)


def python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Another program."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", **options)


def whole(number: int) -> str:
    """What the other program says in this message."""
    return "".join(f"{number}.{word} " for word in range(40))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="expected: children are forked, to be many")
def test_kills_lose_nothing_that_was_finished(path: Path, tell: Callable[..., None]) -> None:
    """A program is killed at a random moment, again and again; each time the file opens and has what it should."""
    chance = random.Random(7)
    finished: set[int] = set()
    partial = 0
    with python(NURSERY, str(path), stdin=subprocess.PIPE) as nursery:
        assert nursery.stdin is not None and nursery.stdout is not None
        for _ in range(KILLS):
            nursery.stdin.write("go\n")
            nursery.stdin.flush()
            child, begun = 0, set()
            fatal = chance.randrange(0, 12)
            for lines, line in enumerate(nursery.stdout, 1):
                what, _, number = line.strip().partition(" ")
                assert what != "error", number
                if what == "child":
                    child = int(number)
                elif what == "begun":
                    begun.add(int(number))
                elif what == "finished":
                    finished.add(int(number))
                elif what == "dead":
                    break
                if child and lines > fatal:
                    threading.Event().wait(chance.random() * 0.01)  # the moment is to be random, nothing waits for it
                    os.kill(child, signal.SIGKILL)
                    fatal = sys.maxsize
            with Store(path) as store:
                for message in begun:
                    row = store.messages.get(message)
                    assert whole(message).startswith(row.text)
                    assert "".join(text for _, text in row.parts) == row.text
                    if message in finished or row.state == "finished":
                        assert (row.text, row.state) == (whole(message), "finished")
                        assert "".join(token.text for token in store.messages.tokens(message)) == row.text
                    else:
                        assert row.state == "cancelled"
                        partial += 0 < len(row.text) < len(whole(message))
        nursery.stdin.close()
    with Store(path) as store:
        kept = {row.id: row for chat in store.chats.find() for row in store.messages.of(chat.id)}
        for message in finished:
            assert kept[message].text == whole(message)
        check_index(store)
    assert finished
    assert partial
    tell(f"{KILLS} kills: {len(finished)} replies finished, {partial} cut in the middle, none lost")


def test_two_programs_write_at_once(path: Path) -> None:
    """They also make the file at once."""
    names = ("left", "right")
    with python(ADDER, str(path), names[0]) as left, python(ADDER, str(path), names[1]) as right:
        assert [left.wait(), right.wait()] == [0, 0]
    with Store(path) as store:
        chats = {chat.title: chat for chat in store.chats.find()}
        assert {name: chat.messages for name, chat in chats.items()} == dict.fromkeys(names, 200)
        for name, chat in chats.items():
            assert chat.head is not None
            branch = store.messages.branch(chat.head)
            assert [row.text for row in branch[::2]] == [f"{name} {number}" for number in range(100)]
            assert all(row.text == whole(row.id) and row.state == "finished" for row in branch[1::2])
        check_index(store)


def test_many_open_a_new_file_at_once(path: Path) -> None:
    problems: list[BaseException] = []
    start = threading.Barrier(8)

    def begin() -> None:
        start.wait()
        try:
            with Store(path) as store:
                asked(store)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with Store(path) as store:
        assert len(store.chats.find()) == 8


def test_another_programs_live_reply_is_left_alone(path: Path) -> None:
    code = PRELUDE + (
        "store = Store(path, flush_s=0.001)\n"
        "chat = store.chats.create()\n"
        "writer = store.replies.begin(chat, store.messages.add(chat, None, 'user', 'Go'), pair='demo', settings={})\n"
        "writer.text(Text('Live', 'draft'))\n"
        "writer.flush()\n"
        "tell(writer.id)\n"
        "sys.stdin.read()\n"
        "writer.finish(finished(writer.id))\n"
    )
    with python(code, str(path), stdin=subprocess.PIPE) as other:
        assert other.stdin is not None and other.stdout is not None
        message = int(other.stdout.readline())
        with Store(path) as store:
            assert (store.messages.get(message).text, store.messages.get(message).state) == ("Live", "writing")
            with pytest.raises(StoreError, match="just now"):
                store.replies.resume(message, pair="demo", settings={})
            other.stdin.close()
            assert other.wait() == 0
            assert store.messages.get(message).state == "finished"
    with python(code, str(path), stdin=subprocess.PIPE) as other, Store(path) as store:
        assert other.stdin is not None and other.stdout is not None
        message = int(other.stdout.readline())
        assert store.messages.get(message).state == "writing"
        other.kill()
        other.wait()
        assert store.messages.get(message).state == "cancelled"
        assert store.messages.branch(message)[-1].state == "cancelled"
        assert store.search("live") == []
        again = store.replies.resume(message, pair="demo", settings={})
        again.text(Text(" on", "base"))
        again.close()
        assert store.messages.get(message).text == "Live on"
        assert [hit.message for hit in store.search("live")] == [message]


def test_importing_the_store_is_light() -> None:
    code = (
        "import sys, wsd_local.store; print(*{'numpy', 'llama_cpp', 'sqlite_utils', 'rich', 'psutil'} & {*sys.modules})"
    )
    with python(code) as done:
        assert done.communicate()[0].strip() == ""
