"""The servers that tests use."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from serving import ScriptedService

from wsd_local.runtime.reply import Finished
from wsd_local.server.service import ReplyRequest, Service


def test_the_embedded_pair_is_served(client: httpx.Client) -> None:
    assert client.get("/openapi.json").json()["info"]["title"] == "wsd-local"


async def test_the_service_answers_with_the_embedded_pair(service: Service) -> None:
    request = ReplyRequest("demo", "How do I boil an egg?", {"max_tokens": 4})
    async with service.replies(request) as events:
        numbered = [item async for item in events]
    assert isinstance(numbered[-1][1], Finished)


def test_a_scripted_service_is_served(scripted: Callable[[ScriptedService], str]) -> None:
    assert httpx.get(f"{scripted(ScriptedService())}/nothing").status_code == 404
