"""The chat under rules other than the usual one: what it shows, and that no key changes what the rule does not use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chat_pilot import FRANCE, ask, chatting, shown, until
from textual.widgets import DataTable, Input
from wsd_chat.next_settings import NextSettings
from wsd_chat.screens.compare import CompareScreen
from wsd_chat.screens.switch_view import SwitchView
from wsd_chat.widgets.message import MessageView

from wsd_local.core.rule_settings import BOUNDS
from wsd_local.errors import UsageError
from wsd_local.settings import ReplySettings


@pytest.mark.parametrize(
    ("rule", "bound", "why", "column"),
    [
        ("veto", "veto 0.05", "(rule veto, threshold 0.95)", "below the draft's claim"),
        ("nudging", "nudging 0.3", "(rule nudging, threshold 0.3)", "window"),
        ("entropy", "entropy 0.5", "(rule entropy, window 6, threshold 0.607)", "window"),
        ("return", "γ ━━━━━━●─ 0.8", "(rule return, window 6, threshold 0.8)", "window"),
    ],
)
async def test_a_rule_is_shown_by_its_own_bound(tmp_path: Path, rule: str, bound: str, why: str, column: str) -> None:
    async with chatting(tmp_path, (140, 44), rule=rule) as (app, pilot):
        await ask(app, pilot, FRANCE)
        assert bound in shown(app)
        assert app.query(MessageView).last().entry.report["switch"]["rule"] == rule
        await pilot.press("f2")
        await until(pilot, lambda: isinstance(app.screen, SwitchView) and app.screen.query(DataTable))
        assert why in shown(app)
        assert any(str(one.label) == column for one in app.screen.query_one(DataTable).columns.values())


async def test_a_threshold_is_refused_where_the_rule_has_none(tmp_path: Path) -> None:
    async with chatting(tmp_path, (140, 40), rule="veto") as (app, pilot):
        for key in ("alt+up", "alt+down"):
            await pilot.press(key)
        await ask(app, pilot, "/threshold 0.3")
        notices = [notice.message for notice in app._notifications]
        assert notices == ["the rule veto has no threshold: it goes by veto, now 0.05, see F9"] * 3
        await pilot.press("f9")
        await until(pilot, lambda: app.screen.query(Input))
        app.screen.query_one("#veto", Input).value = "0.2"
        await pilot.press("enter")
        await until(pilot, lambda: app.status.bound == ("veto", 0.2))
        await ask(app, pilot, FRANCE)
        assert app.query(MessageView).last().entry.report["switch"]["threshold"] == pytest.approx(0.8)


@pytest.mark.parametrize("rule", ["veto", "nudging", "entropy"])
async def test_a_model_alone_is_compared_without_the_rule(tmp_path: Path, rule: str) -> None:
    async with chatting(tmp_path, (150, 40), rule=rule) as (app, pilot):
        await ask(app, pilot, FRANCE)
        await pilot.press("alt+v")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        screen = app.screen
        assert isinstance(screen, CompareScreen)
        await until(pilot, lambda: len(screen.replies) == 3 and not app.models.busy)


@pytest.mark.parametrize("rule", [*BOUNDS])
def test_what_the_next_reply_goes_by(rule: str) -> None:
    name = BOUNDS[rule]
    settings = NextSettings({"rule": rule, "threads": 1})
    assert settings.bound == (name, getattr(ReplySettings(), name))
    settings.overrides[name] = 0.25
    assert settings.bound == (name, 0.25) and settings.checked() == {name: 0.25}


@pytest.mark.parametrize(
    ("own", "overrides"), [({"rule": "veto"}, {"threshold": 0.5}), ({"veto": 0.3, "rule": "veto"}, {"rule": "window"})]
)
def test_what_does_not_hold_together_is_refused_before_the_reply(
    own: dict[str, Any], overrides: dict[str, Any]
) -> None:
    settings = NextSettings(own)
    settings.overrides.update(overrides)
    with pytest.raises(UsageError):
        settings.checked()
