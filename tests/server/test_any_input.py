"""No input makes the server fail, and answers have the described form: requests made by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from serving import ScriptedService, listening, private_folders

from wsd_local.server.app import create_app
from wsd_local.server.desk import Desk
from wsd_local.server.guard import Guard
from wsd_local.settings import LoadSettings, ReplySettings

schemathesis = pytest.importorskip("schemathesis", reason="expected: schemathesis is not installed")

EXAMPLES = 25
"""Requests for each endpoint."""

MOST_TOKENS = 32
"""Longest reply, unless a request says otherwise."""

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
"""What is asserted of every answer: it is no failure, and has the form that the description promises."""

OPERATIONS = [
    (method, path) for path, methods in create_app(ScriptedService()).openapi()["paths"].items() for method in methods
]


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description of a server of the embedded pair, read from the server. Requests may free its models."""
    with private_folders(tmp_path_factory.mktemp("described")):
        desk = Desk(["demo"], ReplySettings(max_tokens=MOST_TOKENS), LoadSettings(threads=1, parallel=4))
        desk.start()
        with listening(Guard(create_app(desk))) as url:
            yield schemathesis.openapi.from_url(f"{url}/openapi.json")
        desk.close()


def test_every_protocol_is_described() -> None:
    described = {path for _, path in OPERATIONS}
    assert {"/v1/chat/completions", "/v1/messages", "/api/chat", "/v1/responses", "/v1/score"} <= described


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_input_makes_the_server_fail(description: Any, method: str, path: str) -> None:
    checks = [schemathesis.checks.CHECKS.get_one(name) for name in CHECKS]
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
        case.validate_response(answer, checks=checks)
        if answer.status_code >= 400:
            error = answer.json()["error"]
            message = error if isinstance(error, str) else error["message"]
            assert message and "\n" not in message and "Traceback" not in message

    answered()
