"""The HTTP application: every protocol over one service.

Contract: `create_app` starts nothing and loads nothing. What protects the server (keys, hosts, origins, sizes) is
added around it by the caller.
"""

from __future__ import annotations

import difflib

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from wsd_local.errors import WsdError, short
from wsd_local.server import (
    anthropic_messages,
    native,
    ollama,
    openai_chat,
    openai_completions,
    openai_models,
    openai_responses,
    page_api,
    page_files,
)
from wsd_local.server.errors import ApiError, api_error, body_of, validation_error
from wsd_local.server.head import HeadAsGet
from wsd_local.server.metrics import Metrics
from wsd_local.server.service import Service
from wsd_local.store import Store
from wsd_local.version import __version__


def create_app(service: Service, metrics: Metrics | None = None, store: Store | None = None) -> FastAPI:
    """All endpoints over a service; with a store of chats also the page.

    `metrics` are what `/metrics` shows; None: they are made here.
    """
    metrics = metrics or Metrics()
    metrics.watch(service)
    app = FastAPI(title="wsd-local", version=__version__, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_middleware(HeadAsGet)
    app.include_router(native.router(service, metrics))
    app.include_router(openai_chat.router(service))
    app.include_router(openai_completions.router(service))
    app.include_router(openai_models.router(service))
    app.include_router(openai_responses.router(service))
    app.include_router(anthropic_messages.router(service))
    app.include_router(ollama.router(service))
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(WsdError, _wsd_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    if store is not None:
        app.include_router(page_files.router())
        app.include_router(page_api.router(service, store))
    return app


def _answer(request: Request, error: ApiError) -> JSONResponse:
    return JSONResponse(body_of(request.url.path, error), error.status, headers=error.headers)


def _api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _answer(request, error)


def _wsd_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, WsdError)
    return _answer(request, api_error(error))


def _validation_error(request: Request, error: Exception) -> JSONResponse:
    """The first fault of a body that does not have the declared form, as 400 with the parameter's name."""
    assert isinstance(error, RequestValidationError)
    return _answer(request, validation_error(error.body, error.errors()))


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    message = str(error.detail)
    if error.status_code == 404:
        message = f"there is no endpoint {short(request.url.path)}{_nearest_path(request)}"
    elif error.status_code == 405:
        message = f"{short(request.url.path)} takes {headers.get('Allow', 'another method')}, not {request.method}"
        if "GET" in headers.get("Allow", ""):
            headers["Allow"] += ", HEAD"
    return _answer(request, ApiError(error.status_code, message, headers=headers))


def _nearest_path(request: Request) -> str:
    """A suggestion for a path that is not known: clients are often given an address with too much or too little."""
    known = list(request.app.openapi()["paths"])
    close = difflib.get_close_matches(request.url.path, known, 1)
    return f"; did you mean {close[0]}?" if close else "; /openapi.json lists all"


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw; it is raised again after the answer, for the server's log."""
    return _answer(request, ApiError(500, "the server failed; its log says why"))
