"""`wsd-local eval sweep` as a person runs it, beside `calibrate`, with which it shares its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, complains, wsd
from page_reader import PageReader

from wsd_local.reports.sweep import THRESHOLDS, WINDOWS

QUICK = ("--ctx", "1024", "--threads", "1", "--draft-max-tokens", "60")
SMALL = ("--thresholds", "0.5,0.8", "--windows", "3,5")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Prompts of one's own, a line each."""
    path = tmp_path / "prompts.txt"
    path.write_text("What is the capital of France?\nHow do I boil an egg?\nWho are you?\n")
    return path


def sweep(prompts: Path, out: Path, *more: str) -> Done:
    return wsd("eval", "sweep", "demo", "--prompts", str(prompts), "--out", str(out), *QUICK, *more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tables_a_page_and_real_replies(prompts: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = sweep(prompts, tmp_path / "out.jsonl", *SMALL, "--replies", "5", "--html", str(page))
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert "3 prompts: threshold γ by window w" in shown and "5 of 5 real replies as derived" in shown
    assert shown.count("0.8 × 5") == 2 and "×" in shown
    assert "recommendation" not in shown
    found = PageReader(page.read_text(encoding="utf-8"))
    assert len(found.labels) == 5 and "0.5 × 3" in found.cells


def test_json_has_every_cell(prompts: Path, tmp_path: Path) -> None:
    done = sweep(prompts, tmp_path / "out.jsonl", *SMALL, "--json", "--quiet", "--replies", "12")
    assert done.returncode == 0 and done.stderr == b""
    found = json.loads(done.stdout)
    assert [(one["threshold"], one["window"]) for one in found["cells"]] == [(0.5, 3), (0.5, 5), (0.8, 3), (0.8, 5)]
    for one in found["cells"]:
        low, value, high = (one["kept"][name] for name in ("low", "value", "high"))
        assert (low is None or low <= value <= high) and one["time"]["value"] > 0
    assert len(found["replies"]) == 12 and not any(one["differs"] for one in found["replies"])
    assert found["pair"] == "demo" and found["prompts"] == 3


def test_what_calibrate_recorded_is_used_and_completed(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    common = ("--prompts", str(prompts), "--out", str(out), *QUICK)
    first = wsd("calibrate", "demo", *common)
    assert first.returncode == 0, first.stderr
    made = out.read_bytes()
    same = sweep(prompts, out, "--thresholds", "0.3,0.8", "--windows", "3,6,12")
    assert same.returncode == 0 and out.read_bytes() == made, "calibrate has compared all of this"
    assert b"3 of 3 prompts are recorded" in same.stderr
    before = lines(out)
    more = sweep(prompts, out, "--thresholds", "0.3,0.8", "--windows", "1,2")
    assert more.returncode == 0 and b"records of other settings" in more.stderr
    for old, new in zip(before, lines(out), strict=True):
        assert (old["tokens"], old["logprobs"], old["drafted"]) == (new["tokens"], new["logprobs"], new["drafted"])
        assert {one["start"] for one in old["continuations"]} < {one["start"] for one in new["continuations"]}
    again = wsd("calibrate", "demo", *common)
    assert again.returncode == 0 and b"other settings" not in again.stderr


def test_the_same_file_in_the_data_folder(prompts: Path) -> None:
    common = ("--prompts", str(prompts), "--limit", "1", *QUICK)
    assert wsd("calibrate", "demo", *common).returncode == 0
    done = wsd("eval", "sweep", "demo", *common, *SMALL)
    assert done.returncode == 0 and b"demo-prompts.jsonl" in done.stderr


def test_a_decision_that_is_not_as_derived_fails(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert sweep(prompts, out, *SMALL, "--limit", "1").returncode == 0
    [line] = lines(out)
    line["logprobs"] = [-0.01] * len(line["logprobs"])
    out.write_text(json.dumps(line) + "\n")
    done = sweep(prompts, out, *SMALL, "--limit", "1", "--replies", "4")
    assert done.returncode == 1 and b"decided otherwise" in done.stderr
    assert "of 4 real replies as derived" in done.stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--thresholds", ""), "thresholds: there is no number"),
        (("--thresholds", "0.5;0.8"), "thresholds: '0.5;0.8' is no number"),
        (("--windows", "0"), "windows: window is 0"),
        (("--windows", "3,3"), "windows: 3 is there twice"),
        (("--windows", "3.5"), "windows: '3.5' is no whole number"),
        (("--replies", "-1"), "replies is -1"),
        (("--replies", "99", *SMALL), "replies is 99"),
        (("--html", "nowhere/page.html"), "no such folder"),
        (("--continuation", "0"), "continuation is 0"),
    ],
)
def test_mistakes(prompts: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    out = tmp_path / "out.jsonl"
    complains(sweep(prompts, out, *arguments), 2, words)
    assert not out.exists()


def test_prompts_that_cannot_be_recorded(tmp_path: Path) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("word " * 3000 + "\n")
    none = sweep(source, out)
    assert none.returncode == 5 and none.stdout == b"" and b"no prompt could be recorded" in none.stderr
    source.write_text("word " * 3000 + "\nWho are you?\n")
    done = sweep(source, tmp_path / "other.jsonl", *SMALL)
    assert done.returncode == 5 and "1 prompt: threshold" in done.stdout.decode()


def test_the_help_names_the_usual_grid() -> None:
    shown = wsd("eval", "sweep", "--help").stdout.decode()
    assert THRESHOLDS in "".join(shown.split()) and WINDOWS in "".join(shown.split())
