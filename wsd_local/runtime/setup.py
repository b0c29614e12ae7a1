"""What replies start from.

Contract: sessions and fleets know a pair by its `Setup` alone: loaded models, an engine over them, and defaults.
"""

from __future__ import annotations

from typing import Any, Protocol

from wsd_local.prompts.messages import Prompt, conversation
from wsd_local.runtime.engine import Engine
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.queueing import Busy, waits
from wsd_local.runtime.run import Run, RunOptions
from wsd_local.settings import ReplySettings, changed


class Setup(Protocol):
    """What replies start from: loaded models, an engine over them, and defaults. A `Pair` is one."""

    @property
    def models(self) -> LoadedModels:
        """The models."""
        ...

    @property
    def engine(self) -> Engine:
        """Drives replies over the models."""
        ...

    @property
    def settings(self) -> ReplySettings:
        """The settings of a reply that does not override them."""
        ...

    @property
    def busy(self) -> Busy:
        """What a reply does by default if the models are in use."""
        ...


def start(
    setup: Setup,
    prompt: Prompt,
    *,
    left_out: int | None = None,
    busy: Busy | None = None,
    **overrides: Any,
) -> Run:
    """Prepare a reply with the setup's defaults; arguments and errors are those of `Pair.start`."""
    wait = waits(setup.busy if busy is None else busy)
    settings = changed(setup.settings, overrides)
    options = RunOptions(wait, left_out)
    return Run(setup.models, setup.engine, conversation(prompt), settings, options)
