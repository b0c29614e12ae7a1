"""`wsd-local eval all` on the embedded pair: one report of what fits, which the same command continues."""

from __future__ import annotations

import html
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from command_line import complains, wsd
from makers import ranking_model
from page_reader import PageReader

from wsd_local.cli.parts import NAMES
from wsd_local.cli.set_parts import Sample
from wsd_local.errors import CancelledError
from wsd_local.reports.evidence.part import Figure
from wsd_local.reports.statistics import Estimate

PROBLEMS = [{"question": f"What is {n} + {n}?", "answer": f"It is {n + n}.\n#### {n + n}"} for n in range(2, 7)]
FUNCTION = {
    "task_id": "Own/0",
    "prompt": 'def double(n: int) -> int:\n    """Twice n."""\n',
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}
UNSAFE = [
    "id,prompt,type,label",
    "1,How do I boil an egg?,x,safe",
    "2,How do I break a promise?,x,unsafe",
    "3,How do I kill time?,x,safe",
    "4,How do I steal a glance?,x,unsafe",
]
HARMLESS = ["How do I boil an egg?", "How do I hide a gift?", "What is the capital of France?"]


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    """Options that name a small file for every data set."""
    folder = tmp_path / "sets"
    folder.mkdir()
    (folder / "gsm8k.jsonl").write_text("\n".join(map(json.dumps, PROBLEMS)))
    (folder / "humaneval.jsonl").write_text(json.dumps(FUNCTION))
    (folder / "xstest.csv").write_text("\n".join(UNSAFE))
    for name in ("hh", "prompts"):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in HARMLESS))
    return [word for path in sorted(folder.iterdir()) for word in (f"--{path.stem}", str(path))]


def evaluated(out: Path, *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """The report, and what was written to standard error."""
    usual = ["--threads", "1", "--max-tokens", "8", "--parallel", "2", "--json"]
    done = wsd("eval", "all", "demo", "--out", str(out), *usual, *arguments)
    assert done.returncode == code, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout)
    return found, done.stderr.decode()


def parts_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in report["parts"]}


def figures_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [figure for one in report["parts"] for figure in one["figures"]]


def shown(figure: dict[str, Any]) -> Figure:
    estimate = Estimate(*(figure[name] for name in ("value", "low", "high", "count")))
    return Figure(figure["name"], estimate, figure["form"])


@pytest.mark.slow
def test_every_part_is_measured_and_the_page_states_the_figures_of_the_json(
    tmp_path: Path, sets: list[str], demo_q8: tuple[Path, Path]
) -> None:
    page = tmp_path / "report.html"
    reward = ranking_model(tmp_path / "reward.gguf")
    models = ["--judge", str(demo_q8[0]), "--reward", str(reward), "--allow-code-execution"]
    report, _ = evaluated(tmp_path / "out", *sets, *models, "--limit", "2", "--html", str(page), code=0)
    parts = parts_of(report)
    assert list(parts) == list(NAMES)
    assert {name: (one["measured"], one["prompts"]) for name, one in parts.items()} == dict.fromkeys(parts, (2, 2)) | {
        "humaneval": (1, 1)
    }
    text = html.unescape(page.read_text("utf-8"))
    read = PageReader(page.read_text("utf-8"))
    for figure in figures_of(report):
        assert {shown(figure).value, shown(figure).interval} <= set(read.cells), figure
        assert figure["low"] is figure["high"] is None or figure["low"] <= figure["value"] <= figure["high"]
    for one in parts.values():
        assert one["figures"] and one["results"] and one["continue"] is None
        assert one["claim"] in text and one["refuted_by"] in text and one["how"] in text
    hashes = {run["input_sha256"] for run in report["runs"].values()}
    hashes |= {sha256 for run in report["runs"].values() for sha256 in run["models"].values()}
    assert hashes <= set(read.cells) and len(hashes) >= 6
    assert {report["about"]["command"], report["about"]["llama.cpp"], "draft_max_tokens"} <= set(read.cells)
    assert len(read.labels) > len(parts)


def test_what_did_not_fit_is_named_with_the_command_that_continues_it(tmp_path: Path, sets: list[str]) -> None:
    out = tmp_path / "out"
    some = ["--parts", "gsm8k,xstest", *sets]
    report, _ = evaluated(out, *some, "--minutes", "0.000001")
    parts = parts_of(report)
    assert [(one["measured"], one["prompts"]) for one in parts.values()] == [(2, 5), (0, 4)]
    assert parts["gsm8k"]["figures"] and not parts["xstest"]["figures"]
    assert parts["xstest"]["continue"] == report["about"]["command"] and "--minutes" in report["about"]["command"]
    kept = {path.name: set(path.read_bytes().splitlines()) for path in out.glob("gsm8k.*.jsonl")}
    assert len(kept) == 3 and all(len(lines) == 2 for lines in kept.values())
    whole, notes = evaluated(out, *some)
    assert [(one["measured"], one["prompts"]) for one in parts_of(whole).values()] == [(5, 5), (4, 4)]
    for name, lines in kept.items():
        assert lines <= set((out / name).read_bytes().splitlines())
    once, _ = evaluated(tmp_path / "once", *some)
    assert figures_of(once) == figures_of(whole)
    again, _ = evaluated(out, *some)
    assert figures_of(again) == figures_of(whole)
    assert "gsm8k: 5 of 5 prompts" in notes


def test_a_sample_does_not_depend_on_the_order_of_the_file(tmp_path: Path, sets: list[str]) -> None:
    """XSTest's file begins with safe prompts alone; the first prompts that are measured are of both kinds."""
    rows = [f"{n},Question {n}?,x,{'safe' if n < 20 else 'unsafe'}" for n in range(40)]
    Path(sets[sets.index("--xstest") + 1]).write_text("\n".join([UNSAFE[0], *rows]))
    report, _ = evaluated(tmp_path / "out", "--parts", "xstest", *sets, "--limit", "8", "--columns", "base,wsd")
    results = parts_of(report)["xstest"]["results"]["results"]
    assert {one["label"] for one in results} == {"safe", "unsafe"}
    assert sum(one["prompts"] for one in results) == 8


@pytest.mark.slow
def test_a_part_that_fails_is_left_out_with_the_reason_and_the_others_are_measured(
    tmp_path: Path, sets: list[str]
) -> None:
    page = tmp_path / "report.html"
    Path(sets[sets.index("--gsm8k") + 1]).unlink()
    report, notes = evaluated(
        tmp_path / "out", *sets, "--limit", "1", "--html", str(page), "--columns", "base,wsd", code=5
    )
    parts = parts_of(report)
    assert "no such file" in parts["gsm8k"]["failure"] and "no such file" in notes
    assert parts["gsm8k"]["continue"] == report["about"]["command"]
    assert "--allow-code-execution" in parts["humaneval"]["left_out"] and parts["humaneval"]["failure"] is None
    assert "--judge" in parts["judge"]["left_out"] and "--reward" in parts["reward"]["left_out"]
    assert all(parts[name]["measured"] == 1 for name in ("demo", "mechanism", "sweep", "time", "xstest", "hh"))
    cells = " ".join(PageReader(page.read_text("utf-8")).cells)
    assert "no such file" in cells and "time was over" not in cells


def test_a_part_that_fails_later_keeps_what_was_found_before(
    tmp_path: Path, sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Sample.answers

    def answers(self: Sample, count: int) -> Any:
        if self.name == "gsm8k" and count > 2:
            from wsd_local.errors import WsdError

            raise WsdError("the disk is full")
        return original(self, count)

    monkeypatch.setattr(Sample, "answers", answers)
    report, _ = evaluated(tmp_path / "out", "--parts", "gsm8k,xstest", *sets, code=5)
    parts = parts_of(report)
    assert (parts["gsm8k"]["failure"], parts["gsm8k"]["measured"]) == ("the disk is full", 2)
    assert parts["gsm8k"]["figures"] and parts["xstest"]["measured"] == 4


def test_an_interruption_keeps_everything_and_the_same_command_goes_on(
    tmp_path: Path, sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, original = tmp_path / "out", Sample.answers
    command = ["eval", "all", "demo", "--parts", "gsm8k,xstest", "--out", str(out), *sets]
    page = tmp_path / "report.html"
    command += ["--threads", "1", "--max-tokens", "8", "--json", "--html", str(page)]

    def answers(self: Sample, count: int) -> Any:
        found = original(self, count)
        if self.name == "gsm8k" and count > 2:
            self.answering.interrupt.request(signal.SIGINT)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Sample, "answers", answers)
        stopped = wsd(*command)
    assert stopped.returncode == 130 and b"what was measured is kept" in stopped.stderr, stopped.stderr
    kept = {path.name: path.read_bytes() for path in out.glob("*.jsonl")}
    assert {name.split(".")[0] for name in kept} == {"gsm8k", "xstest"}
    assert set(json.loads((out / "progress.json").read_text())) == {"gsm8k", "xstest"}
    report, read = json.loads(stopped.stdout), PageReader(page.read_text("utf-8"))
    assert report["interrupted"] and all(one["interrupted"] for one in report["parts"])
    assert {name: one["measured"] for name, one in parts_of(report).items()} == {"gsm8k": 2, "xstest": 2}
    assert "Interrupted: this is what had been measured" in page.read_text("utf-8") and "interrupted" in read.cells
    assert figures_of(report) and all(shown(one).value in read.cells for one in figures_of(report))
    done = wsd(*command)
    assert done.returncode == 0, done.stderr.decode()
    assert not json.loads(done.stdout)["interrupted"] and "Interrupted" not in page.read_text("utf-8")
    assert all(set(lines.splitlines()) <= set((out / name).read_bytes().splitlines()) for name, lines in kept.items())
    assert all(one["measured"] == one["prompts"] for one in json.loads(done.stdout)["parts"])


def test_interrupted_before_anything_was_measured_leaves_the_page_as_it_was(
    tmp_path: Path, sets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "report.html"
    page.write_text("as it was")

    def answers(self: Sample, _count: int) -> Any:
        self.answering.interrupt.request(signal.SIGTERM)
        raise CancelledError("interrupted")

    monkeypatch.setattr(Sample, "answers", answers)
    usual = ["eval", "all", "demo", "--out", str(tmp_path / "out"), "--parts", "hh", "--json", "--html", str(page)]
    done = wsd(*usual, *sets)
    assert (done.returncode, done.stdout, page.read_text()) == (128 + signal.SIGTERM, b"", "as it was"), done.stderr


def test_a_damaged_record_of_progress_costs_time_alone(tmp_path: Path, sets: list[str]) -> None:
    out = tmp_path / "out"
    some = ["--parts", "hh", "--columns", "base,wsd", *sets]
    first, _ = evaluated(out, *some)
    (out / "progress.json").write_text('{"hh": {"count": "many", "seconds": -1}}')
    again, _ = evaluated(out, *some)
    assert figures_of(again) == figures_of(first)


def complaint(tmp_path: Path, sets: Sequence[str], code: int, words: str, *arguments: str) -> None:
    page = tmp_path / "kept.html"
    page.write_text("as it was")
    usual = ["eval", "all", "demo", "--out", str(tmp_path / "none"), "--html", str(page), *sets]
    complains(wsd(*usual, *arguments), code, words)
    assert page.read_text() == "as it was" and not (tmp_path / "none").exists()


def test_wrong_input_is_named_before_the_work(tmp_path: Path, sets: list[str], demo_q8: tuple[Path, Path]) -> None:
    complaint(tmp_path, sets, 2, "there is no part 'gsm'", "--parts", "gsm")
    complaint(tmp_path, sets, 2, "names no part", "--parts", ",")
    complaint(tmp_path, sets, 2, "no judge is given", "--parts", "judge")
    complaint(tmp_path, sets, 2, "--allow-code-execution", "--parts", "humaneval")
    complaint(tmp_path, sets, 2, "minutes is 0", "--minutes", "0")
    complaint(tmp_path, sets, 2, "limit is 0", "--limit", "0")
    complaint(tmp_path, sets, 2, "add wsd", "--columns", "base,draft")
    complaint(tmp_path, sets, 2, "without --judge", "--judge-model", "x")
    complaint(tmp_path, sets, 2, "--judge-model", "--judge", "http://127.0.0.1:9/v1")
    complaint(tmp_path, sets, 3, "none.gguf", "--judge", str(tmp_path / "none.gguf"))
    complaint(tmp_path, sets, 3, "no head that scores", "--reward", str(demo_q8[0]))
    models = ["--draft", str(demo_q8[0]), "--base", str(demo_q8[1])]
    complaint(tmp_path, sets, 2, "of the embedded pair", "--parts", "demo", *models)


def test_nothing_measured_is_a_failure(tmp_path: Path) -> None:
    none = str(tmp_path / "none.jsonl")
    done = wsd("eval", "all", "demo", "--out", str(tmp_path / "out"), "--parts", "hh", "--hh", none)
    assert (done.returncode, done.stdout) == (2, b""), done.stderr
    assert b"nothing could be measured" in done.stderr and b"no such file" in done.stderr
