"""How the main screens look. `pytest tests/chat/test_pictures.py --snapshot-update` accepts another look."""

from __future__ import annotations

from typing import Any

import pytest
from stills import TOKENS, Still, settled
from textual.pilot import Pilot
from wsd_chat.screens.help import HelpScreen
from wsd_chat.screens.switch_view import SwitchView


@pytest.mark.parametrize(
    ("size", "theme"),
    [
        ((60, 20), "textual-dark"),
        ((110, 30), "textual-dark"),
        ((110, 30), "textual-light"),
        ((200, 60), "textual-dark"),
    ],
    ids=["60x20", "110x30", "light", "200x60"],
)
def test_the_chat(snap_compare: Any, size: tuple[int, int], theme: str) -> None:
    app = Still(theme)
    assert snap_compare(app, terminal_size=size, run_before=app.prepare)


def test_the_switch_view(snap_compare: Any) -> None:
    app = Still()

    async def look(pilot: Pilot[Any]) -> None:
        await app.prepare(pilot)
        await app.push_screen(SwitchView(app.transcript.entries[-1], TOKENS, [], app.models))
        await settled(pilot)

    assert snap_compare(app, terminal_size=(110, 34), run_before=look)


def test_the_help(snap_compare: Any) -> None:
    app = Still()

    async def look(pilot: Pilot[Any]) -> None:
        await app.prepare(pilot)
        await app.push_screen(HelpScreen())
        await settled(pilot)

    assert snap_compare(app, terminal_size=(110, 50), run_before=look)
