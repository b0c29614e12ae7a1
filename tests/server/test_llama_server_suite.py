"""llama.cpp's own tests of llama-server, asked of `wsd-local serve`; `llama_server_suite.toml` lists which must pass.

They are read where `WSD_TEST_LLAMA_CPP` has llama.cpp's sources, in `tools/server/tests`, and run by their own pytest
with `tests/llama_server_suite.py` as a plugin and `tests/llama_server_shim.py` in the place of llama-server.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="module")
def suite() -> Path:
    """The folder of the tests."""
    sources = Path(os.environ.get("WSD_TEST_LLAMA_CPP") or ROOT / ".venv" / "llama.cpp")
    folder = sources / "tools" / "server" / "tests"
    if not (folder / "utils.py").exists():
        pytest.skip(f"expected: no tests of llama-server at {folder} (set WSD_TEST_LLAMA_CPP)")
    return folder


@cache
def listed() -> dict[str, Any]:
    """What the list says."""
    return tomllib.loads((HERE / "llama_server_suite.toml").read_text(encoding="utf-8"))


def passing() -> list[str]:
    """The tests that must pass, by the names that pytest gives them."""
    return [f"{file}::{name}" for file, names in listed()["passes"].items() for name in names]


def others() -> Iterator[str]:
    """Tests, or whole files of them, that do not apply."""
    for one in listed()["other"]:
        yield from one["tests"]


def run(suite: Path, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The suite's own pytest, with our server."""
    program = tmp_path / "llama-server"
    shim = ROOT / "tests" / "llama_server_shim.py"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{shim}" "$@"\n')
    program.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "LLAMA_SERVER_BIN_PATH": str(program), "PORT": str(port)}
    environment |= {"PYTHONPATH": str(ROOT / "tests"), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    plugins = ["-p", "llama_server_suite", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", *plugins, f"--basetemp={tmp_path / 'own'}", *arguments]
    return subprocess.run(command, cwd=suite, env=environment, capture_output=True, text=True, check=False)


def test_every_test_of_the_suite_is_in_the_list(suite: Path, tmp_path: Path) -> None:
    done = run(suite, tmp_path, "--collect-only", "-q", "unit")
    found = re.findall(r"^(unit/\S+?::\S.*)$", done.stdout, re.MULTILINE)
    assert done.returncode == 0 and found, done.stdout + done.stderr

    def covers(entry: str, test: str) -> bool:
        return test == entry or test.startswith((f"{entry}[", f"{entry}::"))

    entries = [*passing(), *others()]
    assert [test for test in found if not any(covers(entry, test) for entry in entries)] == []
    assert [entry for entry in entries if not any(covers(entry, test) for test in found)] == []


@pytest.mark.slow
def test_llama_servers_tests_pass(suite: Path, tmp_path: Path) -> None:
    done = run(suite, tmp_path, "-q", "--tb=short", *passing())
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert "skipped" not in done.stdout.splitlines()[-1]
