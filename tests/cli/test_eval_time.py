"""`wsd-local eval time` as a person runs it: prompts in; a file of rounds, tables and a page out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Done, complains, wsd
from page_reader import PageReader

QUICK = ("--ctx", "2048", "--threads", "1")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Prompts of one's own, a line each."""
    path = tmp_path / "prompts.txt"
    path.write_text("What is the capital of France?\nHow do I boil an egg?\n")
    return path


def time(prompts: Path, out: Path, *more: str) -> Done:
    most = () if "--max-tokens" in more else ("--max-tokens", "20")
    return wsd("eval", "time", "demo", "--prompts", str(prompts), "--out", str(out), *QUICK, *most, *more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tables_and_a_page(prompts: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out.jsonl", tmp_path / "page.html"
    done = time(prompts, out, "--html", str(page))
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert "2 prompts, 2 rounds: time of whole replies" in shown and "1.00×" in shown
    assert all(name in shown for name in ("base", "urial", "wsd", "draft"))
    assert "of the processors' time went to other programs" in shown
    assert len(PageReader(page.read_text(encoding="utf-8")).labels) == 3
    for line in lines(out):
        assert sorted(line["order"]) == ["base", "draft", "urial", "wsd"]
        assert line["run"]["settings"]["max_tokens"] == 20 and line["run"]["models"]["base"]


def test_json_and_what_is_measured_is_not_measured_again(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    columns = ("--columns", "base,wsd@0.5,entropy", "--quiet", "--json", "--max-tokens", "12")
    assert time(prompts, out, *columns, "--limit", "1").returncode == 0
    first = out.read_bytes()
    done = time(prompts, out, *columns, "--repeat", "2")
    assert done.returncode == 0 and done.stderr == b""
    found = json.loads(done.stdout)
    assert [one["name"] for one in found["ways"]] == ["base", "wsd@0.5", "entropy"]
    assert (found["prompts"], found["rounds"]) == (2, 4)
    assert found["ways"][0]["ratio"] == {"value": 1.0, "low": None, "high": None, "count": 2}
    assert out.read_bytes().startswith(first)
    assert [(line["index"], line["turn"]) for line in lines(out)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    whole = out.read_bytes()
    again = time(prompts, out, *columns, "--repeat", "2")
    assert again.stdout == done.stdout and out.read_bytes() == whole


def test_a_prompt_of_one_s_own_for_urial(prompts: Path, tmp_path: Path) -> None:
    out, text = tmp_path / "out.jsonl", tmp_path / "urial.txt"
    text.write_text("Answer kindly.")
    own = ("--columns", "base,urial", "--urial", str(text), "--limit", "1")
    assert time(prompts, out, *own).returncode == 0
    [line] = lines(out)
    assert line["run"]["measured"]["columns"]["urial"]["urial"] == "Answer kindly."
    assert set(line["run"]["models"]) == {"base"}, "no draft is needed"


def test_turns_after_the_first_are_not_measured_and_that_is_said(tmp_path: Path) -> None:
    source = tmp_path / "mt.jsonl"
    source.write_text(json.dumps({"question_id": 80, "turns": ["Who are you?", "And who am I?"]}) + "\n")
    done = time(source, tmp_path / "out.jsonl", "--columns", "base,draft")
    assert done.returncode == 0 and b"1 prompt of several turns: the first turn is measured" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--columns", "wsd,draft"), "add base"),
        (("--columns", "base,wds"), "there is no column 'wds'"),
        (("--columns", "base,base"), "are the same"),
        (("--columns", "base,wsd", "--urial", "prompts.txt"), "there is no column urial"),
        (("--urial", "none.txt"), "none.txt"),
        (("--repeat", "0"), "repeat is 0"),
        (("--limit", "0"), "limit is 0"),
        (("--resident", "one"), "resident is one"),
        (("--html", "nowhere/page.html"), "no such folder"),
        (("--threshold", "0.5"), "--threshold"),
    ],
)
def test_mistakes(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out.jsonl"
    complains(time(prompts, out, *arguments), 2, words)
    assert not out.exists()


def test_prompts_that_cannot_be_answered(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("word " * 3000 + "\n")
    none = time(source, tmp_path / "out.jsonl")
    assert none.returncode == 5 and none.stdout == b""
    assert b"prompt 0, line 1: the prompt is too long" in none.stderr
    assert b"no prompt could be answered in every way" in none.stderr
