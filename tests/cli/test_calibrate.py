"""`wsd-local calibrate` as a person runs it: prompts in, a file of records, a table, a page and a configuration out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import complains, started, wsd

from wsd_local.datasets import read
from wsd_local.paths import own_prompts

QUESTIONS = ["What is the capital of France?", "How do I boil an egg?", "Who are you?"]
QUICK = ("--ctx", "1024", "--threads", "1", "--draft-max-tokens", "60")


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Prompts of one's own, a line each."""
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"{question}\n" for question in QUESTIONS))
    return path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the configuration is, or will be."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("WSD_LOCAL_CONFIG", str(path))
    return path


def calibrate(prompts: Path, out: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    return wsd("calibrate", "demo", "--prompts", str(prompts), "--out", str(out), *QUICK, *more)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_program_has_thirty_prompts_of_its_own() -> None:
    data = read(own_prompts())
    assert len(data.items) == 30 and not data.bad and not data.same_id
    kinds = {str(item.record["kind"]) for item in data.items}
    assert len(kinds) >= 12
    assert any(len(item.messages) > 1 for item in data.items)
    assert any(len(item.messages[-1]["content"]) > 2000 for item in data.items)


def test_a_table_and_a_recommendation(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = calibrate(prompts, out)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode()
    assert "3 prompts: what each threshold" in shown and "0.95 × 12" in shown
    assert "recommendation:" in shown and "criterion:" in shown
    assert [line["input"]["prompt"] for line in lines(out)] == QUESTIONS
    for line in lines(out):
        assert line["run"]["models"]["base"] and line["run"]["calibration"]["continuation"] == 24


def test_json_holds_the_table_and_the_recommendation(prompts: Path, tmp_path: Path) -> None:
    done = calibrate(prompts, tmp_path / "out.jsonl", "--json", "--quiet")
    assert done.returncode == 0 and done.stderr == b""
    found = json.loads(done.stdout)
    assert found["prompts"] == 3 and len(found["rows"]) == 21
    assert {"setting", "winner", "present", "wins", "better", "distinguished", "reason"} <= set(found["recommendation"])
    assert found["recommendation"]["present"] == {"threshold": 0.8, "window": 6}
    assert all(found["costs"].values()) and found["criterion"]["seed"] == 0


def test_what_is_recorded_is_not_recorded_again(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert calibrate(prompts, out, "--limit", "2").returncode == 0
    first = out.read_bytes()
    done = calibrate(prompts, out)
    assert done.returncode == 0 and b"2 of 3 prompts are recorded" in done.stderr
    assert out.read_bytes().startswith(first) and len(lines(out)) == 3
    whole = out.read_bytes()
    again = calibrate(prompts, out)
    assert again.returncode == 0 and again.stdout == done.stdout and out.read_bytes() == whole


def test_a_torn_last_line_is_recorded_again(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert calibrate(prompts, out, "--limit", "2").returncode == 0
    whole = out.read_bytes()
    out.write_bytes(whole[:-200])
    assert calibrate(prompts, out, "--limit", "2").returncode == 0
    assert [line["tokens"] for line in lines(out)] == [json.loads(line)["tokens"] for line in whole.splitlines()]


def test_records_of_something_else_are_refused(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert calibrate(prompts, out, "--limit", "1").returncode == 0
    before = out.read_bytes()
    refused = "choose another --out"
    complains(calibrate(prompts, out, "--continuation", "12"), 2, "another continuation: 24, now 12", refused)
    complains(calibrate(prompts, out, "--draft-max-tokens", "61"), 2, "another draft-max-tokens: 60, now 61", refused)
    complains(calibrate(prompts, out, "--draft", "demo-base", "--base", "demo-draft"), 2, "another base", refused)
    prompts.write_text("another\n")
    complains(calibrate(prompts, out), 2, "another input-sha256", refused)
    assert out.read_bytes() == before


def test_a_damaged_record_is_named(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert calibrate(prompts, out, "--limit", "1").returncode == 0
    [line] = lines(out)
    line["agrees"] = line["agrees"][:-1]
    out.write_text(json.dumps(line) + "\n")
    complains(calibrate(prompts, out, "--limit", "1"), 2, "record 0", "not of one length", "--out")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody",), 2, ("there is no pair 'nobody'",)),
        (("demo", "--prompts", "none.txt"), 2, ("none.txt", "no such file")),
        (("demo", "--prompts", "empty.txt"), 2, ("is empty",)),
        (("demo", "--prompts", "bad.jsonl"), 2, ("bad.jsonl",)),
        (("demo", "--limit", "0"), 2, ("limit is 0",)),
        (("demo", "--continuation", "0"), 2, ("continuation is 0",)),
        (("demo", "--continuation", "9999"), 2, ("continuation is 9999",)),
        (("demo", "--write", "--base", "demo-draft"), 2, ("--write", "config.toml")),
        (("demo", "--out", "folder"), 2, ("a folder",)),
        (("demo", "--out", "nowhere/out.jsonl"), 2, ("no such folder",)),
        (("demo", "--prompts", "good.txt", "--out", "good.txt"), 2, ("holds the prompts",)),
        (("demo", "--html", "nowhere/page.html"), 2, ("no such folder",)),
        (("tiny",), 3, ("not on this machine",)),
        (("demo", "--threshold", "0.5"), 2, ("--threshold",)),
    ],
)
def test_mistakes(tmp_path: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "good.txt").write_text("Hi!\n")
    (tmp_path / "bad.jsonl").write_text('{"prompt": ""}\n{"prompt": 3}\n')
    (tmp_path / "folder").mkdir()
    complains(wsd("calibrate", *arguments, "--quiet", cwd=tmp_path), code, *words)


def test_bad_prompts_are_reported_and_the_others_recorded(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "Who are you?"}\nnonsense\n{"prompt": "' + "word " * 3000 + '"}\n')
    done = calibrate(source, out)
    error = done.stderr.decode()
    assert done.returncode == 5 and len(lines(out)) == 1
    assert f"{source}, line 2: " in error and "prompt 2, line 3: the prompt is too long" in error
    assert "1 prompt: what each threshold" in done.stdout.decode()


def test_where_every_prompt_fails_there_is_no_table(tmp_path: Path) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("word " * 3000 + "\n")
    done = calibrate(source, out)
    assert done.returncode == 5 and done.stdout == b"" and not lines(out)
    error = done.stderr.decode()
    assert "prompt 0, line 1: the prompt is too long" in error and "no prompt could be recorded" in error


def test_further_turns_are_asked_after_the_draft(tmp_path: Path) -> None:
    source, out = tmp_path / "mt.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps({"question_id": 80, "turns": [QUESTIONS[0], "And of Japan?"]}) + "\n")
    done = calibrate(source, out)
    assert done.returncode == 0, done.stderr
    assert [(line["turn"], line["id"]) for line in lines(out)] == [(0, "80, turn 1"), (1, "80, turn 2")]
    alone = tmp_path / "alone.jsonl"
    conversation = [
        {"role": "user", "content": QUESTIONS[0]},
        {"role": "assistant", "content": lines(out)[0]["text"]},
        {"role": "user", "content": "And of Japan?"},
    ]
    alone.write_text(json.dumps({"messages": conversation}) + "\n")
    assert calibrate(alone, tmp_path / "second.jsonl").returncode == 0
    assert lines(tmp_path / "second.jsonl")[0]["tokens"] == lines(out)[1]["tokens"]


def test_the_page_has_heat_maps_and_no_scripts(prompts: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert calibrate(prompts, tmp_path / "out.jsonl", "--html", str(page)).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure") == 5 and "How much of the draft is kept" in text
    assert "<script" not in text and "Recommendation:" in text
    assert 'aria-label="How much of the draft is kept. window 3: ' in text


def clear_cut(out: Path) -> None:
    """Records as of a pair whose base goes on just as the draft does, from the first token on."""
    made = []
    for line in lines(out):
        probs = [0.86] * len(line["logprobs"])
        line["logprobs"] = [-0.16] * len(probs)
        for one in line["continuations"]:
            one["logprobs"] = [-0.15] * len(one["tokens"])
        starts = {3, 6, 12}
        own = line["continuations"][0]
        line["continuations"] = [{**own, "start": start} for start in sorted(starts)]
        made.append(line)
    out.write_text("".join(json.dumps(line) + "\n" for line in made))


def test_write_puts_the_setting_into_the_configuration(prompts: Path, tmp_path: Path, config: Path) -> None:
    out = tmp_path / "out.jsonl"
    config.write_text(
        "# mine\n[settings]\nmax_tokens = 400 # long enough\nthreshold = 2.0\n\n"
        '[pairs.own]\ndraft = "demo-draft"\nbase = "demo-base"\n'
    )
    assert calibrate(prompts, out, "--max-tokens", "400").returncode == 2, "not a setting of calibrate"
    assert calibrate(prompts, out).returncode == 0
    clear_cut(out)
    done = wsd("calibrate", "own", "--prompts", str(prompts), "--out", str(out), *QUICK, "--write")
    assert done.returncode == 0, done.stderr
    assert b"recommendation: use threshold 0.3, window 3" in done.stdout
    text = config.read_text()
    assert text.startswith("# mine\n[settings]\nmax_tokens = 400 # long enough\n")
    assert "[pairs.own.settings]\nthreshold = 0.3\nwindow = 3\n" in text
    reply = json.loads(wsd("run", "hi", "--pair", "own", "--json", "--max-tokens", "3").stdout)
    assert (reply["switch"]["threshold"], reply["switch"]["window"]) == (0.3, 3)
    anew = str(tmp_path / "anew.jsonl")
    again = wsd("calibrate", "own", "--prompts", str(prompts), "--out", anew, *QUICK, "--write")
    assert again.returncode == 0 and b"nothing is written" in again.stderr, "it is the present setting now"
    assert config.read_text() == text


def test_write_makes_a_configuration_for_a_pair_of_the_catalog(prompts: Path, tmp_path: Path, config: Path) -> None:
    out = tmp_path / "out.jsonl"
    config.write_text("[settings]\nthreshold = 2.0\n")
    assert calibrate(prompts, out).returncode == 0
    clear_cut(out)
    assert calibrate(prompts, out, "--write").returncode == 0
    assert config.read_text().endswith("\n[pairs.demo.settings]\nthreshold = 0.3\nwindow = 3\n")
    reply = json.loads(wsd("run", "hi", "--json", "--max-tokens", "3").stdout)
    assert (reply["switch"]["threshold"], reply["switch"]["window"]) == (0.3, 3)


@pytest.mark.skipif(sys.platform == "win32", reason="expected: no signals for one process on Windows")
def test_a_signal_keeps_what_is_recorded(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    process = started("calibrate", "demo", "--out", str(out), env={**os.environ, "WSD_LOCAL_DATA": str(tmp_path)})
    while not out.exists() or out.read_bytes().count(b"\n") < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert process.returncode == 130, error
    assert b"prompts are recorded; the same command goes on" in error and b"Traceback" not in error
    kept = out.read_bytes()
    assert kept.endswith(b"\n")
    limit = str(kept.count(b"\n"))
    done = wsd("calibrate", "demo", "--out", str(out), "--limit", limit, "--threads", "1")
    assert done.returncode == 0 and out.read_bytes() == kept
