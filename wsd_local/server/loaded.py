"""A pair in memory, as the engine's thread owns it.

Contract: only what was read when it was loaded may be used by other threads; the models may be freed at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from wsd_local.events import Source
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.pair import Pair
from wsd_local.runtime.prompt_cache import PromptCache
from wsd_local.runtime.remote_base import address_of
from wsd_local.server.orders import Crew
from wsd_local.server.served import Serving, files_of
from wsd_local.settings import changed

LOGGER = logging.getLogger(__name__)

Progress = Callable[[Source, float], bool]
"""Called with a model's role and the loaded fraction; stops the loading by returning False."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A loaded pair, the replies in progress over it, and the context of each model in tokens."""

    name: str
    pair: Pair
    crew: Crew
    n_ctx: Mapping[Source, int]

    def free(self, *, keeps: bool) -> None:
        """Free the models; with `keeps`, what their contexts hold is saved for later if that pays."""
        try:
            if keeps and (trouble := self.pair.keep_prompts()) is not None:
                LOGGER.warning("%s", trouble)
        finally:
            self.pair.close()


def opened(name: str, serving: Serving, progress: Progress) -> Loaded:
    """Load a pair.

    Raises:
        ModelError: a file is missing, damaged, or refused by llama.cpp.
        FitError: memory is not enough.
        CancelledError: `progress` returned False.
    """
    entry = serving.pairs[name]
    files = files_of(entry)
    loading = changed(serving.loading_of(name), entry.server)
    base = files["base"] if "base" in files else address_of(entry.base, loading)
    models = LoadedModels(files["draft"], base, loading, base_format=entry.base_format, vets=True)
    models.prompts = PromptCache.of(loading)
    try:
        models.start_template("wsd")
        models.fit("wsd", progress)
        models.load("wsd", progress)
        sizes: dict[Source, int] = {"draft": models.n_ctx("draft"), "base": models.n_ctx("base")}
    except BaseException:
        models.close()
        raise
    pair = Pair.over(models, reply=serving.reply_of(name))
    return Loaded(name, pair, Crew(pair), sizes)
