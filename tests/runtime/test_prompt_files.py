"""The prompt cache's folder: whole files or none, never too large, the oldest goes first, several processes at once."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wsd_local.runtime.prompt_files import SHARE, Facts, PromptFiles, State

PLENTY = 10**12


def plenty(_folder: Path) -> int:
    """Bytes of a disk that is never full."""
    return PLENTY


def facts(key: str, data: bytes) -> Facts:
    """Facts of a state."""
    return Facts(key, "a model", len(data), hashlib.sha256(data).hexdigest(), 100.0, 1e9)


def add(files: PromptFiles, key: str, tokens: list[int], data: bytes) -> bool:
    """Write a state."""
    return files.write(facts(key, data), np.asarray(tokens, dtype=np.int32), memoryview(data))


def one_state(folder: Path) -> tuple[PromptFiles, State]:
    """A folder with one state."""
    files = PromptFiles(folder, 10**9, plenty)
    assert add(files, "k", [5, -1, 7, 2**31 - 1], bytes(range(256)))
    (state,) = files.find("k")
    return files, state


def test_what_was_written_is_read(tmp_path: Path) -> None:
    files, state = one_state(tmp_path / "deep" / "prompts")
    assert list(state.tokens) == [5, -1, 7, 2**31 - 1]
    assert bytes(files.payload(state) or b"") == bytes(range(256))
    assert files.find("another") == []
    other = PromptFiles(files.folder, 10**9, plenty)
    (same,) = other.all()
    assert same.facts == state.facts and bytes(other.payload(same) or b"") == bytes(range(256))


@pytest.mark.skipif(sys.platform == "win32", reason="expected: no permissions as on POSIX")
def test_files_and_the_folder_are_their_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files, _ = one_state(tmp_path / "prompts")
    finally:
        os.umask(before)
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.folder.iterdir()} == {0o600}


@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
@settings(max_examples=150, deadline=None)
def test_no_changed_byte_is_ever_read(where: float, flip: int) -> None:
    with TemporaryDirectory() as folder:
        files, state = one_state(Path(folder) / "prompts")
        damaged = bytearray(state.path.read_bytes())
        damaged[int(where * len(damaged))] ^= flip
        state.path.write_bytes(damaged)
        fresh = PromptFiles(files.folder, 10**9, plenty)
        found = fresh.find("k")
        assert not found or fresh.payload(found[0]) is None
        assert not state.path.exists()


@given(length=st.integers(0, 700), more=st.binary(max_size=9))
@settings(max_examples=80, deadline=None)
def test_no_file_of_another_length_is_ever_read(length: int, more: bytes) -> None:
    with TemporaryDirectory() as folder:
        files, state = one_state(Path(folder) / "prompts")
        whole = state.path.read_bytes()
        changed = whole[:length] + more
        state.path.write_bytes(changed)
        fresh = PromptFiles(files.folder, 10**9, plenty)
        found = fresh.find("k")
        if changed == whole:
            assert bytes(fresh.payload(found[0]) or b"") == bytes(range(256))
        else:
            assert not found or fresh.payload(found[0]) is None
            assert not state.path.exists()


def test_files_of_others_are_never_touched(tmp_path: Path) -> None:
    files, state = one_state(tmp_path)
    others = ["notes.state", f"{'0' * 24}.state", f"x{state.path.name}", f"{state.path.name}.bak", ".part"]
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / f"{'1' * 24}-{'2' * 24}.state").mkdir()
    assert len(files.all()) == 1
    assert files.clear() == (1, state.total)
    assert {path.name for path in tmp_path.iterdir()} == {*others, ".lock", f"{'1' * 24}-{'2' * 24}.state"}


def test_what_a_process_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    files, state = one_state(tmp_path)
    half = tmp_path / f".{state.path.name}.01234567.part"
    half.write_bytes(b"half")
    files.trim()
    assert not half.exists() and state.path.exists()


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, state = one_state(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        add(files, "k", [1], b"new")
    assert {path.name for path in tmp_path.iterdir()} == {state.path.name, ".lock"}


def test_a_fuller_disk_makes_the_cache_smaller(tmp_path: Path) -> None:
    free = PLENTY
    files = PromptFiles(tmp_path, 10**9, lambda _: free)
    for number in range(8):
        assert add(files, "k", [number], bytes(1000))
    free = 60_000
    files.trim()
    kept = files.all()
    assert 0 < len(kept) < 8
    assert sum(state.total for state in kept) <= SHARE * free


class Cache(RuleBasedStateMachine):
    """A folder with a bound on a disk of limited size, against a list: the oldest leave, and no more than must."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.model: dict[int, tuple[int, bytes, int]] = {}
        self.time = 0
        self.next = 0

    @initialize(most=st.integers(0, 9000), disk=st.integers(1000, 400_000))
    def begin(self, most: int, disk: int) -> None:
        self.most, self.disk = most, disk
        self.files = PromptFiles(Path(self.folder.name), most, lambda _: self.free())

    def free(self) -> int:
        """Bytes that the disk has free."""
        return max(0, self.disk - self.total())

    def total(self) -> int:
        """Bytes that the states take."""
        return sum(path.stat().st_size for path in Path(self.folder.name).glob("*.state"))

    def stamp(self, path: Path) -> None:
        """Let each use have a time of its own, whatever the file system's clock is."""
        self.time += 1
        os.utime(path, ns=(self.time * 10**9, self.time * 10**9))

    def by_number(self) -> dict[int, State]:
        """The states that are there."""
        return {int(state.tokens[0]): state for state in self.files.find("k")}

    @rule(size=st.integers(1, 4000))
    def write(self, size: int) -> None:
        number, data = self.next, bytes([self.next % 251]) * size
        self.next += 1
        before = sorted(self.model, key=lambda one: self.model[one][0])
        written = add(self.files, "k", [number], data)
        found = self.by_number()
        gone = [one for one in before if one not in found]
        assert gone == before[: len(gone)] and written == (number in found)
        if not written:
            assert not gone
            return
        self.stamp(found[number].path)
        self.model[number] = (self.time, data, found[number].total)
        if gone:  # the last one that left had to
            more = self.total() + self.model[gone[-1]][2]
            assert more > self.most or more > SHARE * (self.disk - more)
        for one in gone:
            del self.model[one]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model)))
        state = self.by_number()[number]
        assert bytes(self.files.payload(state) or b"") == self.model[number][1]
        self.stamp(state.path)
        self.model[number] = (self.time, *self.model[number][1:])

    @rule()
    def clear(self) -> None:
        assert self.files.clear()[0] == len(self.model)
        self.model = {}

    @invariant()
    def never_too_large(self) -> None:
        if hasattr(self, "files"):
            assert set(self.by_number()) == set(self.model)
            assert self.total() <= self.most
            assert self.total() <= SHARE * (self.disk - self.total()) or self.total() == 0

    def teardown(self) -> None:
        self.folder.cleanup()


TestCache = Cache.TestCase
TestCache.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


def busy(folder: Path, number: int) -> None:
    """What one of several processes does with the folder."""
    files = PromptFiles(folder, 20_000, plenty)
    for turn in range(30):
        data = bytes([number]) * (1000 + 37 * turn)
        add(files, "k", [number, turn % 7], data)
        for state in files.find("k"):
            read = files.payload(state)
            assert read is None or hashlib.sha256(read).hexdigest() == state.facts.sha256


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=busy, args=(tmp_path, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    left = PromptFiles(tmp_path, 20_000, plenty).all()
    assert left and sum(state.total for state in left) <= 20_000
    assert {path.name for path in tmp_path.iterdir()} == {*(state.path.name for state in left), ".lock"}
