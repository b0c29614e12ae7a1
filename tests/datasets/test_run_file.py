"""The file of a run: whole after every kill, gone on with by the same settings alone, in order at the end."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsd_local.datasets.run_file import Key, RunFile
from wsd_local.errors import UsageError, WsdError

MADE: dict[str, Any] = {"input_sha256": "ab", "format": "text", "settings": {"threshold": 0.8, "threads": 2}}
KILLS = 100


def opened(path: Path, made: dict[str, Any] = MADE) -> RunFile:
    """The file, to go on with."""
    output = RunFile(path)
    try:
        output.begin(made)
    except UsageError:
        output.__exit__(None, None, None)
        raise
    return output


def lines(path: Path) -> list[dict[str, Any]]:
    """What the file holds."""
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def filled(path: Path, *keys: tuple[int, int]) -> Path:
    """A file with replies."""
    with opened(path) as output:
        for key in keys:
            output.append(key, {"text": f"text of {key}"})
    return path


def test_replies_are_kept_and_known_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "out.jsonl", (2, 0), (0, 0), (0, 1))
    with opened(path) as output:
        assert output.done == {key: f"text of {key}" for key in [(2, 0), (0, 0), (0, 1)]}
        with pytest.raises(ValueError, match="is done"):
            output.append((0, 1), {"text": "again"})
        output.append((1, 0), {"text": "ü🙂\u2028\n"})
        output.sort()
        assert [(line["index"], line["turn"]) for line in output.values()] == [(0, 0), (0, 1), (1, 0), (2, 0)]
        output.append((3, 0), {"text": "after"})
    assert lines(path)[2]["text"] == "ü🙂\u2028\n" and len(lines(path)) == 5
    assert [one.name for one in path.parent.iterdir()] == ["out.jsonl"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 600), lost=st.integers(0, 40))
def test_a_torn_end_is_cut_off(tmp_path: Path, cut: int, lost: int) -> None:
    """The file ends anywhere; after a power loss with zeros in place of what was not written."""
    path = tmp_path / "whole.jsonl"
    path.unlink(missing_ok=True)
    kept = filled(path, (0, 0), (1, 0), (2, 0)).read_bytes()[:cut]
    path.write_bytes(kept + bytes(lost))
    with opened(path) as output:
        assert len(output.done) == kept.count(b"\n")
    assert path.read_bytes() == kept[: kept.rfind(b"\n") + 1]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (MADE | {"format": "csv"}, 'another format: "text", now "csv"'),
        (MADE | {"settings": {"threshold": 0.7, "threads": 2}}, "another threshold: 0.8, now 0.7"),
        (MADE | {"settings": {"threshold": 0.8, "window": 6}}, "another window: null, now 6"),
        ({name: MADE[name] for name in ("format", "settings")}, 'another input-sha256: "ab", now null'),
    ],
)
def test_another_setting_is_refused_by_name(tmp_path: Path, made: dict[str, Any], said: str) -> None:
    path = filled(tmp_path / "out.jsonl", (0, 0))
    before = path.read_bytes()
    with pytest.raises(UsageError) as raised:
        opened(path, made)
    assert said in str(raised.value) and "line 1" in str(raised.value)
    assert path.read_bytes() == before
    with opened(path, MADE | {"settings": {"threshold": 0.8, "threads": 16}}) as output:
        assert len(output.done) == 1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b'{"index": 0}\n', "line 1: is not a line of a run"),
        (b"[]\n", "line 1: is not a line of a run"),
        (b"\xff\xfe\n", "line 1: is not a line of a run"),
        (b'{"index": 0, "turn": 0, "text": "x"}\n', "line 1: does not say how it was made"),
        (b'{"index": true, "turn": 0, "text": "x"}\n', "line 1: is not a line of a run"),
        (b'[{"prompt": "a data set without an end of line"}]', "line 1: is not a line of a run"),
        (b"text", "line 1: is not a line of a run"),
        (b"\n{}", "line 1: is not a line of a run"),
    ],
)
def test_another_file_is_left_alone(tmp_path: Path, damage: bytes, said: str) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(damage)
    with pytest.raises(UsageError) as raised:
        opened(path)
    assert said in str(raised.value)
    assert path.read_bytes() == damage


def test_a_record_that_is_there_twice(tmp_path: Path) -> None:
    path = filled(tmp_path / "out.jsonl", (0, 0))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UsageError, match=r"line 2: record 0 is there twice"):
        opened(path)


@pytest.mark.parametrize("torn", [0, 20])
def test_where_records_are_renewed_the_last_line_of_each_counts(tmp_path: Path, torn: int) -> None:
    """A line that a kill tore leaves the one before it; sorting leaves each record once."""
    path = filled(tmp_path / "out.jsonl", (1, 0), (0, 0))
    with RunFile(path, renews=True) as output:
        output.begin(MADE)
        output.append((1, 0), {"text": "same", "more": 1})
        output.append((1, 0), {"text": "same", "more": 2})
    path.write_bytes(path.read_bytes()[: -torn or None])
    with RunFile(path, renews=True) as output:
        output.begin(MADE)
        found = {values["index"]: values.get("more") for values in output.values()}
        assert found == {0: None, 1: 1 if torn else 2} and len(list(output.values())) == 2
        output.sort()
        assert [line["index"] for line in lines(path)] == [0, 1]
        output.append((2, 0), {"text": "after"})
    with opened(path) as output:
        assert len(output.done) == 3, "an ordinary run's file again"


def test_one_run_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with opened(path), pytest.raises(UsageError, match="another run is writing to it"):
        opened(path)
    with opened(path):
        pass


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder; name a file"):
        RunFile(tmp_path)


@pytest.mark.parametrize(("length", "room"), [(300, 250), (300, 100), (3000, 2000), (9000, 8192), (9000, 1)])
def test_a_full_disk_says_so_and_loses_nothing(tmp_path: Path, length: int, room: int) -> None:
    """The disk ends within a line."""
    path = filled(tmp_path / "out.jsonl", (0, 0))
    before = path.read_bytes()
    before_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with opened(path) as output:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, before_limit[1]))
        try:
            with pytest.raises(WsdError, match=r"cannot be written: .*; the same command goes on"):
                output.append((1, 0), {"text": "x" * length})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before_limit)
            signal.signal(signal.SIGXFSZ, handler)
        assert (1, 0) not in output.done
        assert path.read_bytes() == before
        output.append((1, 0), {"text": "there is room again"})
    assert [line["index"] for line in lines(path)] == [0, 1]


def write_forever(path: Path) -> None:
    """Go on with the file, record after record, in an order of one's own."""
    chance = random.Random(os.getpid())
    with opened(path) as output:
        while True:
            key = (chance.randrange(100_000), chance.randrange(2))
            if key not in output.done:
                output.append(key, {"text": str(key) * chance.randrange(1, 400)})
            if chance.random() < 0.02:
                output.sort()


@pytest.mark.slow
def test_kills_lose_no_reply_and_double_none(tmp_path: Path, tell: Callable[..., None]) -> None:
    """A writer is killed at a random moment, again and again; what was there stays, and nothing is half."""
    path, chance = tmp_path / "out.jsonl", random.Random(1)
    known: set[Key] = set()
    torn = 0
    for _ in range(KILLS):
        child = os.fork()
        if child == 0:
            try:
                write_forever(path)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.005, 0.08))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        data = path.read_bytes() if path.exists() else b""
        torn += not data.endswith(b"\n") and bool(data)
        with opened(path) as output:
            found = {key: (line["index"], line["turn"]) for key, line in zip(output.done, output.values(), strict=True)}
            assert all(key == place for key, place in found.items())
            assert known <= set(output.done)
            known = set(output.done)
    tell(f"{KILLS} kills of a writer: {len(known)} replies, {torn} torn lines cut off, none lost, none double")
    assert len(known) > KILLS
