"""The wheel, installed outside the tree, and the editable install both find the embedded pair."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def page_files(prefix: str) -> set[str]:
    """The files of the server's page with licences of what is vendored, by their names in a package."""
    folder = ROOT / "wsd_local" / "server" / "page"
    found = {f"{prefix}{path.relative_to(ROOT).as_posix()}" for path in folder.rglob("*") if path.is_file()}
    assert len([name for name in found if name.endswith(".LICENSE.txt")]) == 3
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_pair_and_no_training_material(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name: archive.getinfo(name).file_size for name in archive.namelist()}
    models = {name for name in names if name.endswith(".gguf")}
    assert models == {"wsd_local/models/demo/draft-q8_0.gguf", "wsd_local/models/demo/base-q8_0.gguf"}
    assert sum(names[name] for name in models) < 10_000_000
    assert {"wsd_local/py.typed", "wsd_local/models/catalog.toml", "wsd_chat/app.py"} <= set(names)
    assert page_files("") <= set(names)
    assert not [name for name in names if "models/training" in name or "test" in name.split("/")[0]]


def test_the_source_archive_holds_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = set(archive.getnames())
    assert page_files(f"{next(iter(names)).split('/')[0]}/") <= names


def test_the_wheel_answers_outside_the_tree(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    code = "import wsd_local, wsd_local.paths as p; print(wsd_local.__file__, p.package_models_dir())"
    place = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert place.stdout.decode().split() == [str(target / "wsd_local/__init__.py"), str(target / "wsd_local/models")]
    done = subprocess.run(
        [sys.executable, "-m", "wsd_local", "run", "How do I boil an egg?"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout.strip()


def test_the_wheel_installs_with_its_two_commands(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)],
        check=True,
        capture_output=True,
    )
    assert (python.parent / "wsd-local").exists()
    assert (python.parent / "wsd-chat").exists()


def test_the_editable_install_finds_the_pair_in_the_tree(demo_q8: tuple[Path, Path]) -> None:
    assert all(path.is_file() and path.is_relative_to(ROOT / "models" / "demo") for path in demo_q8)
