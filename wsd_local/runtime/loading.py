"""The models of a pair in memory: loading, contexts, prompt formats, releasing.

Contract: each model has one context. Models are loaded when they are first needed, one at a time if `resident` is
`one`; with workers (`rpc`) in a process of their own, anew after that was lost. Safe from any thread. What is specific
to llama.cpp files stands in `llama_file`; a model that lives elsewhere needs the same few methods.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import cast

from wsd_local.core.costs import Experience
from wsd_local.errors import UsageError, WsdError
from wsd_local.events import Source
from wsd_local.files import HashProgress
from wsd_local.llama import Cancellation, Context, Model
from wsd_local.llama.sequences import Sequences
from wsd_local.llama.vocabulary import share_tokens
from wsd_local.placement.fit import fitted
from wsd_local.placement.plan import Plan
from wsd_local.prompts.base_format import BaseFormat
from wsd_local.prompts.draft_format import DraftFormat
from wsd_local.prompts.templates import Template
from wsd_local.remote.address import Address
from wsd_local.remote.context import RemoteContext
from wsd_local.runtime.grammars import Grammars
from wsd_local.runtime.llama_file import LlamaFile, LoadProgress
from wsd_local.runtime.prompt_cache import PromptCache
from wsd_local.runtime.queueing import ReplyQueue
from wsd_local.runtime.remote_base import RemoteBase, require_no_server
from wsd_local.settings import LoadSettings
from wsd_local.workers.apart import ApartModel
from wsd_local.workers.process import EngineProcess

NO_MODELS: Mapping[Source, Model] = MappingProxyType({})


def roles_of(mode: str) -> tuple[Source, ...]:
    """The models that a mode needs."""
    alone = {"draft": "draft", "base": "base", "urial": "base"}
    return (cast(Source, alone[mode]),) if mode in alone else ("draft", "base")


def forget(models: LoadedModels) -> None:
    """Empty the first sequence of each loaded context, so that a reply finds nothing cached; none may be in work."""
    for role in models.loaded:
        models.serving(role).forget(0)


class LoadedModels:
    """The draft and the base model of a pair.

    Args:
        draft: its GGUF file.
        base: its GGUF file, or the server that has it.
        loading: how the models are loaded.
        base_format: how a conversation is written for the base.
        clock: the date for chat templates that insert one.
        template: renders the draft's chat template.
        vets: whether a child process tries files before they are loaded here.
        experience: what was measured of these models before; None: nothing.

    Attributes:
        queue: the replies that use the models, one at a time.
        cancellation: stops an evaluation.
        plan: where the models are placed, once `fit` has computed it.
        grammars: the compiled constraints of replies.
        noticed: notices about the models that a reply has brought already.
        experience: what evaluations cost and how many proposals were accepted, for all replies.
        prompts: what contexts can begin with, to be set before they are loaded; None: nothing.
        lent: models of these files that their owner has loaded and closes after these, to be set before contexts are
            made; the others are loaded here.
    """

    def __init__(
        self,
        draft: Path,
        base: Path | Address,
        loading: LoadSettings | None = None,
        *,
        base_format: BaseFormat | None = None,
        clock: Callable[[], datetime] = datetime.now,
        template: Template | None = None,
        vets: bool = False,
        experience: Experience | None = None,
    ) -> None:
        self.loading = loading or LoadSettings()
        self.base_format = base_format or BaseFormat()
        self.cancellation = Cancellation()
        self.queue = ReplyQueue("the pair", self.cancellation)
        self.plan: Plan | None = None
        self.grammars = Grammars()
        self.noticed: set[str] = set()
        self.experience = experience or Experience()
        self.prompts: PromptCache | None = None
        self.lent: Mapping[Source, Model] = NO_MODELS
        at_hand = LlamaFile("draft", draft, self.loading, vets=vets)
        self.remote: RemoteBase | None = None
        self._files: dict[Source, LlamaFile | RemoteBase]
        if isinstance(base, Address):
            self.remote = RemoteBase(base, self.loading, draft, self.cancellation.check)
            self._files = {"draft": at_hand, "base": self.remote}
        else:
            require_no_server(self.loading)
            self._files = {"draft": at_hand, "base": LlamaFile("base", base, self.loading, vets=vets)}
        self._models: dict[Source, Model] = {}
        self._contexts: dict[Source, Sequences | RemoteContext] = {}
        self._process: EngineProcess | None = None
        self._clock = clock
        self._template = template or Template()
        self._lock = threading.RLock()
        self._unused = threading.Condition(self._lock)
        self._uses = 0
        self._closed = False
        self._shares: bool | None = None

    def share_tokens(self) -> bool:
        """Whether both models, which must be loaded, have one vocabulary."""
        if self._shares is None:
            self._shares = share_tokens(self.model("draft"), self.model("base"))
        return self._shares

    # -- loading and releasing -------------------------------------------------------------------------------------

    def fit(self, mode: str, progress: LoadProgress | None = None) -> None:
        """Check the files of a mode, and plan where its models go; nothing is loaded yet.

        Raises:
            ModelError: a file is missing, damaged, or refused by llama.cpp.
            FitError: memory is not enough.
            CancelledError: `progress` returned False.
        """
        for role in roles_of(mode):
            self._files[role].vet(progress)
        if self.loading.planned:
            files = {role: self._files[role].path for role in roles_of(mode) if role == "draft" or self.remote is None}
            self.plan = fitted(files, self.loading) if files else None

    def load(self, mode: str = "wsd", progress: LoadProgress | None = None) -> None:
        """Load what a mode needs; all files are checked before the first is loaded.

        Raises:
            WsdError: the models are closed.
            ModelError: a file is missing, damaged, or refused by llama.cpp.
            CancelledError: `progress` returned False.
        """
        with self._lock:
            self._require_open()
            self._forget_lost()
            missing = [role for role in roles_of(mode) if role not in self._models]
            for role in missing:
                self._files[role].look()
            if missing:
                self.start_template(mode)
            for role in missing:
                self._files[role].vet(progress)
            for role in missing:
                if self.loading.resident == "one":
                    self._vocabulary(role)
                else:
                    self._load(role, progress)

    @contextmanager
    def ready(self, mode: str) -> Iterator[None]:
        """The models of a mode loaded, and not closed by another thread meanwhile.

        Several threads may have them ready at once, unless one model is in memory at a time.

        Raises:
            WsdError: they are closed, or cannot be loaded.
        """
        with self._lock:
            self.load(mode)
            if self.loading.resident == "one":
                yield
                return
            self._uses += 1
        try:
            yield
        finally:
            with self._unused:
                self._uses -= 1
                self._unused.notify_all()

    def start_template(self, mode: str) -> None:
        """Start the process that renders the draft's chat template, if a mode needs it, and do not wait for it."""
        if "draft" in roles_of(mode):
            self._template.start()

    def close(self) -> None:
        """Free both models for good; a reply in progress, or waiting, ends with an error.

        Raises:
            BusyError: called from within a reply's own work.
        """
        self.queue.close()
        with self._unused:
            self._closed = True
            while self._uses:
                self._unused.wait()
            for role in list(self._contexts):
                self._release(role)
            for role, model in self._models.items():
                if role not in self.lent:
                    model.close()
            if self.remote is not None:
                self.remote.close()
            self._template.close()
            if self._process is not None:
                self._process.close()

    def __enter__(self) -> LoadedModels:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- models and contexts ---------------------------------------------------------------------------------------

    def model(self, role: Source) -> Model:
        """One of the models; only its vocabulary if one model is in memory at a time."""
        if self.loading.resident == "one":
            return self._vocabulary(role)
        self.serving(role)
        return self._models[role]

    def context(self, role: Source) -> Sequences:
        """The context of a model on this machine, whose logits are here; loads it if it is not in memory.

        Raises:
            UsageError: the model is on a server.
        """
        found = self.serving(role)
        if isinstance(found, RemoteContext):
            assert self.remote is not None
            raise UsageError(
                f"this needs the base on this machine, and it is at {self.remote.address.url}: name a file with --base"
            )
        return found

    def serving(self, role: Source) -> Sequences | RemoteContext:
        """The context of one of the models, wherever it is; loads it if it is not in memory."""
        found = self._contexts.get(role)
        if found is None:
            with self._lock:
                if role not in self._contexts:
                    self._load(role, None)
                found = self._contexts[role]
        return found

    @property
    def loaded(self) -> tuple[Source, ...]:
        """The models in memory now."""
        return tuple(self._contexts)

    def n_ctx(self, role: Source) -> int:
        """Size of a model's context in tokens; does not load the model if one is in memory at a time."""
        if role in self._contexts or self.loading.resident == "both":
            return self.serving(role).n_ctx
        file = self._files[role]
        return file.n_ctx if isinstance(file, RemoteBase) else file.options(self._vocabulary(role), self.plan).n_ctx

    @cached_property
    def draft_format(self) -> DraftFormat:
        """How a conversation is written for the draft model."""
        return DraftFormat(
            self.model("draft"),
            self.base_format,
            self._clock,
            template=self._template,
            path=self.paths["draft"],
            cancelled=partial(self.queue.is_cancelled, self.queue.place()),
        )

    # -- provenance ------------------------------------------------------------------------------------------------

    @property
    def paths(self) -> dict[Source, Path]:
        """The file of each model."""
        return {role: file.path for role, file in self._files.items()}

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the files that `hash_files` has read: `draft`, `base`, `draft_lora`, `base_lora`."""
        return {name: sha256 for file in self._files.values() for name, sha256 in file.hashes.items()}

    def hash_files(self, progress: HashProgress | None = None) -> None:
        """Compute the SHA-256 of the loaded files, for the provenance of later replies."""
        for role in self._models:
            self._files[role].hash(progress)

    # -- parts -----------------------------------------------------------------------------------------------------

    def _vocabulary(self, role: Source) -> Model:
        with self._lock:
            self._require_open()
            if role not in self._models:
                self._models[role] = self._files[role].vocabulary()
            return self._models[role]

    def _require_open(self) -> None:
        if self._closed:
            raise WsdError("the pair is closed; load it again")

    def _load(self, role: Source, progress: LoadProgress | None) -> None:
        self._require_open()
        if self.loading.resident == "one":
            for other in list(self._contexts):
                self._release(other)
        file, known = self._files[role], self._models.get(role)
        if role in self.lent:
            model = self.lent[role]
        elif isinstance(known, ApartModel) and (process := self._started()) is not None:
            model = known
            known.open(process, None if progress is None else partial(progress, role))
        elif isinstance(file, LlamaFile):
            model = file.open(self.plan, progress, self._started())
        else:
            model = file.open(self.plan, progress)
        try:
            model.require_generator()
            context = self._contexts[role] = file.context(model, self.plan, self.cancellation)
            if self.prompts is not None and isinstance(context, Context):
                self.prompts.attach(context, file.fingerprints)
        except BaseException:
            if model is not known and role not in self.lent:
                model.close()
            raise
        if self.loading.resident == "both":
            self._models[role] = model

    def _started(self) -> EngineProcess | None:
        """The process that uses workers, if there are any."""
        if self._process is None and self.loading.rpc is not None:
            self._process = EngineProcess.of(self.loading.rpc, self.loading.rpc_timeout)
        return self._process

    def _forget_lost(self) -> None:
        """Drop what was in a process that is gone, so that it is loaded again; vocabularies stay."""
        if self._process is not None and self._process.lost:
            self._contexts.clear()
            self._process = None

    def _release(self, role: Source) -> None:
        """Free the context of one model, and its weights unless the model stays loaded."""
        context = self._contexts.pop(role)
        context.close()
        if context.model is not self._models.get(role):
            context.model.close()
