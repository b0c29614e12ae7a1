"""Names that are no file to write: one line, at once, and nothing is made or removed."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import wsd

from wsd_local import paths
from wsd_local.datasets.run_file import RunFile
from wsd_local.errors import UsageError
from wsd_local.files import check_file, check_free, check_regular, write_text

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="expected: no pipes and devices with names")


def _folder(path: Path) -> None:
    path.mkdir()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, pytest.MonkeyPatch.context() as patch:
        patch.chdir(path.parent)  # the names of sockets are short
        one.bind(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/full")


MAKERS: dict[str, Callable[[Path], None]] = {
    "is a folder": _folder,
    "is a pipe": os.mkfifo if sys.platform != "win32" else _folder,
    "is a socket": _socket,
    "is a device": _device,
}


@pytest.mark.parametrize("what", MAKERS)
def test_what_is_no_file_is_named_and_stays(what: str, tmp_path: Path) -> None:
    path = tmp_path / "out"
    MAKERS[what](path)
    before = stat.S_IFMT(path.stat().st_mode)
    for check in (check_regular, check_file, lambda path: check_free(path, force=True), RunFile):
        with pytest.raises(UsageError, match=rf"out: {what}; name a file"):
            check(path)
    with pytest.raises(OSError, match=f"{what}, and no file"):
        write_text(path, "x")
    assert stat.S_IFMT(path.stat().st_mode) == before and os.listdir(tmp_path) == ["out"]  # noqa: PTH208


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1"])
def test_what_is_open_already_is_no_file_to_write(name: str) -> None:
    with pytest.raises(UsageError, match="is what some program has open; name a file"):
        check_file(Path(name))


def test_folders_are_not_made(tmp_path: Path) -> None:
    for check in (check_file, RunFile):
        with pytest.raises(UsageError, match="none: there is no such folder; make it first"):
            check(tmp_path / "none" / "out")
    (tmp_path / "file").touch()
    for check in (check_file, RunFile):
        with pytest.raises(UsageError, match="file is no folder"):
            check(tmp_path / "file" / "out")
    for name in ("a\0b", "a" * 300):
        with pytest.raises(UsageError, match="cannot be written"):
            check_file(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]  # noqa: PTH208


def test_a_converted_model_needs_a_place(tmp_path: Path) -> None:
    from wsd_local.library.made import free_target

    with pytest.raises(UsageError, match="there is no such folder"):
        free_target(None, tmp_path / "none" / "m.gguf", None, force=True)
    with pytest.raises(UsageError, match="is a folder"):
        free_target(None, tmp_path, None, force=True)
    assert free_target("mine", None, None, force=False).name == "mine.gguf"


def run(*arguments: str, folder: Path) -> tuple[int, str]:
    """A command's exit code and what it says."""
    done = wsd(*arguments, cwd=folder)
    return done.returncode, done.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--input", "q.txt", "--output", "PATH"],
        ["run", "--input", "q.txt", "--output", "PATH.jsonl", "--export", "mt_bench"],
        ["models", "quantize", "m.gguf", "Q8_0", "--output", "PATH", "--force"],
        ["eval", "report", "q.txt", "--html", "PATH"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
@pytest.mark.parametrize("what", ["is a folder", "is a pipe", "is a device", "no such folder"])
def test_every_command_refuses_at_once(arguments: list[str], what: str, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("hi\n")
    name = "none/out" if what == "no such folder" else "out.gguf" if "models" in arguments else "out"
    if what in MAKERS:
        MAKERS[what](tmp_path / ("out.mt_bench.jsonl" if "--export" in arguments else name))
    code, said = run(*[part.replace("PATH", name) for part in arguments], folder=tmp_path)
    assert code == 2 and what in said and len(said.splitlines()) == 1, said
    assert not (tmp_path / "none").exists()


def test_named_folders_do_not_depend_on_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes work in another folder, so a relative name is read when it is given."""
    monkeypatch.chdir(tmp_path)
    for name, folder in (("CACHE", paths.cache_dir), ("DATA", paths.data_dir), ("CONFIG", paths.config_file)):
        monkeypatch.setenv(f"WSD_LOCAL_{name}", f"here/{name}")
        assert folder() == tmp_path / "here" / name
