"""The image of the server: what its recipe copies is there, and what it runs works on this tree."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from command_line import complains, wsd

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "docs" / "deploy" / "Dockerfile"
INSTRUCTION = re.compile(r"^(?!#)([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)


def instructions(stage: str) -> list[tuple[str, str]]:
    """The instructions of a stage."""
    found: list[tuple[str, str]] = []
    inside = False
    for name, text in INSTRUCTION.findall(RECIPE.read_text(encoding="utf-8")):
        if name == "FROM":
            inside = text.endswith(f" AS {stage}")
        elif inside:
            found.append((name, text))
    assert found
    return found


def test_what_is_copied_is_there_and_sent() -> None:
    lines = (RECIPE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    copied = [part for name, text in instructions("build") if name == "COPY" for part in text.split()[:-1]]
    assert {"pyproject.toml", "wsd_local", "tui", "models", "README.md", "LICENSE"} == set(copied)
    for part in copied:
        assert (ROOT / part).exists()
        assert any(fnmatch(part, pattern) for pattern in kept), part


def test_the_packages_are_those_of_the_project(tmp_path: Path) -> None:
    (run,) = [text for name, text in instructions("build") if name == "RUN" and "requirements.txt" in text]
    code = re.search(r'python3 -c "(.*)" > requirements.txt', run)
    assert code is not None
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    done = subprocess.run([sys.executable, "-c", code[1]], cwd=tmp_path, capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert done.stdout.splitlines() == [*project["dependencies"], *project["optional-dependencies"]["serve"]]


def test_it_runs_as_nobody_and_is_asked_how_it_is() -> None:
    stage = dict(instructions("run"))
    assert stage["USER"].isdecimal() and int(stage["USER"]) > 0
    assert stage["VOLUME"] in stage["ENV"].partition("WSD_LOCAL_DATA=")[2].split()[0]
    assert "/health" in stage["HEALTHCHECK"]
    assert json.loads(stage["ENTRYPOINT"]) == ["wsd-local"]


def test_the_image_serves_nobody_without_a_key() -> None:
    complains(wsd(*json.loads(dict(instructions("run"))["CMD"])), 2, "WSD_LOCAL_API_KEY", "--insecure")
