"""Servers that tests of the protocols share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from serving import ScriptedService, listening, private_folders

from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.server.service import Service
from wsd_local.settings import LoadSettings


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service of the embedded pair."""
    with private_folders(tmp_path_factory.mktemp("served")):
        made = Desk(["demo"], loading=LoadSettings(threads=1, parallel=4))
        made.start()
        asyncio.run(made.tokenize("demo", "once the models are loaded"))
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
