"""Other programs as clients of the server, where they are installed: `llm`, lm-evaluation-harness, CompatCanary."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import wsd_local

ROOT = Path(__file__).parents[2]
QUESTION = "How do I boil an egg?"

TASK = """\
task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
CAPITALS = (
    ("The capital of France is", ["Paris", "Berlin", "Madrid"], 0),
    ("The capital of Norway is", ["Tokyo", "Oslo", "Rome"], 1),
    ("The capital of Vietnam is", ["Paris", "Lima", "Hanoi"], 2),
)

WITHOUT_TOOLS = {"chat.tool_call"}
"""What CompatCanary probes and this server refuses: the models call no tools."""


def installed(variable: str, *place: str) -> Path:
    """A program that tests use and do not install."""
    path = Path(os.environ.get(variable) or ROOT.joinpath(".venv", *place))
    if not path.is_file():
        pytest.skip(f"expected: there is no {path} (set {variable})")
    return path


def run(command: list[str | Path], folder: Path, **environment: str) -> str:
    """What a program prints, with its files in a folder of its own and without the network."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HOME": str(folder), "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **offline, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_llm_answers_and_goes_on(server: str, tmp_path: Path) -> None:
    pytest.importorskip("llm", reason="expected: llm is not installed")
    models = f"- model_id: wsd\n  model_name: demo\n  api_base: {server}/v1\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    llm = [sys.executable, "-m", "llm"]
    user = {"LLM_USER_PATH": str(tmp_path)}
    with wsd_local.load("demo", threads=1) as demo:
        first = demo.reply(QUESTION).text
        asked = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": first}]
        second = demo.reply([*asked, {"role": "user", "content": "What is rain?"}], max_tokens=30).text
    assert run([*llm, "-m", "wsd", QUESTION], tmp_path, **user).strip() == first
    more = ["-c", "--no-stream", "-o", "max_tokens", "30", "What is rain?"]
    assert run([*llm, *more], tmp_path, **user).strip() == second.strip()
    logged = json.loads(run([*llm, "logs", "-n", "1", "--json"], tmp_path, **user))
    assert logged[0]["input_tokens"] > 0 and logged[0]["output_tokens"] > 0


@pytest.mark.parametrize("model", ["demo:base", "demo"])
def test_lm_evaluation_harness_scores_a_task(server: str, tmp_path: Path, model: str) -> None:
    harness = installed("WSD_TEST_LM_EVAL", "lm-eval", "bin", "lm_eval")
    rows = [json.dumps({"question": text, "choices": choices, "answer": right}) for text, choices, right in CAPITALS]
    (tmp_path / "capitals.jsonl").write_text("\n".join(rows))
    (tmp_path / "capitals.yaml").write_text(TASK.format(data=tmp_path / "capitals.jsonl"))
    settings = f"model={model},base_url={server}/v1/completions,num_concurrent=4"
    task: list[str | Path] = ["--include_path", tmp_path, "--tasks", "capitals"]
    run([harness, "--model", "local-completions", "--model_args", settings, *task, "--output_path", "out"], tmp_path)
    (found,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(found.read_text())["results"]["capitals"]["acc,none"] == 1.0


@pytest.mark.parametrize("model", ["demo", "demo:base", "demo:draft"])
def test_compatcanary_finds_everything_but_tools(server: str, tmp_path: Path, model: str) -> None:
    scanner = installed("WSD_TEST_COMPATCANARY", "compatcanary", "package", "src", "cli.js")
    node = shutil.which("node")
    if node is None:
        pytest.skip("expected: node is not installed")
    scan = ["scan", "--base-url", f"{server}/v1", "--model", model, "--format", "json", "--fail-on", "never"]
    report = json.loads(run([node, scanner, *scan], tmp_path))
    results: Mapping[str, Any] = {result["id"]: result for result in report["results"]}
    assert {name for name, result in results.items() if result["status"] != "pass"} == WITHOUT_TOOLS
    assert len(results) >= 7 and "400" in json.dumps(results["chat.tool_call"])
