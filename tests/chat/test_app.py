"""The terminal chat on the embedded pair, driven as a person would."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chat_pilot import EGG, FRANCE, LONG, Brake, answered, ask, chatting, shown, stopped, texts, until
from hub_stand_in import HubStandIn, Repo
from textual.widgets import DataTable, Input, OptionList, Static
from wsd_chat.app import ChatApp
from wsd_chat.commands import COMMANDS, slash
from wsd_chat.markdown.source import SWITCH
from wsd_chat.model_jobs import Wanted
from wsd_chat.screens.compare import CompareScreen
from wsd_chat.screens.help import HelpScreen
from wsd_chat.screens.log import LogScreen
from wsd_chat.screens.model_picker import ModelPicker
from wsd_chat.screens.settings import SettingsScreen
from wsd_chat.screens.switch_view import SwitchView
from wsd_chat.widgets.chat_list import ChatList
from wsd_chat.widgets.composer import Composer
from wsd_chat.widgets.message import MessageView
from wsd_chat.widgets.reply_markdown import ReplyMarkdown
from wsd_chat.widgets.status_line import StatusLine
from wsd_chat.widgets.transcript import WINDOW, Transcript

from wsd_local.library.catalog import catalog_models, catalog_pairs
from wsd_local.library.hub import Hub
from wsd_local.store import ReplyWriter, Store, StoreError


async def test_a_question_is_answered_and_kept(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await until(pilot, lambda: "embedded pair" in shown(app))
        await ask(app, pilot, FRANCE)
        assert [role for role, _ in texts(app)] == ["user", "assistant"]
        assert "Paris" in texts(app)[1][1]
        markdown = app.query_one(ReplyMarkdown)
        assert SWITCH in markdown.source and markdown.source.replace(SWITCH, "") == texts(app)[1][1]
        page = shown(app)
        assert "▐0.91▌" in page and "Paris" in page and "opened by WSD demo draft (7 tokens)" in page
        assert "context" in page and "t/s" in page
        await ask(app, pilot, EGG)
        assert len(texts(app)) == 4
    with Store(tmp_path / "chats.db") as store:
        chat = store.chats.find()[0]
        assert chat.title == FRANCE and chat.messages == 4
        assert (
            chat.head is not None
            and [row.role for row in store.messages.branch(chat.head)] == ["user", "assistant"] * 2
        )


async def test_the_draft_is_distinguished_with_and_without_colour(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, FRANCE)
        styles: dict[str, set[bool | None]] = {}
        for line in app.screen._compositor.render_strips():
            for segment in line:
                for word in ("Great", "Paris"):
                    if word in segment.text and segment.style is not None:
                        styles.setdefault(word, set()).add(bool(segment.style.italic))
        assert styles == {"Great": {True}, "Paris": {False}}


async def test_escape_stops_and_keeps_and_the_reply_goes_on(tmp_path: Path) -> None:
    async with chatting(tmp_path, **LONG) as (app, pilot):
        brake = await stopped(app, pilot)
        part = texts(app)[1][1]
        assert len(part) > 40 and "stopped" in shown(app)
        brake.hold(60)
        await pilot.press("f6")
        await until(pilot, lambda: len(texts(app)[1][1]) > len(part) + 40)
        assert "F6 continues" not in shown(app), "it goes on already"
        await pilot.press("ctrl+c")
        brake.let_go()
        await answered(app, pilot)
        assert texts(app)[1][1].startswith(part)
        assert len(texts(app)) == 2


async def test_a_stopped_reply_goes_on_after_a_restart(tmp_path: Path) -> None:
    part = ""

    async def stop() -> None:
        nonlocal part
        async with chatting(tmp_path, **LONG) as (app, pilot):
            brake = Brake(app, 60)
            app.query_one(Composer).put(FRANCE)
            await pilot.press("enter")
            await until(pilot, lambda: len(texts(app)) == 2 and len(texts(app)[1][1]) > 40)
            await pilot.press("escape")
            brake.let_go()
            await answered(app, pilot)
            part = texts(app)[1][1]

    async def go_on() -> None:
        async with chatting(tmp_path, mode="draft", max_tokens=40, ignore_eos=True) as (app, pilot):
            await app.chats.open(app.store.chats.find()[0].id)
            await pilot.press("f6")
            await until(pilot, lambda: len(texts(app)[1][1]) > len(part))
            await answered(app, pilot)
            assert len(texts(app)) == 2 and texts(app)[1][1].startswith(part)
            head = app.store.chats.find()[0].head
            assert head is not None and app.store.messages.get(head).text == texts(app)[1][1]

    await stop()
    await go_on()


async def test_leaving_a_chat_whose_reply_is_being_written(tmp_path: Path) -> None:
    async with chatting(tmp_path, **LONG) as (app, pilot):
        brake = Brake(app, 60)
        app.query_one(Composer).put(FRANCE)
        await pilot.press("enter")
        await until(pilot, lambda: len(texts(app)) == 2 and len(texts(app)[1][1]) > 40)
        first = app.conversation.chat
        await pilot.press("ctrl+n")
        brake.let_go()
        await answered(app, pilot)
        assert texts(app) == [] and first is not None
        await ask(app, pilot, "/offrecord")
        brake.hold(60)
        app.query_one(Composer).put(EGG)
        await pilot.press("enter")
        await until(pilot, lambda: len(texts(app)) == 2 and len(texts(app)[1][1]) > 40)
        await pilot.press("escape")
        brake.let_go()
        await answered(app, pilot)
        await app.chats.open(first)
        kept = texts(app)[1][1]
        assert len(kept) > 40
        brake.hold(60)
        await pilot.press("f6")
        await until(pilot, lambda: len(texts(app)[1][1]) > len(kept))
        await pilot.press("escape")
        brake.let_go()
        await answered(app, pilot)
        head = app.store.chats.get(first).head
        assert head is not None and app.store.messages.get(head).text.startswith(kept), "and not the other chat's reply"


async def test_a_stopped_reply_goes_on_with_another_pair(tmp_path: Path) -> None:
    async with chatting(tmp_path, **LONG) as (app, pilot):
        brake = await stopped(app, pilot)
        part, before = texts(app)[1][1], app.models.pair
        app.pairs.load(app.pairs.wanted)
        await until(pilot, lambda: app.models.pair not in (None, before) and app.status.phase == "ready")
        brake.hold(60)
        await pilot.press("f6")
        await until(pilot, lambda: len(texts(app)[1][1]) > len(part))
        await pilot.press("escape")
        brake.let_go()
        await answered(app, pilot)
        assert texts(app)[1][1].startswith(part)


async def test_a_store_that_takes_no_more_loses_no_screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise StoreError("the disk is full")

    async with chatting(tmp_path) as (app, pilot):
        monkeypatch.setattr(ReplyWriter, "finish", full)
        await ask(app, pilot, FRANCE)
        assert "Paris" in texts(app)[1][1]
        assert any("the disk is full" in notice.message for notice in app._notifications)
        monkeypatch.undo()
        await ask(app, pilot, EGG)
        assert len(texts(app)) == 4


async def test_regenerate_edit_and_branches(tmp_path: Path) -> None:
    async with chatting(tmp_path, temperature=1.0, draft_temperature=1.0) as (app, pilot):
        await ask(app, pilot, FRANCE)
        await pilot.press("f5")
        await answered(app, pilot)
        assert len(texts(app)) == 2 and "‹ 2/2 ›" in shown(app)
        second = texts(app)[1][1]
        await pilot.press("alt+left")
        await until(pilot, lambda: "‹ 1/2 ›" in shown(app))
        await pilot.press("alt+right")
        await until(pilot, lambda: "‹ 2/2 ›" in shown(app))
        assert texts(app)[1][1] == second
        await pilot.press("f7")
        assert app.query_one(Composer).text == FRANCE
        await ask(app, pilot, EGG)
        assert texts(app)[0] == ("user", EGG) and len(texts(app)) == 2
        await pilot.press("alt+left")
        await until(pilot, lambda: texts(app)[:1] == [("user", FRANCE)])


async def test_steering_by_key(tmp_path: Path) -> None:
    async with chatting(tmp_path, threshold=2.0) as (app, pilot):
        brake = Brake(app)
        app.query_one(Composer).put(EGG)
        await pilot.press("enter")
        await until(pilot, lambda: app.replies.answering.run is not None)
        await pilot.press("f3")
        brake.let_go()
        await answered(app, pilot)
        entry = app.query(MessageView).last().entry
        assert entry.report["switch"]["reason"] == "user" and "▐you▌" in shown(app)
        await ask(app, pilot, "/threshold 0.3")
        assert app.settings.threshold == 0.3 and "━━●───── 0.3" in shown(app)
        await ask(app, pilot, FRANCE)
        assert app.query(MessageView).last().entry.report["switch"]["threshold"] == 0.3
        await ask(app, pilot, "/threshold high")
        assert app.settings.threshold == 0.3
        await pilot.press("alt+up", "alt+up", "alt+down")
        assert app.settings.threshold == 0.35


async def test_letting_the_draft_go_on_by_key(tmp_path: Path) -> None:
    async with chatting(tmp_path, check_chunk=1) as (app, pilot):
        brake = Brake(app)
        app.query_one(Composer).put(FRANCE)
        await pilot.press("enter")
        await until(pilot, lambda: app.replies.answering.run is not None)
        await pilot.press("f4")
        brake.let_go()
        await answered(app, pilot)
        switch = app.query(MessageView).last().entry.report["switch"]
        assert (switch["reason"], switch["threshold"]) == ("draft_end", 2.0) and "▐end▌" in shown(app)


async def test_copy_and_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def copy(text: str) -> str:
        taken.append(text)
        return "a program"

    async with chatting(tmp_path) as (app, pilot):
        monkeypatch.setattr("wsd_chat.copying.copy", copy)
        await ask(app, pilot, FRANCE)
        await pilot.press("alt+c")
        await pilot.click(next(iter(app.query(MessageView))))
        await pilot.press("alt+c")
        assert taken == [texts(app)[1][1], FRANCE]
        assert any("copied" in notice.message for notice in app._notifications)
        await pilot.press("alt+r")
        await until(pilot, lambda: app.screen.query(Input))
        app.screen.query_one(Input).value = "Cities"
        await pilot.press("enter")
        await until(pilot, lambda: app.store.chats.find()[0].title == "Cities")


async def test_the_switch_view(tmp_path: Path) -> None:
    async with chatting(tmp_path, (120, 40)) as (app, pilot):
        await pilot.press("f2")
        assert not isinstance(app.screen, SwitchView)
        await ask(app, pilot, FRANCE)
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SwitchView) and app.screen.query(DataTable))
        table = app.screen.query_one(DataTable)
        assert table.row_count == 26
        page = shown(app)
        assert "reached the threshold at token 6" in page and "threshold" in page and "discarded draft text" in page
        await pilot.press("o")
        await until(pilot, lambda: len(table.columns) == 7)
        await until(pilot, lambda: "favourite" in shown(app))
        await pilot.press("f5", "f2")
        await until(pilot, lambda: not isinstance(app.screen, SwitchView))
        assert len(app.screen_stack) == 1 and len(texts(app)) == 2 and not app.replies.busy


async def test_compare_side_by_side(tmp_path: Path) -> None:
    async with chatting(tmp_path, (150, 40)) as (app, pilot):
        await ask(app, pilot, FRANCE)
        await pilot.press("alt+v")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        await until(pilot, lambda: len(screen.replies) == 3 and not app.models.busy)
        assert "Paris" in screen.replies["wsd"] and "Paris" not in screen.replies["base"]
        await until(pilot, lambda: "Helsinki" in shown(app) and "Paris" in shown(app))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, CompareScreen))
        await ask(app, pilot, EGG)
        assert len(texts(app)) == 4


async def test_chats_search_rename_delete_undo(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, FRANCE)
        first = app.conversation.chat
        await pilot.press("ctrl+n")
        await until(pilot, lambda: not texts(app))
        await ask(app, pilot, EGG)
        await ask(app, pilot, "/title Breakfast")
        rows = app.query_one(ChatList).query_one(OptionList)
        await until(pilot, lambda: rows.option_count == 2 and "Breakfast" in str(rows.get_option_at_index(0).prompt))
        await pilot.press("alt+f")
        app.query_one("#search", Input).value = "paris"
        await until(pilot, lambda: rows.option_count == 1)
        await pilot.press("enter", "enter")
        await until(pilot, lambda: app.conversation.chat == first and len(texts(app)) == 2)
        await pilot.press("alt+x")
        await until(pilot, lambda: app.conversation.chat is None)
        assert len(app.store.chats.find()) == 1
        await pilot.press("alt+z")
        await until(pilot, lambda: app.conversation.chat == first and len(texts(app)) == 2)
        assert len(app.store.chats.find()) == 2


async def test_off_the_record(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, "/offrecord")
        await ask(app, pilot, FRANCE)
        assert "Paris" in texts(app)[1][1]
        assert app.store.chats.find() == []
    assert b"Paris" not in (tmp_path / "chats.db").read_bytes()


async def test_the_composer(tmp_path: Path) -> None:
    async with chatting(tmp_path, (60, 20)) as (app, pilot):
        composer = app.query_one(Composer)
        await pilot.press("h", "i", "ctrl+j", "y", "o")
        assert composer.text == "hi\nyo"
        low = composer.size.height
        composer.put("\n".join(map(str, range(30))))
        await until(pilot, lambda: composer.size.height > low)
        assert composer.size.height <= 10
        composer.put("")
        await ask(app, pilot, FRANCE)
        await ask(app, pilot, EGG)
        await pilot.press("up")
        assert composer.text == EGG
        await pilot.press("up")
        assert composer.text == FRANCE
        await pilot.press("down", "down")
        assert composer.text == ""
        await pilot.press("enter")
        assert len(texts(app)) == 4, "nothing is not sent"


async def test_settings_and_presets(tmp_path: Path) -> None:
    async with chatting(tmp_path, (100, 50)) as (app, pilot):
        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, SettingsScreen) and app.screen.query("#threshold"))
        screen = app.screen
        await pilot.click("#more")
        assert screen.query_one("#threshold", Input).value == "0.85"
        screen.query_one("#temperature", Input).value = "-3"
        await pilot.click("#use")
        await until(pilot, lambda: "temperature" in str(screen.query_one("#message", Static).content))
        screen.query_one("#temperature", Input).value = "0.5"
        screen.query_one("#system", Input).value = "Be kind."
        await pilot.click("#save")
        await pilot.pause()
        await pilot.press(*"mine", "enter")
        await until(pilot, lambda: app.store.presets.all())
        assert app.store.presets.all()[0].name == "mine"
        await pilot.click("#use")
        await until(pilot, lambda: not isinstance(app.screen, SettingsScreen))
        assert (
            app.conversation.system == "Be kind."
            and app.settings.overrides["temperature"] == 0.5
            and app.settings.threshold == 0.85
        )
        await ask(app, pilot, FRANCE)
        assert len(texts(app)) == 2


async def test_help_log_and_models(tmp_path: Path) -> None:
    async with chatting(tmp_path, (120, 45)) as (app, pilot):
        for key, kind in (("f1", HelpScreen), ("f12", LogScreen), ("f8", ModelPicker)):
            await pilot.press(key)
            await until(pilot, lambda kind=kind: isinstance(app.screen, kind))
            if kind is ModelPicker:
                options = app.screen.query_one(OptionList)
                await until(pilot, lambda options=options: options.option_count > 5)
                await until(
                    pilot,
                    lambda: all(word in shown(app) for word in ("demo", "here", "laptop", "fetch", "fits")),
                )
            await pilot.press("escape")
            await until(pilot, lambda kind=kind: not isinstance(app.screen, kind))


async def test_a_small_screen_has_one_line_for_each_pair_and_the_first_is_tiny(tmp_path: Path) -> None:
    async with chatting(tmp_path, (80, 24)) as (app, pilot):
        await pilot.press("f8")
        await until(pilot, lambda: isinstance(app.screen, ModelPicker) and "▸ demo" in shown(app))
        rows = [line for line in shown(app).splitlines() if "here" in line or " fetch " in line]
        assert [row.strip(" │▎▊▸").split()[0] for row in rows][:2] == ["tiny", "edge"]
        options = app.screen.query_one(OptionList)
        assert options.virtual_size.height == options.option_count
        columns = {str(options.get_option_at_index(row).prompt).index(" fits ") for row in range(1, 4)}
        assert len(columns) == 1


async def test_figures_are_those_of_the_reply_that_is_shown(tmp_path: Path) -> None:
    async with chatting(tmp_path, (120, 40), max_tokens=5) as (app, pilot):
        await ask(app, pilot, FRANCE)
        await until(pilot, lambda: app.status.progress is not None)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: app.status.progress is None)


async def test_another_pair_from_the_picker(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        before = app.models.pair
        await pilot.press("f8")
        await until(
            pilot, lambda: isinstance(app.screen, ModelPicker) and app.screen.query_one(OptionList).option_count
        )
        options = app.screen.query_one(OptionList)
        options.highlighted = options.get_option_index("demo")
        await pilot.press("enter")
        await until(pilot, lambda: app.models.pair is not None and app.models.pair is not before)
        await ask(app, pilot, FRANCE)
        assert "Paris" in texts(app)[1][1]


async def test_a_pair_is_fetched_from_inside(
    tmp_path: Path, demo_q8: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that the catalog names are the embedded pair's here."""
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "data"))
    models, pair = catalog_models(), catalog_pairs()["edge"]

    async def test(hub: HubStandIn) -> None:
        for name, path in zip((pair.draft, pair.base), demo_q8, strict=True):
            entry = models[name]
            assert entry.repo is not None and entry.file is not None
            hub.repos[entry.repo] = Repo({entry.file: path.read_bytes()})
        async with chatting(tmp_path, (120, 45)) as (app, pilot):
            await pilot.press("f8")
            await until(pilot, lambda: isinstance(app.screen, ModelPicker))
            options = app.screen.query_one(OptionList)
            await until(pilot, lambda: options.option_count)
            options.highlighted = options.get_option_index("edge")
            await pilot.press("enter")
            await until(pilot, lambda: " here " in str(options.get_option("edge").prompt))
            options.highlighted = options.get_option_index("edge")
            await pilot.press("enter")
            await until(pilot, lambda: app.status.pair == "edge" and app.status.phase == "ready")
            await ask(app, pilot, FRANCE)
            assert "Paris" in texts(app)[1][1]

    with HubStandIn() as hub:
        monkeypatch.setattr("wsd_local.library.fetching.Hub", partial(Hub, hub.url, tmp_path / "hub"))
        await test(hub)


async def test_a_model_that_cannot_be_loaded_is_a_message(tmp_path: Path) -> None:
    with Store(tmp_path / "chats.db") as store:
        app = ChatApp(Wanted(None, None, "none.gguf", {"threads": 1}), store)
        async with app.run_test(size=(100, 30)) as pilot:
            await until(pilot, lambda: "no such file" in shown(app))
            app.query_one(Composer).put(FRANCE)
            await pilot.press("enter")
            await until(pilot, lambda: app.query_one(Composer).text == FRANCE)
            await until(pilot, lambda: "no pair is loaded" in shown(app))
            assert app.is_running and store.chats.find()[0].messages == 0


async def test_what_cannot_be_asked_goes_back_into_the_composer(tmp_path: Path) -> None:
    async with chatting(tmp_path, ctx=256) as (app, pilot):
        text = "word " * 400
        app.query_one(Composer).put(text)
        await pilot.press("enter")
        await until(pilot, lambda: "does not fit" in shown(app) or "too long" in shown(app))
        await until(pilot, lambda: app.query_one(Composer).text == text)
        await ask(app, pilot, FRANCE)
        assert any("Paris" in said for _, said in texts(app))


async def test_a_long_chat_mounts_its_end_first(tmp_path: Path) -> None:
    with Store(tmp_path / "chats.db") as store:
        chat, parent = store.chats.create(), None
        for number in range(100):
            parent = store.messages.add(chat, parent, "user", f"question {number}")
            parent = store.messages.add(chat, parent, "assistant", f"answer {number}")
    async with chatting(tmp_path) as (app, pilot):
        await app.chats.open(chat)
        await pilot.pause()
        assert len(app.query(MessageView)) == WINDOW and "answer 99" in shown(app)
        await app.query_one(Transcript).earlier()
        await until(pilot, lambda: len(app.query(MessageView)) == 2 * WINDOW)
        await ask(app, pilot, FRANCE)
        assert texts(app)[-1][0] == "assistant" and texts(app)[-1][1]


async def test_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await ask(app, pilot, FRANCE)
        for name in ("chat.md", "chat.json"):
            await pilot.press("ctrl+s")
            await until(pilot, lambda: app.screen.query(Input))
            app.screen.query_one(Input).value = str(tmp_path / name)
            await pilot.press("enter")
            await until(pilot, lambda name=name: (tmp_path / name).exists())
            assert "Paris" in (tmp_path / name).read_text(encoding="utf-8")


async def test_ctrl_c_twice_leaves(tmp_path: Path) -> None:
    async with chatting(tmp_path) as (app, pilot):
        await pilot.press("ctrl+c")
        assert app.is_running
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)


def test_every_command_has_its_action() -> None:
    names = [command.slash for command in COMMANDS if command.slash]
    assert len(names) == len(set(names))
    keys = [command.keys for command in COMMANDS if command.keys]
    assert len(keys) == len(set(keys))
    for command in COMMANDS:
        assert hasattr(ChatApp, f"action_{command.action.partition('(')[0]}"), command.name
    assert slash("thr") is None and slash("rege") is None
    found = slash("exp")
    assert found is not None and found.name == "export"


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (200, 60)])
async def test_at_several_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    async with chatting(tmp_path, size) as (app, pilot):
        await ask(app, pilot, FRANCE)
        page = shown(app)
        assert "Paris" in page and app.query_one(Composer).region.height >= 3
        assert app.query_one(StatusLine).region.bottom <= size[1]
        assert app.query_one(ChatList).display is (size[0] >= 120)
        await pilot.press("ctrl+b")
        await until(pilot, lambda: app.query_one(ChatList).display is not (size[0] >= 120))
