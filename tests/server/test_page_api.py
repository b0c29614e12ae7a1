"""The page's chats are those of the terminal: one store, whoever asks, edits, stops, goes away or deletes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import ScriptedService, finished, listening
from wsd_chat.conversation import Conversation

from wsd_local.errors import WsdError
from wsd_local.events import Checked, Event, Switched, Text
from wsd_local.server import page_writing
from wsd_local.server.app import create_app
from wsd_local.server.service import Service
from wsd_local.store import Store, StoreError

OPENING = [
    Text("Great ", "draft"),
    Checked(0, (0.5, 0.9), (None, 0.7)),
    Switched("threshold", 0, 1, 0.91),
    Text("answer.", "base", 0.8),
]
ANSWER = finished("Great answer.", kept="Great ")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store in a file."""
    with Store(tmp_path / "chats.db") as made:
        yield made


@pytest.fixture
def pages(store: Store) -> Iterator[Callable[[Service], httpx.Client]]:
    """Serves a service with the page over `store`; the value is a client."""
    with ExitStack() as stack:

        def serve(service: Service) -> httpx.Client:
            url = stack.enter_context(listening(create_app(service, store=store)))
            return stack.enter_context(httpx.Client(base_url=url, timeout=None))

        yield serve


def events_of(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    """The events of a stream, as they come."""
    assert answer.status_code == 200, answer.read()
    for line in answer.iter_lines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def asked(client: httpx.Client, text: str = "one?", **more: Any) -> list[dict[str, Any]]:
    """The events of a question's reply."""
    body = {"action": "ask", "model": "demo", "text": text, **more}
    with client.stream("POST", "/ui/replies", json=body) as answer:
        return list(events_of(answer))


def shown(client: httpx.Client, chat: int = 1) -> list[tuple[str, str, str]]:
    """The branch that is shown."""
    entries = client.get(f"/ui/chats/{chat}").json()["entries"]
    return [(entry["role"], entry["text"], entry["state"]) for entry in entries]


def test_a_question_to_the_embedded_pair_is_in_the_store(
    service: Service, pages: Callable[[Service], httpx.Client], store: Store
) -> None:
    client = pages(service)
    first, *events, last = asked(client, "How do I boil an egg?", settings={"threshold": 0.8})
    assert first["event"] == "begun" and first["chat"]["title"] == "How do I boil an egg?"
    assert {"text", "checked", "switched"} <= {event["event"] for event in events}
    entry, row = last["entry"], store.messages.get(last["entry"]["id"])
    assert entry["state"] == "finished" and entry["text"] == row.text
    assert entry["spans"] == [list(part) for part in row.parts] and [who for who, _ in row.parts] == ["draft", "base"]
    scores = client.get(f"/ui/messages/{row.id}/scores").json()
    assert "".join(token["text"] for token in scores["tokens"]) == row.text and scores["threshold"] == 0.8
    assert "prompt_ids" not in json.dumps(last)


def test_a_chat_goes_on_in_the_terminal_and_back(
    service: Service, pages: Callable[[Service], httpx.Client], store: Store, tmp_path: Path
) -> None:
    client = pages(service)
    asked(client, "What is the capital of France?")
    with Store(tmp_path / "chats.db") as other:  # as another process has it
        terminal = Conversation(other)
        assert [entry.role for entry in terminal.open(1, None)] == ["user", "assistant"]
        begun = terminal.ask("And of Spain?", terminal.head, pair="demo", settings={})
        begun.writer.text(Text("Mad", "draft"))
        begun.writer.flush()
        assert shown(client)[-1] == ("assistant", "Mad", "writing")
        terminal.finish(begun, None)
    assert shown(client)[-2:] == [("user", "And of Spain?", "finished"), ("assistant", "Mad", "cancelled")]
    head = client.get("/ui/chats/1").json()["chat"]["head"]
    with client.stream("POST", "/ui/replies", json={"action": "continue", "model": "demo", "head": head}) as answer:
        last = list(events_of(answer))[-1]
    assert last["entry"]["id"] == head and last["entry"]["text"].startswith("Mad")


@pytest.mark.parametrize("model", ["demo:base", "demo:draft"])
def test_a_model_alone_is_recorded_as_the_mode(
    service: Service, pages: Callable[[Service], httpx.Client], store: Store, model: str
) -> None:
    entry = asked(pages(service), "What is the capital of France?", model=model)[-1]["entry"]
    reply = store.messages.get(entry["id"]).reply
    assert reply is not None and reply.settings["mode"] == model.partition(":")[2] and reply.pair == "demo"
    assert {who for who, _ in entry["spans"]} == {model.partition(":")[2]}


def test_again_and_edited_questions_are_branches(pages: Callable[[Service], httpx.Client]) -> None:
    client = pages(ScriptedService([*OPENING, ANSWER]))
    asked(client)
    with client.stream("POST", "/ui/replies", json={"action": "again", "model": "demo", "head": 2}) as answer:
        assert list(events_of(answer))[-1]["entry"]["place"] == [2, 2]
    asked(client, "another?", chat=1, head=3, edits=1)
    assert [text for _, text, _ in shown(client)] == ["another?", "Great answer."]
    back = client.put("/ui/chats/1/shown", json={"message": 4, "by": -1}).json()
    assert [(entry["id"], entry["place"]) for entry in back["entries"]] == [(1, [1, 2]), (3, [2, 2])]


def test_a_reply_that_is_stopped_by_name_keeps_its_text(pages: Callable[[Service], httpx.Client]) -> None:
    service = ScriptedService([*OPENING, asyncio.Event(), ANSWER])
    client = pages(service)
    with client.stream("POST", "/ui/replies", json={"action": "ask", "model": "demo", "text": "one?"}) as answer:
        events = events_of(answer)
        while (event := next(events))["event"] != "text" or event["source"] != "base":
            pass
        assert client.post("/ui/replies/2/stop").json() == {"stopped": True}
        entry = list(events)[-1]["entry"]
    assert entry["state"] == "cancelled" and entry["text"] == "Great answer." and service.left == 1
    assert entry["report"]["switch"]["confidence"] == 0.91
    scores = client.get("/ui/messages/2/scores").json()
    assert [token["source"] for token in scores["tokens"]] == ["draft", "base"]
    assert client.post("/ui/replies/2/stop").json() == {"stopped": False}


def test_a_page_that_goes_away_stops_its_reply_and_loses_nothing(pages: Callable[[Service], httpx.Client]) -> None:
    service = ScriptedService([*OPENING, asyncio.Event(), ANSWER])
    client = pages(service)
    with client.stream("POST", "/ui/replies", json={"action": "ask", "model": "demo", "text": "one?"}) as answer:
        events = events_of(answer)
        while next(events)["event"] != "switched":
            pass
    while shown(client)[-1][2] == "writing":
        pass
    assert shown(client)[-1] == ("assistant", "Great answer.", "cancelled") and service.left == 1


def test_a_stopped_reply_is_continued_from_its_text(pages: Callable[[Service], httpx.Client]) -> None:
    service = ScriptedService([*OPENING, WsdError("out of luck")])
    client = pages(service)
    last = asked(client)[-1]
    assert last["event"] == "failed" and last["entry"]["state"] == "failed" and last["message"] == "out of luck"
    service.steps = [
        Text(" More.", "base"),
        finished(" More.", messages=(_said("user", "one?"), _said("assistant", "Great answer."))),
    ]
    with client.stream("POST", "/ui/replies", json={"action": "continue", "model": "demo", "head": 2}) as answer:
        first, *_, kept = events_of(answer)
    assert first["question"] is None and kept["entry"]["text"] == "Great answer. More."
    assert service.requests[-1].prompt[-1] == {"role": "assistant", "content": "Great answer."}


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("when", ["entering", "later"])
def test_a_reply_that_fails_before_its_first_word_takes_its_question_back(
    pages: Callable[[Service], httpx.Client], store: Store, when: str
) -> None:
    error = WsdError("no room")
    service = ScriptedService([error], entering=error if when == "entering" else None)
    client = pages(service)
    answer = client.post("/ui/replies", json={"action": "ask", "model": "demo", "text": "one?"})
    if when == "entering":
        assert answer.status_code == 500 and answer.json()["error"]["message"] == "no room"
    else:
        assert list(events_of(answer))[-1] == {"event": "failed", "message": "no room", "entry": None}
    assert client.get("/ui/chats").json()["chats"] == [] == store.chats.find()


def test_what_is_wrong_with_a_request_changes_nothing(pages: Callable[[Service], httpx.Client], store: Store) -> None:
    client = pages(ScriptedService())
    for wrong, said in (
        ({"text": " "}, "empty"),
        ({"model": "nobody"}, "nobody"),
        ({"settings": {"threshold": "high"}}, "threshold"),
        ({"settings": {"treshold": 1}}, "treshold"),
        ({"chat": 99}, "chat 99"),
        ({"action": "again", "head": 99}, "message 99"),
        ({"action": "continue"}, "head"),
        ({"action": "sing"}, "action"),
        ({"more": 1}, "more"),
    ):
        answer = client.post("/ui/replies", json={"action": "ask", "model": "demo", "text": "one?", **wrong})
        assert 400 <= answer.status_code < 500 and said in answer.json()["error"]["message"], (wrong, answer.text)
        assert "\n" not in answer.json()["error"]["message"]
    assert store.chats.find() == []


def test_chats_are_found_renamed_exported_deleted_and_restored(
    pages: Callable[[Service], httpx.Client], store: Store
) -> None:
    client = pages(ScriptedService([*OPENING, ANSWER]))
    asked(client, "Where is the whale?", system="Be brief.")
    asked(client, "two?")
    assert [chat["id"] for chat in client.get("/ui/chats").json()["chats"]] == [2, 1]
    found = client.get("/ui/chats", params={"query": "whale"}).json()
    assert [chat["id"] for chat in found["chats"]] == [1] and found["hits"][0]["snippet"] == "Where is the whale?"
    assert client.put("/ui/chats/1/title", json={"title": "  A\nwhale "}).json()["title"] == "A whale"
    assert client.put("/ui/chats/1/system", json={"system": "Be kind."}).json()["system"] == "Be kind."
    for kind in ("markdown", "json"):
        answer = client.get("/ui/chats/1/export", params={"kind": kind})
        assert answer.text == store.export(1, kind) and "attachment" in answer.headers["content-disposition"]
    assert client.delete("/ui/chats/1").json()["deleted"] is not None
    assert [chat["id"] for chat in client.get("/ui/chats").json()["chats"]] == [2]
    assert [chat["id"] for chat in client.get("/ui/chats", params={"deleted": True}).json()["chats"]] == [1]
    client.put("/ui/chats/1/restored")
    assert store.chats.get(1).deleted is None


def test_the_system_prompt_of_a_chat_is_read(pages: Callable[[Service], httpx.Client]) -> None:
    service = ScriptedService([*OPENING, ANSWER])
    asked(pages(service), system="Be brief.")
    assert service.requests[-1].prompt == [_said("system", "Be brief."), _said("user", "one?")]


def test_three_models_answer_one_question_and_nothing_is_kept(
    service: Service, pages: Callable[[Service], httpx.Client]
) -> None:
    client = pages(service)
    asked(client, "What is the capital of France?")
    before = shown(client)
    for model, writers in (("demo:base", {"base"}), ("demo:draft", {"draft"}), ("demo", {"draft", "base"})):
        with client.stream("POST", "/ui/comparison", json={"model": model, "head": 2}) as answer:
            events = list(events_of(answer))
        assert {event["source"] for event in events if event["event"] == "text"} == writers
        assert events[-1]["reply"]["text"] == "".join(event.get("text", "") for event in events)
    assert shown(client) == before


def test_a_store_that_another_program_locks_holds_up_nobody_else(
    pages: Callable[[Service], httpx.Client], tmp_path: Path
) -> None:
    client = pages(ScriptedService([*OPENING, ANSWER]))
    asked(client)
    other = sqlite3.connect(tmp_path / "chats.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    found: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: found.extend(asked(client, "two?", chat=1, head=2)))
    asking.start()
    for _ in range(20):
        assert client.get("/").status_code == 200 and shown(client)[-1][1] == "Great answer."
    assert not found, "the question waits for the other program"
    other.execute("ROLLBACK")
    asking.join()
    assert found[-1]["entry"]["state"] == "finished"
    other.close()


def test_a_reply_that_cannot_be_written_is_written_later_and_no_path_is_shown(
    pages: Callable[[Service], httpx.Client], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_writing, "RETRY_S", 0.01)
    fails, finish = 3, store.replies.begin

    def begin(*arguments: Any, **named: Any) -> Any:
        writer = finish(*arguments, **named)
        original = writer.finish

        def end(reply: Any) -> None:
            nonlocal fails
            fails -= 1
            if fails >= 0:
                raise StoreError(f"{store.path}: the disk is full")
            original(reply)

        monkeypatch.setattr(writer, "finish", end)
        return writer

    monkeypatch.setattr(store.replies, "begin", begin)
    client = pages(ScriptedService([*OPENING, ANSWER]))
    last = asked(client)[-1]
    assert last == {"event": "unsaved", "message": "the chats' file: the disk is full"}
    while shown(client)[-1][2] == "writing":
        pass
    assert shown(client)[-1] == ("assistant", "Great answer.", "finished")


def test_a_damaged_store_is_one_line_without_its_path(pages: Callable[[Service], httpx.Client], tmp_path: Path) -> None:
    client = pages(ScriptedService([*OPENING, ANSWER]))
    asked(client)
    other = sqlite3.connect(tmp_path / "chats.db")
    other.execute("DROP TABLE replies")
    other.commit()
    other.close()
    answer = client.get("/ui/chats/1")
    assert answer.status_code == 500 and str(tmp_path) not in answer.text
    assert answer.json()["error"]["message"].startswith("the chats' file: ")


def test_pages_of_other_sites_read_no_chats(pages: Callable[[Service], httpx.Client]) -> None:
    client = pages(ScriptedService())
    for site in ("cross-site", "same-site"):
        assert client.get("/ui/chats", headers={"Sec-Fetch-Site": site}).status_code == 403
    for site in ("same-origin", "none"):
        answer = client.get("/ui/chats", headers={"Sec-Fetch-Site": site})
        assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"


def test_without_a_store_there_is_no_page(scripted: Callable[[ScriptedService], str]) -> None:
    url = scripted(ScriptedService())
    assert httpx.get(f"{url}/").status_code == httpx.get(f"{url}/ui/chats").status_code == 404


def test_reading_and_notices_reach_the_page(pages: Callable[[Service], httpx.Client]) -> None:
    from wsd_local.events import Notice, Reading

    steps: list[Event] = [Reading("a-base", 512, 1912), Notice("older turns are left out"), *OPENING, ANSWER]
    events = asked(pages(ScriptedService(steps)))
    assert {"event": "reading", "model": "a-base", "done": 512, "total": 1912} in events
    assert {"event": "notice", "message": "older turns are left out"} in events
