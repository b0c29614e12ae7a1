"""OpenAI's list of models, and Anthropic's: `GET /v1/models` and `GET /v1/models/{id}`.

Contract: one answer has the fields of both protocols. A pair is three models, see `ServedModel`. `meta` has the names
that llama.cpp's server uses, `wsd` what only this program knows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter

from wsd_local.server.openai_answers import ERRORS, LATEST
from wsd_local.server.service import ServedModel, Service, UnknownModelError


def described(model: ServedModel) -> dict[str, Any]:
    """A model as clients receive it."""
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "wsd-local",
        "type": "model",
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z"),
        "meta": {"n_ctx": model.n_ctx, "size": model.size},
        "wsd": {
            "pair": model.pair,
            "mode": model.mode,
            "models": dict(model.names),
            "sha256": dict(model.sha256),
            "loaded": model.loaded,
        },
    }


def router(service: Service) -> APIRouter:
    """The endpoints, over a service."""
    routes = APIRouter(tags=["OpenAI"], responses=ERRORS)

    @routes.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the models."""
        found = [described(model) for model in service.models()]
        pages = {"has_more": False, "first_id": found[0]["id"], "last_id": found[-1]["id"]}
        return {"object": "list", "data": found, **pages}

    @routes.get("/v1/models/{id:path}")
    async def model(id: str) -> dict[str, Any]:
        """Describe a model."""
        for one in service.models():
            if one.id == id.removesuffix(LATEST):
                return described(one)
        known = ", ".join(one.id for one in service.models())
        raise UnknownModelError(f"there is no model {id!r} here; there are {known}")

    return routes
