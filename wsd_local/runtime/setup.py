"""What replies start from.

Contract: sessions and fleets know a pair by its `Setup` alone: loaded models, an engine over them, and defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from wsd_local.prompts.messages import Prompt, conversation
from wsd_local.prompts.raw import RawPrompt
from wsd_local.prompts.templates import never
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
    prompt: Prompt | RawPrompt,
    *,
    left_out: int | None = None,
    busy: Busy | None = None,
    whole: bool = False,
    details: int | None = None,
    stopped: Callable[[], bool] = never,
    **overrides: Any,
) -> Run:
    """Prepare a reply with the setup's defaults; arguments and errors are those of `Pair.start`.

    `stopped` is called from time to time; returning True ends the preparation with `CancelledError`.
    """
    wait = waits(setup.busy if busy is None else busy)
    settings = changed(setup.settings, overrides)
    options = RunOptions(wait, left_out, stopped=stopped, whole=whole, details=details)
    given = prompt if isinstance(prompt, RawPrompt) else conversation(prompt)
    return Run(setup.models, setup.engine, given, settings, options)
