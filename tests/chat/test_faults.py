"""What must not happen in the chat: frozen keys, lost questions, stopped loading, hidden text, covered lines."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from chat_pilot import EGG, FRANCE, LONG, Brake, answered, ask, chatting, shown, stopped, texts, until
from textual.containers import VerticalScroll
from textual.widgets import Input, OptionList
from textual_plotext import PlotextPlot
from wsd_chat.app import ChatApp
from wsd_chat.model_jobs import Wanted
from wsd_chat.screens.box import Ask
from wsd_chat.screens.compare import CompareScreen
from wsd_chat.screens.model_picker import ModelPicker
from wsd_chat.screens.settings import SettingsScreen, names
from wsd_chat.screens.switch_view import SwitchView
from wsd_chat.widgets.chat_list import ChatList
from wsd_chat.widgets.composer import Composer
from wsd_chat.widgets.message import MessageView
from wsd_chat.widgets.transcript import Transcript

from wsd_local.core.decoding import Phase
from wsd_local.runtime.reply import ReplyProgress
from wsd_local.runtime.run import Run
from wsd_local.settings import ReplySettings
from wsd_local.store import Store


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another program is changing the file."""
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


async def test_a_held_store_freezes_no_key_and_loses_no_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsd_local.store.file.BUSY_S", 2.0)

    async with chatting(tmp_path) as (app, pilot):
        composer = app.query_one(Composer)
        with held(tmp_path / "chats.db"):
            composer.put(FRANCE)
            await pilot.press("enter", "x", "y")
            assert composer.text == "xy" and app.replies.busy, "keys go on while the question is being saved"
            await until(pilot, lambda: not app.replies.busy)
            await until(pilot, lambda: "another program" in shown(app))
            assert composer.text == f"{FRANCE}\nxy" and texts(app)[:1] != [("user", FRANCE)]
        composer.put("")
        await ask(app, pilot, FRANCE)
        assert "Paris" in texts(app)[-1][1]


async def test_a_reply_that_ends_while_the_store_is_held_is_kept_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsd_local.store.file.BUSY_S", 0.5)
    monkeypatch.setattr("wsd_chat.reply_end.RETRY_S", 0.1)

    async with chatting(tmp_path) as (app, pilot):
        brake = Brake(app)
        app.query_one(Composer).put(FRANCE)
        await pilot.press("enter")
        await until(pilot, lambda: app.replies.answering.run is not None)
        with held(tmp_path / "chats.db"):
            brake.let_go()
            await until(pilot, lambda: "not saved yet" in shown(app))
        await until(pilot, lambda: "opened by" in shown(app))
        assert app.conversation.head is not None and "Paris" in app.store.messages.get(app.conversation.head).text


@pytest.mark.parametrize("asked_first", [True, False])
async def test_leaving_does_not_wait_for_a_held_store_and_says_what_is_lost(
    asked_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsd_local.store.file.BUSY_S", 10_000.0)
    monkeypatch.setattr("wsd_chat.replies.LEAVE_S", 0.1)
    lost: list[str | None] = []

    with ExitStack() as stack:
        async with chatting(tmp_path, **LONG) as (app, pilot):
            brake = Brake(app, 60)
            if not asked_first:
                stack.enter_context(held(tmp_path / "chats.db"))
            app.query_one(Composer).put(FRANCE)
            await pilot.press("enter")
            if asked_first:
                await until(pilot, lambda: app.replies.answering.run is not None)
                stack.enter_context(held(tmp_path / "chats.db"))
            brake.let_go()
        lost.append(app.lost)

    assert lost[0] is not None and ("reply" if asked_first else "question") in lost[0]


async def test_a_chat_opened_while_the_pair_loads_stops_nothing(tmp_path: Path) -> None:
    with Store(tmp_path / "chats.db") as store:
        chat = store.chats.create(pair="demo", system=None)
        store.messages.add(chat, None, "user", FRANCE)

    with Store(tmp_path / "chats.db") as store:
        app = ChatApp(Wanted("demo", None, None, {"threads": 1}), store, chat=chat)
        async with app.run_test(size=(120, 30)) as pilot:
            await app.chats.open(chat)
            await pilot.press("ctrl+n")
            await app.chats.open(chat)
            await until(pilot, lambda: app.models.pair is not None and app.status.phase == "ready")
            assert texts(app) == [("user", FRANCE)]
            await pilot.press("f5")
            await answered(app, pilot)
            assert "Paris" in texts(app)[1][1]


async def test_going_on_without_a_pair_leaves_a_stopped_reply_stopped(tmp_path: Path) -> None:
    async with chatting(tmp_path, **LONG) as (app, pilot):
        await stopped(app, pilot)
        head = app.conversation.head
        assert head is not None
        row = app.store.messages.get(head)
        app.pairs.load(Wanted(None, None, str(tmp_path / "none.gguf"), {"threads": 1}))
        await pilot.press("f6")  # while it loads
        await answered(app, pilot)
        await until(pilot, lambda: app.status.phase == "no pair")
        assert app.store.messages.get(head) == row and row.state == "cancelled"
        await pilot.press("f6")  # and with none
        await answered(app, pilot)
        assert app.store.messages.get(head) == row
        await pilot.press("f5")
        await answered(app, pilot)
        assert app.store.messages.get(head) == row, "answering anew in vain deletes no reply"


async def test_escape_stops_the_reply_that_waits_and_not_the_loading(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        app.pairs.load(app.pairs.wanted)
        app.query_one(Composer).put(FRANCE)
        await pilot.press("enter")
        await pilot.press("escape")
        await answered(app, pilot)
        await until(pilot, lambda: app.models.pair is not None and app.status.phase == "ready")
        await ask(app, pilot, FRANCE)
        assert "Paris" in texts(app)[-1][1], "two questions in a row are answered"


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 40)])
async def test_the_search_takes_the_words_and_shows_them(tmp_path: Path, size: tuple[int, int]) -> None:
    async with chatting(tmp_path, size) as (app, pilot):
        await pilot.press("alt+f", *"pomegra")
        assert app.query_one("#search", Input).value == "pomegra" and app.query_one(Composer).text == ""
        await until(pilot, lambda: "pomegra" in shown(app))
        await pilot.press("escape")
        await pilot.press("x")
        assert app.query_one(Composer).text == "x"
        assert app.query_one(ChatList).display is (size[0] >= 120)


def test_alt_f_is_alt_f_as_terminals_send_it() -> None:
    from textual._xterm_parser import XTermParser
    from textual.events import Key
    from wsd_chat.terminal.alt_f import accept_alt_f

    accept_alt_f()
    parser = XTermParser()
    events = [*parser.feed("\x1bf"), *parser.feed("")]
    assert [event.key for event in events if isinstance(event, Key)] == ["alt+f"]


async def test_paging_from_the_composer(tmp_path: Path) -> None:
    with Store(tmp_path / "chats.db") as store:
        chat, parent = store.chats.create(), None
        for number in range(6):
            parent = store.messages.add(chat, parent, "user", f"question {number}\n" * 9)

    async with chatting(tmp_path, (80, 24)) as (app, pilot):
        await app.chats.open(chat)
        transcript = app.query_one(Transcript)
        await until(pilot, lambda: transcript.scroll_y > 20 and transcript.is_vertical_scroll_end)
        at = transcript.scroll_y
        await pilot.press("pageup")
        await until(pilot, lambda: transcript.scroll_y < at)
        assert app.query_one(Composer).has_focus
        await pilot.press("pagedown")
        await until(pilot, lambda: transcript.scroll_y == at)


@pytest.mark.parametrize("size", [(60, 24), (80, 24)])
async def test_the_footer_fits_and_notices_cover_neither_composer_nor_status(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    with Store(tmp_path / "chats.db") as store:
        app = ChatApp(Wanted("demo", None, None, {"threads": 1}), store)
        async with app.run_test(size=size, notifications=True) as pilot:
            await until(pilot, lambda: "f8 models" in shown(app).splitlines()[-1])
            for number in range(8):
                app.say(f"a notice that is as long as notices are now and then, and has the number {number}")
            await until(pilot, lambda: "a notice" in shown(app))
            below = shown(app).splitlines()[app.query_one(Composer).region.y :]
            assert below[0] == f"╭{'─' * (size[0] - 2)}╮" and not any("notice" in line for line in below)


async def test_the_theme_is_taken_again(tmp_path: Path) -> None:
    async def choose() -> None:
        async with chatting(tmp_path) as (app, pilot):
            app.theme = "nord"
            await until(pilot, lambda: (tmp_path / "wsd-chat.json").exists())

    async def look() -> None:
        async with chatting(tmp_path) as (app, _):
            assert app.theme == "nord"

    async def damaged() -> None:
        (tmp_path / "wsd-chat.json").write_text('{"theme": ["no", "such"]}')
        async with chatting(tmp_path) as (app, _):
            assert app.theme == "textual-dark"

    await choose()
    await look()
    await damaged()


async def test_the_settings_have_every_setting_of_a_reply(tmp_path: Path) -> None:
    async with chatting(tmp_path, (80, 24)) as (app, pilot):
        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen) and app.screen.query("#threshold"))
        assert set(names()) == {"system", *(field for field in ReplySettings.__dataclass_fields__)}
        for name, value in (("repeat_penalty", "1.3"), ("seed", "7"), ("top_k", "5"), ("window", "4")):
            app.screen.query_one(f"#{name}", Input).value = value
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, SettingsScreen))
        expected = {"repeat_penalty": 1.3, "seed": 7, "top_k": 5, "window": 4}
        assert {name: app.settings.overrides[name] for name in expected} == expected
        await ask(app, pilot, FRANCE)
        entry = app.query(MessageView).last().entry
        assert entry.report["switch"]["window"] == 4


async def test_two_models_that_are_here_can_be_chosen(tmp_path: Path) -> None:
    async with chatting(tmp_path, (110, 40)) as (app, pilot):
        assert "embedded pair" in app.transcript.greeting
        await pilot.press("f8")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker))
        options = app.screen.query_one(OptionList)
        await until(pilot, lambda: options.option_count)
        options.highlighted = options.get_option_index("two models")
        for name in ("demo-base", "demo-draft"):
            await pilot.press("enter")
            await until(pilot, lambda: "demo-draft" in str(options.get_option_at_index(0).prompt))
            options.highlighted = options.get_option_index(name)
        await pilot.press("enter")
        await until(pilot, lambda: app.status.pair == "demo-base + demo-draft" and app.status.phase == "ready")
        assert "embedded pair" not in app.transcript.greeting and "WSD demo base opens" in app.transcript.greeting


async def test_the_switch_view_of_a_stopped_reply(tmp_path: Path) -> None:
    with Store(tmp_path / "chats.db") as store:
        chat = store.chats.create()
        writer = store.replies.begin(chat, store.messages.add(chat, None, "user", EGG), pair="demo", settings={})
        from wsd_local.events import Text

        writer.text(Text("Half a", "draft"))
        writer.close()

    async with chatting(tmp_path, (120, 40)) as (app, pilot):
        await app.chats.open(chat)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SwitchView) and "Half a" in shown(app))
        await until(pilot, lambda: "the reply was stopped" in shown(app))
        await pilot.press("o", "escape")
        await until(pilot, lambda: not isinstance(app.screen, SwitchView))


async def test_the_status_line_shows_how_far_a_long_prompt_is_read(tmp_path: Path) -> None:
    phases: list[str] = []
    async with chatting(tmp_path, max_tokens=5) as (app, pilot):
        app.watch(app.status, "phase", lambda phase: phases.append(phase), init=False)
        await ask(app, pilot, "word " * 700)
        read = [phase for phase in phases if " reads " in phase]
        assert {phase.partition(" reads ")[0] for phase in read} == {"WSD demo draft", "WSD demo base"}
        assert all(phase.partition(" reads ")[2].startswith("512 of 7") for phase in read)
        await until(pilot, lambda: app.status.phase == "ready")


async def test_forks_are_reached_by_key(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, FRANCE)
        await pilot.press("f5")
        await answered(app, pilot)
        await pilot.press("f7")
        await ask(app, pilot, EGG)
        await pilot.press("f5")
        await answered(app, pilot)
        seen: set[Any] = set()
        for _ in range(4):
            head = app.conversation.head
            await pilot.press("alt+left")
            await until(pilot, lambda head=head: app.conversation.head != head)
            seen.add(app.conversation.head)
        assert len(seen) == 4


async def test_line_breaks_stay(tmp_path: Path) -> None:
    with Store(tmp_path / "chats.db") as store:
        chat = store.chats.create()
        store.messages.add(
            chat,
            store.messages.add(chat, None, "user", "a haiku"),
            "assistant",
            "An old silent pond\nA frog jumps in\nSplash",
        )

    async with chatting(tmp_path) as (app, pilot):
        await app.chats.open(chat)
        await until(pilot, lambda: "Splash" in shown(app))
        lines = [line.strip(" ▎│").strip() for line in shown(app).splitlines()]
        assert lines.index("Splash") - lines.index("An old silent pond") == 2


async def test_a_reply_cut_at_its_length_limit_is_continued(tmp_path: Path) -> None:
    async with chatting(tmp_path, mode="base", max_tokens=4, ignore_eos=True) as (app, pilot):
        await ask(app, pilot, FRANCE)
        cut = texts(app)[1][1]
        await until(pilot, lambda: "cut at the length limit" in shown(app))
        await pilot.press("f6")
        await until(pilot, lambda: texts(app)[1][1] != cut)
        await answered(app, pilot)
        assert len(texts(app)) == 2 and texts(app)[1][1].startswith(cut)
        head = app.conversation.head
        assert head is not None and app.store.messages.get(head).text == texts(app)[1][1]


async def test_no_reply_is_built_while_one_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsd_chat.model_jobs.PROGRESS_S", 0.0)
    built, built_while_written, progress = Run.reply, [], []

    def reply(run: Run) -> Any:
        if run.progress.phase is not Phase.DONE:
            built_while_written.append(run)
        return built.fget(run)  # type: ignore[attr-defined]

    monkeypatch.setattr(Run, "reply", property(reply))
    async with chatting(tmp_path) as (app, pilot):
        publish = app.models.publish

        def publishes(news: object) -> None:
            if isinstance(news, ReplyProgress):
                progress.append(news.phase)
            publish(news)

        monkeypatch.setattr(app.models, "publish", publishes)
        await ask(app, pilot, FRANCE)
        assert "t/s" in shown(app)
    assert {Phase.DRAFT, Phase.CONTINUE, Phase.DONE} <= set(progress), "the progress is shown all the while"
    assert not built_while_written


async def test_the_number_of_the_branch_hides_nothing_and_goes_with_the_next_reply(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, "/offrecord")
        await ask(app, pilot, FRANCE)
        await pilot.press("f5")
        await answered(app, pilot)
        await pilot.press("alt+left")
        await until(pilot, lambda: "off the record │ branch 1 of 2" in shown(app))
        await ask(app, pilot, EGG)
        await until(pilot, lambda: "off the record │ draft" in shown(app))


async def test_a_chat_off_the_record_is_not_taken_for_one_in_the_list(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, FRANCE)
        rows = app.query_one(ChatList).query_one(OptionList)
        await until(pilot, lambda: rows.option_count == 1 and str(rows.options[0].prompt).startswith("▸"))
        await ask(app, pilot, "/offrecord")
        await ask(app, pilot, EGG)
        assert app.conversation.chat == 1 == app.store.chats.find("")[0].id, "the numbers are the same"
        await until(pilot, lambda: rows.option_count == 1 and not str(rows.options[0].prompt).startswith("▸"))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, Ask))
        assert app.screen.query_one(Input).value == "chat.md"


async def test_the_status_line_says_from_the_start_that_a_chat_is_off_the_record(tmp_path: Path) -> None:
    with Store(tmp_path / "chats.db") as store:
        app = ChatApp(Wanted("demo", None, None, {"threads": 1}), store, off_record=True)
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.status.phase == "ready")
            assert "off the record" in shown(app)


async def test_the_narrow_and_the_low_screen_leave_out_what_has_no_room(tmp_path: Path) -> None:
    async with chatting(tmp_path, (60, 20)) as (app, pilot):
        await ask(app, pilot, FRANCE)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SwitchView))
        assert not app.screen.query_one(PlotextPlot).display
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("alt+v")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        columns = app.screen.query(VerticalScroll)
        assert {column.region.x for column in columns} == {0} and len({column.region.y for column in columns}) == 3
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("f8")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and "Enter loads" in shown(app))


async def test_a_chat_with_values_of_wrong_kinds_is_a_message(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, FRANCE)
        chat = app.conversation.chat
        with closing(sqlite3.connect(tmp_path / "chats.db")) as connection:
            connection.execute("""UPDATE replies SET report = '{"draft": 3, "base": 4, "timings": 5}'""")
            connection.commit()
        app.start(app.chats.open(chat))
        await until(pilot, lambda: any("damaged" in notice.message for notice in app._notifications))
        await pilot.press("ctrl+n")
        await ask(app, pilot, EGG)
        assert len(texts(app)) == 2, "and the chat goes on"
