"""What the page at `/` asks for: the chats of the same store as `wsd-chat`, and replies that are written into it.

Contract: endpoints under `/ui/` are for the page alone and change with it. Plain functions wait for the store and run
in threads; coroutines hand what waits to threads. Answers are kept by no cache, requests of other sites are refused,
and messages of the store name no path.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import asdict, fields
from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import Field

from wsd_local.server.body import Body
from wsd_local.server.errors import ApiError
from wsd_local.server.page_chats import chat_and_entries, chats_and_hits, scores_of, without_path
from wsd_local.server.page_replies import Replies, Wanted
from wsd_local.server.service import Service
from wsd_local.server.streaming import EventStream, sent
from wsd_local.store import Store, StoreError
from wsd_local.version import __version__


class NewTitle(Body):
    """Another title of a chat."""

    title: str


class Shown(Body):
    """The branch to show: that of a message, or of its neighbour `by` places further at the same fork."""

    message: int
    by: int = 0


class Question(Body):
    """What to answer, and how.

    `ask` adds `text` after `head`, or in place of the question `edits`; `again` answers the last question up to `head`
    anew; `continue` continues `head`. Without a chat `ask` begins one, with the system prompt `system`.
    """

    action: Literal["ask", "again", "continue"]
    model: str
    chat: int | None = None
    head: int | None = None
    edits: int | None = None
    text: str = ""
    system: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class Compared(Body):
    """A question whose answer is not kept: the last one of `head`'s branch."""

    model: str
    head: int
    settings: dict[str, Any] = Field(default_factory=dict)


class System(Body):
    """Another system prompt of a chat, for its next replies; None: none."""

    system: str | None


def router(service: Service, store: Store) -> APIRouter:
    """The page's endpoints over a service and a store."""
    replies = Replies(service, store)

    class Route(APIRoute):
        """A route whose errors do not name the store's file."""

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handled(request: Request) -> Response:
                try:
                    response = await handle(request)
                except StoreError as error:
                    raise ApiError(500, without_path(store, error), code="store_error") from error
                response.headers.setdefault("Cache-Control", "no-store")
                return response

            return handled

    made = APIRouter(prefix="/ui", include_in_schema=False, route_class=Route, dependencies=[Depends(_own_page)])
    _add_chats(made, store)
    _add_replies(made, service, replies)
    return made


def _own_page(request: Request) -> None:
    """Refuse what a page of another site asks for, also of one that may use the other endpoints."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ApiError(403, "this is for the server's own page", code="forbidden")


def _add_chats(made: APIRouter, store: Store) -> None:
    @made.get("/chats")
    def chats(query: str = "", deleted: bool = False) -> dict[str, Any]:
        return chats_and_hits(store, query[:1000], deleted=deleted)

    @made.get("/chats/{chat}")
    def chat(chat: int) -> dict[str, Any]:
        return chat_and_entries(store, chat)

    @made.put("/chats/{chat}/title")
    def rename(chat: int, body: NewTitle) -> dict[str, Any]:
        store.chats.rename(chat, body.title)
        return store.chats.get(chat).as_dict()

    @made.put("/chats/{chat}/system")
    def system(chat: int, body: System) -> dict[str, Any]:
        row = store.chats.get(chat)
        store.chats.configure(chat, pair=row.pair, system=body.system or None, preset=row.preset)
        return store.chats.get(chat).as_dict()

    @made.delete("/chats/{chat}")
    def delete(chat: int) -> dict[str, Any]:
        store.chats.delete(chat)
        return store.chats.get(chat).as_dict()

    @made.put("/chats/{chat}/restored")
    def restore(chat: int) -> dict[str, Any]:
        store.chats.restore(chat)
        return store.chats.get(chat).as_dict()

    @made.put("/chats/{chat}/shown")
    def show(chat: int, body: Shown) -> dict[str, Any]:
        family = store.messages.siblings(body.message)
        store.messages.set_head(chat, store.messages.leaf(family[(family.index(body.message) + body.by) % len(family)]))
        return chat_and_entries(store, chat)

    @made.get("/chats/{chat}/export")
    def export(chat: int, kind: Literal["markdown", "json"] = "markdown", branches: bool = False) -> Response:
        text = store.export(chat, kind, all_branches=branches)
        name = f"chat-{chat}.{'md' if kind == 'markdown' else 'json'}"
        headers = {"Content-Disposition": f'attachment; filename="{quote(name)}"', "X-Content-Type-Options": "nosniff"}
        return Response(text, media_type="application/json" if kind == "json" else "text/markdown", headers=headers)

    @made.get("/messages/{message}/scores")
    def scores(message: int) -> dict[str, Any]:
        return scores_of(store, message)


def _add_replies(made: APIRouter, service: Service, replies: Replies) -> None:
    @made.get("/models")
    async def models() -> dict[str, Any]:
        known = [
            {name: getattr(model, name) for name in ("id", "pair", "mode", "loaded", "n_ctx")}
            | {"names": dict(model.names)}
            for model in service.models()
        ]
        loading = {"state": service.status.state, "progress": dict(service.status.progress)}
        return {"version": __version__, "models": known, "settings": asdict(service.defaults), **loading}

    @made.post("/replies")
    async def reply(body: Question) -> EventStream:
        wanted = Wanted(**{field.name: getattr(body, field.name) for field in fields(Wanted)})
        writing, events = await replies.begin(wanted)
        held = AsyncExitStack()
        held.callback(writing.stop)
        return EventStream(held, _lines(events))

    @made.post("/replies/{message}/stop")
    async def stop(message: int) -> dict[str, Any]:
        return {"stopped": replies.stop(message)}

    @made.post("/comparison")
    async def compare(body: Compared) -> EventStream:
        held = AsyncExitStack()
        events = await replies.compare(body.model, body.head, body.settings, held)
        return EventStream(held, _lines(events))


async def _lines(events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    async for event in events:
        yield sent(event)
