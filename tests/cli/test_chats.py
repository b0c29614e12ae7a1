"""`wsd-local chats list|show|search|export|rm`, as a person runs them."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import complains, wsd
from replies import asked, reply

from wsd_local.store import Store


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chats of its own."""
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as opened:
        yield opened


@pytest.fixture
def egg(store: Store) -> int:
    """A chat with an answer."""
    chat, question = asked(store)
    writer = store.replies.begin(chat, question, pair="demo", settings={"threshold": 0.8})
    writer.finish(reply("Great question! ", "Take [red]water[/red]."))
    return chat


def printed(*arguments: str) -> str:
    """Standard output of a command that succeeds."""
    done = wsd("chats", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def values(*arguments: str) -> Any:
    """The JSON that a command prints."""
    return json.loads(printed(*arguments))


def test_without_chats() -> None:
    done = wsd("chats", "list")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"wsd-chat begins one" in done.stderr
    assert values("list", "--json") == {"chats": []}
    assert values("export", "--all", "--format", "json") == {"chats": []}
    assert printed("export", "--all") == ""
    assert "Usage" in printed()


def test_list(store: Store, egg: int) -> None:
    potato, _ = asked(store, "How do I bake a [bold]potato?\x1b[2J")
    lines = printed("list").splitlines()
    assert [line.split()[0] for line in lines if line[:4].strip().isdigit()] == [str(potato), str(egg)]
    assert "[bold]potato?␛[2J" in lines[2]
    assert [chat["id"] for chat in values("list", "water", "--json")["chats"]] == [egg]
    (chat,) = values("list", "POTATO", "--json")["chats"]
    assert chat == store.chats.get(potato).as_dict()
    store.chats.delete(potato)
    assert "potato" not in printed("list")


def test_show(store: Store, egg: int) -> None:
    text = printed("show", str(egg))
    assert "## User\n\nHow do I boil an egg?\n" in text
    assert "(opened by the small one up to “Great question!”, continued by the large one at token 6)" in text
    assert "Great question! Take [red]water[/red]." in text
    shown = values("show", str(egg), "--json")
    assert shown["messages"][1]["reply"]["spans"] == [
        {"source": "draft", "length": 16},
        {"source": "base", "length": 22},
    ]
    assert shown["messages"][1]["tokens"][0]["prob"] == 0.1
    store.messages.add(egg, None, "user", "beep\x07")
    assert "beep␇" in printed("show", str(egg))


def test_search(store: Store, egg: int) -> None:
    asked(store, "怎么煮鸡蛋？")
    line = next(line for line in printed("search", "wat").splitlines() if "water" in line)
    assert line.split()[:2] == [str(egg), str(store.chats.get(egg).head)]
    (hit,) = values("search", "鸡蛋", "--json")["hits"]
    assert [hit["snippet"][a:b] for a, b in hit["marks"]] == ["鸡蛋"]
    done = wsd("chats", "search", 'AND "(')
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"nothing was found" in done.stderr
    complains(wsd("chats", "search", " "), 2, "nothing to search for")


def test_export(store: Store, egg: int, tmp_path: Path) -> None:
    other, _ = asked(store, "How do I bake a potato?")
    assert printed("export", str(egg)) == store.export(egg, "markdown")
    assert values("export", str(egg), "--format", "json") == json.loads(store.export(egg, "json"))
    every = values("export", "--all", "--format", "json", "--branches")
    assert [chat["chat"]["id"] for chat in every["chats"]] == [other, egg]
    assert printed("export", "--all").count("\n---\n") == 1
    target = tmp_path / "chat.md"
    assert printed("export", str(egg), "--output", str(target)) == ""
    assert target.read_text(encoding="utf-8") == store.export(egg, "markdown")
    complains(wsd("chats", "export", str(egg), "--output", str(target / "x")), 2, "cannot be written")
    for wrong in ((), (str(egg), "--all")):
        complains(wsd("chats", "export", *wrong), 2, "--all")
    complains(wsd("chats", "export", str(egg), "--format", "pdf"), 2, "pdf")


def test_rm(store: Store, egg: int) -> None:
    other, _ = asked(store)
    complains(wsd("chats", "rm", str(egg)), 2, "2 messages", "--yes")
    assert store.chats.get(egg).messages == 2
    assert "deleted" in printed("rm", str(egg), "--yes")
    assert [chat.id for chat in store.chats.find()] == [other]
    assert store.search("water") == []
    store.chats.delete(other)
    printed("rm", str(other), "-y")
    assert store.chats.find(deleted=True) == []


def test_rm_says_what_somebody_who_reads_keeps(store: Store, egg: int, tmp_path: Path) -> None:
    reader = sqlite3.connect(tmp_path / "data" / "chats.db", isolation_level=None)
    try:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM chats").fetchone()
        done = wsd("chats", "rm", str(egg), "--yes")
    finally:
        reader.close()
    assert done.returncode == 0 and "their log still holds what was deleted" in done.stderr.decode()


def test_a_person_is_asked(store: Store, egg: int) -> None:
    pty = pytest.importorskip("pty", reason="expected: there are no pseudo-terminals on Windows")
    for answer, left in ((b"n\n", [egg]), (b"y\n", [])):
        near, far = pty.openpty()
        os.write(near, answer)
        done = _with_terminal(far, str(egg))
        os.close(far)
        os.close(near)
        assert done == (130 if left else 0)
        assert [chat.id for chat in store.chats.find()] == left


def _with_terminal(terminal: int, chat: str) -> int:
    import subprocess
    import sys

    command = [sys.executable, "-m", "wsd_local", "chats", "rm", chat]
    return subprocess.run(command, stdin=terminal, capture_output=True, check=False).returncode


@pytest.mark.skipif(os.name == "nt", reason="expected: Windows has no such permissions")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_an_export_is_its_owners_alone(tmp_path: Path, egg: int, umask: int) -> None:
    new, old = tmp_path / "new.md", tmp_path / "old.md"
    old.touch(0o644)
    before = os.umask(umask)
    try:
        for path in (new, old):
            printed("export", str(egg), "-o", str(path))
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_an_export_makes_no_folders(tmp_path: Path, egg: int) -> None:
    complains(wsd("chats", "export", str(egg), "-o", str(tmp_path / "none" / "x.md")), 2, "no such folder")
    complains(wsd("chats", "export", str(egg), "-o", str(tmp_path)), 2, "is a folder")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["show", "export", "rm"])
def test_an_unknown_chat_is_one_line(command: str, store: Store, egg: int) -> None:
    for number in ("77", "9" * 30):
        complains(wsd("chats", command, number), 2)
    complains(wsd("chats", command, "77"), 2, "there is no chat 77")
    complains(wsd("chats", command, "egg"), 2, "ID", "whole number")
    if command != "rm":
        store.chats.delete(egg)
        complains(wsd("chats", command, str(egg)), 2, "in the bin")


def test_a_chat_comes_out_of_the_bin(store: Store, egg: int) -> None:
    complains(wsd("chats", "restore", str(egg)), 2, f"chat {egg} is not in the bin")
    assert wsd("chats", "list", "--deleted").stdout == b""
    store.chats.delete(egg)
    shown = json.loads(wsd("chats", "list", "--deleted", "--json").stdout)["chats"]
    assert [chat["id"] for chat in shown] == [egg]
    assert egg not in [chat.id for chat in store.chats.find()]
    assert wsd("chats", "restore", str(egg)).stdout.decode().startswith(f"chat {egg} (")
    assert wsd("chats", "show", str(egg)).returncode == 0
    assert egg in [chat.id for chat in store.chats.find()]


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chats.db").write_text("Dear diary, " * 100)
    complains(wsd("chats", "list"), 1, "chats.db", "no chat store")
