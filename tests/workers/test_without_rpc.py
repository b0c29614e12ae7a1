"""A llama.cpp that was built without RPC: everything else works, and what needs it names the command that adds it."""

from __future__ import annotations

import pytest
from command_line import EGG, complains, wsd

from wsd_local.reports.doctor import diagnose, install_command


@pytest.fixture(autouse=True)
def without_rpc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsd_local.llama.rpc.available", lambda: False)


@pytest.mark.parametrize(
    "command", [("run", EGG, "--rpc", "127.0.0.1:50052"), ("fit", "--rpc", "127.0.0.1:50052"), ("rpc-worker",)]
)
def test_what_needs_it_says_so(command: tuple[str, ...]) -> None:
    complains(wsd(*command), 1, "built without RPC", "wsd-local doctor")


def test_doctor_names_the_command_and_finds_no_fault() -> None:
    found = diagnose()
    (line,) = [line for line in found.facts["llama.cpp"] if line.startswith("RPC: ")]
    assert line.startswith("RPC: no") and 'CMAKE_ARGS="-DGGML_RPC=on' in line and "pip install" in line
    assert found.problems == []


def test_the_command_keeps_what_the_machine_needs() -> None:
    assert 'CMAKE_ARGS="-DGGML_RPC=on" "' in install_command(None, amx=False)
    assert "-DGGML_RPC=on -DGGML_METAL=on" in install_command("metal", amx=False)
    assert install_command("cuda", amx=True).startswith("CFLAGS=-U__AMX_INT8__ CXXFLAGS=-U__AMX_INT8__ CMAKE_ARGS=")
