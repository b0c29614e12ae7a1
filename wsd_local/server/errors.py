"""Errors as clients receive them: one failure, in the shape of the protocol that the client speaks.

Contract: a message is one line and names no path of this machine. Which shape is used depends on the request's path
alone, so that errors from before a protocol's own code (authorisation, size, JSON) have it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from wsd_local.errors import (
    BusyError,
    CancelledError,
    FitError,
    ModelError,
    RefusedError,
    UsageError,
    WsdError,
    printable,
)
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
            return ApiError(400, message, param=error.about, code="context_length_exceeded")
        case UsageError():
            return ApiError(400, message, param=error.about)
        case CancelledError() | BusyError():
            return ApiError(503, message, code="unavailable")
        case RefusedError():
            return ApiError(400, f"the model's chat template {error.reason}", param="messages", code="template_refused")
        case ModelError():
            return ApiError(500, "the model's file cannot be used; the server's log says why", code="model_error")
        case _:
            return ApiError(500, message)


def validation_error(body: Any, faults: Sequence[Mapping[str, Any]]) -> ApiError:
    """A body that does not have the declared form, by the first parameter that is wrong.

    Args:
        body: what the client sent.
        faults: pydantic's errors, each with its place after `body`, or after `query` for a parameter of the address.
    """
    first = faults[0]
    if first["loc"][0] == "query":
        name = str(first["loc"][-1])
        return ApiError(400, f"{name} {_wanted(first)}", param=name)
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first.get('ctx', {}).get('error', 'it cannot be read')}")
    same = [fault for fault in faults if fault["loc"][:2] == first["loc"][:2]]
    place = max((_place(body, fault) for fault in same), key=len)  # of a union's alternatives the one that fits best
    if first["type"] == "value_error":
        reason = str(first["msg"]).removeprefix("Value error, ")
        return ApiError(400, f"{place}: {reason}" if place else reason, param=place or None)
    if not place:
        return ApiError(400, "the body must be a JSON object, sent with the header Content-Type: application/json")
    wanted = dict.fromkeys(_wanted(fault) for fault in faults if _place(body, fault) == place)
    return ApiError(400, f"{place} {' or '.join(wanted)}", param=place)


def _place(body: Any, fault: Mapping[str, Any]) -> str:
    """The path of what is wrong inside the body, without the alternatives of unions that pydantic names in it."""
    value, path = body, ""
    for part in fault["loc"][1:]:
        if isinstance(value, Mapping) and part in value:
            value, path = value[part], f"{path}.{part}" if path else str(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value, path = value[part], f"{path}[{part}]"
    if fault["type"] == "missing" and isinstance(value, Mapping):
        path = f"{path}.{fault['loc'][-1]}" if path else str(fault["loc"][-1])
    return path


def _wanted(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "missing":
        return "is missing"
    message = re.sub(r"^\w+ should ", "must ", str(fault["msg"]))
    return re.sub(r" after validation, not \d+$", "", message)


def body_of(path: str, error: ApiError) -> dict[str, Any]:
    """The JSON object of an error for a client that requested `path`."""
    message = printable(error.message)
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": _anthropic_type(error.status), "message": message}}
    if path.startswith("/api/"):
        return {"error": message}
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(error.status, kind)
    param = None if error.param is None else printable(error.param)
    return {"error": {"message": message, "type": kind, "param": param, "code": error.code}}


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
