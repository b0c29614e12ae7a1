"""Servers for tests: the application on a free port of this machine, in a thread of its own.

`listening` serves any application; the fixtures in `tests/server/conftest.py` serve the embedded pair once for all
tests (`server`), and services whose events a test writes down (`ScriptedService`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvicorn

from wsd_local.core.limits import Counts
from wsd_local.errors import WsdError
from wsd_local.events import Event, Source, Text
from wsd_local.library.catalog import PairEntry
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.messages import Prompt, conversation
from wsd_local.prompts.raw import RawPrompt
from wsd_local.runtime.reply import Finished, Part, Reply, Switch, Timings
from wsd_local.server.app import create_app
from wsd_local.server.connection import Connection
from wsd_local.server.desk import Desk
from wsd_local.server.service import (
    Mode,
    ModelFacts,
    ReplyRequest,
    ScoredToken,
    ScoreRequest,
    Scores,
    ServedModel,
    Slot,
    State,
    Status,
    Texts,
    UnknownModelError,
)
from wsd_local.settings import LoadSettings, ReplySettings

NAMES: Mapping[Source, str] = {"draft": "scripted-draft", "base": "scripted-base"}


@contextmanager
def private_folders(own: Path) -> Iterator[None]:
    """Folders of the program inside `own`, for what is made once for many tests."""
    folders = {"CACHE": str(own / "cache"), "DATA": str(own / "data"), "CONFIG": str(own / "config.toml")}
    with patch.dict(os.environ, {f"WSD_LOCAL_{name}": path for name, path in folders.items()}):
        yield


@contextmanager
def listening(app: Any, **options: Any) -> Iterator[str]:
    """An ASGI application on a free port; the value is its URL without a slash at the end."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, http=Connection, ws="none", **options
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    original = server.startup

    async def startup(sockets: list[socket.socket] | None = None) -> None:
        await original(sockets)
        started.set()

    server.startup = startup  # type: ignore[method-assign]

    def work() -> None:
        try:
            asyncio.run(server.serve([listener]))
        finally:
            started.set()  # the test fails by its own request then

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def desk_of(files: tuple[Path, Path], loading: LoadSettings, own: Path, **options: Any) -> Iterator[str]:
    """The URL of a server of two files as the pair `demo`, with folders of its own inside `own`."""
    pair = PairEntry("demo", str(files[0]), str(files[1]), BaseFormat())
    with private_folders(own):
        desk = Desk([pair], loading=loading, **options)
        desk.start()
        try:
            with listening(create_app(desk)) as url:
                yield url
        finally:
            desk.close()


def served(pair: str) -> list[ServedModel]:
    """The three models of a pair with made-up values."""
    modes: dict[str, Mode] = {pair: "wsd", f"{pair}:base": "base", f"{pair}:draft": "draft"}
    return [ServedModel(id, pair, mode, 0, 1000, NAMES, n_ctx=512, loaded=True) for id, mode in modes.items()]


def finished(text: str, *, kept: str = "", **changes: Any) -> Finished:
    """The end of a reply: `kept` was written by the draft, the rest by the base; one token for each word."""
    switch = Switch(None, "none" if not kept else "draft_end", None, 6, 0.8)
    values: dict[str, Any] = {
        "messages": ({"role": "user", "content": "hello"},),
        "text": text,
        "finish_reason": "stop",
        "draft": Part(NAMES["draft"], kept, len(kept.split()), len(kept.split())),
        "base": Part(NAMES["base"], text[len(kept) :], len(text[len(kept) :].split())),
        "switch": switch,
        "timings": Timings(first_text_s=0.01, total_s=0.1, base_prompt_tokens=3, draft_prompt_tokens=3),
        "tokens": (),
        "discarded": "",
        "counts": Counts(),
        "prompt_ids": {"draft": [1, 2, 3], "base": [1, 2, 3]},
    }
    return Finished(Reply(**{**values, **changes}))


Step = Event | BaseException | asyncio.Event
"""What a scripted reply does next: emit, fail, or wait until a test sets the event."""


class ScriptedService:
    """A service whose replies are written down: each one emits the steps in turn.

    Args:
        steps: the steps of every reply; None: one word of the base.
        pairs: names of the served pairs.
        entering: what entering `replies` raises.
        loading: what every call raises until it is None, as while models are loaded.

    Attributes:
        requests: what was asked for, in order.
        kept: the times for which models were asked to be kept, in order.
        left: the number of requests that were left before their last step.
        loop: the event loop of the newest request.
    """

    def __init__(
        self,
        steps: Sequence[Step] | None = None,
        *,
        pairs: Sequence[str] = ("demo",),
        entering: WsdError | None = None,
        loading: WsdError | None = None,
    ) -> None:
        self.steps = [Text("Hello.", "base", 0.5), finished("Hello.")] if steps is None else steps
        self.pairs, self.entering, self.loading = pairs, entering, loading
        self.requests: list[Any] = []
        self.left = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        self.kept: list[tuple[str, float | None]] = []
        self.defaults = ReplySettings()
        self.state: State = "ready"
        self.progress: Mapping[str, Any] = {}
        self.waiting = 0

    @property
    def status(self) -> Status:
        return self

    @property
    def texts(self) -> Texts:
        return self

    def slots(self) -> Sequence[Slot]:
        return [Slot(0, "continue", "demo", 3, 2, 512, 0.5), Slot(1)]

    def models(self) -> Sequence[ServedModel]:
        return [model for pair in self.pairs for model in served(pair)]

    def replies(
        self, request: ReplyRequest, count: int = 1
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[int, Event]]]:
        return self._replies(request, count)

    @asynccontextmanager
    async def _replies(self, request: ReplyRequest, count: int) -> AsyncIterator[AsyncIterator[tuple[int, Event]]]:
        self.loop = asyncio.get_running_loop()
        self._accept(request.model, request)
        if self.entering is not None:
            raise self.entering
        if not isinstance(request.prompt, RawPrompt):
            conversation(request.prompt)
        emitted = 0

        async def events() -> AsyncIterator[tuple[int, Event]]:
            nonlocal emitted
            for step in self.steps:
                for number in range(count):
                    if isinstance(step, BaseException):
                        raise step
                    if isinstance(step, asyncio.Event):
                        await step.wait()
                    else:
                        yield number, step
                emitted += 1

        try:
            yield events()
        finally:
            self.left += emitted < len(self.steps)

    async def score(self, request: ScoreRequest) -> Scores:
        self._accept(request.model, request)
        top = tuple((number, bytes([97 + number]), -1.0 - number) for number in range(request.top))
        return Scores(tuple(ScoredToken(i, _piece(i), -0.5, top) for i in request.tokens[request.start :]))

    async def facts(self, model: str) -> Mapping[Source, ModelFacts]:
        role: Source = "draft" if model.endswith(":draft") else "base"
        return {role: ModelFacts(NAMES[role], "llama", 1_500_000, "F16", 512, 64, 2, "{{ messages }}", "apache-2.0")}

    async def load(self, model: str) -> None:
        self._accept(model, ("load", model))

    def keep(self, model: str, seconds: float | None) -> None:
        self.kept.append((model, seconds))

    @property
    def freed_after(self) -> float | None:
        return self.kept[-1][1] if self.kept else None

    async def tokenize(self, model: str, text: str, *, special: bool = False, bos: bool = False) -> list[int]:
        self._accept(model, text)
        return [1, *text.encode()] if bos else list(text.encode())

    async def pieces(self, model: str, tokens: Sequence[int]) -> list[bytes]:
        self._accept(model, tokens)
        return list(map(_piece, tokens))

    async def special_tokens(self, model: str) -> Mapping[str, str]:
        self._accept(model, ("special tokens", model))
        return {"eos": "</s>"}

    async def vocabulary(self, model: str) -> bytes:
        self._accept(model, ("vocabulary", model))
        return b"GGUF"

    async def count_tokens(self, model: str, messages: Prompt) -> Mapping[Source, int]:
        return {role: len(text) for role, text in (await self.prompts(model, messages)).items()}

    async def prompts(self, model: str, messages: Prompt) -> Mapping[Source, str]:
        self._accept(model, messages)
        text = "\n".join(f"{message['role']}: {message['content']}" for message in conversation(messages))
        return {"draft": f"<{text}>", "base": f"[{text}]"}

    def _accept(self, model: str, request: object) -> None:
        if self.loading is not None:
            raise self.loading
        if model not in [one.id for one in self.models()]:
            raise UnknownModelError(f"there is no model {model!r}")
        self.requests.append(request)


def _piece(token: int) -> bytes:
    return bytes([token]) if 0 <= token < 256 else b""
