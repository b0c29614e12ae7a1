"""One model of a pair as a GGUF file: checked, identified, and opened by llama.cpp.

Contract: nothing is kept in memory here; whoever opens a model closes it. A file's identity (size, time, number) is
recorded when it is opened, so that provenance never names the hash of a file that replaced it since.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

from wsd_local.core.resources import CacheType
from wsd_local.events import Source
from wsd_local.files import HashProgress, file_sha256, identity, known_sha256
from wsd_local.library.adapters import check_adapter
from wsd_local.library.gguf import is_mappable, look_at, read_header, read_model
from wsd_local.library.resolve import model_path
from wsd_local.library.vetting import amx_works, vet, vet_adapter
from wsd_local.llama import Cancellation, Context, ContextOptions, Model, Sequences
from wsd_local.placement.plan import DEFAULT_CTX, Plan, cells, load_mode, rows
from wsd_local.settings import LoadSettings
from wsd_local.workers.apart import ApartContext, ApartModel
from wsd_local.workers.process import EngineProcess

LOGGER = logging.getLogger(__name__)

LoadProgress = Callable[[Source, float], bool]
"""Called with a model's role and the loaded fraction; stops the loading by returning False."""


class LlamaFile:
    """The file of one model, with its adapter if it has one.

    Args:
        role: the model's role in the pair.
        path: the GGUF file.
        loading: how it is loaded.
        vets: whether a child process tries files before they are loaded here.

    Raises:
        ModelError: there is no adapter of that name.
    """

    def __init__(self, role: Source, path: Path, loading: LoadSettings, *, vets: bool = False) -> None:
        self.path = path
        self.hashes: dict[str, str] = {}
        """SHA-256 of the model under its role, of the adapter under `ROLE_lora`, once they are computed."""
        self.fingerprints: list[dict[str, Any]] = []
        """What identifies the files that were opened, each in another way: SHA-256 if known; place and times."""
        self._role: Source = role
        self._loading = loading
        lora = loading.lora(role)
        self._lora = None if lora is None else (model_path(lora[0]), lora[1])
        self._vets = vets
        self._identities: dict[Path, tuple[int, ...]] = {}

    def look(self) -> None:
        """Check that the headers can be read.

        Raises:
            ModelError: a file is missing, damaged or of the wrong kind.
        """
        for path in self._files().values():
            self._identify(path)
            look_at(path)

    def vet(self, progress: LoadProgress | None = None) -> None:
        """Let a child process try the files, unless that is unwanted or done; quick for files that were tried before.

        Raises:
            ModelError: a file is missing, damaged, or refused by llama.cpp.
            CancelledError: `progress` returned False.
        """
        if not self._vets:
            return
        waiting = None if progress is None else partial(progress, self._role, 0.0)
        vet(self.path, waiting)
        if self._lora is not None:
            vet_adapter(self._lora[0], self.path, waiting)
        self._vets = False

    def vocabulary(self) -> Model:
        """The model without its weights.

        Raises:
            ModelError: the file is missing, damaged or of the wrong kind.
        """
        look_at(self.path)
        return Model(self.path, n_gpu_layers=0, vocab_only=True)

    def open(
        self, plan: Plan | None, progress: LoadProgress | None = None, process: EngineProcess | None = None
    ) -> Model:
        """The model, placed by the plan if there is one; in another process if one is given.

        Raises:
            ModelError: llama.cpp refuses the file.
            WorkerError: a worker was lost.
            CancelledError: `progress` returned False.
        """
        report = None if progress is None else partial(progress, self._role)
        headers = read_model(self.path)
        if self._lora is not None:
            check_adapter(read_header(self._lora[0]), headers)
        self._identify(self.path)
        parts = [header.path for header in headers]
        self.fingerprints = _fingerprints([*parts, *([self._lora[0]] if self._lora is not None else [])])
        repack = amx_works(None if report is None else partial(report, 0.0))
        if not repack:
            LOGGER.info(
                "llama.cpp's code for AMX crashes here; all its fast kernels are left out: see wsd-local doctor"
            )
        given = {"parts": parts, "repack": repack, **self._placed(plan)}
        if process is not None:
            return ApartModel(process, self._role, self.path, given, report)
        return Model(self.path, progress=report, **given)

    def _placed(self, plan: Plan | None) -> dict[str, Any]:
        """Where the model's layers go, and how its file gets into memory, as `Model` takes them."""
        wanted, placement = self._loading.load_mode, None if plan is None else plan.placements.get(self._role)
        if placement is None:
            return {
                "n_gpu_layers": self._loading.gpu_layers(self._role),
                "load_mode": wanted if is_mappable(self.path) else "none",
            }
        return {
            "n_gpu_layers": placement.gpu_layers,
            "split": dict(zip(placement.devices, placement.split, strict=True)),
            "load_mode": load_mode(placement) if wanted in ("auto", "mmap") else wanted,
        }

    def context(self, model: Model, plan: Plan | None, stop: Cancellation) -> Sequences:
        """A context over the opened model, where that is."""
        if isinstance(model, ApartModel):
            return ApartContext(model, self.options(model, plan), stop)
        return Context(model, self.options(model, plan), stop)

    def options(self, model: Model, plan: Plan | None) -> ContextOptions:
        """The options of a context over the opened model or its vocabulary."""
        loading, placement = self._loading, None if plan is None else plan.placements.get(self._role)
        n_ctx = placement.ctx if placement else loading.ctx or min(DEFAULT_CTX, model.n_ctx_train)
        return ContextOptions(
            n_ctx=n_ctx,
            threads=loading.threads,
            cache_type_k=cast(CacheType, plan.cache_type_k) if plan else loading.cache_type_k,
            cache_type_v=cast(CacheType, plan.cache_type_v) if plan else loading.cache_type_v,
            flash_attn=loading.flash_attn,
            lora=self._lora,
            n_rows=rows(loading.parallel),
            n_seq=loading.parallel,
            n_ubatch=loading.ubatch,
            cells=cells(n_ctx, loading.parallel, sliding=model.n_swa > 0),
        )

    def hash(self, progress: HashProgress | None = None) -> None:
        """Compute `hashes`; a file that was replaced since it was opened has none."""
        made = {name: (path, file_sha256(path, progress=progress)) for name, path in self._files().items()}
        self.hashes = {
            name: sha256 for name, (path, sha256) in made.items() if self._identities.get(path) == identity(path.stat())
        }

    def _files(self) -> dict[str, Path]:
        adapter = {} if self._lora is None else {f"{self._role}_lora": self._lora[0]}
        return {self._role: self.path, **adapter}

    def _identify(self, path: Path) -> None:
        with suppress(OSError):
            found = identity(path.stat())
            if self._identities.setdefault(path, found) != found:
                self._identities[path] = found
                self.hashes = {}


def _fingerprints(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What identifies files, each in another way; nothing if one of them is gone."""
    try:
        hashes = [known_sha256(path) for path in paths]
        places = [[str(path.resolve()), *identity(path.stat())] for path in paths]
    except OSError:
        return []
    return [*([{"sha256": hashes}] if None not in hashes else []), {"places": places}]
