"""What a reply depends on, ready for JSON.

Contract: plain values; nothing is computed that takes time.
"""

from __future__ import annotations

from typing import Any

from wsd_local.llama.build import version
from wsd_local.runtime.loading import LoadedModels
from wsd_local.runtime.places import evaluation_shape
from wsd_local.settings import ReplySettings, plain
from wsd_local.version import __version__


def provenance(
    models: LoadedModels, settings: ReplySettings, seeds: tuple[int | None, int | None], template_date: str | None
) -> dict[str, Any]:
    """Versions, hashes of the models, every setting that held with the two `seeds` that were used, plan and shape."""
    values = plain(settings, models.loading)
    values["seed"], values["draft_seed"] = seeds
    hashes, plan = models.hashes, models.plan
    return {
        "version": __version__,
        "llama_cpp": version(),
        "draft_sha256": hashes.get("draft"),
        "base_sha256": hashes.get("base"),
        "draft_lora_sha256": hashes.get("draft_lora"),
        "base_lora_sha256": hashes.get("base_lora"),
        "base_server": None if models.remote is None else models.remote.described(),
        "settings": values,
        "plan": None if plan is None else plan.as_dict(),
        "shape": evaluation_shape(models),
        "template_date": template_date,
    }
