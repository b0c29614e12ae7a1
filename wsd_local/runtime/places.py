"""What differs between a model on this machine and a base on a server, for those who use loaded models.

Contract: functions of `LoadedModels`; only what truly needs logits, files or memory here asks where a model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wsd_local.core.limits import Limits
from wsd_local.events import Source
from wsd_local.llama import Sequences
from wsd_local.llama.options import default_threads
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.remote_base import RemoteModel
from wsd_local.settings import ReplySettings


def is_remote(models: LoadedModels, role: Source) -> bool:
    """Whether a model is on a server."""
    return role == "base" and models.remote is not None


def require_served(models: LoadedModels, settings: ReplySettings) -> None:
    """Raise `UsageError` for settings of a reply that need more of a base than its server gives."""
    if models.remote is not None:
        models.remote.require(settings)


def limits_of(models: LoadedModels, settings: ReplySettings, room: int, stops: tuple[str, ...]) -> Limits:
    """Limits of a reply for which `room` tokens are left in the context."""
    found = settings.limits(room, stops, whole_draft=models.loading.resident == "one")
    if models.remote is None:
        return found
    return replace(found, check_chunk=models.remote.check_chunk(found.check_chunk))


def local_contexts(models: LoadedModels) -> dict[Source, Sequences]:
    """The contexts of the loaded models on this machine."""
    return {role: models.context(role) for role in sorted(models.loaded) if not is_remote(models, role)}


def read_ahead(models: LoadedModels, role: Source, tokens: Sequence[int]) -> None:
    """Let a model on this machine read what a later reply will begin with."""
    if not is_remote(models, role):
        models.context(role).read(0, tokens)


def vocabulary_file(models: LoadedModels, role: Source) -> Path:
    """A GGUF file with a model's vocabulary."""
    model = models.model(role)
    return model.vocabulary_file if isinstance(model, RemoteModel) else models.paths[role]


def evaluation_shape(models: LoadedModels) -> dict[str, Any]:
    """What the arithmetic depends on beside files and settings: sequences of a context, threads, attention."""
    return {
        "sequences": models.loading.parallel,
        "threads": models.loading.threads or default_threads(),
        "flash_attn": {role: context.flash_attn for role, context in local_contexts(models).items()},
    }
