"""`wsd-local run --input` as a person runs it: data sets in, a line for each reply out, gone on with after any end."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import complains, started, wsd
from data_sets import shared

QUESTIONS = ["What is the capital of France?", "How do I boil an egg?", "What is the capital of Japan?", "Who are you?"]
QUICK = ("--max-tokens", "40", "--ctx", "1024")
KILLS = int(os.environ.get("WSD_TEST_KILLS", "6"))
"""Kills of the whole command; each costs a start."""


def asked(folder: Path, questions: list[str] = QUESTIONS) -> Path:
    """A data set of plain lines."""
    path = folder / "questions.txt"
    path.write_text("".join(f"{question}\n" for question in questions), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """The replies of a run."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_says_one_rate_wherever_it_says_one(tmp_path: Path) -> None:
    """At its end and in the report: tokens of the replies over the time of the run."""
    source, out = asked(tmp_path), tmp_path / "out.jsonl"
    done = wsd("run", "--input", str(source), "--output", str(out), "--parallel", "4", *QUICK)
    last = done.stderr.decode().strip().splitlines()[-1]
    told = re.fullmatch(r"wsd-local: 4/4 replies in ([\d.]+) s, ([\d.]+) tokens/s", last)
    assert told is not None, last
    seconds, rate = map(float, told.groups())
    tokens = sum(line["draft"]["kept_tokens"] + line["base"]["tokens"] for line in lines(out))
    assert tokens / (seconds + 0.05) - 0.05 <= rate <= tokens / max(seconds - 0.05, 1e-3) + 0.05
    [run] = json.loads(wsd("eval", "report", "--json", str(out)).stdout)["runs"]
    assert run["wall_s"] < run["total_s"] and run["wall_s"] <= seconds + 0.1
    assert run["tokens_per_s"] == pytest.approx(tokens / run["wall_s"])


def test_a_data_set_is_answered_in_order(tmp_path: Path) -> None:
    source, out = asked(tmp_path), tmp_path / "out.jsonl"
    done = wsd("run", "--input", str(source), "--output", str(out), "--parallel", "3", *QUICK)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"" and b"4/4 replies" in done.stderr
    found = lines(out)
    assert [line["index"] for line in found] == [0, 1, 2, 3]
    assert [line["input"]["prompt"] for line in found] == QUESTIONS
    for question, line in zip(QUESTIONS, found, strict=True):
        alone = wsd("run", question, *QUICK)
        assert alone.stdout.decode().rstrip("\n") == line["text"].rstrip("\n")
        assert line["provenance"]["base_sha256"] and line["switch"]["reason"]


def test_the_same_command_goes_on_and_another_setting_does_not(tmp_path: Path) -> None:
    source, out = asked(tmp_path), tmp_path / "out.jsonl"
    options = ["run", "--input", str(source), "--output", str(out), "--parallel", "2", *QUICK]
    assert wsd(*options, "--limit", "2").returncode == 0
    first = out.read_bytes()
    done = wsd(*options)
    assert done.returncode == 0 and b"2 replies are done; the run continues" in done.stderr
    assert out.read_bytes().startswith(first) and len(lines(out)) == 4
    complains(wsd(*options, "--threshold", "0.5"), 2, "another threshold: 0.8, now 0.5")
    complains(wsd(*options, "--system", "Be brief."), 2, "another system")
    source.write_text("another\n")
    complains(wsd(*options), 2, "another input-sha256")


@pytest.mark.slow
def test_shards_are_the_whole(tmp_path: Path) -> None:
    source, out = asked(tmp_path), tmp_path / "out.jsonl"
    for shard in ("1/2", "2/2"):
        done = wsd("run", "--input", str(source), "--output", str(out), "--shard", shard, "--quiet", *QUICK)
        assert done.returncode == 0 and done.stderr == b""
    assert [line["index"] for line in lines(out)] == [0, 1, 2, 3]


def test_a_second_turn_is_asked_with_our_own_first_answer(tmp_path: Path) -> None:
    source, out = tmp_path / "mt.jsonl", tmp_path / "out.jsonl"
    records = [{"question_id": 80 + n, "turns": [q, "And of Japan?"]} for n, q in enumerate(QUESTIONS[:2])]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ["run", "--input", str(source), "--output", str(out), "--export", "mt_bench", *QUICK]
    done = wsd(*options, "--parallel", "2")
    assert done.returncode == 0, done.stderr
    found = lines(out)
    assert [(line["index"], line["turn"], line["id"]) for line in found] == [
        (0, 0, "80"),
        (0, 1, "80"),
        (1, 0, "81"),
        (1, 1, "81"),
    ]
    for first, second in (found[:2], found[2:]):
        assert [message["content"] for message in second["messages"]] == [
            first["messages"][0]["content"],
            first["text"],
            "And of Japan?",
        ]
    exported = [json.loads(line) for line in (tmp_path / "out.mt_bench.jsonl").read_text().splitlines()]
    assert [choice["choices"][0]["turns"] for choice in exported] == [
        [found[0]["text"], found[1]["text"]],
        [found[2]["text"], found[3]["text"]],
    ]
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:1]))  # stopped between the turns
    whole = found
    assert wsd(*options).returncode == 0
    assert [line["text"] for line in lines(out)] == [line["text"] for line in whole]


def test_bad_records_are_reported_and_counted(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "Who are you?"}\nnonsense\n{"prompt": ""}\n{"prompt": "' + "word " * 3000 + '"}\n')
    options = ["run", "--input", str(source), "--output", str(out), *QUICK]
    done = wsd(*options)
    error = done.stderr.decode()
    assert done.returncode == 5 and len(lines(out)) == 1
    assert f"{source}, line 2: " in error and f"{source}, line 3: " in error
    assert "record 3, line 4: the prompt is too long" in error and "Traceback" not in error
    stopped = wsd(*options, "--on-error", "stop")
    assert stopped.returncode == 2 and b"2 bad records (--on-error stop); nothing was answered" in stopped.stderr


@pytest.mark.parametrize(
    ("text", "options", "code", "words"),
    [
        ("", (), 2, ("empty",)),
        ('[{"no": 1}]', (), 2, ("in.jsonl",)),
        ("x\n", ("--format", "nonsense"), 2, ("nonsense",)),
        ("x\n", ("--shard", "3/2"), 2, ("3/2",)),
        ("x\n", ("--parallel", "0"), 2, ("parallel is 0",)),
        ("x\n", ("--parallel", "many"), 2, ("parallel is 'many'",)),
        ("x\n", ("--export", "mt_bench"), 2, ("--output",)),
        ("x\n", ("--limit", "0"), 2, ("limit",)),
        ("x\n", ("--timeout", "1"), 2, ("--timeout is for one prompt",)),
        ("x\n", ("--trace",), 2, ("--trace is for one prompt",)),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    tmp_path: Path, text: str, options: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(text)
    complains(wsd("run", "--input", str(source), *options), code, *words)


def test_an_unknown_export_is_said_before_any_work(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = wsd("run", "--input", str(asked(tmp_path)), "--output", str(out), "--export", "alpaca")
    complains(done, 2, "alpaca_eval")
    complains(wsd("run", "--input", str(asked(tmp_path)), "--output", str(out), "--export", "authors"), 2, "--tokens")
    returning = ("--export", "authors", "--tokens", "--rule", "return")
    complains(wsd("run", "--input", str(asked(tmp_path)), "--output", str(out), *returning), 2, "room for one switch")
    assert not out.exists()


def test_a_prompt_and_a_data_set(tmp_path: Path) -> None:
    complains(wsd("run", "Hello", "--input", str(asked(tmp_path))), 2, "leave one out")
    complains(wsd("run", "--input", str(tmp_path / "none.jsonl")), 2, "none.jsonl")


@pytest.mark.parametrize("option", ["--output=x.jsonl", "--format=text", "--parallel=2", "--limit=1", "--quiet"])
def test_options_of_data_sets_are_not_ignored(option: str) -> None:
    complains(wsd("run", "Hello", option), 2, option.split("=")[0], "is for data sets: give --input too")


def test_the_input_is_not_written_over(tmp_path: Path) -> None:
    source = asked(tmp_path)
    before = source.read_bytes()
    complains(wsd("run", "--input", str(source), "--output", str(source)), 2, "is the input")
    complains(wsd("run", "--input", str(source), "--output", str(source / "out.jsonl")), 2, "cannot be written")
    assert source.read_bytes() == before


@pytest.mark.parametrize("option", [("--format", "nonsense"), ("--format", "mt_bench"), ("--limit", "0")])
def test_what_lines_on_standard_input_cannot_be(option: tuple[str, str]) -> None:
    complains(wsd("run", "--input", "-", *option, stdin=b'{"prompt": "Hello"}\n'), 2)


def test_the_seed_of_the_draft_alone_counts(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ["run", "--input", str(asked(tmp_path)), "--output", str(out), "--draft-temperature", "1.5", *QUICK]
    assert wsd(*options, "--seed", "1", "--limit", "1").returncode == 0
    complains(wsd(*options, "--seed", "2"), 2, "another seed: 1, now 2")


def test_lines_on_standard_input_are_answered_one_by_one() -> None:
    given = b'{"prompt": "Who are you?", "id": "a"}\nnonsense\n\n{"messages": [{"role": "user", "content": "Hello"}]}\n'
    done = wsd("run", "--input", "-", *QUICK, stdin=given)
    assert done.returncode == 5
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in found] == ["a", "3"] and all(line["text"] for line in found)
    assert b"standard input, line 2: is not JSON" in done.stderr


def test_every_line_on_standard_input_is_read_as_what_it_is() -> None:
    lines = [
        {"instruction": "Translate.", "input": "Good morning", "output": "Bonjour"},
        {"turns": [{"role": "user", "content": "One"}, {"role": "assistant", "content": "two"}, "Three"]},
        {"turns": ["One", "Two"]},
        {"prompt": "Hi", "note": "x", "output": "y"},
    ]
    done = wsd("run", "--input", "-", *QUICK, stdin="\r".join(map(json.dumps, lines)).encode("utf-8-sig"))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["messages"][-1]["content"] for line in found] == ["Translate.\n\nGood morning", "Three", "Hi"]
    assert len(found[1]["messages"]) == 3 and done.returncode == 5
    assert b"standard input, line 3: asks several turns" in done.stderr
    assert "do not read these fields: `output` (2), `note` (1)" in done.stderr.decode()
    complains(wsd("run", "--input", "-", *QUICK, stdin='{"prompt": "x"}'.encode("utf-16")), 2, "is UTF-16")


def test_what_a_data_set_has_beside_its_prompts_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "prompt": "Hi", "n": 1}\n{"id": 1, "prompt": "Ho", "n": 2}\n', encoding="utf-8")
    done = wsd("run", "--input", str(path), *QUICK, "--quiet")
    said = done.stderr.decode().splitlines()
    assert done.returncode == 0 and len(said) == 2
    assert said[0].endswith("a.jsonl: the models do not read these fields: `n` (2)")
    assert said[1].endswith("a.jsonl: 2 records with an id that others have too: named by their place")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_does_not_wait_for_another_line(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "wsd_local", "run", "--input", "-", "--threads", "1", *QUICK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b'{"prompt": "Hello"}\n{"prompt": ')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"]
    process.send_signal(number)
    assert process.wait() == 128 + number
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["base", "draft", "fixed:3"])
def test_baselines_are_the_same_command(tmp_path: Path, mode: str) -> None:
    out = tmp_path / "out.jsonl"
    done = wsd("run", "--input", str(asked(tmp_path)), "--output", str(out), "--mode", mode, *QUICK)
    assert done.returncode == 0, done.stderr
    found = lines(out)
    assert len(found) == 4
    assert {line["draft"]["kept_tokens"] for line in found} == {3} or mode != "fixed:3"


def test_urial(tmp_path: Path) -> None:
    source, out, prompt = asked(tmp_path), tmp_path / "out.jsonl", tmp_path / "urial.txt"
    prompt.write_text("# Instruction\n\nBelow are talks.\n\n# Query:\n```\nHi\n```\n\n# Answer:\n```\nHello!\n```\n")
    options = ["run", "--input", str(source), "--output", str(out), "--mode", "urial", *QUICK]
    complains(wsd(*options), 2, "--urial FILE")
    done = wsd(*options, "--urial", str(prompt))
    assert done.returncode == 0, done.stderr
    assert all(line["draft"]["model"] is None and "# Query" not in line["text"] for line in lines(out))


def test_tokens_make_the_authors_form(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ["run", "--input", str(asked(tmp_path)), "--output", str(out), "--export", "authors", *QUICK]
    done = wsd(*options, "--tokens")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.authors.jsonl").read_text().splitlines()[0])
    line = lines(out)[0]
    assert record["result_key"] == "target_result"
    assert record["target_input"][0]["partial_accept_index"] == line["switch"]["index"]
    kept = line["draft"]["kept_tokens"]
    ids = [token["id"] for token in line["tokens"]]
    assert record["target_input"][0]["token_ids"][:kept] == ids[:kept]


def test_one_model_at_a_time_gives_the_same_lines(tmp_path: Path) -> None:
    source = asked(tmp_path)
    texts = []
    for name, more in (("both", ("--parallel", "2")), ("one", ("--resident", "one"))):
        out = tmp_path / f"{name}.jsonl"
        done = wsd("run", "--input", str(source), "--output", str(out), *more, *QUICK)
        assert done.returncode == 0, done.stderr
        texts.append([(line["text"], line["switch"]["index"]) for line in lines(out)])
    assert texts[0] == texts[1]


@pytest.mark.slow
def test_interrupted_and_killed_runs_go_on(tmp_path: Path, tell: Callable[..., None]) -> None:
    questions = [f"What is the capital of country number {n}?" for n in range(400)]
    source, out = asked(tmp_path, questions), tmp_path / "out.jsonl"
    options = ["run", "--input", str(source), "--output", str(out), "--parallel", "4", "--max-tokens", "60"]
    chance, known, signals = random.Random(2), set[tuple[int, int]](), [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
    for kill in range(KILLS):
        process = started(*options, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        before = len(known)
        while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") <= before):
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.3))
        process.send_signal(signals[kill % 3])
        _, error = process.communicate()
        assert process.returncode in (130, 143, -signal.SIGKILL, 0), error
        assert (
            process.returncode != 130 or b"replies are done; the same command continues the run" in error or not before
        )
        whole = out.read_bytes()
        found = [json.loads(line) for line in whole[: whole.rfind(b"\n") + 1].splitlines()]
        keys = [(line["index"], line["turn"]) for line in found]
        assert len(keys) == len(set(keys)) and known <= set(keys)
        known = set(keys)
    done = wsd(*options)
    assert done.returncode == 0, done.stderr
    assert [line["index"] for line in lines(out)] == list(range(400))
    tell(f"{KILLS} kills of a run: {len(known)} replies before the last start, none lost, none double")


SETS = [
    ("alpaca_eval/text_davinci_003.model_outputs.json", "alpaca_eval", 6, "alpaca_eval"),
    ("arena_hard/question.jsonl", "arena_hard", 6, "arena_hard"),
    ("mt_bench/question.jsonl", "mt_bench", 4, "mt_bench"),
    ("truthfulqa/TruthfulQA.csv", "truthfulqa", 6, "truthfulqa"),
    ("hh_rlhf/harmless-base.test.jsonl.gz", "hh", 6, "hh"),
    ("xstest/xstest_prompts.csv", "csv", 6, None),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form", "limit", "export"), SETS, ids=[one[0].split("/")[0] for one in SETS])
def test_public_sets(tmp_path: Path, name: str, form: str, limit: int, export: str | None) -> None:
    out = tmp_path / "out.jsonl"
    options = ["run", "--input", str(shared(name)), "--output", str(out), "--limit", str(limit), "--max-tokens", "40"]
    done = wsd(*options, "--parallel", "4", *(("--export", export) if export else ()))
    assert done.returncode == 0, done.stderr
    found = lines(out)
    assert len({line["index"] for line in found}) == limit
    assert {line["run"]["format"] for line in found} == {form}
    assert not export or any(path.name.startswith(f"out.{export}") for path in tmp_path.iterdir())
