"""`wsd-local eval mechanism` as a person runs it: prompts in, files of records, tables and a page out."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command_line import complains, wsd
from makers import random_llama

QUESTIONS = ["What is the capital of France?", "How do I boil an egg?"]
QUICK = ("--ctx", "1024", "--threads", "1", "--draft-max-tokens", "40", "--openings", "2", "--opening-tokens", "10")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Prompts of one's own, the second one with a reply."""
    path = tmp_path / "prompts.jsonl"
    records: list[dict[str, Any]] = [{"id": "city", "prompt": QUESTIONS[0]}, {"id": "egg", "prompt": QUESTIONS[1]}]
    records[1]["output"] = "Boil it for eight minutes."
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def mechanism(prompts: Path, out: Path, *more: str, pair: str = "demo") -> subprocess.CompletedProcess[bytes]:
    return wsd("eval", "mechanism", pair, "--prompts", str(prompts), "--out", str(out), *QUICK, *more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_tables_records_and_a_page(prompts: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out.jsonl", tmp_path / "page.html"
    done = mechanism(prompts, out, "--html", str(page))
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.decode().split())
    for words in ("The mechanism on 2 prompts", "unlikely opening", "How often the base agrees", "given its first"):
        assert words in shown
    assert "the draft's greedy reply for 1 prompt, the field `output` of the data set for 1 prompt" in shown
    assert "better opening" not in shown
    drafts, openings = lines(out), lines(tmp_path / "out.openings.jsonl")
    assert [line["id"] for line in drafts] == [line["id"] for line in openings] == ["city", "egg"]
    assert [line["source"] for line in openings] == ["draft", "output"]
    assert all(len(line["own"]) == 2 for line in openings)
    text = page.read_text(encoding="utf-8")
    assert drafts[0]["run"]["models"]["draft"] in text and openings[0]["run"]["models"]["base"] in text
    assert "<script" not in text and "Made by wsd-local" in text


def test_json_and_what_is_recorded_is_not_recorded_again(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert mechanism(prompts, out, "--limit", "1", "--quiet").stderr == b""
    kept = out.read_bytes(), (tmp_path / "out.openings.jsonl").read_bytes()
    done = mechanism(prompts, out, "--json")
    assert done.returncode == 0, done.stderr
    assert b"openings of 1 of 2 prompts are there" in done.stderr
    found = json.loads(done.stdout)
    assert found["prompts"] == 2 and found["sources"] == {"draft": 1, "output": 1}
    assert found["setting"] == {"threshold": 0.8, "window": 6}
    assert found["openings"] == {"count": 2, "tokens": 10, "seed": 0}
    assert {"perplexity", "likelihood", "switches", "agreement", "gain", "beginning", "run"} <= set(found)
    assert found["judging"] is None
    whole = out.read_bytes(), (tmp_path / "out.openings.jsonl").read_bytes()
    assert all(after.startswith(before) for after, before in zip(whole, kept, strict=True))
    again = mechanism(prompts, out, "--json")
    assert again.stdout == done.stdout
    assert (out.read_bytes(), (tmp_path / "out.openings.jsonl").read_bytes()) == whole


@pytest.mark.slow
def test_another_setting_uses_the_same_drafts_and_openings(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert mechanism(prompts, out, "--quiet").returncode == 0
    drafts = {line["id"]: line["tokens"] for line in lines(out)}
    openings = (tmp_path / "out.openings.jsonl").read_bytes()
    done = mechanism(prompts, out, "--threshold", "0.3", "--window", "2", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["setting"] == {"threshold": 0.3, "window": 2} and found["switches"]["places"]
    assert {line["id"]: line["tokens"] for line in lines(out)} == drafts
    assert (tmp_path / "out.openings.jsonl").read_bytes() == openings
    for switch in found["switches"]["places"]:
        assert switch["kept"] and switch["compared"] and switch["kind"]


@pytest.mark.slow
def test_a_judge_grades_every_opening_once(prompts: Path, tmp_path: Path) -> None:
    judge, out = random_llama(tmp_path / "judge.gguf", seed=3), tmp_path / "out.jsonl"
    done = mechanism(prompts, out, "--judge", str(judge), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["judging"]
    assert found["ranking"]["prompts"] == 2 and found["ranking"]["openings"] == 3
    assert 1 <= found["ranking"]["aligned"]["value"] <= 10 and found["judge"]["sha256"]
    [grades] = tmp_path.glob("out.grades.*.jsonl")
    assert len(lines(grades)) == 1 + 2 * 3
    assert b"6 verdicts in" in done.stderr
    again = mechanism(prompts, out, "--judge", str(judge), "--json")
    assert again.stdout == done.stdout and b"6 of 6 verdicts are there already" in again.stderr
    shown = mechanism(prompts, out, "--judge", str(judge), "--quiet").stdout.decode()
    assert "better opening" in shown and "judge's grade" in shown


@pytest.mark.slow
def test_the_kin_pair_on_the_program_s_own_prompts(kin: tuple[Path, Path], tmp_path: Path) -> None:
    done = wsd(
        *("eval", "mechanism", "demo", "--draft", str(kin[0]), "--base", str(kin[1]), "--limit", "3", "--json"),
        *("--out", str(tmp_path / "out.jsonl"), *QUICK, "--threshold", "0.5", "--window", "3"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["prompts"] == 3 and found["sources"] == {"draft": 3}
    assert found["switches"]["places"], "windows pass at many places"


def test_prompts_that_fail_are_reported_and_the_others_count(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "Who are you?"}\nnonsense\n{"prompt": "' + "word " * 3000 + '"}\n')
    done = mechanism(source, out)
    error = done.stderr.decode()
    assert done.returncode == 5 and f"{source}, line 2: " in error and "the prompt is too long" in error
    assert "The mechanism on 1 prompt" in done.stdout.decode()
    source.write_text(json.dumps({"prompt": "word " * 3000}) + "\n")
    failed = mechanism(source, tmp_path / "second.jsonl")
    assert failed.returncode == 5 and failed.stdout == b"" and b"no prompt could be recorded" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody",), 2, ("there is no pair 'nobody'",)),
        (("demo", "--prompts", "none.txt"), 2, ("none.txt", "no such file")),
        (("demo", "--limit", "0"), 2, ("limit is 0",)),
        (("demo", "--openings", "0"), 2, ("openings is 0",)),
        (("demo", "--opening-tokens", "0"), 2, ("opening-tokens is 0",)),
        (("demo", "--opening-seed", "-1"), 2, ("opening-seed is -1",)),
        (("demo", "--threshold", "-1"), 2, ("threshold is -1",)),
        (("demo", "--window", "0"), 2, ("window is 0",)),
        (("demo", "--prompts", "good.txt", "--out", "good.txt"), 2, ("holds the prompts",)),
        (("demo", "--html", "nowhere/page.html"), 2, ("no such folder",)),
        (("demo", "--judge", "nobody.gguf", "--out", "out.jsonl"), 3, ("nobody.gguf",)),
        (("demo", "--judge", "http://127.0.0.1:1/v1", "--out", "out.jsonl"), 2, ("judge",)),
        (("demo", "--temperature", "1"), 2, ("--temperature",)),
    ],
)
def test_mistakes(tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    (tmp_path / "good.txt").write_text("Hi!\n")
    complains(wsd("eval", "mechanism", *arguments, "--quiet", cwd=tmp_path), code, *words)
    assert not (tmp_path / "out.jsonl").exists()
