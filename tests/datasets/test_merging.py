"""`wsd-local run merge`: shards joined into the file that one run writes, and all that must not be joined."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from command_line import Done, complains, wsd
from hypothesis import given, settings
from hypothesis import strategies as st

from wsd_local.datasets.merging import join, opened

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "many-machines.md"
RUN = {
    "input_sha256": "0",
    "format": "jsonl",
    "column": None,
    "system": None,
    "models": {"draft": "d", "base": "b"},
    "settings": {"threshold": 0.8, "threads": 2},
    "shape": {"parallel": 1},
}


def line(index: int, turn: int = 0, run: Mapping[str, Any] = {}) -> bytes:
    values = {"index": index, "turn": turn, "text": f"reply {index}.{turn}", "run": {**RUN, **run}}
    return json.dumps(values).encode() + b"\n"


def shard(path: Path, lines: Sequence[bytes]) -> str:
    path.write_bytes(b"".join(lines))
    return str(path)


def shards(folder: Path, count: int, of: int = 2) -> list[str]:
    return [shard(folder / f"{n}.jsonl", [line(index) for index in range(count)[n::of]]) for n in range(of)]


def merged(folder: Path, *arguments: str) -> tuple[Done, Path]:
    out = folder / "all.jsonl"
    return wsd("run", "merge", *arguments, "--output", str(out)), out


def test_shards_of_a_run_are_the_run(tmp_path: Path) -> None:
    """With the input nothing is missing; exports and reports read the joined file, and the run has nothing left."""
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"What is {n}?"}) + "\n" for n in range(5)))
    usual = ["run", "--input", str(data), "--max-tokens", "6", "--parallel", "1"]
    names = [str(tmp_path / f"{number}.jsonl") for number in (1, 2)]
    for number, name in enumerate(names, 1):
        assert wsd(*usual, "--shard", f"{number}/2", "--output", name).returncode == 0
    done, out = merged(tmp_path, *names, "--input", str(data))
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert b"5 records of 2 files" in done.stderr and b"missing" not in done.stderr
    whole = tmp_path / "whole.jsonl"
    assert wsd(*usual, "--output", str(whole)).returncode == 0
    found, wanted = ([json.loads(text) for text in path.read_text().splitlines()] for path in (out, whole))
    for one, other in zip(found, wanted, strict=True):
        for values in (one, other):
            del values["timings"], values["finished_at"], values["provenance"], values["cached"]
        assert one == other
    before = out.read_bytes()
    again = wsd(*usual, "--output", str(out))
    assert again.returncode == 0 and out.read_bytes() == before
    assert wsd("eval", "report", str(out)).returncode == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 2), st.randoms(use_true_random=False))
def test_the_joined_file_has_every_line_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, records: int, files: int, turns: int, order: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    lines = [line(index, turn) for index in range(records) for turn in range(turns)]
    of_file: list[list[bytes]] = [[] for _ in range(files)]
    for one in lines:
        order.choice(of_file).append(one)
    for part in of_file:
        order.shuffle(part)
    paths = [Path(shard(folder / f"{n}.jsonl", part)) for n, part in enumerate(of_file)]
    found = opened(paths)
    join(found, folder / "all.jsonl")
    assert (folder / "all.jsonl").read_bytes() == b"".join(lines)
    assert found.missing(None) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input_sha256": "1"}, ("another input-sha256",)),
        ({"models": {"draft": "d", "base": "c"}}, ("another base", '"c"', '"b"')),
        ({"settings": {"threshold": 0.7, "threads": 2}}, ("another threshold", "0.7", "0.8")),
        ({"system": "Be brief."}, ("another system",)),
        ({"llama_cpp": "b1"}, ("another llama-cpp",)),
    ],
)
def test_what_was_made_otherwise_is_not_joined(tmp_path: Path, change: dict[str, Any], words: Sequence[str]) -> None:
    names = [*shards(tmp_path, 2)[:1], shard(tmp_path / "1.jsonl", [line(1, run=change)])]
    done, out = merged(tmp_path, *names)
    complains(done, 2, "1.jsonl, line 1", "join shards of one run", *words)
    assert not out.exists()


def test_what_changes_time_alone_is_joined_and_another_shape_is_named(tmp_path: Path) -> None:
    other = {"settings": {"threshold": 0.8, "threads": 8}}
    names = [*shards(tmp_path, 2)[:1], shard(tmp_path / "1.jsonl", [line(1, run=other)])]
    done, out = merged(tmp_path, *names)
    assert done.returncode == 0 and b"shapes" not in done.stderr and len(out.read_bytes().splitlines()) == 2
    out.unlink()
    shard(tmp_path / "1.jsonl", [line(1, run={"shape": {"parallel": 8}})])
    done, out = merged(tmp_path, *names)
    assert done.returncode == 0 and b"different shapes" in done.stderr


def test_a_record_of_two_shards_is_refused(tmp_path: Path) -> None:
    names = shards(tmp_path, 4)
    done, out = merged(tmp_path, *names, names[0])
    complains(done, 2, "0.jsonl, line 1: record 0 is in", "leave one of the two out")
    assert not out.exists()


def test_holes_are_named_and_joined_only_if_that_is_asked_for(tmp_path: Path) -> None:
    names = shards(tmp_path, 20, of=4)
    done, out = merged(tmp_path, *names[:3])
    complains(done, 2, "4 records missing: 3, 7, 11, 15", "--partial")
    assert not out.exists()
    done, out = merged(tmp_path, *names[:3], "--partial")
    assert done.returncode == 5 and b"4 records missing: 3, 7, 11, 15" in done.stderr
    assert len(out.read_bytes().splitlines()) == 15


def test_a_turn_that_is_missing_is_a_hole(tmp_path: Path) -> None:
    done, _ = merged(tmp_path, shard(tmp_path / "0.jsonl", [line(0), line(0, 1), line(1, 1)]))
    complains(done, 2, "1 record missing: 1")


def test_a_shard_that_was_killed_in_the_midst_of_a_line_is_named(tmp_path: Path) -> None:
    names = shards(tmp_path, 4)
    whole = Path(names[1]).read_bytes()
    Path(names[1]).write_bytes(whole[:-9])
    done, out = merged(tmp_path, *names)
    complains(done, 2, "1.jsonl: its last line is not whole")
    done, out = merged(tmp_path, *names, "--partial")
    assert done.returncode == 5 and len(out.read_bytes().splitlines()) == 3
    assert Path(names[1]).read_bytes() == whole[:-9], "the shard stays as it is"


def test_the_input_says_what_is_missing_at_its_end_and_what_cannot_be_answered(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": "x"} if n != 2 else {"prompt": 7}) + "\n" for n in range(6)))
    run = {"input_sha256": hashlib.sha256(data.read_bytes()).hexdigest()}
    file = shard(tmp_path / "0.jsonl", [line(n, run=run) for n in (0, 1, 3)])
    complains(merged(tmp_path, file)[0], 2, "1 record missing: 2")
    complains(merged(tmp_path, file, "--input", str(data))[0], 2, "2 records missing: 4, 5")
    done, _ = merged(tmp_path, file, "--input", str(data), "--limit", "4")
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "y"}\n')
    (tmp_path / "all.jsonl").unlink()
    complains(merged(tmp_path, file, "--input", str(other))[0], 2, "is another input than that of the shards")


def test_wrong_files_are_named_and_nothing_is_replaced(tmp_path: Path) -> None:
    names = shards(tmp_path, 2)
    complains(merged(tmp_path, *names, str(tmp_path / "none.jsonl"))[0], 2, "none.jsonl: cannot be read: No such file")
    complains(
        merged(tmp_path, shard(tmp_path / "x", [b'{"prompt": "x"}\n']))[0], 2, "x, line 1: is not a line of a run"
    )
    complains(merged(tmp_path, shard(tmp_path / "y", []))[0], 2, "there is no reply")
    bare = json.dumps({"index": 0, "turn": 0, "text": ""}).encode() + b"\n"
    complains(merged(tmp_path, shard(tmp_path / "z", [bare]))[0], 2, "does not say how it was made")
    complains(merged(tmp_path, *names, "--limit", "1")[0], 2, "--limit is given without --input")
    complains(wsd("run", "merge", *names, "--output", names[0]), 2, "is one of the shards")
    kept = tmp_path / "all.jsonl"
    kept.write_text("as it was")
    complains(merged(tmp_path, *names)[0], 2, "is there already")
    assert kept.read_text() == "as it was"


def test_the_actor_on_the_page_answers_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray itself is no dependency; what it would load on each worker is tried here."""
    (code,) = re.findall(r"```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    answers = names["Answers"]("demo", 1)
    found = answers({"prompt": "What is the capital of France?", "id": 7})
    assert "Paris" in found["text"] and found["id"] == 7
    answers.pair.close()


def test_a_prompt_of_that_word_is_still_a_prompt() -> None:
    done = wsd("run", "--threads", "1", "--max-tokens", "2", "--", "merge")
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
