"""No input makes the server fail: requests made from its own description, valid and not, by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from serving import ScriptedService, listening

from wsd_local.server.app import create_app
from wsd_local.server.guard import Guard
from wsd_local.server.service import Service

schemathesis = pytest.importorskip("schemathesis", reason="expected: schemathesis is not installed")

EXAMPLES = 25
"""Requests for each endpoint."""

OPERATIONS = [
    (method, path) for path, methods in create_app(ScriptedService()).openapi()["paths"].items() for method in methods
]


@pytest.fixture(scope="module")
def description(service: Service) -> Iterator[Any]:
    """The server's description of itself, read from the server."""
    with listening(Guard(create_app(service))) as url:
        yield schemathesis.openapi.from_url(f"{url}/openapi.json")


def test_every_protocol_is_described() -> None:
    described = {path for _, path in OPERATIONS}
    assert {"/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses", "/v1/score"} <= described


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_input_makes_the_server_fail(description: Any, method: str, path: str) -> None:
    rules = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @rules
    @given(case=description[path][method].as_strategy())
    def answered(case: Any) -> None:
        answer = case.call(timeout=300)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            error = answer.json()["error"]
            message = error if isinstance(error, str) else error["message"]
            assert message and "\n" not in message and "Traceback" not in message

    answered()
