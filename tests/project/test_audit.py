"""What the answers of `pip-audit` come to."""

from __future__ import annotations

import json

import audit
import pytest

GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


def test_a_known_vulnerability_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"dependencies": [GOOD, BAD, UNKNOWN]})
    lines, code = audit.verdict(answer, "")
    assert code == 1 and lines[0] == "b 2: PYSEC-1, mended in 3" and "1 of 3 packages could not" in lines[1]
    monkeypatch.setitem(audit.IGNORED, "CVE-1", "that part is not used")
    lines, code = audit.verdict(answer, "")
    assert code == 0 and lines[0].endswith("ignored: that part is not used")


@pytest.mark.parametrize("out", ["", "{", "[]", "{}"])
def test_no_database_is_said_and_fails_nothing(out: str) -> None:
    lines, code = audit.verdict(out, "Traceback\nConnectionError: api.example cannot be resolved\n")
    assert code == 0 and "nothing was audited: ConnectionError: api.example" in lines[0]


def test_the_projects_own_dependencies_are_asked_about() -> None:
    found = audit.installed()
    assert {"jinja2", "huggingface-hub", "pytest"} <= set(found)
    assert not {"pip", "setuptools", "wsd-local"} & set(found)
