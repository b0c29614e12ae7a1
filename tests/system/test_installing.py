"""Progress while llama.cpp is compiled, from the lines that pip prints, and what is said where pip fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsd_local.system import installing
from wsd_local.system.installing import Steps, advice, follow

ROOT = Path(__file__).parents[2]


def compiled(total: int, seconds: float, clock: list[float]) -> Iterator[str]:
    """Lines of a compilation whose steps take the same time."""
    yield "  Collecting numpy>=1.26\n"
    yield "  [1/2] Building C object test.o\n"
    for step in range(1, total + 1):
        clock[0] += seconds
        yield f"  [{step}/{total}] /usr/bin/c++ -O3 -c x{step}.cpp\n"


def test_the_time_that_is_left_follows_the_share_that_is_done() -> None:
    clock, shown = [0.0], list[str]()
    follow(compiled(100, 2.0, clock), shown.append, 0.0, lambda: clock[0])
    assert shown[0] == "fetching numpy"
    assert shown[1] == "compiling llama.cpp: 1 of 100 steps", "nothing is known yet"
    assert shown[11] == "compiling llama.cpp: 11 of 100 steps, about 3 min left"
    assert shown[71] == "compiling llama.cpp: 71 of 100 steps, about 58 s left"
    assert shown[-1] == "compiling llama.cpp: 100 of 100 steps, about 0 s left"


def test_lines_come_no_more_often_than_wanted() -> None:
    clock, shown = [0.0], list[str]()
    follow(compiled(100, 2.0, clock), shown.append, 15.0, lambda: clock[0])
    assert 10 <= len(shown) <= 15


def test_a_trial_of_the_compiler_is_no_compilation() -> None:
    steps = Steps(lambda: 0.0)
    assert not steps.read("[1/2] Building C object") and not steps.read("no step at all")
    assert steps.read("[5/87] c++ …") and (steps.done, steps.total) == (5, 87)


def test_where_pip_fails_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    assert "make run WHEEL=1" in advice(["-e", "."], lambda name: None)
    assert "no ready-made llama.cpp for this platform" in advice(
        ["--only-binary", ":all:"], lambda name: "/usr/bin/c++"
    )
    assert "install.md" in advice(["-e", "."], lambda name: "/usr/bin/c++")
    monkeypatch.setenv("CXX", "clang++-18 -stdlib=libc++")
    assert "install.md" in advice(["-e", "."], lambda name: name if name == "clang++-18" else None)


def test_a_package_that_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    code = installing.main(["--no-deps", "--only-binary", ":all:", "--no-index", "llama-cpp-python==0.0.1"])
    assert code != 0
    printed = capsys.readouterr().err
    assert "no ready-made llama.cpp for this platform" in printed and "0.0.1" in printed
    assert "0.0.1" in (tmp_path / "install.log").read_text(encoding="utf-8")


def test_make_asks_for_a_compiler_s_work_or_for_a_wheel() -> None:
    def commands(*more: str) -> str:
        command = ["make", "--no-print-directory", "-n", "run", "VENV=none", *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    compiling, ready = commands(), commands("WHEEL=1")
    assert "--only-binary" not in compiling and "compiled once" in compiling
    assert "--only-binary :all: --index-url https://" in ready and "ready-made" in ready
    for text in (compiling, ready):
        assert "installing.py -e ." in text and "LLAMA_BUILD_COMMON OFF" in text
