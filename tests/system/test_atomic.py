"""Files are old or new, never half, and no more readable than they were or the umask allows."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wsd_local.datasets.exports import write_export
from wsd_local.datasets.run_file import RunFile
from wsd_local.files import replaced, write_text
from wsd_local.library.registry import Known, remember
from wsd_local.paths import make_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="expected: no permissions as on POSIX")


@pytest.fixture(params=[0o000, 0o022, 0o077], ids="umask {:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    """What the test's files are created under."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    """Permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def a_run(path: Path) -> None:
    """A run's output, put into order at its end."""
    with RunFile(path) as output:
        output.begin({"input_sha256": "ab"})
        for index in (1, 0):
            if (index, 0) not in output.done:
                output.append((index, 0), {"text": "x"})
        output.sort()


def an_export(path: Path) -> None:
    """An export of a run."""
    line = {"index": 0, "turn": 0, "text": "x", "input": {}, "messages": []}
    write_export("hh", [line], path, generator="g")


def a_text(path: Path) -> None:
    """A report or a page."""
    write_text(path, "x")


WRITERS = [a_run, an_export, a_text]


@pytest.mark.parametrize("write", WRITERS)
def test_the_umask_decides_about_a_new_file(tmp_path: Path, umask: int, write: Callable[[Path], None]) -> None:
    path = tmp_path / "new"
    write(path)
    assert mode(path) == 0o666 & ~umask


@pytest.mark.parametrize("before", [0o600, 0o640, 0o644, 0o664])
@pytest.mark.parametrize("write", WRITERS)
def test_a_file_keeps_its_permissions(tmp_path: Path, umask: int, before: int, write: Callable[[Path], None]) -> None:
    path = tmp_path / "old"
    path.touch()
    path.chmod(before)
    write(path)
    assert mode(path) == before


@pytest.mark.parametrize("before", [None, 0o644, 0o600])
def test_a_private_file_is_its_owners_alone(tmp_path: Path, umask: int, before: int | None) -> None:
    path = tmp_path / "chat.md"
    if before is not None:
        path.touch()
        path.chmod(before)
    write_text(path, "x", private=True)
    assert mode(path) == 0o600


def test_nobody_else_can_read_a_private_file_while_it_is_written(tmp_path: Path, umask: int) -> None:
    old = tmp_path / "old"
    old.touch(mode=0o600)
    old.chmod(0o600)
    for path, private in ((tmp_path / "chat.md", True), (old, False)):
        with replaced(path, private=private) as part:
            assert mode(part) == 0o600


def test_the_registry(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path))
    remember(Known("a", (tmp_path / "a.gguf",), "imported"))
    assert mode(tmp_path / "models.json") == 0o666 & ~umask


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), replaced(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "old")]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / "file", []
    flush = os.fsync

    def noted(descriptor: int) -> None:
        what = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        flushed.append((what, path.exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(path, "x")
    assert flushed == [("file", False), ("folder", True)]


def test_a_run_leaves_no_second_file_and_is_alone_until_its_end(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with RunFile(path) as output:
        output.begin({})
        output.append((1, 0), {"text": "b"})
        output.append((0, 0), {"text": "a"})
        output.sort()
        assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]
        with pytest.raises(Exception, match="another run is writing to it"):
            RunFile(path)
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


def test_folders_below_the_data_folder_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int) -> None:
    monkeypatch.setenv("WSD_LOCAL_DATA", str(tmp_path / "a" / "data"))
    make_folder(tmp_path / "a" / "data" / "models")
    assert [mode(tmp_path / name) for name in ("a", "a/data", "a/data/models")] == [0o777 & ~umask, 0o700, 0o700]
