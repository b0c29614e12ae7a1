"""Errors as clients receive them: one failure, in the shape of the protocol that the client speaks.

Contract: a message is one line and names no path of this machine. Which shape is used depends on the request's path
alone, so that errors from before a protocol's own code (authorisation, size, JSON) have it too.
"""

from __future__ import annotations

from typing import Any

from wsd_local.errors import BusyError, CancelledError, FitError, ModelError, UsageError, WsdError
from wsd_local.server.service import OverloadedError, UnavailableError, UnknownModelError


class ApiError(Exception):
    """A request that cannot be answered.

    Args:
        status: the HTTP status.
        message: what was wrong and what to do, in one line.
        param: the parameter that was wrong, if it was one.
        code: a short name that programs can compare; None: the status's own.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers or {}


def api_error(error: WsdError) -> ApiError:
    """An error of this package as clients receive it."""
    message = str(error)
    match error:
        case OverloadedError():
            return ApiError(429, message, code="overloaded", headers={"Retry-After": str(error.retry_after)})
        case UnavailableError():
            return ApiError(503, message, code="unavailable")
        case UnknownModelError():
            return ApiError(404, message, param="model", code="model_not_found")
        case FitError():
            return ApiError(400, message, code="context_length_exceeded")
        case UsageError():
            return ApiError(400, message)
        case CancelledError() | BusyError():
            return ApiError(503, message, code="unavailable")
        case ModelError():
            return ApiError(500, "the model's file cannot be used; the server's log says why", code="model_error")
        case _:
            return ApiError(500, message)


def body_of(path: str, error: ApiError) -> dict[str, Any]:
    """The JSON object of an error for a client that requested `path`."""
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": _anthropic_type(error.status), "message": error.message}}
    if path.startswith("/api/"):
        return {"error": error.message}
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(error.status, kind)
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}


def _anthropic_type(status: int) -> str:
    known = {
        400: "invalid_request_error",
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        429: "rate_limit_error",
        503: "overloaded_error",
    }
    return known.get(status, "invalid_request_error" if status < 500 else "api_error")
