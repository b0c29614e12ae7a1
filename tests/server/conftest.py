"""Servers that tests of the protocols share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from browser import Open, Window, chromium
from serving import ScriptedService, listening, private_folders

from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.server.guard import Access, Guard
from wsd_local.server.service import Service
from wsd_local.settings import LoadSettings
from wsd_local.store import Store

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service of the embedded pair."""
    with private_folders(tmp_path_factory.mktemp("served")):
        made = Desk(["demo"], loading=LoadSettings(threads=1, parallel=4))
        made.start()
        asyncio.run(made.texts.tokenize("demo", "once the models are loaded"))
        yield made
        made.close()


@pytest.fixture(scope="session")
def server(service: Service) -> Iterator[str]:
    """URL of a server of the embedded pair (the models `demo`, `demo:base`, `demo:draft`)."""
    with listening(create_app(service)) as url:
        yield url


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    """A client of `server`."""
    with httpx.Client(base_url=server, timeout=None) as made:
        yield made


@pytest.fixture
def scripted() -> Iterator[Callable[[ScriptedService], str]]:
    """Serves a scripted service until the test ends: call it with one, and it returns the URL."""
    with ExitStack() as stack:
        yield lambda service: stack.enter_context(listening(create_app(service)))


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    """Chromium, for the tests of this module."""
    with chromium() as made:
        yield made


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Store]:
    """A store of chats in a file."""
    with Store(tmp_path / "chats.db") as made:
        yield made


@pytest.fixture
def window(chrome: Browser, chats: Store) -> Iterator[Open]:
    """Opens the page of a service; at the end nothing has gone wrong and no request has left the server."""
    with ExitStack() as stack:
        opened: list[Window] = []

        def open_(service: Service, *, keys: Sequence[str] = (), path: str = "/", **options: Any) -> Window:
            app = Guard(create_app(service, store=chats), Access(tuple(keys)))
            made = Window(chrome, stack.enter_context(listening(app)), **options)
            stack.callback(made.context.close)
            opened.append(made)
            return made.open(path) if not keys else made

        yield open_
        for one in opened:
            assert one.errors == [] and one.elsewhere == []
