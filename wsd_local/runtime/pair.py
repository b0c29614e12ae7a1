"""A draft and a base that answer together.

Contract: `load` gives a `Pair`, the caller owns it and closes it. A `Run` is one reply: its events, then its
`Reply`; a cancelled run can be gone on with. A pair may be used by any number of threads: one reply is worked on at a
time and the others wait (`turns`), because the KV caches are the pair's; what one reply leaves in them the next one
reuses, whoever asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from wsd_local.config import read_config
from wsd_local.constraints.compiling import Waiting, compiled
from wsd_local.constraints.constraint import Constraint, unknown_keywords
from wsd_local.errors import CancelledError, UsageError, WsdError, short
from wsd_local.events import Event, Source
from wsd_local.files import HashProgress, file_sha256, identity
from wsd_local.library.gguf import is_mappable, look_at
from wsd_local.library.resolve import model_path, named_pair
from wsd_local.library.vetting import amx_works, vet, vet_adapter
from wsd_local.llama import Cancellation, Context, ContextOptions, Matcher, Model
from wsd_local.placement.fit import fitted
from wsd_local.placement.plan import DEFAULT_CTX, Plan, cells, load_mode, rows
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.messages import conversation
from wsd_local.prompts.templates import Template
from wsd_local.runtime.engine import Engine
from wsd_local.runtime.fleet import Failed, Fleet
from wsd_local.runtime.reply import Finished, Reply
from wsd_local.runtime.run import ProgressCallback, Run
from wsd_local.runtime.session import Session
from wsd_local.runtime.turns import Busy, Turns, waits
from wsd_local.settings import CacheType, LoadSettings, ReplySettings, changed, split

LOGGER = logging.getLogger(__name__)
LoadProgress = Callable[[Source, float], bool]
Prompt = str | Sequence[Mapping[str, Any]]


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
    """Load a pair by name, or from two models by path or name; what is not given is the embedded pair's.

    `base_format` replaces how the base is shown a conversation. `progress` is told the role and the loaded fraction,
    and stops the loading by returning False. `busy` is what a reply does that finds the pair in use: it waits for its
    turn (`wait`), or raises `BusyError` at once (`error`); each reply can choose otherwise. `template` renders the
    draft's chat template; one that was started early is ready early. Other keyword arguments are those of
    `ReplySettings` (defaults of every reply) and `LoadSettings`.

    Raises:
        UsageError: a name or a setting is wrong.
        ModelError: a file is missing, damaged or of the wrong kind.
        FitError: memory is not enough.
    """
    _require_kinds(name, draft, base, base_format, progress)
    reply, loading = split(settings)
    entry = named_pair("demo" if name is None else name, read_config().pairs)
    pair = Pair(
        draft=model_path(draft if draft is not None else entry.draft),
        base=model_path(base if base is not None else entry.base),
        reply=reply,
        loading=loading,
        base_format=base_format or entry.base_format,
        busy=busy,
        template=template,
    )
    try:
        pair.start_template(reply.mode)
        pair.vets = True
        if reply.constraint is not None:
            pair.compile(reply.constraint, None if progress is None else partial(progress, "draft", 0.0))
        for role in pair.roles(reply.mode):
            pair.vet(role, progress)
        if loading.planned:
            pair.plan = fitted({role: pair.paths[role] for role in pair.roles(reply.mode)}, loading)
        pair.warm(reply.mode, progress)
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
    """The files that `load` would load for a mode.

    Raises:
        UsageError, ModelError: as `load`.
    """
    entry = named_pair("demo" if name is None else name, read_config().pairs)
    files: dict[Source, str | Path] = {"draft": draft or entry.draft, "base": base or entry.base}
    return {role: model_path(files[role]) for role in Pair.roles(mode)}


class Pair:
    """Two models, each with one context. Models are loaded when they are first needed.

    Args:
        draft, base: GGUF files.
        reply: defaults of every reply.
        loading: how the models are loaded.
        base_format: how the base is shown a conversation.
        clock: tells the date that chat templates may ask for.
        busy: what a reply does that finds the pair in use, `wait` or `error`.
        template: what renders the draft's chat template.
    """

    def __init__(
        self,
        *,
        draft: Path,
        base: Path,
        reply: ReplySettings | None = None,
        loading: LoadSettings | None = None,
        base_format: BaseFormat | None = None,
        clock: Callable[[], datetime] = datetime.now,
        busy: Busy = "wait",
        template: Template | None = None,
    ) -> None:
        waits(busy)
        self.busy: Busy = busy
        self.paths: dict[Source, Path] = {"draft": draft, "base": base}
        self.settings = reply or ReplySettings()
        self.loading = loading or LoadSettings()
        self.base_format = base_format or BaseFormat()
        self.cancellation = Cancellation()
        self.turns = Turns("the pair", self.cancellation)
        self.hashes: dict[str, str] = {}
        self._files: dict[Path, tuple[int, ...]] = {}
        self.plan: Plan | None = None
        self._clock = clock
        self._closed = False
        self._models: dict[Source, Model] = {}
        self._contexts: dict[Source, Context] = {}
        self._loading = threading.RLock()
        self.vets = False
        """Whether files are tried by a child process before they are loaded, as `load` wants it."""
        self._vetted: set[Source] = set()
        self._template = template or Template()
        self._compiled: dict[Constraint, str] = {}
        self._noted: set[Constraint] = set()

    # -- lifetime --------------------------------------------------------------------------------------------

    def warm(self, mode: str = "wsd", progress: LoadProgress | None = None) -> None:
        """Load what a mode needs; all files are looked at before the first is loaded.

        `progress` is told the role and the loaded fraction, and stops the loading by returning False.
        """
        with self._loading:
            missing = [role for role in self.roles(mode) if role not in self._models]
            for role in missing:
                lora = self.loading.lora(role)
                for path in (self.paths[role], *(() if lora is None else lora[:1])):
                    self._note_file(path)
                    look_at(path)
            if missing:
                self.start_template(mode)
            for role in missing if self.vets else ():
                self.vet(role, progress)
            for role in missing:
                if self.loading.resident == "one":
                    self._vocabulary(role)
                else:
                    self._load(role, progress)

    def vet(self, role: Source, progress: LoadProgress | None = None) -> None:
        """Make sure that a model, and its adapter, can be loaded; quick where that is known already.

        Raises:
            ModelError: a file is missing, damaged, or refused by llama.cpp.
            CancelledError: `progress` returned False.
        """
        if role in self._vetted:
            return
        waiting = None if progress is None else partial(progress, role, 0.0)
        vet(self.paths[role], waiting)
        if (lora := self.loading.lora(role)) is not None:
            vet_adapter(lora[0], self.paths[role], waiting)
        self._vetted.add(role)

    def _note_file(self, path: Path) -> None:
        """Remember which file is loaded, so that provenance never has the hash of another."""
        with suppress(OSError):
            found = identity(path.stat())
            if self._files.setdefault(path, found) != found:
                self._files[path] = found
                self.hashes = {}

    def start_template(self, mode: str) -> None:
        """Begin to prepare the rendering of the draft's chat template, if a mode needs it; it goes on by itself."""
        if "draft" in self.roles(mode):
            self._template.start()

    @staticmethod
    def roles(mode: str) -> tuple[Source, ...]:
        """The models that a mode needs."""
        alone = {"draft": "draft", "base": "base", "urial": "base"}
        return (cast(Source, alone[mode]),) if mode in alone else ("draft", "base")

    def close(self) -> None:
        """Free both models. A closed pair stays closed; a reply in progress, or waiting, ends with an error.

        Raises:
            BusyError: called from inside a reply's own callback.
        """
        self.turns.close()
        with self._loading:
            self._closed = True
            for role in list(self._contexts):
                self._release(role)
            for model in self._models.values():
                model.close()
            self._template.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def model(self, role: Source) -> Model:
        """The draft or the base model; its vocabulary alone if only one model is in memory at a time."""
        if self.loading.resident == "one":
            return self._vocabulary(role)
        self.context(role)
        return self._models[role]

    def context(self, role: Source) -> Context:
        """The context of the draft or the base model."""
        found = self._contexts.get(role)
        if found is None:
            with self._loading:
                if role not in self._contexts:
                    self._load(role, None)
                found = self._contexts[role]
        return found

    @property
    def loaded(self) -> tuple[Source, ...]:
        """The models that are in memory now."""
        return tuple(self._contexts)

    def n_ctx(self, role: Source) -> int:
        """Tokens that the context of one model holds; the model is not loaded for this if only one may be."""
        if role in self._contexts or self.loading.resident == "both":
            return self.context(role).n_ctx
        return self._options(role, self._vocabulary(role)).n_ctx

    def _vocabulary(self, role: Source) -> Model:
        with self._loading:
            self._require_open()
            if role not in self._models:
                self._models[role] = Model(self.paths[role], n_gpu_layers=0, vocab_only=True)
            return self._models[role]

    def _require_open(self) -> None:
        if self._closed:
            raise WsdError("the pair is closed; load it again")

    def _load(self, role: Source, progress: LoadProgress | None) -> None:
        self._require_open()
        if self.loading.resident == "one":
            for other in list(self._contexts):
                self._release(other)
        model = self._load_model(role, progress)
        options = self._options(role, model)
        try:
            model.require_generator()
            self._contexts[role] = Context(model, options, self.cancellation)
        except BaseException:
            model.close()
            raise
        if self.loading.resident == "both":
            self._models[role] = model

    def _release(self, role: Source) -> None:
        """Free the context of one model, and its weights if they are not the pair's to keep."""
        context = self._contexts.pop(role)
        context.close()
        if context.model is not self._models.get(role):
            context.model.close()

    def _load_model(self, role: Source, progress: LoadProgress | None) -> Model:
        report = None if progress is None else partial(progress, role)
        path, loading = self.paths[role], self.loading
        self._note_file(path)
        placement = None if self.plan is None else self.plan.placements.get(role)
        repack = amx_works(None if report is None else partial(report, 0.0))
        if not repack:
            LOGGER.info(
                "llama.cpp's code for AMX crashes here; all its fast kernels are left out: see wsd-local doctor"
            )
        if placement is None:
            mode = loading.load_mode if is_mappable(path) else "none"
            layers = loading.gpu_layers(role)
            return Model(path, n_gpu_layers=layers, load_mode=mode, progress=report, repack=repack)
        return Model(
            path,
            n_gpu_layers=placement.gpu_layers,
            split=dict(zip(placement.devices, placement.split, strict=True)),
            load_mode=load_mode(placement) if loading.load_mode in ("auto", "mmap") else loading.load_mode,
            progress=report,
            repack=repack,
        )

    def _options(self, role: Source, model: Model) -> ContextOptions:
        loading, planned = self.loading, self.plan
        placement = None if planned is None else planned.placements.get(role)
        n_ctx = placement.ctx if placement else loading.ctx or min(DEFAULT_CTX, model.n_ctx_train)
        return ContextOptions(
            n_ctx=n_ctx,
            threads=loading.threads,
            cache_type_k=cast(CacheType, planned.cache_type_k) if planned else loading.cache_type_k,
            cache_type_v=cast(CacheType, planned.cache_type_v) if planned else loading.cache_type_v,
            flash_attn=loading.flash_attn,
            lora=loading.lora(role),
            n_rows=rows(loading.parallel),
            n_seq=loading.parallel,
            cells=cells(n_ctx, loading.parallel, sliding=model.n_swa > 0),
        )

    def compile(self, constraint: Constraint, waiting: Waiting | None = None) -> str:
        """The constraint as llguidance reads it; compiled once. `waiting` is called meanwhile, and stops by False.

        Raises:
            UsageError: it cannot be followed.
            CancelledError: `waiting` returned False.
        """
        if constraint not in self._compiled:
            self._compiled[constraint] = compiled(constraint, waiting)
        return self._compiled[constraint]

    def matcher(self, constraint: Constraint, role: Source, cancelled: Callable[[], bool] = lambda: False) -> Matcher:
        """The beginning of a text by one model that follows the constraint.

        Raises:
            UsageError: it cannot be followed.
            CancelledError: `cancelled` returned True while it was prepared.
        """
        grammar = self.compile(constraint, lambda: not cancelled())

        def check() -> None:
            if cancelled():
                raise CancelledError("stopped while a constraint was prepared")

        model = self.model(role)
        with self._loading:
            return model.matching(check).matcher(grammar)

    def said_once(self, constraint: Constraint) -> str | None:
        """What is to be said of a constraint, when it is first used."""
        if constraint in self._noted:
            return None
        self._noted.add(constraint)
        unknown = ", ".join(map(repr, unknown_keywords(constraint)))
        return f"{constraint.name}: {unknown} is no keyword of JSON Schema and constrains nothing" if unknown else None

    @cached_property
    def engine(self) -> Engine:
        """What drives replies over both contexts."""
        return Engine(self.context, self.cancellation, apart=self.loading.resident == "one")

    @cached_property
    def draft_format(self) -> DraftFormat:
        """The draft's prompt format."""
        model, path = self.model("draft"), self.paths["draft"]
        cancelled = partial(self.turns.is_cancelled, self.turns.turn())
        return DraftFormat(
            model, self.base_format, self._clock, template=self._template, path=path, cancelled=cancelled
        )

    def hash_models(self, progress: HashProgress | None = None) -> None:
        """Put the SHA-256 of the loaded files into the provenance of later replies."""
        files: dict[str, Path] = {role: self.paths[role] for role in self._models}
        adapters = {f"{role}_lora": self.loading.lora(role) for role in self._models}
        files |= {name: adapter[0] for name, adapter in adapters.items() if adapter is not None}
        made = {name: file_sha256(path, progress=progress) for name, path in files.items()}
        # A file that was replaced since it was loaded is not what answers.
        self.hashes = {
            name: made[name] for name, path in files.items() if self._files.get(path) == identity(path.stat())
        }

    # -- replies ---------------------------------------------------------------------------------------------

    def start(
        self,
        prompt: Prompt,
        *,
        progress: ProgressCallback | None = None,
        left_out: int | None = None,
        busy: Busy | None = None,
        **overrides: Any,
    ) -> Run:
        """Prepare a reply; nothing is evaluated yet. `left_out` is for sessions, see `Run`.

        `busy` is what it does if the pair is in use when its first event is asked for; None: as the pair was loaded.

        Raises:
            UsageError: the prompt or a setting is wrong.
            FitError: the newest message alone does not fit into a context.
        """
        wait = waits(self.busy if busy is None else busy)
        settings = changed(self.settings, overrides)
        messages = conversation(prompt)
        with self._loading:
            self._require_open()
            self.warm(settings.mode)
            _ = self.engine  # made here, where one thread is at a time
            return Run(self, messages, settings, progress, left_out, wait=wait)

    def replies(
        self, prompts: Iterable[Prompt], *, busy: Busy | None = None, **overrides: Any
    ) -> Iterator[tuple[int, Reply]]:
        """Answer many prompts, `parallel` of them at once as the pair was loaded: index and reply, as they finish.

        Together they are one turn at the pair.

        Raises:
            UsageError: a setting is wrong.
            WsdError: a prompt cannot be answered.
        """
        if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
            raise UsageError(f"prompts are {short(prompts)}: they must be a list of prompts")
        changed(self.settings, overrides)
        fleet: Fleet[int] = Fleet(self, busy=busy)
        for index, prompt in enumerate(prompts):
            fleet.ask(index, prompt, **overrides)
        return self._answered(fleet)

    @staticmethod
    def _answered(fleet: Fleet[int]) -> Iterator[tuple[int, Reply]]:
        for index, event in fleet.events():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                yield index, event.reply

    def stream(self, prompt: Prompt, **overrides: Any) -> Generator[Event, None, None]:
        """Answer, event by event; the last one is `Finished` with the whole `Reply`.

        The prompt is checked, and the pair taken, when the first event is asked for.
        """
        yield from self.start(prompt, **overrides).events()

    def reply(self, prompt: Prompt, **overrides: Any) -> Reply:
        """Answer, and return when it is done."""
        run = self.start(prompt, **overrides)
        for _ in run.events():
            pass
        return run.reply

    def session(self, system: str | None = None) -> Session:
        """A conversation that remembers."""
        return Session(self, system)

    def cancel(self) -> None:
        """Stop the reply in progress, from any thread; its partial reply stays. Replies that wait are not stopped.

        Where none is in progress, those are meant that have been started and not begun. `Run.cancel` names one.
        """
        self.turns.cancel()
