"""The terminal chat, driven as a person would drive it: keys go in, the screen is read."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from wsd_chat.app import ChatApp
from wsd_chat.model_jobs import Emitted, Wanted
from wsd_chat.widgets.composer import Composer
from wsd_chat.widgets.message import MessageView

from wsd_local.events import Text
from wsd_local.store import Store

FRANCE = "What is the capital of France?"


EGG = "How do I boil an egg?"


LONG: dict[str, Any] = {"mode": "draft", "max_tokens": 1500, "ignore_eos": True}


@asynccontextmanager
async def chatting(
    folder: Path, size: tuple[int, int] = (110, 34), *, file: str = "chats.db", **settings: Any
) -> AsyncIterator[tuple[ChatApp, Pilot[None]]]:
    """The program on a screen of that size, its pair loaded."""
    with Store(folder / file) as store:
        app = ChatApp(Wanted("demo", None, None, {"threads": 1, **settings}), store)
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.models.pair is not None and app.status.phase == "ready")
            yield app, pilot


async def until(pilot: Pilot[Any], holds: Callable[..., Any]) -> None:
    """Wait for something that must come; the limit only ends a test that hangs."""
    end = time.monotonic() + 300
    while not holds():
        if time.monotonic() > end:
            raise AssertionError("it never came to hold")
        await pilot.pause(0.02)


async def ask(app: ChatApp, pilot: Pilot[Any], text: str) -> None:
    """Write a message, send it, and wait for the reply."""
    app.query_one(Composer).put(text)
    await pilot.press("enter")
    await answered(app, pilot)


async def answered(app: ChatApp, pilot: Pilot[Any]) -> None:
    """Wait for the end of the reply."""
    await until(pilot, lambda: not app.replies.busy and not app.models.busy)
    await pilot.pause()  # until it is drawn


class Brake:
    """The models pause after so many characters of text, until they are let go."""

    def __init__(self, app: ChatApp, after: int = 0) -> None:
        self._left, self._going, publish = after, threading.Event(), app.models.publish

        def published(news: Any) -> None:
            publish(news)
            if isinstance(news, Emitted) and isinstance(news.event, Text):
                self._left -= len(news.event.text)
                if self._left < 0:
                    self._going.wait(30)

        app.models.publish = published  # type: ignore[method-assign]

    def hold(self, after: int) -> None:
        """Pause again, after so many characters from here on."""
        self._left = after
        self._going.clear()

    def let_go(self) -> None:
        """From here on nothing waits."""
        self._going.set()


async def stopped(app: ChatApp, pilot: Pilot[Any]) -> Brake:
    """Ask about France and stop the reply after some 40 characters; the brake that held it is let go."""
    brake = Brake(app, 60)
    app.query_one(Composer).put(FRANCE)
    await pilot.press("enter")
    await until(pilot, lambda: len(texts(app)) == 2 and len(texts(app)[1][1]) > 40)
    await pilot.press("escape")
    brake.let_go()
    await answered(app, pilot)
    return brake


def texts(app: ChatApp) -> list[tuple[str, str]]:
    """The conversation on the screen."""
    return [(view.entry.role, view.entry.text) for view in app.query(MessageView)]


def shown(app: ChatApp) -> str:
    """All that the screen shows, as text."""
    return "\n".join("".join(segment.text for segment in line) for line in app.screen._compositor.render_strips())
