"""Runs over data sets repeat themselves: one command makes the same replies each time, in a shape that is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from command_line import wsd

QUESTIONS = [f"What is the capital of country number {number}?" for number in range(8)]
QUICK = ("--max-tokens", "24", "--ctx", "512")


def asked(folder: Path) -> str:
    """A data set of plain lines."""
    (path := folder / "questions.txt").write_text("".join(f"{question}\n" for question in QUESTIONS))
    return str(path)


def lines(path: Path) -> list[dict[str, Any]]:
    """The replies of a run."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def replies(path: Path) -> list[tuple[Any, ...]]:
    """What must be the same in two runs."""
    return [(line["index"], line["text"], line["switch"], line["finish_reason"]) for line in lines(path)]


def shapes(path: Path) -> list[Any]:
    """The shapes that the lines record, each once."""
    found: list[Any] = []
    for line in lines(path):
        if line["run"]["shape"] not in found:
            found.append(line["run"]["shape"])
    return found


def test_the_same_command_makes_the_same_file(tmp_path: Path) -> None:
    source, outputs = asked(tmp_path), [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    said = [wsd("run", "--input", source, "--output", str(out), *QUICK).stderr.decode() for out in outputs]
    assert replies(outputs[0]) == replies(outputs[1])
    assert shapes(outputs[0]) == shapes(outputs[1]) and len(shapes(outputs[0])) == 1
    for name in ("speculation", "loop_guard"):
        assert {line["provenance"]["settings"][name] for out in outputs for line in lines(out)} == {"off"}
    assert "times the tokens per second of one" not in said[1], "what was measured is remembered"


def test_a_run_that_continues_keeps_its_shape(tmp_path: Path) -> None:
    source, out = asked(tmp_path), tmp_path / "out.jsonl"
    begun = wsd("run", "--input", source, "--output", str(out), "--limit", "4", "--parallel", "2", *QUICK)
    assert begun.returncode == 0, begun.stderr
    done = wsd("run", "--input", source, "--output", str(out), *QUICK)
    assert done.returncode == 0 and b"continues with" not in done.stderr
    (shape,) = shapes(out)
    assert shape["parallel"] == shape["sequences"] == 2 and len(lines(out)) == 8


def test_another_shape_is_reported(tmp_path: Path) -> None:
    source, out, other = asked(tmp_path), tmp_path / "out.jsonl", tmp_path / "other.jsonl"
    wsd("run", "--input", source, "--output", str(out), "--limit", "4", "--parallel", "2", *QUICK)
    done = wsd("run", "--input", source, "--output", str(out), "--parallel", "4", *QUICK)
    assert done.returncode == 0 and b"made with 2 replies at once, and continues with 4" in done.stderr
    assert [shape["parallel"] for shape in shapes(out)] == [2, 4]
    wsd("run", "--input", source, "--output", str(other), "--parallel", "1", *QUICK)
    report = wsd("eval", "report", str(out), str(other))
    assert b"the runs differ in replies at once" in report.stderr
    assert b"the runs differ" not in wsd("eval", "report", str(other), str(other)).stderr


def test_a_run_of_one_model_has_no_other_shape_for_that(tmp_path: Path) -> None:
    source, outputs = asked(tmp_path), {mode: str(tmp_path / f"{mode}.jsonl") for mode in ("wsd", "base", "draft")}
    for mode, out in outputs.items():
        done = wsd("run", "--input", source, "--output", out, "--mode", mode, "--parallel", "2", *QUICK)
        assert done.returncode == 0, done.stderr
    assert wsd("eval", "report", *outputs.values()).stderr == b""
    records = lines(Path(outputs["base"]))
    for line in records:
        line["run"]["shape"]["flash_attn"] = {"base": "on"}
    other = tmp_path / "other.jsonl"
    other.write_text("".join(f"{json.dumps(line)}\n" for line in records), encoding="utf-8")
    report = wsd("eval", "report", outputs["wsd"], str(other))
    assert b"the runs differ in flash attention of the base: " in report.stderr
