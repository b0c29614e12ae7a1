"""A draft and a base that answer together: what scripts use.

Contract: `load` returns a `Pair`; the caller owns it and closes it. A pair may be used by any number of threads: one
reply is in progress at a time and the others wait, because the KV caches are shared; what one reply leaves in them, the
next one reuses. The parts are public: `models` (`LoadedModels`), `engine` (`Engine`), `settings` (defaults of replies).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from wsd_local.config import read_config
from wsd_local.errors import UsageError, short
from wsd_local.events import Event, Source
from wsd_local.library.catalog import PairEntry
from wsd_local.library.resolve import model_of_pair, model_path, named_pair
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.messages import Prompt
from wsd_local.prompts.raw import RawPrompt
from wsd_local.prompts.templates import Template
from wsd_local.remote.address import Address, is_address
from wsd_local.runtime.engine import Engine
from wsd_local.runtime.fleet import Failed, Fleet
from wsd_local.runtime.llama_file import LoadProgress
from wsd_local.runtime.loading import LoadedModels, roles_of
from wsd_local.runtime.places import local_contexts
from wsd_local.runtime.prompt_cache import PromptCache
from wsd_local.runtime.queueing import Busy, waits
from wsd_local.runtime.remote_base import address_of
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.runtime.run import Run
from wsd_local.runtime.session import Session
from wsd_local.runtime.setup import start
from wsd_local.settings import LoadSettings, ReplySettings, changed, split


def load(
    name: str | None = None,
    *,
    draft: str | Path | None = None,
    base: str | Path | None = None,
    base_format: BaseFormat | None = None,
    progress: LoadProgress | None = None,
    busy: Busy = "wait",
    template: Template | None = None,
    **settings: Any,
) -> Pair:
    """Load a pair by name, or from two models by path or name; a model that is not given is the embedded pair's.

    Args:
        name: the pair's name; None: the embedded pair.
        draft: a model by path or name, in place of the pair's.
        base: the same for the base, or the address of a server that has it (http://HOST:PORT).
        base_format: how a conversation is written for the base, in place of the pair's format.
        progress: called with a model's role and the loaded fraction; stops the loading by returning False.
        busy: what a reply does if the pair is in use: `wait`, or raise `BusyError` at once (`error`). Each reply can
            choose otherwise.
        template: renders the draft's chat template; one that was started earlier is ready earlier.
        settings: those of `ReplySettings` (defaults of every reply) and of `LoadSettings`; the pair's own come after.

    Raises:
        UsageError: a name or a setting is wrong.
        ModelError: a file is missing, damaged or of the wrong kind.
        FitError: memory is not enough.
    """
    _require_kinds(name, draft, base, base_format, progress)
    entry = named_pair(name, read_config().pairs)
    own = entry.settings if draft is None or base is None else {}
    served = entry.server if base is None else {}
    reply, loading = split({**served, **own, **settings})
    find = _finder(entry, draft, base)
    where = base if base is not None else entry.base
    models = LoadedModels(
        find(draft if draft is not None else entry.draft),
        address_of(where, loading) if is_address(where) else find(where),
        loading,
        base_format=base_format or entry.base_format,
        template=template,
        vets=True,
    )
    models.prompts = PromptCache.of(loading)
    pair = Pair.over(models, reply=reply, busy=busy)
    try:
        models.start_template(reply.mode)
        if reply.constraint is not None:
            models.grammars.compile(reply.constraint, None if progress is None else partial(progress, "draft", 0.0))
        models.fit(reply.mode, progress)
        models.load(reply.mode, progress)
    except BaseException:
        pair.close()
        raise
    return pair


def _require_kinds(name: Any, draft: Any, base: Any, base_format: Any, progress: Any) -> None:
    if name is not None and not isinstance(name, str):
        raise UsageError(f"the pair is {short(name)}: give its name")
    for role, model in (("draft", draft), ("base", base)):
        if model is not None and (not isinstance(model, str | Path) or not str(model)):
            raise UsageError(f"{role} is {short(model)}: give a model's path or name")
    if base_format is not None and not isinstance(base_format, BaseFormat):
        raise UsageError(f"base_format is {short(base_format)}: it must be a BaseFormat")
    if progress is not None and not callable(progress):
        raise UsageError(f"progress is {short(progress)}: it must be a function")


def model_files(
    name: str | None = None, *, draft: str | Path | None = None, base: str | Path | None = None, mode: str = "wsd"
) -> dict[Source, Path]:
    """The files on this machine that `load` would load for a mode; a base on a server has none.

    Raises:
        UsageError, ModelError: as `load`.
    """
    entry = named_pair(name, read_config().pairs)
    files: dict[Source, str | Path] = {"draft": draft or entry.draft, "base": base or entry.base}
    find = _finder(entry, draft, base)
    return {role: find(files[role]) for role in roles_of(mode) if not is_address(files[role])}


def _finder(entry: PairEntry, draft: str | Path | None, base: str | Path | None) -> Callable[[str | Path], Path]:
    """What finds a model's file; where both models are the pair's own, a message is about the pair."""
    return partial(model_of_pair, entry) if draft is None and base is None else model_path


class Pair:
    """Two models, each with one context. Models are loaded when they are first needed.

    Args:
        draft: its GGUF file.
        base: its GGUF file, or the server that has it.
        reply: defaults of every reply.
        loading: how the models are loaded.
        base_format: how a conversation is written for the base.
        clock: the date for chat templates that insert one.
        busy: what a reply does if the pair is in use, `wait` or `error`.
        template: renders the draft's chat template.
    """

    def __init__(
        self,
        *,
        draft: Path,
        base: Path | Address,
        reply: ReplySettings | None = None,
        loading: LoadSettings | None = None,
        base_format: BaseFormat | None = None,
        clock: Callable[[], datetime] = datetime.now,
        busy: Busy = "wait",
        template: Template | None = None,
    ) -> None:
        models = LoadedModels(draft, base, loading, base_format=base_format, clock=clock, template=template)
        self._set_up(models, reply, busy)

    @classmethod
    def over(cls, models: LoadedModels, *, reply: ReplySettings | None = None, busy: Busy = "wait") -> Pair:
        """A pair over models that the caller has made; closing the pair closes them.

        Raises:
            UsageError: `busy` is neither `wait` nor `error`.
        """
        pair = cls.__new__(cls)
        pair._set_up(models, reply, busy)
        return pair

    def _set_up(self, models: LoadedModels, reply: ReplySettings | None, busy: Busy) -> None:
        waits(busy)
        self.busy: Busy = busy
        self.settings = reply or ReplySettings()
        self.models = models
        self.engine = Engine(
            models.serving,
            models.cancellation,
            apart=models.loading.resident == "one",
        )

    def close(self) -> None:
        """Free both models. A closed pair stays closed; a reply in progress, or waiting, ends with an error.

        Raises:
            BusyError: called from inside a reply's own callback.
        """
        self.models.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self,
        prompt: Prompt | RawPrompt,
        *,
        left_out: int | None = None,
        busy: Busy | None = None,
        whole: bool = False,
        details: int | None = None,
        **overrides: Any,
    ) -> Run:
        """Prepare a reply; nothing is evaluated yet.

        Args:
            prompt: the user's text, or messages; or a `RawPrompt`, which is continued as it is.
            left_out: turns that an earlier reply of the same session has left out; None outside sessions.
            busy: what the reply does if the pair is in use when its first event is requested; None: the pair's default.
            whole: whether a conversation that does not fit is an error; else its oldest turns are left out.
            details: also emit `Wrote` events, with at most so many alternatives for each token.
            overrides: settings of this reply.

        Raises:
            UsageError: the prompt or a setting is wrong.
            FitError: the newest message alone does not fit into a context.
        """
        return start(self, prompt, left_out=left_out, busy=busy, whole=whole, details=details, **overrides)

    def stream(self, prompt: Prompt | RawPrompt, **overrides: Any) -> Generator[Event, None, None]:
        """Answer, event by event; the last one is `Finished` with the whole `Reply`.

        The prompt is checked, and the pair taken, when the first event is requested.
        """
        yield from self.start(prompt, **overrides).events()

    def reply(self, prompt: Prompt | RawPrompt, **overrides: Any) -> Reply:
        """Answer, and return when the reply is complete."""
        started = self.start(prompt, **overrides)
        for _ in started.events():
            pass
        return started.reply

    def replies(
        self, prompts: Iterable[Prompt], *, busy: Busy | None = None, **overrides: Any
    ) -> Iterator[tuple[int, Reply]]:
        """Answer many prompts, as many at once as `parallel` says: index and reply, as they finish.

        Together they have one place in the pair's queue.

        Raises:
            UsageError: a setting is wrong.
            WsdError: a prompt cannot be answered.
        """
        if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
            raise UsageError(f"prompts are {short(prompts)}: they must be a list of prompts")
        changed(self.settings, overrides)
        fleet: Fleet[int] = Fleet(self, busy=busy)
        for index, prompt in enumerate(prompts):
            fleet.add(index, prompt, **overrides)
        return self._answered(fleet)

    @staticmethod
    def _answered(fleet: Fleet[int]) -> Iterator[tuple[int, Reply]]:
        for index, event in fleet.events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                yield index, event.reply

    def session(self, system: str | None = None) -> Session:
        """A conversation that remembers its messages."""
        return Session(self, system)

    def keep_prompts(self) -> str | None:
        """Save the prompts that are in memory, so that a later process need not evaluate them again.

        `load` gives a pair its cache (`prompt_cache`). Only what pays is saved: see docs/guide/scripts.md. Returns what
        went wrong, in one line; that is no error.
        """
        models = self.models
        if models.prompts is None:
            return None
        with models.queue.held():
            return models.prompts.keep(list(local_contexts(models).values()))

    def cancel(self) -> None:
        """Stop the reply in progress, from any thread; its partial reply stays. Replies that wait are not stopped.

        If none is in progress, replies that were started and have not begun are stopped. `Run.cancel` stops one reply.
        """
        self.models.queue.cancel()
