"""What Ollama's clients ask about models: `/api/tags`, `/api/ps`, `/api/show` and `/api/version`.

Contract: a pair's facts are those of its base. Endpoints that change or fetch models, and those of embeddings, answer
with an error that says what to do instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter

from wsd_local.events import Source
from wsd_local.server.errors import ApiError
from wsd_local.server.ollama_bodies import ShowBody
from wsd_local.server.openai_answers import LATEST, model_named
from wsd_local.server.service import ModelFacts, ServedModel, Service, UnknownModelError
from wsd_local.version import __version__

OLLAMA_VERSION = "0.12.11"
"""The release whose protocol is answered: clients compare it with the one that they need."""

FOR_EVER = timedelta(days=36525)
"""Time after which a model that stays in memory is said to be freed."""

_ELSEWHERE: Mapping[str, str] = {
    "pull": "models are fetched with wsd-local models pull",
    "push": "models are not published by this server",
    "create": "models are made with wsd-local models import, convert or quantize",
    "copy": "pairs are named in the configuration",
    "delete": "models are removed with wsd-local models rm",
    "embed": "the models give no embeddings",
    "embeddings": "the models give no embeddings",
    "blobs/{digest}": "models are made with wsd-local models import, convert or quantize",
}


def resolved(service: Service, name: str) -> str:
    """The model that a client names, with or without `:latest`.

    Raises:
        UnknownModelError: it is not served.
        ApiError: none is named, and there are several.
    """
    found = model_named(service, name)
    if found not in [model.id for model in service.models()]:
        known = ", ".join(_tagged(model) for model in service.models())
        raise UnknownModelError(f"model {name!r} not found: there are {known}")
    return found


def _tagged(model: ServedModel) -> str:
    return model.id if ":" in model.id else model.id + LATEST


async def _listed(service: Service, model: ServedModel) -> dict[str, Any]:
    name = _tagged(model)
    facts = await service.facts(model.id)
    return {
        "name": name,
        "model": name,
        "modified_at": _time(model),
        "size": model.size,
        "digest": _digest(model),
        "details": _details(facts),
    }


def _time(model: ServedModel) -> str:
    return datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z")


def _digest(model: ServedModel) -> str:
    """Hexadecimal digits that change when a model's files do."""
    known = [f"{role}={digest}" for role, digest in sorted(model.sha256.items())] or [f"{model.size}@{model.created}"]
    return hashlib.sha256(" ".join([model.id, *known]).encode()).hexdigest()


def _main(facts: Mapping[Source, ModelFacts]) -> ModelFacts | None:
    return facts.get("base", facts.get("draft"))


def _details(facts: Mapping[Source, ModelFacts]) -> dict[str, Any]:
    main = _main(facts)
    families = list(dict.fromkeys(one.architecture for one in (*([main] if main else []), *facts.values())))
    return {
        "parent_model": "",
        "format": "gguf",
        "family": main.architecture if main else "",
        "families": families,
        "parameter_size": _millions(main.parameters) if main else "",
        "quantization_level": main.quantization if main else "",
    }


def _millions(count: int) -> str:
    return f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"


def _information(model: ServedModel, facts: Mapping[Source, ModelFacts]) -> dict[str, Any]:
    """What GGUF files state, by their keys, and the names of a pair's parts."""
    found: dict[str, Any] = {f"wsd.{role}": name for role, name in model.names.items()}
    if (main := _main(facts)) is None:
        return found
    n_ctx = model.n_ctx or main.n_ctx_train
    return {
        "general.architecture": main.architecture,
        "general.basename": main.name,
        "general.parameter_count": main.parameters,
        f"{main.architecture}.context_length": n_ctx,
        f"{main.architecture}.embedding_length": main.n_embd,
        f"{main.architecture}.block_count": main.n_layers,
        **found,
    }


def _parameters(service: Service, model: ServedModel) -> str:
    """The defaults of replies, as the lines of a Modelfile."""
    defaults = service.defaults
    names = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n")
    lines = {name: getattr(defaults, name) for name in names} | {"num_predict": defaults.max_tokens}
    if model.n_ctx is not None:
        lines["num_ctx"] = model.n_ctx
    return "\n".join(f"{name:<30} {value}" for name, value in lines.items())


def add_models(routes: APIRouter, service: Service) -> None:
    """Add the endpoints."""

    @routes.get("/api/tags")
    async def tags() -> dict[str, Any]:
        """All models that are served."""
        return {"models": [await _listed(service, model) for model in service.models()]}

    @routes.get("/api/ps")
    async def ps() -> dict[str, Any]:
        """The models that are loaded, and when they are freed if no request comes."""
        left = service.freed_after
        end = datetime.now(UTC) + (FOR_EVER if left is None else timedelta(seconds=max(0.0, min(left, 1e9))))
        return {
            "models": [
                await _listed(service, model)
                | {"expires_at": end.isoformat(), "size_vram": 0, "context_length": model.n_ctx}
                for model in service.models()
                if model.loaded
            ]
        }

    @routes.post("/api/show")
    async def show(body: ShowBody) -> dict[str, Any]:
        """What is known of a model."""
        name = resolved(service, body.model)
        model = next(model for model in service.models() if model.id == name)
        facts = await service.facts(name)
        main = _main(facts)
        return {
            "modelfile": f"# served by wsd-local as {_tagged(model)}\n",
            "parameters": _parameters(service, model),
            "template": (facts["draft"].template if "draft" in facts else None) or "",
            "license": (main.licence if main else None) or "",
            "modified_at": _time(model),
            "details": _details(facts),
            "model_info": _information(model, facts),
            "capabilities": ["completion"],
        }

    @routes.get("/api/version")
    async def version() -> dict[str, str]:
        """The release of Ollama whose protocol is answered, and our own."""
        return {"version": OLLAMA_VERSION, "wsd_local": __version__}

    for path, advice in _ELSEWHERE.items():
        _add_refusal(routes, path, advice)


def _add_refusal(routes: APIRouter, path: str, advice: str) -> None:
    async def refuse() -> None:
        raise ApiError(404, f"/api/{path.partition('/')[0]} is not supported: {advice}", code="not_supported")

    routes.add_api_route(f"/api/{path}", refuse, methods=["GET", "POST", "DELETE"], include_in_schema=False, name=path)
